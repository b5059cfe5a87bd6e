// From looking to a decision: measured by which truth, what is wanted, the calibrated threshold; then it is kept.
// Saving, exporting and the commands that do the same are in keeping.js.

import {html, nothing, render} from "./vendor/lit-html.js";
import {computed, effect, signal} from "./vendor/signals-core.js";
import {spelt} from "./cut.js";
import {keepingPart} from "./keeping.js";
import {uniqueId} from "./scale.js";
import {can} from "./state.js";
import {count, decimals} from "./words.js";

const OBJECTIVES = [
  ["f1", "F1: precision and recall alike"],
  ["f0.5", "F0.5: precision counts more"],
  ["f2", "F2: recall counts more"],
  ["precision", "precision, with a minimum of recall"],
  ["recall", "recall, with a minimum of precision"],
  ["cost", "lowest cost of errors"],
];
const MOST_VALUES = 50; // so many values of a column are offered
const LOOKED_AT = 400; // rows in which a column's values are looked for

export function decidePanel(view) {
  const panel = document.createElement("section");
  panel.className = "es-block es-decide";
  panel.setAttribute("aria-label", "Decide and keep");
  const wishes = signal({objective: "f1", minPrecision: "", minRecall: "", guarantee: true});
  const truth = truthChoice(view);
  const inUse = computed(() => view.calibrated.value?.threshold === view.threshold.value);
  const ids = {truth: uniqueId("truth"), value: uniqueId("value"), values: uniqueId("values"), objective: uniqueId("objective")};
  render(html`<div class="es-truth-part"></div><div class="es-wishes"></div><div class="es-calibrated"></div><div class="es-keeping"></div>`, panel);
  const part = (name) => panel.querySelector(`.es-${name}`);
  view.dispose.push(
    effect(() => (panel.hidden = !["calibrate", "save", "export", "commands"].some((what) => can(view, what)))),
    effect(() => render(truthPart(view, truth, ids), part("truth-part"))),
    effect(() => render(can(view, "calibrate") ? wishesPart(view, wishes, ids) : nothing, part("wishes"))),
    effect(() => render(view.calibrated.value ? resultPart(view, inUse.value) : nothing, part("calibrated"))),
  );
  part("keeping").append(keepingPart(view, () => asked(view, wishes.value)));
  return panel;
}

// The column that is being chosen, which is no truth until it has a value; and the values to choose from.
function truthChoice(view) {
  const column = signal(view.truth.peek()?.column || "");
  const values = signal([]);
  let latest = 0;
  const choose = async (name) => {
    const mine = ++latest;
    column.value = name;
    values.value = [];
    if (!name) return view.truth.peek() && view.setTruth(null);
    const known = view.info.peek().columns.find((each) => each.name === name)?.values;
    const found = known || (await valuesOf(view, name));
    if (mine === latest) values.value = found;
    return undefined;
  };
  view.dispose.push(effect(() => (column.value = view.truth.value?.column || column.peek())));
  return {column, values, choose};
}

// Values that some rows have, from the best score downwards; none are offered where they are many.
async function valuesOf(view, name) {
  const scored = view.scored.peek();
  if (!scored) return [];
  const every = Math.max(1, Math.floor(scored.n / LOOKED_AT));
  const rows = Array.from(scored.rows.filter((_, place) => place % every === 0 || place < 100)).slice(0, 500);
  try {
    const answer = await view.scoredCall("rows", {rows});
    const found = new Set(answer.rows.map((row) => row.values[name]).filter((value) => value !== null && value !== undefined));
    return found.size <= MOST_VALUES ? [...found].map(String).sort() : [];
  } catch (error) {
    view.error.value = error.message;
    return [];
  }
}

function truthPart(view, truth, ids) {
  const columns = view.info.value?.columns || [];
  const column = truth.column.value;
  const now = view.truth.value;
  return html`
    <header class="es-title"><h3>Decide</h3></header>
    <div class="es-choice"><label for=${ids.truth}>measured by</label>
      <select id=${ids.truth} data-testid="truth" @change=${(event) => truth.choose(event.target.value)}>
        <option value="" ?selected=${!column}>labels given here</option>
        ${columns.map(({name, type}) => html`<option value=${name} ?selected=${name === column}>column ${name} (${type})</option>`)}
      </select></div>
    ${column
      ? html`<div class="es-choice"><label for=${ids.value}>yes where it is</label>
          <input id=${ids.value} type="text" list=${ids.values} autocomplete="off" data-testid="truth-value" .value=${now?.column === column ? now.value : ""}
            @change=${(event) => event.target.value.trim() && view.setTruth({column, value: event.target.value.trim()})}>
          <datalist id=${ids.values}>${truth.values.value.map((value) => html`<option value=${value}></option>`)}</datalist></div>
          ${now?.column === column ? nothing : html`<p class="es-hint">Give the value of “${column}” that counts as yes${
            truth.values.value.length ? `, such as ${truth.values.value.slice(0, 3).join(", ")}` : ""}.</p>`}`
      : nothing}`;
}

