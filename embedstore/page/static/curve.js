// Precision, recall and F1 over the threshold: three lines, the point on each, the line to drag, the best F1 to click.

import {html, nothing, render, svg} from "./vendor/lit-html.js";
import {computed, effect, signal} from "./vendor/signals-core.js";
import {bestF1, ratesOf, telling, thinned, thresholdOf} from "./cut.js";
import {LEFT, axisOf, columns, draggable, follow, ticks, widthOf} from "./scale.js";
import {can} from "./state.js";
import {count, decimals} from "./words.js";

const TOP = 30; // room for the best F1's words and the grip
const TALL = 150;
const HEIGHT = TOP + TALL + 24;
const POINTS = 1000;
const LINES = [
  ["precision", "precision"],
  ["recall", "recall"],
  ["f1", "F1"],
];

export function curvePanel(view) {
  const panel = document.createElement("section");
  panel.className = "es-block es-curve";
  panel.dataset.testid = "curve";
  panel.setAttribute("aria-label", "Precision, recall and F1 at each threshold");
  const open = signal(false);
  const axis = axisOf(view);
  const best = bestOf(view);
  render(frameOf(open), panel);
  const chart = panel.querySelector(".es-chart");
  const width = widthOf(view, chart);
  const measured = computed(() => Boolean(view.curve.value?.measured));
  follow(view, () => [view.curve.value, best.value, width.value, axis.range.value], (...given) => drawLines(panel, ...given));
  follow(
    view,
    () => [view.figures.value, view.interval.value, view.threshold.value, width.value, axis.range.value],
    (...given) => movePoints(panel, ...given),
  );
  view.dispose.push(
    effect(() => {
      panel.classList.toggle("es-unmeasured", !measured.value);
      render(aside(view), panel.querySelector(".es-aside"));
    }),
    effect(() => render(open.value ? table(view, best) : nothing, panel.querySelector(".es-table"))),
  );
  watchPointer(view, axis, best, chart, width);
  return panel;
}

/** A signal of the best F1 of the curve, with its threshold; null where nothing is measured. */
export function bestOf(view) {
  return computed(() => (view.curve.value?.measured ? bestF1(view.curve.value) : null));
}

function frameOf(open) {
  return html`
    <header class="es-title"><h3>Precision and recall</h3>
      <span class="es-legend" aria-hidden="true">${LINES.map(
        ([name, label]) => html`<span><svg width="18" height="8"><line class="es-curve-line es-curve-line-${name}" x1="0" x2="18" y1="4" y2="4"></line></svg>${label}</span>`,
      )}</span></header>
    <div class="es-chart"><svg height=${HEIGHT} aria-hidden="true">
      <g class="es-lines"></g>
      <g class="es-marker">
        <line y1=${TOP - 6} y2=${TOP + TALL}></line>
        <path class="es-grip" d="M-6 ${TOP - 8}h12v5l-6 6l-6 -6z"></path>
        ${LINES.map(([name]) => svg`<line class="es-whisker es-curve-line-${name}"></line>`)}
        ${LINES.map(([name]) => svg`<circle class="es-point es-point-${name}" data-testid=${name === "f1" ? "curve-point" : nothing} r="4"></circle>`)}
      </g>
    </svg></div>
    <div class="es-aside"></div>
    <details class="es-behind" @toggle=${(event) => (open.value = event.target.open)}>
      <summary>Precision and recall as a table</summary><div class="es-table" role="group" aria-label="Table of precision and recall" tabindex="0"></div>
    </details>`;
}

function drawLines(panel, curve, best, width, range) {
  const root = panel.querySelector(".es-chart svg");
  root.setAttribute("width", width);
  const host = panel.querySelector(".es-lines");
  if (!curve?.measured || !width) return render(nothing, host);
  const {x, wide} = columns(width, range);
  const y = (value) => TOP + (1 - value) * TALL;
  const cuts = thinned(curve, POINTS, ...range);
  const rates = Array.from(cuts, (cut) => ratesOf(curve, cut));
  const starts = Array.from(cuts, (cut, place) => (place && cut ? x(curve.scores[cut - 1]) : LEFT).toFixed(1));
  const steps = (name) => {
    const path = rates.map((each, place) => `${place ? "H" : "M"}${starts[place]}${place ? "V" : " "}${y(each[name]).toFixed(1)}`);
    if (name !== "precision" || curve.tp[cuts[cuts.length - 1]] + curve.fp[cuts[cuts.length - 1]] > 0) return `${path.join("")}H${LEFT + wide}`;
    // Where nothing matches precision is 0 by convention only, so the line ends there.
    return path.length > 1 ? `${path.slice(0, -1).join("")}H${starts[starts.length - 1]}` : "M0 0";
  };
  const shown = best.threshold >= range[0] && best.threshold <= range[1];
  return render(
    svg`
      ${[0, 0.25, 0.5, 0.75, 1].map(
        (share) => svg`<line class="es-rule" x1=${LEFT} x2=${LEFT + wide} y1=${y(share)} y2=${y(share)}></line>
          ${share % 0.5 ? nothing : svg`<text class="es-scale-text" x=${LEFT - 6} y=${y(share) + 4} text-anchor="end">${share}</text>`}`,
      )}
      ${ticks(range, wide).map(
        ({value, text}) => svg`<text class="es-scale-text" x=${x(value)} y=${HEIGHT - 6} text-anchor="middle">${text}</text>
          <line class="es-axis" x1=${x(value)} x2=${x(value)} y1=${TOP + TALL} y2=${TOP + TALL + 5}></line>`,
      )}
      <line class="es-axis" x1=${LEFT} x2=${LEFT + wide} y1=${TOP + TALL} y2=${TOP + TALL}></line>
      ${LINES.map(([name]) => svg`<path class="es-curve-line es-curve-line-${name}" d=${steps(name)}></path>`)}
      ${shown ? bestMark(x(best.threshold), y(best.f1), best, LEFT + wide) : nothing}`,
    host,
  );
}

