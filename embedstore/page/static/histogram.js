// How many pictures have which score: bars, the labels under them, the threshold to drag, and a band to review.

import {html, nothing, render, svg} from "./vendor/lit-html.js";
import {effect, signal} from "./vendor/signals-core.js";
import {histogram, matchesAt, spelt} from "./cut.js";
import {LEFT, axisOf, columns, draggable, follow, reach, ticks, uniqueId, widthOf} from "./scale.js";
import {can} from "./state.js";
import {count, counted, short} from "./words.js";

const BARS = 132; // pixels of the bars' height
const TOP = 20;
const LANE = 11;
const HEIGHT = TOP + BARS + 2 * LANE + 26;
const FEW = 150; // so many labels of a kind are drawn one by one
const AROUND = 50; // pictures on each side of the cut in a band around it

export function histogramPanel(view) {
  const panel = document.createElement("section");
  panel.className = "es-block es-histogram";
  panel.dataset.testid = "histogram";
  panel.setAttribute("aria-label", "How many pictures have which score");
  const log = signal(true);
  const open = signal(false);
  const axis = axisOf(view);
  const clip = uniqueId("clip");
  render(frameOf(view, log, open, axis, clip), panel);
  const chart = panel.querySelector(".es-chart");
  const width = widthOf(view, chart);
  const binned = () => {
    const [scored, [low, high]] = [view.scored.value, axis.range.value];
    if (!scored || !scored.n || !width.value) return null;
    const room = Math.floor(columns(width.value, [low, high]).wide / 2);
    const bins = Math.min(512, Math.max(24, Math.min(room, Math.ceil(4 * Math.sqrt(scored.n)))));
    return histogram(scored.scores, bins, low, high);
  };
  follow(view, () => [binned(), width.value, axis.range.value, log.value], (...given) => drawBars(panel, clip, ...given));
  follow(
    view,
    () => [view.labelled.value, view.places.value, view.scored.value, width.value, axis.range.value],
    (...given) => drawLabels(panel, ...given),
  );
  follow(
    view,
    () => [view.threshold.value, view.scored.value, width.value, axis.range.value],
    (...given) => moveMarker(panel, ...given),
  );
  follow(view, () => [view.band.value, width.value, axis.range.value], (...given) => drawBand(panel, ...given));
  view.dispose.push(
    effect(() => render(bandRow(view, axis), panel.querySelector(".es-band-row"))),
    effect(() => render(open.value ? table(view) : nothing, panel.querySelector(".es-table"))),
    effect(() => {
      panel.querySelector(".es-zoom-whole").setAttribute("aria-pressed", String(axis.part.value === "all"));
      panel.querySelector(".es-zoom-top").setAttribute("aria-pressed", String(axis.part.value === "top"));
    }),
  );
  watchPointer(view, axis, chart, width);
  return panel;
}

function frameOf(view, log, open, axis, clip) {
  return html`
    <header class="es-title">
      <h3>Scores</h3>
      <span class="es-switch" role="group" aria-label="Part of the scores that is shown">
        <button type="button" class="es-zoom-whole" data-testid="zoom-whole" @click=${() => axis.whole()}>all</button>
        <button type="button" class="es-zoom-top" data-testid="zoom-top" title="the highest 5 % of the scores, in both charts"
          @click=${() => view.scored.peek()?.n && axis.top()}>top</button>
      </span>
      <label class="es-check"><input type="checkbox" data-testid="log-counts" checked
        @change=${(event) => (log.value = event.target.checked)}> log counts</label>
    </header>
    <div class="es-chart"><svg height=${HEIGHT} aria-hidden="true">
      <defs><clipPath id=${clip}><rect class="es-clip" y="0" height=${HEIGHT} width="0"></rect></clipPath></defs>
      <g class="es-bars"></g>
      <g class="es-ticks"></g>
      <rect class="es-band" y=${TOP} height=${BARS} width="0"></rect>
      <g class="es-marker">
        <line y1=${TOP - 4} y2=${TOP + BARS + 2 * LANE}></line>
        <path class="es-grip" d="M-6 ${TOP - 4}h12v5l-6 6l-6 -6z"></path>
        <text y=${TOP - 9}></text>
      </g>
    </svg></div>
    <div class="es-band-row"></div>
    <details class="es-behind" @toggle=${(event) => (open.value = event.target.open)}>
      <summary>Scores as a table</summary><div class="es-table" role="group" aria-label="Table of scores" tabindex="0"></div>
    </details>`;
}

