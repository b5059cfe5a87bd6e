// The host of a static report: answers the module's calls from what the page holds, and from nowhere else.

const ABSENT = "not in this report";

// start(view): show the module in the page, of the class that is chosen where there are several.
export function start(view) {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const place = document.getElementById("report-view");
  const chooser = document.querySelector("#report-class select");
  for (const panel of data.panels) chooser.append(new Option(panel.label, panel.label));
  document.getElementById("report-class").hidden = data.panels.length < 2;
  let close = null;
  const show = async () => {
    if (typeof close === "function") close();
    place.replaceChildren();
    close = await view.render({model: modelOf(data, data.panels[chooser.selectedIndex]), el: place});
  };
  chooser.addEventListener("change", show);
  void show();
}

// What the module knows of its host: start values, messages there and back.
function modelOf(data, panel) {
  const listeners = new Set();
  const values = {start: {query: panel.query, threshold: panel.threshold}};
  const host = hostOf(data, panel);
  return {
    get: (name) => values[name] ?? null,
    on(name, listener) {
      if (name === "msg:custom") listeners.add(listener);
    },
    off(name, listener) {
      if (listener) listeners.delete(listener);
      else listeners.clear();
    },
    send(message) {
      queueMicrotask(() => {
        const {buffers = [], ...answer} = answerTo(host, message);
        for (const listener of [...listeners]) listener(answer, buffers.map((one) => new DataView(one)));
      });
    },
  };
}

function answerTo(host, {id, call, args = {}}) {
  try {
    if (!Object.hasOwn(host, call)) {
      throw Object.assign(new Error(`${call}: ${ABSENT}; open the store itself with embedstore serve`), {name: "InputError"});
    }
    const {buffers, ...result} = host[call](args);
    return {id, ok: true, result, buffers};
  } catch (error) {
    return {id, ok: false, error: {type: error.name, message: error.message}};
  }
}

// The calls that a report answers, by name: each gives a result, perhaps with buffers.
function hostOf(data, panel) {
  const scores = typedOf(panel.score.arrays[0]);
  const rows = typedOf(panel.score.arrays[1]);
  let places = null;
  const scoreOf = (row) => {
    if (!places) places = new Map(Array.from(rows, (one, place) => [one, place]));
    return places.has(row) ? scores[places.get(row)] : null;
  };
  const unknown = {id: "", uri: "", values: {note: `what else is known of this row is ${ABSENT}`}};
  return {
    info: () => data.info,
    classifiers: () => ({classifiers: data.info.classifiers}),
    score: () => ({...panel.score.result, buffers: [copyOf(scores), copyOf(rows)]}),
    suggest: () => ({words: "", threshold: null, floor: null, gap: null}),
    rows: ({rows: wanted}) => ({rows: wanted.map((row) => ({row, ...(data.rows[row] || unknown), score: scoreOf(row)}))}),
    thumbnail: ({row}) => thumbnailOf(data, row),
    measure: () => ({...panel.measure.result, buffers: panel.measure.arrays.map((one) => copyOf(Float64Array.from(typedOf(one))))}),
    interval: () => ({known: false, why: `intervals at other thresholds are ${ABSENT}`, confidence: null, intervals: {}, figures: {}, notes: []}),
    labels: () => ({...panel.labels.result, buffers: panel.labels.arrays.map((one) => copyOf(typedOf(one)))}),
  };
}

// A picture lies in the page's own HTML where that shows it, else in the data; of most rows there is none.
function thumbnailOf(data, row) {
  const shown = document.querySelector(`img[data-picture="${Number(row)}"]`);
  const text = shown ? shown.src.slice(shown.src.indexOf(",") + 1) : data.pictures[row];
  if (!text) {
    const gone = Object.hasOwn(data.rows, row);
    return {missing: true, why: gone ? "there is no picture of it to be had" : `${ABSENT}, which has pictures of some rows only`};
  }
  return {missing: false, why: "", buffers: [bytesOf(text).buffer]};
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

const TYPES = {Float32Array, Float64Array, Uint32Array, Uint8Array};

function typedOf({type, base64}) {
  return new TYPES[type](bytesOf(base64).buffer);
}

// The module may keep what it is given: it gets bytes of its own.
function copyOf(array) {
  return array.slice().buffer;
}
