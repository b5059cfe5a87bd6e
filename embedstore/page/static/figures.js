// What holds at the threshold, in numbers: matches, percentile, precision, recall, F1, how sure, and measured by what.

import {html, nothing, render} from "./vendor/lit-html.js";
import {computed, effect} from "./vendor/signals-core.js";
import {bestCost, bestF1, cutOf, percentileAt} from "./cut.js";
import {follow} from "./scale.js";
import {count, counted, decimals} from "./words.js";

const RATES = [
  ["precision", "Precision", "share of the matches that are right"],
  ["recall", "Recall", "share of the right ones that match"],
  ["f1", "F1", "both in one number"],
];
const REST = 600; // milliseconds of rest before a screen reader is told

export function figuresPanel(view) {
  const panel = document.createElement("section");
  panel.className = "es-block es-figures";
  panel.setAttribute("aria-label", "Figures at the threshold");
  render(frameOf(), panel);
  follow(view, () => [view.scored.value, view.threshold.value, view.matches.value], (...given) => tellMatches(panel, ...given));
  follow(
    view,
    () => [view.scored.value, view.curve.value, view.figures.value, view.interval.value],
    (...given) => tellRates(panel, ...given),
  );
  const told = lastInterval(view);
  view.dispose.push(
    effect(notesTeller(view, told, panel.querySelector(".es-notes"))),
    effect(() => render(measuredBy(view), panel.querySelector(".es-source"))),
  );
  speakAtRest(view, panel.querySelector(".es-spoken"));
  return panel;
}

function frameOf() {
  return html`
    <div class="es-matches"><span><strong data-testid="matches-count">0</strong> <span class="es-of"></span></span>
      <span>percentile <strong data-testid="percentile">-</strong></span></div>
    <div class="es-rates">${RATES.map(
      ([name, label, meaning]) => html`<div class="es-rate" title=${meaning}>
        <span class="es-rate-name"><svg width="14" height="8" aria-hidden="true"><line class="es-curve-line es-curve-line-${name}" x1="0" x2="14" y1="4" y2="4"></line></svg>${label}</span>
        <strong class="es-rate-value" data-testid=${name}>not measured</strong>
        <svg class="es-gauge" height="10" width="100%" aria-hidden="true">
          <line class="es-gauge-track" x1="0" x2="100%" y1="5" y2="5"></line>
          <line class="es-gauge-span es-curve-line-${name}" y1="5" y2="5"></line>
          <circle class="es-gauge-point es-point-${name}" r="4" cy="5"></circle>
        </svg>
        <span class="es-interval" data-testid="${name}-interval"></span></div>`,
    )}</div>
    <p class="es-confusion es-hint"></p>
    <div class="es-source"></div>
    <div class="es-notes"></div>
    <p class="es-spoken es-unseen" aria-live="polite"></p>`;
}

function tellMatches(panel, scored, threshold, matches) {
  const shown = panel.querySelector("[data-testid=matches-count]");
  const percentile = panel.querySelector("[data-testid=percentile]");
  const share = scored && scored.n ? percentileAt(scored.scores, threshold) : null;
  shown.textContent = count(matches);
  shown.dataset.value = matches;
  panel.querySelector(".es-of").textContent = scored ? `${matches === 1 ? "match" : "matches"} of ${count(scored.n)}` : "matches";
  percentile.textContent = share === null ? "-" : decimals(share);
  percentile.dataset.value = share === null ? "" : share;
}

function tellRates(panel, scored, curve, figures, interval) {
  for (const [name] of RATES) {
    const value = panel.querySelector(`[data-testid=${name}]`);
    value.textContent = decimals(figures?.[name]);
    value.dataset.value = figures ? figures[name] : "";
    value.classList.toggle("es-none", !figures);
    const pair = figures && interval?.known ? interval.intervals[name] : null;
    panel.querySelector(`[data-testid=${name}-interval]`).textContent = pair ? ranged(pair) : "";
    drawGauge(panel.querySelectorAll(".es-gauge")[RATES.findIndex(([other]) => other === name)], figures && figures[name], pair);
  }
  panel.querySelector(".es-confusion").textContent = figures
    ? `${curve.weighted ? "About " : ""}${count(figures.tp)} right, ${count(figures.fp)} false, ${count(figures.fn)} missed, ${count(figures.tn)} rightly left out`
    : "";
}

// Rounded outwards: the range that is read is never narrower than the one that holds.
function ranged([low, high]) {
  return low === high ? "exact" : `${(Math.floor(low * 100 + 1e-9) / 100).toFixed(2)} to ${(Math.ceil(high * 100 - 1e-9) / 100).toFixed(2)}`;
}

function drawGauge(gauge, value, pair) {
  gauge.classList.toggle("es-hidden", value === null);
  const span = gauge.querySelector(".es-gauge-span");
  span.classList.toggle("es-hidden", !pair);
  if (value === null) return;
  gauge.querySelector("circle").setAttribute("cx", `${(4 + value * 92).toFixed(1)}%`);
  if (!pair) return;
  span.setAttribute("x1", `${(4 + pair[0] * 92).toFixed(1)}%`);
  span.setAttribute("x2", `${(4 + pair[1] * 92).toFixed(1)}%`);
}

