// One panel: a query's scores, the threshold, and all that follows from them, as signals; and what can be done.
// Numbers are looked up by cut.js; labels are kept by labels.js; what it looks like is left to everybody else.

import {batch, computed, effect, signal, untracked} from "./vendor/signals-core.js";
import {CallError, typed} from "./calls.js";
import {matchesAt, neighbour, ratesAt} from "./cut.js";
import {emptyLabels, labelling} from "./labels.js";
import {beginAsk} from "./timing.js";
import {counted} from "./words.js";

const REST = 250; // milliseconds that the slider must have rested before an interval is worked out

// `info` is the host's answer to `info`, or a signal of it that two panels share.
export function createView(call, info) {
  const view = {
    info: info && typeof info.subscribe === "function" ? info : signal(info),
    query: signal(null),
    where: signal(""),
    whereError: signal(""),
    scored: signal(null),
    threshold: signal(0),
    truth: signal(null),
    curve: signal(null),
    interval: signal(null),
    suggestion: signal(null),
    labelled: signal(emptyLabels()),
    own: signal(emptyLabels()),
    band: signal(null),
    selected: signal(-1),
    queue: signal([]),
    calibrated: signal(null),
    cost: signal({fp: 1, fn: 1}),
    busy: signal(""),
    error: signal(""),
    failure: signal(null),
    notice: signal(""),
    dispose: [],
  };
  view.matches = computed(() => (view.scored.value ? matchesAt(view.scored.value.scores, view.threshold.value) : 0));
  view.figures = computed(() => {
    const curve = view.curve.value;
    return curve && curve.measured ? ratesAt(curve, view.threshold.value) : null;
  });
  view.call = call;
  view.run = runner(view);
  view.scoredCall = scoredCalls(view, call);
  view.ask = asking(view, call);
  Object.assign(view, labelling(view), thresholds(view), decisions(view, call));
  view.close = () => {
    for (const stop of view.dispose.splice(0)) stop();
  };
  watchInterval(view);
  return view;
}

// Whether the host can do something; what it says nothing of it can. `holder` has the signal `info`.
export function can(holder, what) {
  return holder.info.value?.capabilities?.[what] !== false;
}

// run(words, work): `work` with `busy` set meanwhile; what goes wrong is told in `error` (and, whole, in `failure`) and gives null.
function runner(view) {
  let running = 0;
  return async function run(words, work) {
    running += 1;
    batch(() => {
      view.busy.value = words;
      view.error.value = "";
      view.failure.value = null;
    });
    try {
      return await work();
    } catch (error) {
      if (error.type !== "Cancelled") {
        batch(() => {
          view.error.value = error.message;
          view.failure.value = {type: error.type || "Error", message: error.message};
        });
      }
      return null;
    } finally {
      running -= 1;
      if (!running) view.busy.value = "";
    }
  };
}

// A call about the scored query. One that the server has let go of is scored again, and the call made once more.
function scoredCalls(view, call) {
  let again = null;
  const rescore = async (lost) => {
    const answer = await call("score", {query: view.query.value, where: view.where.value});
    if (view.scored.value !== lost) return;
    const fresh = readScored(answer);
    if (fresh.version === lost.version) {
      view.scored.value = {...lost, id: fresh.id};
    } else {
      view.scored.value = fresh;
      throw new CallError("ScoredGone", "the store has changed and was scored again: look again before going on");
    }
  };
  return async function scoredCall(name, args = {}, options = {}) {
    const now = view.scored.peek();
    if (!now) throw new CallError("NoQuery", "there is no query yet: ask for something first");
    try {
      return await call(name, {scored: now.id, ...args}, [], options);
    } catch (error) {
      if (error.type !== "ScoredGone") throw error;
      if (view.scored.peek() === now) {
        again = again || rescore(now).finally(() => (again = null));
        await again;
      }
      return call(name, {scored: view.scored.peek().id, ...args}, [], options);
    }
  };
}

function readScored(answer) {
  return {
    id: answer.scored,
    n: answer.n,
    nRows: answer.n_rows,
    scores: typed(Float32Array, answer.buffers[0]),
    rows: typed(Uint32Array, answer.buffers[1]),
    label: answer.query,
    concept: answer.concept,
    classifier: answer.classifier,
    where: answer.where,
    version: answer.version,
    low: answer.low,
    high: answer.high,
    start: answer.start,
    doubts: answer.doubts || [],
  };
}

// ask(query, where, {threshold}): score, and begin anew with the threshold that the answer proposes.
function asking(view, call) {
  let latest = 0;
  return function ask(query, where = view.where.peek(), options = {}) {
    const mine = ++latest;
    beginAsk();
    view.whereError.value = "";
    return view.run("scoring", async () => {
      let scored;
      try {
        scored = readScored(await call("score", {query, where}));
      } catch (error) {
        if (mine !== latest) return null;
        if (error.type !== "FilterError") throw error;
        view.whereError.value = error.message;
        return null;
      }
      if (mine !== latest) return null;
      begin(view, query, where, scored, options.threshold);
      void view.refreshLabels();
      void measure(view);
      void suggest(view);
      return scored;
    });
  };
}