function drawBars(panel, clip, bins, width, range, log) {
  const root = panel.querySelector("svg");
  root.setAttribute("width", width);
  if (!bins) return render(nothing, panel.querySelector(".es-bars"));
  const {x, wide} = columns(width, range);
  const most = Math.max(1, bins.largest);
  const tall = (many) => (log ? Math.log1p(many) / Math.log1p(most) : many / most) * BARS;
  const floor = TOP + BARS;
  let path = `M${x(bins.edges[0]).toFixed(1)} ${floor}`;
  bins.counts.forEach((many, bin) => {
    path += `V${(floor - (many && Math.max(1, tall(many)))).toFixed(1)}H${x(bins.edges[bin + 1]).toFixed(1)}`;
  });
  path += `V${floor}Z`;
  const counts = log ? powers(most) : ticks([0, most], BARS, 40).map(({value}) => value);
  render(
    svg`
      ${counts.map((many) => {
        const y = floor - tall(many);
        return svg`<line class="es-rule" x1=${LEFT} x2=${LEFT + wide} y1=${y} y2=${y}></line>
          <text class="es-scale-text" x=${LEFT - 6} y=${y + 4} text-anchor="end">${short(many)}</text>`;
      })}
      <path class="es-below" d=${path}></path>
      <path class="es-above" d=${path} clip-path="url(#${clip})"></path>
      ${ticks(range, wide).map(
        ({value, text}) => svg`<text class="es-scale-text" x=${x(value)} y=${HEIGHT - 8} text-anchor="middle">${text}</text>
          <line class="es-axis" x1=${x(value)} x2=${x(value)} y1=${HEIGHT - 26} y2=${HEIGHT - 21}></line>`,
      )}
      <line class="es-axis" x1=${LEFT} x2=${LEFT + wide} y1=${floor} y2=${floor}></line>
      <line class="es-axis" x1=${LEFT} x2=${LEFT + wide} y1=${HEIGHT - 26} y2=${HEIGHT - 26}></line>`,
    panel.querySelector(".es-bars"),
  );
}

// 1, 10, 100 ... of which a tall chart has room for a few.
function powers(most) {
  const last = Math.floor(Math.log10(most));
  const every = Math.max(1, Math.ceil(last / 4));
  return Array.from({length: Math.floor(last / every) + 1}, (_, place) => 10 ** (place * every));
}

// Yes in the upper lane, pointing up; no in the lower, pointing down. Many of a kind: bars, as tall as they are many.
function drawLabels(panel, labelled, places, scored, width, range) {
  const lanes = scored && width ? [0, 1].map((answer) => laneOf(answer, labelled, places, scored, columns(width, range), range)) : [];
  const floor = TOP + BARS;
  const lane = (name, {xs, heaps}, base, way) =>
    svg`<path class="es-tick-${name}" d=${xs ? triangles(xs, base, way) : towers(heaps, base, way)}></path>
      <text class="es-scale-text" x=${LEFT - 6} y=${Math.min(base, base + way * LANE) + 9} text-anchor="end">${name}</text>`;
  render(
    lanes.some(({many}) => many) ? svg`${lane("yes", lanes[1], floor + LANE, -1)}${lane("no", lanes[0], floor + LANE + 1, 1)}` : nothing,
    panel.querySelector(".es-ticks"),
  );
}

// The places of one answer's labels: each by itself, or, where they are many, how many there are in each two pixels.
function laneOf(answer, {rows, answers}, places, {scores}, {wide, x}, [low, high]) {
  const heaps = new Uint32Array(Math.ceil(wide / 2) + 1);
  const xs = [];
  let many = 0;
  for (let index = 0; index < rows.length; index += 1) {
    if (answers[index] !== answer) continue;
    const score = scores[places.get(rows[index])];
    if (!(score >= low && score <= high)) continue;
    many += 1;
    if (many <= FEW) xs.push(x(score));
    heaps[Math.floor((x(score) - LEFT) / 2)] += 1;
  }
  return {many, heaps, xs: many <= FEW ? xs : null};
}

function triangles(xs, base, way) {
  const shape = way < 0 ? "l3.5 -7l3.5 7z" : "l3.5 7l3.5 -7z";
  return xs.map((x) => `M${(x - 3.5).toFixed(1)} ${base + way}${shape}`).join("");
}

function towers(heaps, base, way) {
  const tallest = Math.log1p(heaps.reduce((most, many) => Math.max(most, many), 1));
  let path = "";
  heaps.forEach((many, place) => {
    if (many) path += `M${LEFT + 2 * place} ${base}v${(way * (1.5 + (LANE - 3) * (Math.log1p(many) / tallest))).toFixed(1)}h1.6V${base}z`;
  });
  return path;
}

