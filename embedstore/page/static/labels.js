// The labels of a panel's concept: those that its figures are measured by, the person's own, and giving and undoing them.
// A label shows at once and is sent after it, in order; what the server refuses is taken back.

import {batch, computed} from "./vendor/signals-core.js";
import {typed} from "./calls.js";

export const ANSWERS = ["no", "yes", "?", "open"];
export const PICKED = ["given", "random", "near", "search"];
const NONE = 255;
const REST = 400; // milliseconds without a label before figures are worked out anew

// Whether a person has answered; what a round only proposes is open.
export function isAnswer(answer) {
  return answer !== undefined && answer !== "open";
}

export function emptyLabels() {
  return {rows: new Uint32Array(0), answers: new Uint8Array(0), picked: new Uint8Array(0), yes: 0, no: 0, unsure: 0, open: 0};
}

// Row -> answer, like a Map, in one byte a row.
class Answers {
  constructor(nRows, labelled) {
    this.codes = new Uint8Array(nRows).fill(NONE);
    this.size = labelled.rows.length;
    labelled.rows.forEach((row, i) => (this.codes[row] = labelled.answers[i]));
  }
  get(row) {
    return ANSWERS[this.codes[row]];
  }
  has(row) {
    return this.codes[row] !== NONE && this.codes[row] !== undefined;
  }
}

export function labelling(view) {
  const answersOf = (labels) => computed(() => new Answers(view.scored.value ? view.scored.value.nRows : 0, labels.value));
  const places = computed(() => placesOf(view.scored.value));
  const picks = new Map(); // row -> why it was proposed
  let sent = Promise.resolve();
  let waiting = 0; // labels that the server has not confirmed
  let given = 0;
  let timer = 0;
  view.dispose.push(() => clearTimeout(timer));

  const remeasureSoon = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      void refreshLabels();
      if (!view.truth.peek()) void view.measure();
    }, REST);
  };

  async function refreshLabels() {
    const [scored, truth, before] = [view.scored.peek(), view.truth.peek(), given];
    if (!scored) return;
    try {
      const own = readLabels(await view.scoredCall("labels", {labels: null}));
      const labelled = truth ? readLabels(await view.scoredCall("labels", {labels: truth})) : own;
      if (view.scored.peek()?.rows !== scored.rows || view.truth.peek() !== truth) return;
      if (waiting || given !== before) return; // the answer is older than what is shown; each label asks again
      batch(() => {
        view.own.value = own;
        view.labelled.value = labelled;
      });
      tellConcept(view, scored.concept, own);
    } catch (error) {
      view.error.value = error.message;
    }
  }

  function show(row, code, counts) {
    const own = withLabel(view.own.peek(), row, code, counts);
    batch(() => {
      view.own.value = own;
      if (!view.truth.peek()) view.labelled.value = own;
    });
  }

  function label(answer) {
    const [scored, place] = [view.scored.peek(), view.selected.peek()];
    if (!scored || place < 0 || place >= scored.n) {
      if (scored?.n) view.notice.value = "choose a picture to label: click one, move there with the arrows, or take “Next to label”";
      return Promise.resolve(null);
    }
    const row = scored.rows[place];
    waiting += 1;
    given += 1;
    show(row, ANSWERS.indexOf(answer), null);
    moveOn(view, place);
    sent = sent.then(() =>
      view.run("", async () => {
        try {
          const said = await view.scoredCall("label", {row, answer});
          if (view.scored.peek()?.rows === scored.rows) show(row, ANSWERS.indexOf(said.answer), said.counts);
          tellConcept(view, scored.concept, said.counts);
          return said;
        } finally {
          waiting -= 1;
          remeasureSoon();
        }
      }),
    );
    return sent;
  }

  function undo() {
    sent = sent.then(() =>
      view.run("undoing", async () => {
        const {undone} = await view.scoredCall("undo");
        if (!undone) {
          view.notice.value = "there is no label of this concept to undo";
          return null;
        }
        if (undone.round) view.queue.value = [];
        const place = places.peek().get(undone.rows[0]);
        if (place >= 0 && !undone.round) view.selected.value = place;
        view.notice.value = undone.round ? "took the round back" : "took the last label back; the log keeps it";
        await refreshLabels();
        remeasureSoon();
        return undone;
      }),
    );
    return sent;
  }

  async function next(near = 10, random = 10) {
    return view.run("choosing pictures to label", async () => {
      await sent;
      const scored = view.scored.peek();
      const answer = await view.scoredCall("next", {threshold: view.threshold.peek(), near, random});
      if (view.scored.peek()?.rows !== scored.rows) return null;
      picks.clear();
      for (const one of answer.rows) picks.set(one.row, one);
      const queue = answer.rows.map((one) => places.peek().get(one.row)).filter((place) => place >= 0);
      const hidden = answer.rows.length - queue.length;
      batch(() => {
        view.queue.value = queue;
        if (queue.length) view.selected.value = queue[0];
        view.notice.value = hidden ? `${hidden} of the round's pictures are hidden by the filter` : queue.length ? "" : "no picture is left to label";
      });
      await refreshLabels();
      remeasureSoon(); // a round that waits for answers does not count, which is said beside the figures
      return answer;
    });
  }

  return {answers: answersOf(view.labelled), marks: answersOf(view.own), places, picks, refreshLabels, label, undo, next};
}