function begin(view, query, where, scored, threshold) {
  batch(() => {
    view.query.value = query;
    view.where.value = where;
    view.threshold.value = threshold ?? scored.start.threshold;
    view.curve.value = null;
    view.interval.value = null;
    view.suggestion.value = null;
    view.labelled.value = emptyLabels();
    view.own.value = emptyLabels();
    view.band.value = null;
    view.queue.value = [];
    view.selected.value = -1;
    view.calibrated.value = null;
    view.notice.value = "";
    view.scored.value = scored;
  });
}

// Of several that are under way the last one asked for counts, however late an earlier one comes.
const asked = new WeakMap(); // view -> how many times it was measured

async function measure(view) {
  const scored = view.scored.peek();
  const truth = view.truth.peek();
  if (!scored) return;
  const mine = (asked.get(view) || 0) + 1;
  asked.set(view, mine);
  let curve;
  try {
    const answer = await view.scoredCall("measure", {labels: truth});
    curve = answer.measured ? readCurve(answer) : {...answer, measured: false};
  } catch (error) {
    curve = {measured: false, why: error.message, doubts: [], warnings: []};
  }
  if (mine === asked.get(view) && view.scored.peek()?.rows === scored.rows && view.truth.peek() === truth) view.curve.value = curve;
}

function readCurve(answer) {
  const {buffers, ...figures} = answer;
  return {
    ...figures,
    nPos: figures.n_pos,
    nNeg: figures.n - figures.n_pos,
    scores: typed(Float64Array, buffers[0]),
    tp: typed(Float64Array, buffers[1]),
    fp: typed(Float64Array, buffers[2]),
  };
}

async function suggest(view) {
  const scored = view.scored.peek();
  try {
    const answer = await view.scoredCall("suggest");
    if (view.scored.peek()?.rows === scored.rows) view.suggestion.value = answer;
  } catch (error) {
    if (view.scored.peek()?.rows === scored.rows) view.suggestion.value = {words: error.message, threshold: null, floor: null, gap: null};
  }
}

// The interval is asked for when the threshold has rested; while it moves there is none.
function watchInterval(view) {
  let latest = 0;
  let timer = 0;
  view.dispose.push(
    effect(() => {
      const [curve, threshold] = [view.curve.value, view.threshold.value];
      const mine = ++latest;
      clearTimeout(timer);
      if (untracked(() => view.interval.value)) view.interval.value = null;
      if (!curve || !curve.measured) return;
      timer = setTimeout(async () => {
        try {
          const answer = await view.scoredCall("interval", {labels: view.truth.peek(), threshold});
          if (mine === latest) view.interval.value = answer;
        } catch (error) {
          if (mine === latest) view.interval.value = {known: false, why: error.message, notes: []};
        }
      }, REST);
    }),
    () => clearTimeout(timer),
  );
}

function thresholds(view) {
  return {
    setThreshold(value) {
      const number = Number(value);
      if (Number.isFinite(number)) view.threshold.value = number;
    },
    reset() {
      if (view.scored.value) view.threshold.value = view.scored.value.start.threshold;
    },
    // To the next distinct score above (1) or below (-1), midway between its neighbours.
    step(direction) {
      const scored = view.scored.value;
      if (scored && scored.n) view.threshold.value = neighbour(scored.scores, view.threshold.value, direction);
    },
    async setTruth(truth) {
      batch(() => {
        view.truth.value = truth;
        view.error.value = "";
        view.curve.value = null;
        view.interval.value = null;
      });
      await Promise.all([view.refreshLabels(), measure(view)]);
    },
    measure: () => measure(view),
  };
}

function decisions(view, call) {
  const refreshClassifiers = async () => {
    const {classifiers} = await call("classifiers");
    view.info.value = {...view.info.peek(), classifiers};
  };
  return {
    calibrate: (options = {}) =>
      view.run("calibrating", async () => {
        view.calibrated.value = null; // what was chosen for other wishes is not taken for an answer to these
        const answer = await view.scoredCall("calibrate", {labels: view.truth.peek(), ...options});
        batch(() => {
          view.calibrated.value = answer;
          view.threshold.value = answer.threshold;
        });
        return answer;
      }),
    // A calibrated classifier is saved as it was measured; a threshold that was moved since is saved unmeasured.
    save: (name, replace = false) =>
      view.run("saving", async () => {
        const [made, threshold] = [view.calibrated.peek(), view.threshold.peek()];
        const saved =
          made && made.threshold === threshold
            ? await call("save", {calibrated: made.calibrated, name, replace})
            : await view.scoredCall("save", {threshold, name, replace});
        await refreshClassifiers();
        view.notice.value = `saved classifier ${saved.name}`;
        return saved;
      }),
    exportMatches: (format) =>
      view.run("exporting", async () => {
        const answer = await view.scoredCall("export", {threshold: view.threshold.peek(), format});
        download(answer.name, answer.type, answer.buffers[0]);
        view.notice.value = `exported ${counted(answer.n, "match", "matches")} to ${answer.name}`;
        return answer;
      }),
    commands: (options = {}) => view.run("", () => view.scoredCall("commands", {threshold: view.threshold.peek(), labels: view.truth.peek(), ...options})),
    refresh: () =>
      view.run("reading the newest version", async () => {
        view.info.value = await call("refresh");
        if (view.query.peek()) await view.ask(view.query.peek(), view.where.peek(), {threshold: view.threshold.peek()});
      }),
  };
}

function download(name, type, buffer) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([buffer], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