function bestMark(x, y, best, right) {
  const anchor = x - LEFT < 44 ? "start" : right - x < 44 ? "end" : "middle";
  return svg`<g class="es-best">
    <rect class="es-best-reach" x=${x - 44} y="0" width="88" height=${TOP - 14}></rect>
    <circle class="es-best-reach" cx=${x} cy=${y} r="12"></circle>
    <line class="es-best-stem" x1=${x} x2=${x} y1=${TOP - 14} y2=${y}></line>
    <path class="es-best-mark" d="M${x} ${y - 6}l6 6l-6 6l-6 -6z"></path>
    <text class="es-best-text" x=${x} y="11" text-anchor=${anchor}>best F1 ${best.f1.toFixed(3)}</text>
  </g>`;
}

// The points stand on the lines; once the threshold rests, whiskers show the intervals.
function movePoints(panel, figures, interval, threshold, width, range) {
  const marker = panel.querySelector(".es-marker");
  marker.classList.toggle("es-hidden", !figures || !width);
  if (!figures || !width) return;
  const y = (value) => (TOP + (1 - value) * TALL).toFixed(1);
  marker.setAttribute("transform", `translate(${columns(width, range).x(threshold).toFixed(1)} 0)`);
  LINES.forEach(([name], place) => {
    marker.querySelector(`.es-point-${name}`).setAttribute("cy", y(figures[name]));
    const pair = interval?.known ? interval.intervals[name] : null;
    const whisker = marker.querySelector(`.es-whisker.es-curve-line-${name}`);
    whisker.classList.toggle("es-hidden", !pair);
    if (!pair) return;
    whisker.setAttribute("x1", (place - 1) * 5);
    whisker.setAttribute("x2", (place - 1) * 5);
    whisker.setAttribute("y1", y(pair[1]));
    whisker.setAttribute("y2", y(pair[0]));
  });
}

function watchPointer(view, axis, best, chart, width) {
  const at = (x) => columns(width.peek(), axis.range.peek()).threshold(x);
  draggable(chart, (from, event) => {
    if (!view.curve.peek()?.measured) return null;
    if (event.target.closest(".es-best")) {
      return {move: (x) => view.setThreshold(at(x)), end: (_, moved) => moved || view.setThreshold(best.peek().threshold)};
    }
    view.setThreshold(at(from));
    return {move: (x) => view.setThreshold(at(x)), end: () => undefined};
  });
}

// Under the chart: how good the order is; or why nothing is measured, and what to do.
function aside(view) {
  const curve = view.curve.value;
  if (!view.scored.value) return nothing;
  if (!curve) return html`<p class="es-hint">Measuring ...</p>`;
  if (curve.measured) {
    return html`<p class="es-hint">Drag the line. Average precision
      <span data-testid="average-precision" data-value=${curve.average_precision}>${decimals(curve.average_precision)}</span>, on
      ${count(curve.n_counted)} labelled pictures, ${count(curve.n_yes_counted)} of them yes.</p>`;
  }
  const canLabel = can(view, "label") && !view.truth.value;
  if (!canLabel) return html`<p class="es-reason"><strong>Not measured:</strong> ${curve.why}</p>`;
  return html`<p class="es-reason"><strong>Not measured yet.</strong> It takes pictures that you have answered with yes and with no. Some that lie
    near the cut and some drawn by chance tell most.</p>
    <div class="es-row"><button type="button" @click=${() => view.next()}>Next to label</button></div>`;
}

function table(view, best) {
  const curve = view.curve.value;
  if (!curve?.measured) return nothing;
  const rows = Array.from(telling(curve, 20), (cut) => ({cut, threshold: thresholdOf(curve.scores, cut), ...ratesOf(curve, cut)}));
  return html`<table>
    <caption>Figures at thresholds between all and none, that of the best F1 among them</caption>
    <thead><tr><th scope="col">threshold</th><th scope="col">precision</th><th scope="col">recall</th><th scope="col">F1</th>
      <th scope="col">right</th><th scope="col">false</th><th scope="col">missed</th></tr></thead>
    <tbody>${rows.map(
      (row) => html`<tr class=${row.cut === best.value.cut ? "es-chosen" : ""}>
        <th scope="row"><button type="button" class="es-link" @click=${() => view.setThreshold(row.threshold)}>${row.threshold.toFixed(6)}</button>${
          row.cut === best.value.cut ? " best F1" : ""}</th>
        <td>${decimals(row.precision)}</td><td>${decimals(row.recall)}</td><td>${decimals(row.f1)}</td>
        <td>${count(row.tp)}</td><td>${count(row.fp)}</td><td>${count(row.fn)}</td></tr>`,
    )}</tbody>
  </table>`;
}