function moveMarker(panel, threshold, scored, width, range) {
  const marker = panel.querySelector(".es-marker");
  marker.classList.toggle("es-hidden", !scored || !width);
  if (!scored || !width) return;
  const {x, wide} = columns(width, range);
  const at = x(threshold);
  marker.setAttribute("transform", `translate(${at.toFixed(1)} 0)`);
  const text = marker.querySelector("text");
  text.textContent = spelt(scored.scores, threshold);
  const side = at < LEFT + 30 ? "start" : at > LEFT + wide - 30 ? "end" : "middle";
  text.setAttribute("text-anchor", side);
  const clip = panel.querySelector(".es-clip");
  clip.setAttribute("x", at.toFixed(1));
  clip.setAttribute("width", Math.max(0, width - at).toFixed(1));
}

function drawBand(panel, band, width, range) {
  const area = panel.querySelector(".es-band");
  area.classList.toggle("es-hidden", !band || !width);
  if (!band || !width) return;
  const {x} = columns(width, range);
  area.setAttribute("x", x(band[0]));
  area.setAttribute("width", Math.max(1, x(band[1]) - x(band[0])));
}

// Near the marker a press takes hold of it; elsewhere dragging makes a band, and a click moves the threshold.
function watchPointer(view, axis, chart, width) {
  const at = () => columns(width.peek(), axis.range.peek());
  const near = (x, event) => Math.abs(at().x(view.threshold.peek()) - x) <= reach(event);
  chart.addEventListener("pointermove", (event) => {
    if (event.buttons || !view.scored.peek()) return;
    chart.classList.toggle("es-hold", near(event.clientX - chart.getBoundingClientRect().left, event));
  });
  draggable(chart, (from, event) => {
    if (!view.scored.peek()?.n) return null;
    const set = (x) => view.setThreshold(at().threshold(x));
    if (near(from, event)) return {move: set, end: () => undefined};
    return {
      move: (x) => (view.band.value = [at().threshold(Math.min(from, x)), at().threshold(Math.max(from, x))]),
      end: (x, moved) => moved || set(x),
    };
  });
}

function bandRow(view, axis) {
  const scored = view.scored.value;
  const band = view.band.value;
  if (!scored || !scored.n) return nothing;
  if (!band) {
    return html`<p class="es-hint">Drag across the chart to review the pictures between two scores, or
      <button type="button" class="es-link" data-testid="band-around" @click=${() => (view.band.value = aroundCut(view))}>those
      around the cut</button>.</p>`;
  }
  const within = matchesAt(scored.scores, band[0]) - matchesAt(scored.scores, band[1]);
  return html`<p class="es-hint"><strong>${counted(within, "picture")}</strong> above ${spelt(scored.scores, band[0])} up to
    ${spelt(scored.scores, band[1])}${can(view, "label") && within ? html`: label these with <kbd>y</kbd> and <kbd>n</kbd>` : nothing}.
    <button type="button" class="es-link" data-testid="band-zoom" @click=${() => axis.between(...band)}>zoom in</button>
    <button type="button" class="es-link" data-testid="band-clear" @click=${() => (view.band.value = null)}>clear the band</button></p>`;
}

function aroundCut(view) {
  const {scores, n} = view.scored.peek();
  const matches = view.matches.peek();
  const high = scores[Math.max(0, matches - AROUND)];
  const low = matches + AROUND < n ? scores[matches + AROUND] : scores[n - 1] - 1e-6;
  return [low, high];
}

function table(view) {
  const scored = view.scored.value;
  if (!scored || !scored.n) return nothing;
  const {edges, counts} = histogram(scored.scores, 20);
  const labels = [0, 1].map(() => new Uint32Array(counts.length));
  view.labelled.value.rows.forEach((row, index) => {
    const place = view.places.value.get(row);
    const answer = view.labelled.value.answers[index];
    if (place < 0 || answer > 1) return;
    const bin = edges.findLastIndex((edge) => edge < scored.scores[place]);
    labels[answer][bin] += 1;
  });
  const digits = Math.max(4, -Math.floor(Math.log10(edges[1] - edges[0])));
  return html`<table>
    <caption>Pictures by score; a bin holds the scores above its first and up to its second number</caption>
    <thead><tr><th scope="col">score</th><th scope="col">pictures</th><th scope="col">above</th><th scope="col">yes</th><th scope="col">no</th></tr></thead>
    <tbody>${Array.from(counts, (many, bin) => html`<tr>
      <th scope="row">${edges[bin].toFixed(digits)} to ${edges[bin + 1].toFixed(digits)}</th><td>${count(many)}</td>
      <td>${count(matchesAt(scored.scores, edges[bin + 1]))}</td><td>${labels[1][bin]}</td><td>${labels[0][bin]}</td></tr>`).reverse()}</tbody>
  </table>`;
}