function readLabels({buffers, ...counts}) {
  return {...counts, rows: typed(Uint32Array, buffers[0]), answers: typed(Uint8Array, buffers[1]), picked: typed(Uint8Array, buffers[2])};
}

// The counts of the list of concepts follow the labels.
function tellConcept(view, concept, {yes, no, unsure, open}) {
  const info = view.info.peek();
  const others = info.concepts || [];
  const at = others.findIndex((one) => one.concept === concept);
  const fresh = {concept, yes, no, unsure, open};
  if (at < 0 && !(yes + no + unsure + open)) return;
  if (at >= 0 && JSON.stringify(others[at]) === JSON.stringify(fresh)) return;
  view.info.value = {...info, concepts: at < 0 ? [...others, fresh] : others.with(at, fresh)};
}

// The labels with one more, or one changed; counted here until the server has counted.
function withLabel(labels, row, code, counts) {
  const at = labels.rows.indexOf(row);
  const rows = at < 0 ? extended(labels.rows, row) : labels.rows;
  const answers = at < 0 ? extended(labels.answers, code) : labels.answers.slice();
  const picked = at < 0 ? extended(labels.picked, PICKED.indexOf("search")) : labels.picked;
  if (at >= 0) answers[at] = code;
  return {...labels, rows, answers, picked, ...(counts || countsOf(answers))};
}

function extended(array, value) {
  const longer = new array.constructor(array.length + 1);
  longer.set(array);
  longer[array.length] = value;
  return longer;
}

function countsOf(answers) {
  const counts = {no: 0, yes: 0, unsure: 0, open: 0}; // in the order of ANSWERS
  const names = Object.keys(counts);
  for (const code of answers) counts[names[code]] += 1;
  return counts;
}

// To the next picture of the queue that has no answer; else to the neighbouring one.
function moveOn(view, place) {
  const [scored, queue] = [view.scored.peek(), view.queue.peek()];
  const open = (other) => !isAnswer(view.marks.peek().get(scored.rows[other]));
  const at = queue.indexOf(place);
  if (at >= 0) {
    const following = [...queue.slice(at + 1), ...queue.slice(0, at)].find(open);
    // After the last one nothing is selected: one key too many must not turn the answer that was just given.
    view.selected.value = following === undefined ? -1 : following;
    if (following === undefined) view.notice.value = "every picture of this round has its label; “Next to label” (m) begins another";
    return;
  }
  view.selected.value = Math.min(place + 1, scored.n - 1);
}

// Row -> place in the order of scores, -1 where the filter left it out.
function placesOf(scored) {
  const places = new Int32Array(scored ? scored.nRows : 0).fill(-1);
  if (scored) scored.rows.forEach((row, place) => (places[row] = place));
  return {get: (row) => (row in places ? places[row] : -1)};
}