function wishesPart(view, wishes, ids) {
  const now = wishes.value;
  const set = (name, value) => (wishes.value = {...wishes.peek(), [name]: value});
  const limit = (name, label, testid) => html`<label>${label}
    <input type="number" class="es-limit" min="0" max="1" step="0.01" placeholder="none" .value=${now[name]} data-testid=${testid}
      @input=${(event) => set(name, event.target.value)}></label>`;
  const missing = missingOf(now);
  const limited = now.minPrecision !== "" || now.minRecall !== "";
  const {fp, fn} = view.cost.value;
  return html`
    <div class="es-choice"><label for=${ids.objective}>best by</label>
      <select id=${ids.objective} data-testid="objective" @change=${(event) => set("objective", event.target.value)}>
        ${OBJECTIVES.map(([name, label]) => html`<option value=${name} ?selected=${name === now.objective}>${label}</option>`)}
      </select></div>
    ${now.objective === "cost" ? html`<p class="es-hint">A false match costs ${fp}, a missed one ${fn}, as set under the threshold.</p>` : nothing}
    <div class="es-row" role="group" aria-label="Limits">${limit("minPrecision", "precision at least", "min-precision")}
      ${limit("minRecall", "recall at least", "min-recall")}</div>
    <label class="es-check ${limited ? "" : "es-off"}"><input type="checkbox" data-testid="guarantee" .checked=${now.guarantee} ?disabled=${!limited}
      @change=${(event) => set("guarantee", event.target.checked)}> limits must hold on further pictures too (95 % sure)</label>
    <div class="es-row"><button type="button" class="es-main" data-testid="calibrate" ?disabled=${!view.scored.value || Boolean(missing)}
      @click=${() => view.calibrate(asked(view, now))}>Calibrate</button>
      <span class="es-hint">${missing || "chooses the threshold by the labels, and tells how well it does on others"}</span></div>`;
}

// The options as the calls take them.
function asked(view, {objective, minPrecision, minRecall, guarantee}) {
  const number = (text) => (text === "" ? null : Number(text));
  const {fp, fn} = view.cost.value;
  return {objective, cost: objective === "cost" ? {fp, fn} : null, min_precision: number(minPrecision), min_recall: number(minRecall), guarantee};
}

function missingOf({objective, minPrecision, minRecall}) {
  if (objective === "precision" && minRecall === "") return "needs a minimum of recall, else the best is a single match";
  if (objective === "recall" && minPrecision === "") return "needs a minimum of precision, else the best is to match all";
  const outside = [minPrecision, minRecall].some((text) => text !== "" && !(Number(text) > 0 && Number(text) <= 1));
  return outside ? "a minimum lies between 0 and 1" : "";
}

function resultPart(view, inUse) {
  const made = view.calibrated.value;
  const scores = view.scored.value?.scores;
  return html`<div class="es-card" data-testid="calibrated" data-threshold=${made.threshold}>
    <p><strong>Calibrated threshold ${scores ? spelt(scores, made.threshold) : made.threshold}</strong>
      ${inUse
        ? html`<span class="es-hint">in use</span>`
        : html`<button type="button" data-testid="use-calibrated" @click=${() => view.setThreshold(made.threshold)}>Use this threshold</button>`}</p>
    <table><caption class="es-unseen">Figures of the calibrated threshold</caption>
      <tbody>${made.figures.map(
        ([name, value, pair]) => html`<tr><th scope="row">${name}</th><td>${value === null ? "not measured" : figure(value)}</td>
          <td>${pair ? `${figure(pair[0])} to ${figure(pair[1])}` : ""}</td></tr>`,
      )}</tbody></table>
    <p class="es-hint">Measured ${made.validation}; ranges are 95 % intervals.</p>
    ${(made.warnings || []).length ? html`<ul class="es-doubts">${made.warnings.map((one) => html`<li>${one}</li>`)}</ul>` : nothing}</div>`;
}

function figure(value) {
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) && Math.abs(value) > 1 ? count(value) : decimals(value);
}
