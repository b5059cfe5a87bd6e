// The threshold by hand: a slider, a number, steps to the neighbouring score, and the places worth going to.

import {html, nothing, render} from "./vendor/lit-html.js";
import {computed, effect, signal} from "./vendor/signals-core.js";
import {bestCost, beyond, costOf, matchesAt, neighbour, ratesAt, spelt} from "./cut.js";
import {bestOf} from "./curve.js";
import {follow, uniqueId} from "./scale.js";
import {count, counted, decimals} from "./words.js";

const prices = new Intl.NumberFormat("en-US", {maximumFractionDigits: 2});
const FINE = 400; // steps of an arrow key from end to end, where each changes what matches

export function thresholdPanel(view) {
  const panel = document.createElement("section");
  panel.className = "es-block es-threshold";
  panel.setAttribute("aria-label", "Threshold");
  const wrong = signal("");
  const best = bestOf(view);
  const cheapest = computed(() => {
    const {fp, fn} = view.cost.value;
    return view.curve.value?.measured ? bestCost(view.curve.value, fp, fn) : null;
  });
  const inUse = computed(() => view.suggestion.value?.threshold === view.threshold.value);
  render(frameOf(view, wrong), panel);
  const range = panel.querySelector("input[type=range]");
  const box = panel.querySelector("[data-testid=threshold-number]");
  range.addEventListener("keydown", (event) => stepByKey(view, event));
  const ends = () => (view.scored.value?.n ? [beyond(view.scored.value.scores[view.scored.value.n - 1], false), view.scored.value.scores[0]] : null);
  follow(view, () => [ends(), view.scored.value, view.threshold.value], (...given) => move(range, box, ...given));
  follow(view, () => [view.curve.value, view.cost.value, view.threshold.value], (...given) => tellCost(panel, ...given));
  view.dispose.push(
    effect(() => {
      const said = panel.querySelector(".es-wrong");
      said.textContent = wrong.value;
      box.setAttribute("aria-invalid", String(Boolean(wrong.value)));
    }),
    effect(() => {
      for (const control of panel.querySelectorAll("input, button")) control.disabled = !view.scored.value?.n;
      panel.querySelector("[data-testid=best-f1]").disabled = !best.value;
      panel.querySelector("[data-testid=best-cost]").disabled = !cheapest.value;
    }),
    effect(() => {
      if (view.threshold.value !== undefined) wrong.value = "";
    }),
    effect(() => render(bestPlace(view, best), panel.querySelector(".es-best-place"))),
    effect(() => render(leastCost(view, cheapest), panel.querySelector(".es-cost-least"))),
    effect(() => render(suggested(view, inUse.value), panel.querySelector(".es-suggestion"))),
  );
  panel.querySelector("[data-testid=best-f1]").addEventListener("click", () => best.peek() && view.setThreshold(best.peek().threshold));
  panel.querySelector("[data-testid=best-cost]").addEventListener("click", () => cheapest.peek() && view.setThreshold(cheapest.peek().threshold));
  return panel;
}

function frameOf(view, wrong) {
  const [slider, number, said] = [uniqueId("range"), uniqueId("number"), uniqueId("said")];
  const typed = (event) => (wrong.value = type(view, event.target));
  const price = (name) => (event) => (wrong.value = setPrice(view, name, event.target));
  return html`
    <header class="es-title"><h3><label for=${slider}>Threshold</label></h3></header>
    <input id=${slider} class="es-range" type="range" step="any" data-testid="threshold-range"
      @input=${(event) => view.setThreshold(event.target.valueAsNumber)}>
    <div class="es-row">
      <button type="button" data-testid="step-down" aria-label="to the next score below" title="one more score matches  [" @click=${() => view.step(-1)}>&minus;</button>
      <input id=${number} class="es-threshold-number" type="text" inputmode="decimal" autocomplete="off" spellcheck="false" aria-label="Threshold as a number"
        aria-describedby=${said} data-testid="threshold-number" @change=${typed}
        @keydown=${(event) => event.key === "Enter" && typed(event)}>
      <button type="button" data-testid="step-up" aria-label="to the next score above" title="one score fewer matches  ]" @click=${() => view.step(1)}>+</button>
      <button type="button" data-testid="reset" title="to where the query began" @click=${() => view.reset()}>Reset</button>
      <button type="button" data-testid="best-f1">Best F1</button>
    </div>
    <p class="es-wrong" id=${said} role="alert"></p>
    <p class="es-hint es-best-place"></p>
    <div class="es-row es-cost" role="group" aria-label="What errors cost">
      <label title="what a match costs that is none">a false match costs <input class="es-price" type="number" min="0" step="any" value=${view.cost.peek().fp} data-testid="cost-fp" @change=${price("fp")}></label>
      <label title="what it costs to miss one">a missed one <input class="es-price" type="number" min="0" step="any" value=${view.cost.peek().fn} data-testid="cost-fn" @change=${price("fn")}></label>
      <button type="button" data-testid="best-cost">Lowest cost</button>
    </div>
    <p class="es-hint es-cost-words"><span class="es-cost-here"></span><span class="es-cost-least"></span></p>
    <div class="es-suggestion"></div>`;
}

