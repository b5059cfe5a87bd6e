// The left column: what is asked for (words, pictures, what it must not be), the filter, saved classifiers, concepts.

import {effect, signal} from "./vendor/signals-core.js";
import {html, nothing, render} from "./vendor/lit-html.js";
import {can} from "./state.js";
import {nameOf, parseTerms, queryOf, spellTerms} from "./terms.js";
import {count, counted, decimals} from "./words.js";

// The query that is being put together; `previews` are addresses of pictures dropped here, by hash.
export function createDraft(view, leave) {
  const draft = {typed: signal(""), query: signal({terms: [], against: [], template: null}), wrong: signal(""), previews: new Map(), leave};
  draft.set = (query) => {
    draft.wrong.value = "";
    draft.query.value = query;
    if (query.terms) draft.typed.value = spellTerms(query.terms);
    else draft.typed.value = "";
  };
  draft.ask = (query = draft.query.value) => {
    draft.set(query);
    const empty = query.terms && !query.terms.length;
    return empty ? Promise.resolve(null) : view.ask(query, view.where.value);
  };
  // Back to what was asked; `leave` takes the focus to the pictures.
  draft.giveUp = () => {
    if (view.query.value) draft.set(view.query.value);
    leave();
  };
  draft.submit = (typed) => {
    const before = draft.query.value;
    try {
      const texts = parseTerms(typed);
      const others = (before.terms || []).filter((term) => term.text === undefined);
      if (!texts.length && !others.length) {
        draft.wrong.value = "type what to look for, such as: a dog on grass";
        return Promise.resolve(null);
      }
      return draft.ask({terms: [...texts, ...others], against: before.against || [], template: before.template || null});
    } catch (error) {
      draft.wrong.value = error.message;
      return Promise.resolve(null);
    }
  };
  draft.add = (term) => {
    const before = draft.query.value;
    return draft.ask({terms: [...(before.terms || []), term], against: before.against || [], template: before.template || null});
  };
  draft.takesPictures = () => can(view, "picture");
  draft.addPicture = (file) =>
    view.run("reading the picture", async () => {
      const {picture} = await view.call("picture", {}, [await file.arrayBuffer()]);
      if (!draft.previews.has(picture)) draft.previews.set(picture, URL.createObjectURL(file));
      return draft.add({picture, weight: 1});
    });
  view.dispose.push(() => draft.previews.forEach((url) => URL.revokeObjectURL(url)));
  return draft;
}

export function queryPanel(view, draft, prefix) {
  const root = document.createElement("div");
  root.className = "es-left";
  const inner = document.createElement("div");
  inner.className = "es-asked";
  root.append(inner);
  view.dispose.push(
    effect(() => {
      render(
        html`${can(view, "query") ? html`${asked(view, draft, prefix)} ${filter(view, prefix)}` : nothing}
        ${classifierList(view, draft, prefix)} ${conceptList(view, draft, prefix)}`,
        inner,
      );
    }),
  );
  return root;
}

// Landmarks of a second panel have names of their own.
function named(words, prefix) {
  return prefix === "es1" ? words : `${words} of the second query`;
}

function asked(view, draft, prefix) {
  const query = draft.query.value;
  const submit = (event) => {
    event.preventDefault();
    void draft.submit(event.target.elements.query.value).then((scored) => scored && draft.leave());
  };
  const escape = (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    event.target.value = "";
    draft.typed.value = "";
    draft.giveUp();
  };
  return html`<section class="es-section" aria-label=${named("Query", prefix)}>
    <form class="es-ask" role="search" aria-label=${named("Search", prefix)} @submit=${submit}>
      <label class="es-label" for="${prefix}-query">Look for</label>
      <div class="es-entry">
        <input id="${prefix}-query" name="query" type="search" autocomplete="off" spellcheck="false" data-testid="query-input"
          placeholder="a dog on grass" .value=${draft.typed.value} aria-describedby="${prefix}-wrong ${prefix}-hint"
          @input=${(event) => (draft.typed.value = event.target.value)} @keydown=${escape}>
        <button class="es-main" data-testid="ask">Ask</button>
      </div>
      <p class="es-error" id="${prefix}-wrong" role="alert" ?hidden=${!draft.wrong.value}>${draft.wrong.value}</p>
      <p class="es-hint" id="${prefix}-hint">Mix with signs: <code>dog + 0.5:snow - cat</code></p>
    </form>
    ${query.classifier ? classifierChip(view, draft, query) : chips(draft, query)}
    ${draft.takesPictures() ? pictureInput(draft) : nothing}
    ${query.classifier ? nothing : more(draft, query, prefix)}
  </section>`;
}

