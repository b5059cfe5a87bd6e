// Scores and counts -> what holds at a threshold: matches, figures, neighbours, bins. Numbers only, nothing is drawn.
//
// A match is `score > threshold`, as in the library. Scores come descending (Float32Array); a curve has distinct
// scores ascending and, for each place where a threshold can lie between them (a cut), the counts `tp` and `fp`: cut i
// matches the scores from scores[i] upwards, so cut 0 matches all and the last cut nothing.

const bits = new DataView(new ArrayBuffer(8));
const found = new WeakMap(); // curve -> its best F1, which several ask for

/** How many of the descending scores exceed the threshold. */
export function matchesAt(scores, threshold) {
  let low = 0;
  let high = scores.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (scores[middle] > threshold) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The percentage of the rows, 0 to 100, that do not match. */
export function percentileAt(scores, threshold) {
  return 100 * (1 - matchesAt(scores, threshold) / scores.length);
}

/** The next float32 above a float32 (`up`), or the next one below. */
function nextFloat32(value, up) {
  if (value === 0) return up ? 2 ** -149 : -(2 ** -149);
  bits.setFloat32(0, value);
  bits.setInt32(0, bits.getInt32(0) + (value > 0 === up ? 1 : -1));
  return bits.getFloat32(0);
}

/** The next float64 above a number (`up`), or the next one below. */
function nextFloat64(value, up) {
  if (value === 0) return up ? Number.MIN_VALUE : -Number.MIN_VALUE;
  bits.setFloat64(0, value);
  bits.setBigInt64(0, bits.getBigInt64(0) + (value > 0 === up ? 1n : -1n));
  return bits.getFloat64(0);
}

/** A threshold between two neighbouring scores: midway, but for adjacent float32 numbers a quarter of the way. */
function midway(low, high) {
  const middle = low / 2 + high / 2;
  if (low === Math.fround(low) && high === Math.fround(high)) {
    return Math.fround(middle) >= high ? low + (high - low) / 4 : middle;
  }
  return middle < low || middle >= high ? low : middle;
}

/** A threshold just outside all scores: the next number of their type. */
export function beyond(score, up) {
  return score === Math.fround(score) ? nextFloat32(score, up) : nextFloat64(score, up);
}

/**
 * The threshold of the neighbouring cut: one distinct score fewer matches (direction 1) or one more (-1).
 * Where there is no such cut, the threshold itself.
 */
export function neighbour(scores, threshold, direction) {
  const matches = matchesAt(scores, threshold);
  if (direction > 0) {
    if (matches === 0) return threshold;
    const left = scores[matches - 1];
    const stay = matchesAt(scores, left);
    return stay > 0 ? midway(left, scores[stay - 1]) : beyond(left, true);
  }
  if (matches === scores.length) return threshold;
  const joins = scores[matches];
  const after = matchesAt(scores, nextFloat64(joins, false));
  return after < scores.length ? midway(scores[after], joins) : beyond(joins, false);
}

/** The threshold of one cut of ascending distinct scores. */
export function thresholdOf(scores, cut) {
  if (scores.length === 0) return NaN;
  if (cut <= 0) return beyond(scores[0], false);
  if (cut >= scores.length) return beyond(scores[scores.length - 1], true);
  return midway(scores[cut - 1], scores[cut]);
}

/** The threshold as a text, of four decimals or as many more as it takes to match the same rows when typed again. */
export function spelt(scores, threshold) {
  const matches = matchesAt(scores, threshold);
  for (let digits = 4; digits < 17; digits += 1) {
    const text = threshold.toFixed(digits);
    if (matchesAt(scores, Number(text)) === matches) return text;
  }
  return String(threshold);
}

/** A step of 1, 2 or 5 times a power of ten, not smaller than the number given. */
export function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  const times = [1, 2, 5].find((each) => each * power >= least * (1 - 1e-9));
  return times === undefined ? 10 * power : times * power;
}

/**
 * At most `most` bins (4 or more) of one round width over [low, high], by default over all scores.
 * Bin i counts the scores above edges[i] up to edges[i + 1]: what matches at edges[i] is the bins from i upwards.
 */
export function histogram(scores, most, low = scores[scores.length - 1], high = scores[0]) {
  if (!scores.length) return {edges: new Float64Array([0, 1]), counts: new Uint32Array(1), largest: 0};
  const wide = high > low ? high - low : Math.max(Math.abs(high), 1e-3) / 10;
  const step = niceStep(wide / (most - 3));
  let first = Math.ceil(low / step) - 1;
  let last = Math.ceil(high / step);
  if (first * step >= low) first -= 1; // the division may have rounded
  if (last * step < high) last += 1;
  const bins = last - first;
  const edges = Float64Array.from({length: bins + 1}, (_, place) => (first + place) * step);
  const counts = new Uint32Array(bins);
  let above = matchesAt(scores, edges[0]);
  let largest = 0;
  for (let bin = 0; bin < bins; bin += 1) {
    const next = matchesAt(scores, edges[bin + 1]);
    counts[bin] = above - next;
    largest = Math.max(largest, counts[bin]);
    above = next;
  }
  return {edges, counts, largest};
}

