// How long the page takes, as entries of the browser's own record (`performance`): "es-ask" from a question to the paint
// of its first tiles, "es-step" from the event that moved the threshold to the paint of the next frame.

import {effect} from "./vendor/signals-core.js";

const ASKED = "es-ask-start";

export function beginAsk() {
  performance.mark(ASKED);
}

export function endAsk() {
  afterPaint(() => {
    const start = performance.getEntriesByName(ASKED).at(-1);
    if (start) performance.measure("es-ask", {start: start.startTime, end: performance.now()});
  });
}

// Time every step of a panel's threshold from now on. Returns a function that ends it.
export function timeSteps(view) {
  let waiting = false;
  let first = true;
  return effect(() => {
    void view.threshold.value;
    if (first || waiting) {
      first = false;
      return;
    }
    waiting = true;
    const cause = window.event;
    const start = cause && cause.isTrusted ? cause.timeStamp : performance.now();
    afterPaint(() => {
      waiting = false;
      performance.measure("es-step", {start, end: performance.now()});
    });
  });
}

// Run when the frame that is being made has been painted.
function afterPaint(run) {
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      run();
    };
    channel.port2.postMessage(0);
  });
}