// The interval, or, while the threshold moves, the one before it: its words keep their place, so that nothing below jumps.
function lastInterval(view) {
  let last = null;
  return computed(() => {
    if (!view.curve.value?.measured) last = null;
    last = view.interval.value || last;
    return last;
  });
}

// While the threshold moves, the words of where it rested stay, paler: nothing below them may jump under the hand.
function notesTeller(view, told, root) {
  let shown = null;
  return () => {
    const [interval, curve] = [told.value, view.curve.value];
    const moving = Boolean(interval && !view.interval.value);
    root.classList.toggle("es-stale", moving);
    if (moving && shown === curve) return;
    shown = curve;
    render(notes(view, interval), root);
  };
}

// What the intervals mean, or why there are none.
function notes(view, interval) {
  const curve = view.curve.value;
  if (!view.scored.value || !curve) return nothing;
  if (!curve.measured) return html`<p class="es-reason">Not measured: ${openRound(view) || curve.why}</p>`;
  const moving = interval && !view.interval.value;
  const chosen = interval && !moving ? chosenBy(view, curve) : [];
  const noted = (interval?.notes || []).filter((one) => !chosen.length || !one.startsWith("the best F1 by these same labels"));
  const beyond = interval && !moving && view.matches.value ? outside(view.figures.value, interval) : [];
  const said = [...chosen, ...(curve.warnings || []), ...noted, ...beyond, ...(curve.doubts || [])];
  return html`
    ${interval
      ? html`<p class="es-hint">${interval.known ? meaning(interval, view.matches.value) : `No interval: ${interval.why}`}</p>`
      : nothing}
    ${said.length ? html`<ul class="es-doubts">${[...new Set(said)].map((one) => html`<li>${one}</li>`)}</ul>` : nothing}`;
}

// A round that is not finished tells nothing yet; that is no fault, so it is said in place of the library's reason.
function openRound(view) {
  const {yes, no, open} = view.own?.value || {};
  if (view.truth.value || !open || !(yes + no)) return "";
  return `a round of labels counts when each of its pictures has an answer; ${counted(open, "picture has", "pictures have")} none yet.`;
}

function meaning({intervals, confidence, n_random: random, n_pos: yes}, matches) {
  if (!matches) return "Nothing matches here, so that there is nothing to be unsure of.";
  if (Object.values(intervals).every(([low, high]) => low === high)) return "Every picture has its label, so the figures are exact.";
  return `Each range is a ${Math.round(confidence * 100)} % interval by ${counted(random, "label")} of a random sample, ${count(yes)} of them yes. It holds
    however often you look, at a threshold that these labels did not choose.`;
}

// Whether the labels that measure a threshold may have chosen it.
function chosenBy(view, curve) {
  const threshold = view.threshold.value;
  const made = view.calibrated.value;
  if (curve.n_labelled === view.scored.value.n || !(curve.nPos > 0 && curve.nNeg > 0)) return [];
  if (made?.threshold === threshold) {
    return ["the labels have chosen this threshold, so that its figures here flatter; those beside “Calibrated threshold” tell how it does on labels held out"];
  }
  const {fp, fn} = view.cost.value;
  const cut = cutOf(curve, threshold);
  const what = cut === bestF1(curve).cut ? "best F1" : cut === bestCost(curve, fp, fn).cut ? "lowest cost" : "";
  if (!what) return [];
  return [
    `the ${what} by these same labels is here; where they have chosen the threshold, its figures flatter, and its ranges are not sure to hold: calibrate, to measure it on labels held out`,
  ];
}

// A figure counts every label by its weight, its range the random ones alone: so one may lie outside of the other.
function outside(figures, interval) {
  if (!figures || !interval.known) return [];
  const names = RATES.filter(([name]) => figures[name] < interval.intervals[name][0] - 1e-9 || figures[name] > interval.intervals[name][1] + 1e-9);
  if (!names.length) return [];
  return [
    html`<span data-testid="outside">${names.map(([, label]) => label).join(", ")}: outside of the range, which rests on the random labels alone, while the
      figure counts those near the threshold too; trust the range, or label more at random</span>`,
  ];
}

function measuredBy(view) {
  const curve = view.curve.value;
  if (!curve?.measured) return nothing;
  const weight = curve.weighted ? ", so that counts are estimates and need not add up to the matches" : ", each counting once";
  const left = curve.n_labelled - curve.n_counted;
  const without = left ? ` ${counted(left, "more label")} cannot count: how ${left === 1 ? "its picture was" : "their pictures were"} picked is not known, or by a round that does not count.` : "";
  return html`<p class="es-hint">Measured by ${curve.source}${weight}; ${count(curve.n_yes_counted)} of ${count(curve.n_counted)} say yes.${without}</p>`;
}

function speakAtRest(view, spoken) {
  let timer = 0;
  view.dispose.push(
    effect(() => {
      const [scored, matches, figures] = [view.scored.value, view.matches.value, view.figures.value];
      clearTimeout(timer);
      if (!scored) return;
      timer = setTimeout(() => {
        const rates = figures ? RATES.map(([name, label]) => `${label} ${figures[name].toFixed(2)}`).join(", ") : "not measured";
        spoken.textContent = `${counted(matches, "match", "matches")} of ${count(scored.n)}; ${rates}`;
      }, REST);
    }),
    () => clearTimeout(timer),
  );
}
