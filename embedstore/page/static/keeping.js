// A decision -> something to keep: a saved classifier, a file of the matches, the lines that do the same elsewhere.

import {html, nothing, render} from "./vendor/lit-html.js";
import {effect, signal} from "./vendor/signals-core.js";
import {spelt} from "./cut.js";
import {follow, uniqueId} from "./scale.js";
import {can} from "./state.js";

const FORMATS = [
  ["csv", "CSV"],
  ["jsonl", "JSON lines"],
  ["parquet", "Parquet"],
];
const REST = 300; // milliseconds of rest before shown commands are written anew

/** Save, export and commands; `wishes()` gives the options of the decision as the calls take them. */
export function keepingPart(view, wishes) {
  const part = document.createElement("div");
  const state = {name: signal(""), taken: signal(""), lines: signal(null), shown: signal(false), copied: signal("")};
  const id = uniqueId("name");
  render(html`<div class="es-save-part"></div><div class="es-export"></div><div class="es-commands"></div>`, part);
  const host = (name) => part.querySelector(`.es-${name}`);
  const able = (what) => can(view, what) && Boolean(view.scored.value);
  view.dispose.push(
    effect(() => render(able("save") ? savePart(view, state, id) : nothing, host("save-part"))),
    effect(() => render(able("export") ? exportPart(view) : nothing, host("export"))),
    effect(() => render(able("commands") ? commandsPart(state) : nothing, host("commands"))),
  );
  follow(view, () => [view.calibrated.value, view.scored.value, view.threshold.value, able("save")], (...given) => tellWhat(part, ...given));
  keepCommands(view, state, wishes);
  return part;
}

function savePart(view, state, id) {
  const name = state.name.value;
  const taken = state.taken.value !== "" && state.taken.value === name.trim();
  const save = async (replace) => {
    const wanted = state.name.peek().trim();
    if (!wanted) return;
    if (!replace && isTaken(view, wanted)) {
      state.taken.value = wanted;
      return;
    }
    const saved = await view.save(wanted, replace);
    state.taken.value = saved || !isTaken(view, wanted) ? "" : wanted;
  };
  return html`
    <div class="es-row"><label class="es-unseen" for=${id}>Name of the classifier</label>
      <input id=${id} class="es-name" type="text" autocomplete="off" spellcheck="false" placeholder="name of the classifier" data-testid="save-name" .value=${name}
        @input=${(event) => (state.name.value = event.target.value)} @keydown=${(event) => event.key === "Enter" && save(false)}>
      <button type="button" class="es-main" data-testid="save" ?disabled=${!name.trim()} @click=${() => save(false)}>Save</button></div>
    ${taken
      ? html`<p class="es-wrong" role="alert">A classifier “${name.trim()}” is saved already: choose another name, or
          <button type="button" data-testid="replace" @click=${() => save(true)}>replace it</button></p>`
      : nothing}
    <p class="es-hint es-what"></p>`;
}

function isTaken(view, name) {
  return (view.info.peek()?.classifiers || []).some((one) => one.name === name);
}

// What Save would save. It follows the slider, so it is no part of what is rendered.
function tellWhat(part, made, scored, threshold, able) {
  const what = part.querySelector(".es-what");
  if (!what || !scored || !able) return;
  const measured = made && made.threshold === threshold;
  if (!measured && scored.classifier && scored.start.threshold === threshold) {
    what.textContent = `Saves the classifier as it is, with its threshold ${spelt(scored.scores, threshold)} and its figures.`;
    return;
  }
  what.textContent = `Saves ${measured ? "the calibrated threshold" : "the slider's threshold"} ${spelt(scored.scores, threshold)}${
    measured ? ", with its figures." : ", which no validation has measured; calibrate to have figures with it."}`;
}

function exportPart(view) {
  return html`<div class="es-row" role="group" aria-label="Export the matches"><span class="es-hint">Export matches</span>
    ${FORMATS.map(([format, label]) => html`<button type="button" data-testid="export-${format}" @click=${() => view.exportMatches(format)}>${label}</button>`)}</div>`;
}

function commandsPart(state) {
  const lines = state.lines.value;
  const block = (kind, label) => html`<div class="es-code"><div class="es-code-head"><span>${label}</span>
      <button type="button" class="es-link" data-testid="copy-${kind}" @click=${(event) => copy(state, kind, lines[kind], event.target)}>${
        state.copied.value === kind ? "copied" : "copy"}</button></div>
      <pre>${lines[kind]}</pre></div>`;
  return html`<button type="button" class="es-link" data-testid="show-commands" aria-expanded=${state.shown.value}
      @click=${() => (state.shown.value = !state.shown.peek())}>${state.shown.value ? "Hide the commands" : "Show commands"}</button>
    ${state.shown.value && lines ? html`<div data-testid="commands">${block("python", "Python")}${block("shell", "Shell")}</div>` : nothing}`;
}

// Where the clipboard is shut the lines are selected, to be copied by hand.
async function copy(state, kind, text, button) {
  try {
    await navigator.clipboard.writeText(text);
    state.copied.value = kind;
  } catch {
    getSelection().selectAllChildren(button.closest(".es-code").querySelector("pre"));
    state.copied.value = "";
  }
}

// Shown commands are those of the decision as it is now, written anew when it has rested.
function keepCommands(view, state, wishes) {
  let timer = 0;
  let latest = 0;
  view.dispose.push(
    effect(() => {
      const options = {...wishes(), name: state.name.value.trim() || null};
      const ready = [view.scored.value, view.threshold.value, view.truth.value];
      const mine = ++latest;
      clearTimeout(timer);
      if (!state.shown.value || !ready[0]) return;
      timer = setTimeout(
        async () => {
          const lines = await view.commands(options);
          if (mine !== latest || !lines) return;
          state.copied.value = "";
          state.lines.value = lines;
        },
        state.lines.peek() ? REST : 0,
      );
    }),
    () => clearTimeout(timer),
  );
}