function classifierChip(view, draft, query) {
  return html`<ul class="es-chips"><li class="es-chip"><span class="es-chip-name">classifier <b>${query.classifier}</b>${query.class ? html`: ${query.class}` : nothing}</span>
    <button class="es-icon" aria-label="Leave the classifier" @click=${() => draft.set({terms: [], against: [], template: null})}>×</button></li></ul>${aboutClassifier(view, query)}`;
}

// What a saved classifier looks for, and what was measured when it was saved.
function aboutClassifier(view, query) {
  const kept = (view.info.value.classifiers || []).find((one) => one.name === query.classifier);
  const each = kept?.classes.find((one) => query.class === null || one.label === query.class);
  if (!each) return nothing;
  const rates = ["precision", "recall", "f1"].filter((name) => typeof each.figures?.[name] === "number");
  return html`<p class="es-hint" data-testid="about-classifier">Looks for <b>${(each.queries || []).join(" + ") || each.label}</b>.
    ${rates.length ? html`When saved: ${rates.map((name) => `${name === "f1" ? "F1" : name} ${decimals(each.figures[name])}`).join(", ")}.` : "Its threshold was never measured."}</p>`;
}

function chips(draft, query) {
  const {terms} = query;
  if (terms.length < 2 && !terms.some((term) => term.text === undefined || term.weight !== 1)) return nothing;
  const change = (at, weight) => draft.ask({...query, terms: terms.map((term, i) => (i === at ? {...term, weight} : term))});
  return html`<ul class="es-chips" aria-label="Terms">${terms.map(
    (term, at) => html`<li class="es-chip ${term.weight < 0 ? "es-against" : ""}" data-testid="term">
      <button class="es-icon es-sign" aria-label="${term.weight < 0 ? "Less like" : "More like"} ${nameOf(term)}: turn the sign" @click=${() => change(at, -term.weight)}>${term.weight < 0 ? "−" : "+"}</button>
      ${draft.previews.has(term.picture) ? html`<img alt="" class="es-preview" src=${draft.previews.get(term.picture)}>` : nothing}
      <span class="es-chip-name">${nameOf(term)}</span>
      <input class="es-weight" type="number" min="0" step="0.1" aria-label="Weight of ${nameOf(term)}" .value=${String(Math.abs(term.weight))}
        @change=${(event) => change(at, Math.sign(term.weight || 1) * Math.abs(Number(event.target.value) || 1))}>
      <button class="es-icon" aria-label="Remove ${nameOf(term)}" @click=${() => draft.ask({...query, terms: terms.filter((_, i) => i !== at)})}>×</button>
    </li>`,
  )}</ul>`;
}

function pictureInput(draft) {
  const picked = async (event) => {
    for (const file of [...event.target.files]) await draft.addPicture(file);
    event.target.value = "";
  };
  return html`<label class="es-upload"><input type="file" accept="image/*" multiple data-testid="picture-input" @change=${picked}>
    <span><b>Add a picture</b><span> to look for ones like it: choose, drop or paste</span></span></label>`;
}

function more(draft, query, prefix) {
  const addAgainst = (event) => {
    event.preventDefault();
    const field = event.target.elements.against;
    const text = field.value.trim();
    field.value = "";
    if (text && !query.against.includes(text)) void draft.ask({...query, against: [...query.against, text]});
  };
  return html`<details class="es-more" ?open=${query.against.length > 0 || Boolean(query.template)}>
    <summary>Must not be, and the template</summary>
    <form class="es-ask" @submit=${addAgainst}>
      <label class="es-label" for="${prefix}-against">Take off the best score of</label>
      <div class="es-entry"><input id="${prefix}-against" name="against" autocomplete="off" placeholder="a wolf" data-testid="against-input"><button>Add</button></div>
    </form>
    ${query.against.length
      ? html`<ul class="es-chips">${query.against.map(
          (text) => html`<li class="es-chip es-against"><span class="es-chip-name">against ${text}</span>
            <button class="es-icon" aria-label="Remove against ${text}" @click=${() => draft.ask({...query, against: query.against.filter((one) => one !== text)})}>×</button></li>`,
        )}</ul>`
      : nothing}
    <label class="es-label" for="${prefix}-template">Set texts into</label>
    <input id="${prefix}-template" class="es-wide" autocomplete="off" placeholder="a photo of a {}" .value=${query.template || ""} data-testid="template"
      @change=${(event) => draft.ask({...query, template: event.target.value.trim() || null})}>
  </details>`;
}

