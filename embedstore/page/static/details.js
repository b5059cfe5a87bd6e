// All about the selected row, in a drawer beside the grid that follows the selection.

import {computed, effect, signal, untracked} from "./vendor/signals-core.js";
import {html, nothing, render} from "./vendor/lit-html.js";
import {ANSWERS, PICKED} from "./labels.js";
import {can} from "./state.js";
import {count, decimals, PICKS, SAID} from "./words.js";

export function detailsDrawer(view, thumbnails, draft) {
  const root = document.createElement("aside");
  root.className = "es-details";
  root.dataset.testid = "details";
  root.setAttribute("aria-label", "Details of the selected picture");
  const open = signal(false);
  const known = signal(null); // what `rows` said of the row
  const picture = signal(null);
  const row = computed(() => {
    const [scored, place] = [view.scored.value, view.selected.value];
    return scored && place >= 0 && place < scored.n ? scored.rows[place] : -1;
  });
  let withdraw = () => {};
  let timer = 0;

  const fetchRow = async (wanted) => {
    try {
      const {rows} = await view.scoredCall("rows", {rows: [wanted]});
      if (row.peek() === wanted) known.value = rows[0];
    } catch (error) {
      if (row.peek() === wanted) known.value = {wrong: error.message};
    }
  };
  view.dispose.push(
    () => withdraw(),
    () => clearTimeout(timer),
    effect(() => {
      const wanted = open.value ? row.value : -1;
      untracked(() => {
        known.value = null;
        picture.value = null;
        withdraw();
        clearTimeout(timer);
        if (wanted < 0) return;
        withdraw = thumbnails.want(wanted, (found) => (picture.value = found));
        timer = setTimeout(() => fetchRow(wanted), 40);
      });
    }),
    effect(() => {
      root.hidden = !open.value;
      if (!open.value) return;
      render(row.value < 0 ? nothingSelected(close) : body(view, draft, row.value, known.value, picture.value, close), root);
    }),
  );

  function close() {
    const inside = root.contains(document.activeElement);
    open.value = false;
    if (inside && api.closed) api.closed();
  }
  const api = {
    element: root,
    open,
    show: () => {
      if (row.value >= 0) open.value = true;
    },
    close,
    toggle: () => (open.value ? close() : api.show()),
  };
  return api;
}

function nothingSelected(close) {
  return html`${head("No picture is selected", close)}<p class="es-hint">Click a picture, or move with the arrow keys.</p>`;
}

function head(title, close) {
  return html`<header class="es-details-head"><h2>${title}</h2><button class="es-icon" aria-label="Close the details" data-testid="details-close" @click=${close}>×</button></header>`;
}

function body(view, draft, row, known, picture, close) {
  const [scored, place] = [view.scored.value, view.selected.value];
  const score = scored.scores[place];
  const match = place < view.matches.value;
  const below = scored.n > 1 ? (100 * (scored.n - 1 - place)) / (scored.n - 1) : 100;
  return html`${head(`Place ${count(place + 1)} of ${count(scored.n)}`, close)}
    <figure class="es-large">${
      picture === null
        ? html`<div class="es-waiting"></div>`
        : picture.url
          ? html`<img alt="the selected picture" src=${picture.url} data-testid="details-picture">`
          : html`<p class="es-missing-large">missing: ${picture.why}</p>`
    }</figure>
    <dl class="es-facts">
      <div><dt>score</dt><dd data-testid="details-score" data-value=${score}>${decimals(score)}</dd></div>
      <div><dt>from the threshold</dt><dd>${signed(score - view.threshold.value)} <span class="es-pill ${match ? "es-match" : ""}">${match ? "match" : "no match"}</span></dd></div>
      <div><dt>percentile</dt><dd>${below.toFixed(2)}</dd></div>
      <div><dt>label</dt><dd>${labelOf(view, row)}</dd></div>
      ${view.picks.has(row) ? html`<div><dt>proposed because</dt><dd>${view.picks.get(row).reason}</dd></div>` : nothing}
    </dl>
    ${can(view, "label") ? labelButtons(view) : nothing}
    ${known && known.id !== undefined && draft && can(view, "query") ? likeButtons(draft, known.id) : nothing}
    ${metadata(known)}`;
}

function signed(number) {
  return `${number < 0 ? "−" : "+"}${decimals(Math.abs(number))}`;
}

function labelOf(view, row) {
  const own = view.own.value;
  const at = own.rows.indexOf(row);
  if (at < 0) return "none";
  return html`${SAID[ANSWERS[own.answers[at]]]}<br><span class="es-faint">${PICKS[PICKED[own.picked[at]]]}</span>`;
}

function labelButtons(view) {
  return html`<div class="es-buttons">
    <button class="es-say-yes" @click=${() => view.label("yes")}>Yes</button><button class="es-say-no" @click=${() => view.label("no")}>No</button>
    <button @click=${() => view.label("?")}>Cannot tell</button></div>`;
}

function likeButtons(draft, id) {
  return html`<div class="es-buttons"><button data-testid="more-like" @click=${() => draft.add({id, weight: 1})}>More like this</button>
    <button data-testid="less-like" @click=${() => draft.add({id, weight: -0.5})}>Less like this</button></div>`;
}

function metadata(known) {
  if (!known) return html`<p class="es-hint">reading the row</p>`;
  if (known.wrong) return html`<p class="es-error">${known.wrong}</p>`;
  const values = {id: known.id, uri: known.uri, ...known.values};
  return html`<table class="es-values"><caption>Metadata</caption><tbody>${Object.entries(values).map(
    ([name, value]) => html`<tr><th scope="row">${name}</th><td>${written(value)}</td></tr>`,
  )}</tbody></table>`;
}

function written(value) {
  if (value === null || value === undefined) return html`<span class="es-faint">none</span>`;
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
