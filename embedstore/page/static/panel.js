// One panel: query at the left, pictures in the middle, the decision at the right; pictures dropped on it; its status.

import {effect, signal} from "./vendor/signals-core.js";
import {html, nothing, render} from "./vendor/lit-html.js";
import {detailsDrawer} from "./details.js";
import {Grid} from "./grid.js";
import {labelBar} from "./labelbar.js";
import {createDraft, queryPanel} from "./query.js";
import {rightColumn} from "./right.js";
import {createView} from "./state.js";
import {strip} from "./strip.js";
import {Thumbnails} from "./thumbnails.js";
import {count, counted, decimals} from "./words.js";

const NOTICE = 8000; // milliseconds that a notice stays

export function createPanel({call, info, number, help, closePanel}) {
  const prefix = `es${number}`;
  const view = createView(call, info);
  const thumbnails = new Thumbnails(view);
  const grid = new Grid(view, thumbnails, prefix);
  const draft = createDraft(view, () => grid.element.focus({preventScroll: true}));
  const details = detailsDrawer(view, thumbnails, draft);
  details.closed = () => grid.element.focus({preventScroll: true});
  grid.opened = () => details.show();

  const root = part("section", "es-panel");
  root.setAttribute("aria-label", number === 1 ? "Query and its pictures" : "Second query and its pictures");
  const middle = part("div", "es-middle");
  middle.append(labelBar(view, grid), strip(view, thumbnails), empty(view, draft), grid.element);
  const columns = part("div", "es-columns");
  const left = queryPanel(view, draft, prefix);
  if (closePanel) left.prepend(closing(closePanel));
  columns.append(left, middle, rightColumn(view), bottomBar(view));
  root.append(columns, details.element, status(view), dropZone(root, draft));
  view.dispose.push(effect(() => (grid.element.hidden = !view.scored.value || !view.scored.value.n)));

  return {
    root,
    view,
    draft,
    grid,
    details,
    help,
    slider: () => [...root.querySelectorAll("[data-testid=threshold-range], .es-bottom input")].find((one) => one.offsetParent),
    focusQuery: () => root.querySelector("[data-testid=query-input]")?.focus(),
    close: () => {
      view.close();
      root.remove();
    },
  };
}

function part(name, className) {
  const element = document.createElement(name);
  element.className = className;
  return element;
}

function closing(closePanel) {
  const row = part("div", "es-close-panel");
  render(html`<h2>Second query</h2><button type="button" data-testid="compare-close" @click=${closePanel}>Close</button>`, row);
  return row;
}

function status(view) {
  const root = part("div", "es-status");
  let timer = 0;
  root.setAttribute("role", "status");
  root.dataset.testid = "status";
  view.dispose.push(
    effect(() => {
      const [busy, error, notice] = [view.busy.value, view.error.value, view.notice.value];
      clearTimeout(timer);
      if (notice && !error && !busy) timer = setTimeout(() => (view.notice.value = ""), NOTICE);
      root.dataset.state = error ? "error" : busy ? "busy" : notice ? "notice" : "";
      render(
        error
          ? html`<p class="es-error">${error}</p><button class="es-icon" aria-label="Dismiss" @click=${() => (view.error.value = "")}>×</button>`
          : busy
            ? html`<p class="es-busy">${busy}</p>`
            : notice
              ? html`<p>${notice}</p><button class="es-icon" aria-label="Dismiss" @click=${() => (view.notice.value = "")}>×</button>`
              : nothing,
        root,
      );
    }),
  );
  return root;
}

// What stands where the pictures will be: how to begin, or why there are none.
function empty(view, draft) {
  const root = part("div", "es-nothing");
  view.dispose.push(
    effect(() => {
      const [scored, info] = [view.scored.value, view.info.value];
      root.hidden = Boolean(scored && scored.n);
      if (root.hidden) return;
      render(scored ? noRows(view, scored) : welcome(info, draft, view.busy.value), root);
    }),
  );
  return root;
}

