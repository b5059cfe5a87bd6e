// Above the grid: how many match, labels given and to give, and where one stands in the round of labels.

import {effect} from "./vendor/signals-core.js";
import {html, nothing, render} from "./vendor/lit-html.js";
import {isAnswer} from "./labels.js";
import {can} from "./state.js";
import {count, decimals, percent} from "./words.js";

export function labelBar(view, grid) {
  const root = document.createElement("div");
  root.className = "es-bar";
  view.dispose.push(
    effect(() => {
      root.hidden = !view.scored.value || !view.scored.value.n;
      if (root.hidden) return;
      render(html`${summary(view, grid)} ${can(view, "label") ? html`${labelling(view, grid)} ${round(view)}` : nothing}`, root);
    }),
  );
  return root;
}

function summary(view, grid) {
  const {n} = view.scored.value;
  const matches = view.matches.value;
  return html`<div class="es-bar-row">
    <p class="es-summary"><b class="es-big">${count(matches)}</b> of ${count(n)} match <span class="es-faint">${percent(matches, n)}</span></p>
    <button data-testid="to-boundary" title="b" @click=${() => grid.toBoundary()}>To the boundary</button>
    ${view.band.value
      ? html`<span class="es-pill es-band-pill">only scores ${decimals(view.band.value[0])} to ${decimals(view.band.value[1])}
          <button class="es-icon" aria-label="Show all pictures again" @click=${() => (view.band.value = null)}>×</button></span>`
      : nothing}
    <label class="es-size">size <input type="range" min="80" max="320" step="10" .value=${String(grid.size.value)} data-testid="tile-size"
      @input=${(event) => (grid.size.value = Number(event.target.value))}></label>
  </div>${doubts(view)}`;
}

function doubts(view) {
  const {doubts: said, scores, n} = view.scored.value;
  const all = view.matches.value || !n ? said : [`nothing matches: the best score is ${decimals(scores[0])}`, ...said];
  return all.length ? html`<p class="es-doubt" data-testid="doubts">${all.join("; ")}</p>` : nothing;
}

function labelling(view, grid) {
  const own = view.own.value;
  const none = view.selected.value < 0;
  const next = async () => {
    if (await view.next(10, 10)) grid.element.focus({preventScroll: true});
  };
  const total = own.yes + own.no + own.unsure;
  return html`<div class="es-bar-row" role="group" aria-label="Labels">
    <button class="es-say-yes" data-testid="label-yes" ?disabled=${none} @click=${() => view.label("yes")}>Yes <kbd>y</kbd></button>
    <button class="es-say-no" data-testid="label-no" ?disabled=${none} @click=${() => view.label("no")}>No <kbd>n</kbd></button>
    <button data-testid="label-unsure" ?disabled=${none} @click=${() => view.label("?")}>Cannot tell <kbd>?</kbd></button>
    <button data-testid="undo" ?disabled=${!total && !own.open} @click=${() => view.undo()}>Undo <kbd>u</kbd></button>
    <button class="es-main" data-testid="next" @click=${next}>Next to label <kbd>m</kbd></button>
    <p class="es-tally" data-testid="labels-count" aria-live="polite" data-yes=${own.yes} data-no=${own.no} data-unsure=${own.unsure} data-open=${own.open}>${
      total || own.open
        ? html`<b class="es-yes-text">${count(own.yes)} yes</b> <b class="es-no-text">${count(own.no)} no</b>${own.unsure ? html` <span>${count(own.unsure)} cannot tell</span>` : nothing}${own.open ? html` <span>${count(own.open)} open</span>` : nothing}`
        : html`<span class="es-faint">no labels yet</span>`
    }</p>
  </div>`;
}

function round(view) {
  const queue = view.queue.value;
  if (!queue.length) return nothing;
  const {rows} = view.scored.value;
  const isDone = (place) => isAnswer(view.marks.value.get(rows[place]));
  const done = queue.filter(isDone).length;
  const at = queue.indexOf(view.selected.value);
  const why = at >= 0 ? view.picks.get(rows[queue[at]]) : null;
  return html`<div class="es-bar-row es-round" data-testid="round">
    <progress max=${queue.length} value=${done} aria-label="labels of this round"></progress>
    <span><b>${done}</b> of ${queue.length} labelled</span>
    <span class="es-proposed">${why && done < queue.length ? html`<b>This one:</b> ${why.reason}` : nothing}</span>
    ${at < 0 && done < queue.length
      ? html`<button @click=${() => (view.selected.value = queue.find((place) => !isDone(place)))}>Back to the round</button>`
      : nothing}
    <button class="es-icon" aria-label="Leave the round" data-testid="leave-round" @click=${() => (view.queue.value = [])}>×</button>
  </div>`;
}