function filter(view, prefix) {
  const names = (view.info.value.columns || []).map((column) => column.name);
  const wrong = view.whereError.value;
  const apply = (text) => {
    if (view.query.value) void view.ask(view.query.value, text, {threshold: view.scored.value ? view.threshold.value : undefined});
    else view.where.value = text;
  };
  const submit = (event) => {
    event.preventDefault();
    apply(event.target.elements.where.value.trim());
  };
  return html`<section class="es-section" aria-label=${named("Filter", prefix)}>
    <form class="es-ask" @submit=${submit}>
      <label class="es-label" for="${prefix}-where">Only rows where</label>
      <div class="es-entry">
        <input id="${prefix}-where" name="where" autocomplete="off" spellcheck="false" data-testid="where-input" placeholder=${exampleOf(view.info.value.columns || [])}
          .value=${view.where.value} aria-invalid=${wrong ? "true" : "false"} aria-describedby="${prefix}-where-error ${prefix}-columns">
        <button data-testid="where-apply">Apply</button>
        ${view.where.value ? html`<button type="button" class="es-icon" aria-label="Take the filter away" data-testid="where-clear" @click=${() => apply("")}>×</button>` : nothing}
      </div>
      <p class="es-error" id="${prefix}-where-error" role="alert" data-testid="where-error" ?hidden=${!wrong}>${wrong}</p>
    </form>
    <details class="es-more"><summary id="${prefix}-columns">${counted(names.length, "column")}, in SQL</summary>
      <p class="es-names">${names.map((name) => html`<code>${name}</code> `)}</p></details>
  </section>`;
}

// A condition by a column that the store has: one that a person gave it, else one that every store has.
function exampleOf(columns) {
  const own = columns.find(({name, type}) => type === "string" && !["id", "uri", "content_hash"].includes(name));
  if (own) return `${/^[a-z_]\w*$/.test(own.name) ? own.name : `"${own.name}"`} = 'bird'`;
  return columns.some(({name}) => name === "width") ? "width > 300" : "id like 'a%'";
}

function classifierList(view, draft, prefix) {
  const rows = (view.info.value.classifiers || []).flatMap((one) => one.classes.map((each) => ({...each, name: one.name, several: one.classes.length > 1})));
  const now = view.query.value;
  return html`<section class="es-section es-kept" aria-label=${named("Saved classifiers", prefix)}><h2>Saved classifiers</h2>
    ${rows.length
      ? html`<ul class="es-list">${rows.map(
          (row) => html`<li><button class="es-item" data-testid="classifier-item" aria-pressed=${now && now.classifier === row.name && (now.class === null || now.class === row.label) ? "true" : "false"}
            @click=${() => draft.ask({classifier: row.name, class: row.several ? row.label : null})}>
            <span class="es-item-name">${row.name}${row.several ? html` <span class="es-faint">${row.label}</span>` : nothing}</span><span class="es-value">${decimals(row.threshold)}</span></button></li>`,
        )}</ul>`
      : html`<p class="es-hint">None yet. Choose a threshold, then save it at the right.</p>`}
  </section>`;
}

function conceptList(view, draft, prefix) {
  const concepts = view.info.value.concepts || [];
  if (!concepts.length) return nothing;
  return html`<section class="es-section es-kept" aria-label=${named("Labelled concepts", prefix)}><h2>Labelled concepts</h2>
    <ul class="es-list">${concepts.map(
      (one) => html`<li><button class="es-item" data-testid="concept-item" @click=${() => draft.ask(queryOf(one.concept))}>
        <span class="es-item-name">${one.concept}</span><span class="es-tally"><b class="es-yes-text">${count(one.yes)} yes</b> <b class="es-no-text">${count(one.no)} no</b>${one.open ? html` <span>${count(one.open)} open</span>` : nothing}</span></button></li>`,
    )}</ul></section>`;
}