/** The cut at which a threshold lies: how many of the ascending distinct scores do not exceed it. */
export function cutOf(curve, threshold) {
  const {scores} = curve;
  let low = 0;
  let high = scores.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (scores[middle] <= threshold) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Counts and rates at one cut; zero by zero is 0. */
export function ratesOf(curve, cut) {
  const tp = curve.tp[cut];
  const fp = curve.fp[cut];
  const fn = curve.nPos - tp;
  const tn = curve.nNeg - fp;
  return {
    precision: ratio(tp, tp + fp),
    recall: ratio(tp, tp + fn),
    f1: ratio(2 * tp, 2 * tp + fp + fn),
    tp,
    fp,
    fn,
    tn,
  };
}

/** Counts and rates at any threshold. */
export function ratesAt(curve, threshold) {
  return ratesOf(curve, cutOf(curve, threshold));
}

/** The cut of the best F1, of several that with the highest threshold, with its threshold and rates. */
export function bestF1(curve) {
  if (!found.has(curve)) found.set(curve, best(curve, (tp, fp, fn) => ratio(2 * tp, 2 * tp + fp + fn)));
  return found.get(curve);
}

/**
 * The cut of the lowest cost, `fp` for each false match and `fn` for each row that is missed. Of cuts that cost the
 * same (to 1e-12 of a row's) that of the higher F1 is taken, then the highest: as the library chooses.
 */
export function bestCost(curve, fp, fn) {
  const least = best(curve, (_, wrong, missed) => -ratio(fp * wrong + fn * missed, curve.nPos + curve.nNeg), 1e-12);
  return {...least, cost: costOf(least, fp, fn)};
}

/** What false matches and missed rows cost together. */
export function costOf(rates, fp, fn) {
  return fp * rates.fp + fn * rates.fn;
}

function best(curve, worth, slack = 0) {
  const {tp, fp, nPos} = curve;
  const value = (cut) => worth(tp[cut], fp[cut], nPos - tp[cut]);
  let highest = -Infinity;
  for (let cut = 0; cut < tp.length; cut += 1) highest = Math.max(highest, value(cut));
  const least = highest - slack * Math.max(1, Math.abs(highest));
  let place = 0;
  let second = -1;
  for (let cut = 0; cut < tp.length; cut += 1) {
    if (value(cut) < least) continue;
    const f1 = f1Of(curve, cut);
    if (f1 >= second) {
      second = f1;
      place = cut;
    }
  }
  return {cut: place, threshold: thresholdOf(curve.scores, place), ...ratesOf(curve, place)};
}

function f1Of(curve, cut) {
  const hits = 2 * curve.tp[cut];
  return ratio(hits, hits + curve.fp[cut] + (curve.nPos - curve.tp[cut]));
}

function precisionOf(curve, cut) {
  return ratio(curve.tp[cut], curve.tp[cut] + curve.fp[cut]);
}

/**
 * At most `most` cuts, ascending, that draw the curve between two thresholds as all cuts would: both ends, the best
 * F1, and in each of equally wide strips of thresholds the first cut and those of the lowest and highest precision.
 */
export function thinned(curve, most = 1000, low = -Infinity, high = Infinity) {
  const start = cutOf(curve, low);
  const end = cutOf(curve, high);
  const {scores} = curve;
  if (end - start < most) return Uint32Array.from({length: end - start + 1}, (_, place) => start + place);
  const strips = Math.max(1, Math.floor((most - 3) / 3));
  const bottom = Math.max(low, scores[0]);
  const wide = (Math.min(high, scores[scores.length - 1]) - bottom) / strips || 1;
  const kept = new Set([start, end]);
  const top = bestF1(curve).cut;
  if (top >= start && top <= end) kept.add(top);
  let cut = start;
  for (let strip = 1; strip <= strips && cut <= end; strip += 1) {
    const limit = strip === strips ? Infinity : bottom + strip * wide;
    let lowest = cut;
    let highest = cut;
    const first = cut;
    while (cut <= end && (cut === 0 || scores[cut - 1] < limit)) {
      const precision = precisionOf(curve, cut);
      if (precision < precisionOf(curve, lowest)) lowest = cut;
      if (precision > precisionOf(curve, highest)) highest = cut;
      cut += 1;
    }
    if (cut > first) kept.add(first).add(lowest).add(highest);
  }
  return Uint32Array.from(kept).sort();
}

/**
 * About `n` cuts for a table, ascending, where there is something to choose, that of the best F1 among them: from the
 * last cut of recall 1 to the first of precision 1 and where F1 is at least half its best, in steps of about as many
 * positives and negatives each. A range of fewer cuts is widened on both sides.
 */
export function telling(curve, n = 20) {
  const last = curve.tp.length - 1;
  const top = bestF1(curve).cut;
  const half = f1Of(curve, top) / 2;
  let low = 0;
  while (f1Of(curve, low) < half) low += 1;
  while (low < last && curve.nPos > 0 && curve.tp[low + 1] === curve.nPos) low += 1;
  let high = last;
  while (f1Of(curve, high) < half) high -= 1;
  let pure = high;
  while (pure > 0 && curve.fp[pure - 1] === 0) pure -= 1;
  if (curve.tp[pure] > 0 && curve.fp[pure] === 0) high = pure;
  const cuts = new Set([top]);
  const spare = n - (high - low + 1);
  if (spare >= 0) {
    low = Math.max(0, low - Math.ceil(spare / 2));
    high = Math.min(last, low + n - 1);
    low = Math.max(0, high - n + 1);
    for (let cut = low; cut <= high; cut += 1) cuts.add(cut);
    return Uint32Array.from(cuts).sort();
  }
  const share = (counts, cut) => (counts[low] - counts[cut]) / Math.max(counts[low] - counts[high], 1);
  const way = (cut) => share(curve.tp, cut) + share(curve.fp, cut);
  const whole = way(high);
  let cut = low;
  for (let step = 0; step < n; step += 1) {
    const wanted = step === n - 1 ? whole : step * (whole / (n - 1));
    while (cut < high && way(cut) < wanted) cut += 1;
    cuts.add(cut);
  }
  return Uint32Array.from(cuts).sort();
}

function ratio(part, whole) {
  return whole > 0 ? part / whole : 0;
}