function move(range, box, ends, scored, threshold) {
  if (!ends) return;
  if (range.min !== String(ends[0])) range.min = ends[0];
  if (range.max !== String(ends[1])) range.max = ends[1];
  const text = spelt(scored.scores, threshold);
  range.value = threshold;
  range.setAttribute("aria-valuetext", `${text}, ${counted(matchesAt(scored.scores, threshold), "match", "matches")}`);
  if (box.ownerDocument.activeElement !== box || box.dataset.value !== String(threshold)) box.value = text;
  box.dataset.value = threshold;
}

// An arrow key moves a little, but never so little that nothing changes; with Shift to the neighbouring score.
function stepByKey(view, event) {
  const ways = {ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10};
  const way = ways[event.key];
  const scored = view.scored.peek();
  if (!way || !scored?.n || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  event.stopPropagation();
  if (event.shiftKey) return view.step(Math.sign(way));
  const {scores, n} = scored;
  const now = view.threshold.peek();
  const next = Math.min(scores[0], Math.max(beyond(scores[n - 1], false), now + (way * (scores[0] - scores[n - 1])) / FINE));
  const same = matchesAt(scores, next) === matchesAt(scores, now);
  view.setThreshold(same ? neighbour(scores, now, Math.sign(way)) : next);
}

// Takes what was typed; returns what is wrong with it, or nothing.
function type(view, box) {
  const scored = view.scored.peek();
  const text = box.value.trim().replace(",", ".");
  if (!scored || text === spelt(scored.scores, view.threshold.peek())) return "";
  const number = Number(text);
  if (text === "" || !Number.isFinite(number)) {
    return `“${box.value}” is not a number; a threshold here lies between ${decimals(scored.low)} and ${decimals(scored.high)}`;
  }
  view.setThreshold(number);
  box.value = spelt(scored.scores, number);
  return "";
}

function setPrice(view, name, box) {
  const number = box.valueAsNumber;
  const cost = {...view.cost.peek(), [name]: number};
  if (!(number >= 0 && Number.isFinite(number))) return "a cost must be a number, 0 or larger";
  if (cost.fp + cost.fn === 0) return "one of the two costs must be larger than 0";
  view.cost.value = cost;
  return "";
}

function bestPlace(view, best) {
  if (!best.value || !view.scored.value) return nothing;
  return html`Best F1 ${decimals(best.value.f1)} at ${spelt(view.scored.value.scores, best.value.threshold)}.`;
}

function leastCost(view, cheapest) {
  if (!cheapest.value || !view.scored.value) return nothing;
  const {cost, threshold} = cheapest.value;
  return html` Lowest: <span data-testid="lowest-cost" data-value=${cost}>${price(cost)}</span> at ${spelt(view.scored.value.scores, threshold)}.`;
}

function tellCost(panel, curve, {fp, fn}, threshold) {
  const here = panel.querySelector(".es-cost-here");
  panel.querySelector(".es-cost-words").classList.toggle("es-hidden", !curve?.measured);
  if (!curve?.measured) return;
  const rates = ratesAt(curve, threshold);
  here.textContent = `Cost here ${price(costOf(rates, fp, fn))} (${count(rates.fp)} false, ${count(rates.fn)} missed).`;
}

function price(number) {
  return prices.format(number);
}

function suggested(view, used) {
  const suggestion = view.suggestion.value;
  if (!view.scored.value) return nothing;
  const {start, scores} = view.scored.value;
  const words = suggestion ? suggestion.words : "";
  const same = words && suggestion.threshold === start.threshold;
  if (view.scored.value.classifier && suggestion?.threshold === null) return html`<p class="es-hint">Began at ${spelt(scores, start.threshold)}: ${start.why}.</p>`;
  return html`${same ? nothing : html`<p class="es-hint">Began at ${spelt(scores, start.threshold)}: ${start.why}.</p>`}
    ${words
      ? html`<p class="es-hint" data-testid="suggestion">${words}${suggestion.threshold === null
            ? nothing
            : used
              ? html` <span>In use.</span>`
              : html` <button type="button" class="es-link" data-testid="use-suggestion" @click=${() => view.setThreshold(suggestion.threshold)}>Use ${spelt(scores, suggestion.threshold)}</button>`}</p>`
      : nothing}`;
}
