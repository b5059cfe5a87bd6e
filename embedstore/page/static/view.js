// The page, for whatever host: a header and one panel, or two side by side. The host answers calls and takes the keys.

import {effect, signal} from "./vendor/signals-core.js";
import {html, nothing, render} from "./vendor/lit-html.js";
import {connect} from "./calls.js";
import {KEYS, pressed} from "./keys.js";
import {createPanel, holdsFiles} from "./panel.js";
import {can} from "./state.js";
import {queryOf} from "./terms.js";
import {timeSteps} from "./timing.js";
import {counted} from "./words.js";

class App {
  constructor(model, el) {
    this.model = model;
    this.call = connect(model);
    this.info = signal(null);
    this.panels = signal([]);
    this.active = null;
    this.made = 0;
    this.dispose = [];
    this.root = document.createElement("div");
    this.root.className = `embedstore ${model.page ? "es-whole" : ""}`;
    this.head = document.createElement("header");
    this.head.className = "es-top";
    this.body = document.createElement("div");
    this.body.className = "es-panels";
    this.dialog = helpDialog();
    this.root.append(this.head, this.body, this.dialog);
    el.append(this.root);
  }

  async start() {
    try {
      const {buffers: _, ...info} = await this.call("info");
      this.info.value = info;
    } catch (error) {
      render(html`<div class="es-nothing"><h2>The store cannot be read</h2><p class="es-error" role="alert">${error.message}</p></div>`, this.body);
      return;
    }
    const panel = this.open();
    this.dispose.push(effect(() => this.drawHead()));
    this.listen();
    await this.begin(panel);
  }

  // What the host, or the last visit, says to show first.
  async begin({view, draft}) {
    const start = this.model.get("start");
    if (start && start.labels) view.truth.value = start.labels;
    if (start && start.query) {
      const query = typeof start.query === "string" ? queryOf(start.query) : start.query;
      draft.set(query);
      await view.ask(query, start.where || "", {threshold: start.threshold ?? undefined});
    }
    if (!this.model.remember) return;
    this.dispose.push(
      effect(() => {
        if (!view.scored.value) return;
        this.model.remember({query: view.query.value, where: view.where.value, threshold: view.threshold.value, labels: view.truth.value});
      }),
    );
  }

  open() {
    const panel = createPanel({
      call: this.call,
      info: this.info,
      number: ++this.made,
      help: () => this.dialog.showModal(),
      closePanel: this.panels.value.length ? () => this.shut(panel) : null,
    });
    const activate = () => (this.active = panel);
    panel.root.addEventListener("pointerdown", activate);
    panel.root.addEventListener("focusin", activate);
    this.active = panel;
    this.panels.value = [...this.panels.value, panel];
    this.body.append(panel.root);
    this.root.classList.toggle("es-two", this.panels.value.length > 1);
    panel.view.dispose.push(timeSteps(panel.view));
    return panel;
  }

  shut(panel) {
    panel.close();
    this.panels.value = this.panels.value.filter((one) => one !== panel);
    [this.active] = this.panels.value;
    this.root.classList.toggle("es-two", this.panels.value.length > 1);
    this.active.focusQuery();
  }

  drawHead() {
    const info = this.info.value;
    const two = this.panels.value.length > 1;
    render(
      html`<h1>${info.name}</h1>
        <p class="es-about"><span>${counted(info.n_rows, "picture")}</span> <span>${info.model}</span> <span>version ${info.version}</span></p>
        <div class="es-top-buttons">
          ${can(this, "refresh") ? html`<button data-testid="refresh" title="Read the newest version of the store" @click=${() => this.refresh()}>Refresh</button>` : nothing}
          ${can(this, "compare")
            ? html`<button data-testid="compare" title="Two queries side by side" aria-pressed=${two ? "true" : "false"} @click=${() => this.compare()}>${two ? "One query" : "Compare"}</button>`
            : nothing}
          <button data-testid="help" @click=${() => this.dialog.showModal()}>Keys <kbd>h</kbd></button>
        </div>`,
      this.head,
    );
  }

  compare() {
    const [, second] = this.panels.value;
    if (second) this.shut(second);
    else this.open().focusQuery();
  }

  async refresh() {
    for (const {view} of this.panels.value) await view.refresh();
  }

  // In a page of our own the keys work wherever the focus is; in another's (a notebook) within our element alone.
  listen() {
    const keyed = this.model.page ? document : this.root;
    const key = (event) => {
      if (this.dialog.open || !this.active) return;
      if (!pressed(event, this.active)) return;
      event.preventDefault();
      event.stopPropagation();
    };
    const paste = (event) => {
      const pictures = [...(event.clipboardData?.files || [])].filter((file) => file.type.startsWith("image/"));
      if (!pictures.length || !this.active || !this.active.draft.takesPictures()) return;
      event.preventDefault();
      for (const file of pictures) void this.active.draft.addPicture(file);
    };
    // A panel takes what is dropped on it; what misses every panel is for the last one used, and opens no file in its place.
    const drop = (event) => {
      if (event.defaultPrevented || !holdsFiles(event) || !this.active.draft.takesPictures()) return;
      event.preventDefault();
      if (event.type === "drop") for (const file of event.dataTransfer.files) void this.active.draft.addPicture(file);
    };
    for (const [name, listener] of Object.entries({keydown: key, paste, dragover: drop, drop})) {
      keyed.addEventListener(name, listener);
      this.dispose.push(() => keyed.removeEventListener(name, listener));
    }
  }

  close() {
    for (const stop of this.dispose) stop();
    for (const panel of this.panels.value) panel.close();
    this.root.remove();
  }
}

function helpDialog() {
  const dialog = document.createElement("dialog");
  dialog.className = "es-help";
  dialog.setAttribute("aria-labelledby", "es-help-title");
  render(
    html`<h2 id="es-help-title">Keys</h2>
      <table><tbody>${KEYS.map(([key, words]) => html`<tr><th scope="row">${key.split(" ").map((one) => html`<kbd>${one}</kbd> `)}</th><td>${words}</td></tr>`)}</tbody></table>
      <p class="es-hint">A match is a score above the threshold. Keys are off while you type.</p>
      <form method="dialog"><button class="es-main" data-testid="help-close">Close</button></form>`,
    dialog,
  );
  return dialog;
}

export default {
  render({model, el}) {
    const app = new App(model, el);
    void app.start();
    return () => app.close();
  },
};