function welcome(info, draft, busy) {
  if (busy) return html`<p class="es-hint">${busy}</p>`;
  const concepts = (info.concepts || []).slice(0, 3).map((one) => one.concept);
  const examples = concepts.length ? concepts : ["a dog", "a bird on a branch", "something red - a car"];
  if (!info.n_rows) {
    return html`<h2>${info.name} holds no pictures yet</h2><p>Add some, then read the newest version: <code>embedstore add ${info.name} FOLDER</code></p>`;
  }
  return html`<h2>What are you looking for?</h2>
    <p>${counted(info.n_rows, "picture")} of <b>${info.name}</b>, embedded by ${info.model}. Every one gets a score; you choose the threshold by looking.</p>
    <p class="es-buttons">${examples.map((text) => html`<button data-testid="example" @click=${() => draft.submit(text)}>${text}</button>`)}</p>
    <ol class="es-steps"><li><b>Ask</b> in words, with a picture, or both.</li><li><b>Drag</b> the threshold until the line between the pictures is right.</li>
      <li><b>Label</b> at the boundary: <kbd>y</kbd> <kbd>n</kbd>, and see what precision and recall really are.</li><li><b>Keep</b> the classifier.</li></ol>`;
}

function noRows(view, scored) {
  return html`<h2>No row is left by the filter</h2><p>${count(scored.nRows)} rows were looked at; none fits <code>${view.where.value}</code>.</p>
    <p class="es-buttons"><button class="es-main" @click=${() => view.ask(view.query.value, "")}>Take the filter away</button></p>`;
}

// On narrow screens: the slider and the count stay at the bottom, and a way to what stands below the pictures, which
// fill the window and scroll by themselves.
function bottomBar(view) {
  const root = part("div", "es-bottom");
  const below = signal(false);
  const beside = (name) => root.parentElement.querySelector(name);
  const look = () => {
    const [figures, window] = [beside(".es-right").getBoundingClientRect(), root.parentElement.getBoundingClientRect()];
    below.value = figures.top < window.top + window.height / 2;
  };
  const go = () => {
    beside(below.peek() ? ".es-middle" : ".es-right").scrollIntoView({block: "start"});
    look();
  };
  const watch = () => root.parentElement && look();
  document.addEventListener("scroll", watch, {capture: true, passive: true});
  view.dispose.push(() => document.removeEventListener("scroll", watch, {capture: true}));
  view.dispose.push(
    effect(() => {
      const scored = view.scored.value;
      root.hidden = !scored || !scored.n;
      if (root.hidden) return;
      const step = (scored.high - scored.low || 1) / 1000;
      render(
        html`<span class="es-bottom-count"><b>${count(view.matches.value)}</b> match</span>
          <input type="range" aria-label="Threshold" data-testid="bar-range" min=${scored.low - step} max=${scored.high + step} step="any" .value=${String(view.threshold.value)}
            aria-valuetext="${decimals(view.threshold.value)}, ${count(view.matches.value)} match" @input=${(event) => view.setThreshold(event.target.value)}>
          <output class="es-value">${decimals(view.threshold.value)}</output>
          <button type="button" data-testid="bar-figures" @click=${go}>${below.value ? "Pictures" : "Figures"}</button>`,
        root,
      );
    }),
  );
  return root;
}

export function holdsFiles(event) {
  return [...(event.dataTransfer?.types || [])].includes("Files");
}

function dropZone(root, draft) {
  const zone = part("div", "es-drop");
  zone.dataset.testid = "drop";
  zone.hidden = true;
  zone.textContent = "Drop the picture to look for ones like it";
  const over = signal(0);
  const taken = (event) => holdsFiles(event) && draft.takesPictures();
  root.addEventListener("dragenter", (event) => {
    if (!taken(event)) return;
    event.preventDefault();
    over.value += 1;
    zone.hidden = false;
  });
  root.addEventListener("dragover", (event) => taken(event) && event.preventDefault());
  const leave = () => {
    over.value = Math.max(0, over.value - 1);
    zone.hidden = over.value === 0;
  };
  root.addEventListener("dragleave", leave);
  root.addEventListener("drop", async (event) => {
    if (!taken(event)) return;
    event.preventDefault();
    over.value = 0;
    zone.hidden = true;
    for (const file of [...event.dataTransfer.files]) await draft.addPicture(file);
  });
  return zone;
}
