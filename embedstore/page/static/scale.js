// What the charts share: one axis of thresholds for a panel, ticks, real pixels, dragging, and work put off to the
// next frame. How numbers are written is told by words.js; what is drawn is left to each chart.

import {computed, effect, signal} from "./vendor/signals-core.js";
import {niceStep} from "./cut.js";

export const LEFT = 36; // pixels left of every plot, so that one threshold stands in one column in all of them
const RIGHT = 12;

const TOP_SHARE = 0.05;
const axes = new WeakMap();
const waiting = new Set(); // work for the next frame
let frame = 0;
let ids = 0;

/** The axis of a panel: `range`, a signal of [low, high], and ways to look at a part of it. */
export function axisOf(view) {
  if (!axes.has(view)) axes.set(view, makeAxis(view));
  return axes.get(view);
}

function makeAxis(view) {
  const zoom = signal(null);
  const zoomed = computed(() => {
    const part = zoom.value;
    return part && view.scored.value && part.scores === view.scored.value.scores ? part : null;
  });
  const range = computed(() => {
    if (zoomed.value) return zoomed.value.range;
    return view.scored.value && view.scored.value.n ? padded(...ends(view.scored.value)) : [0, 1];
  });
  const show = (part, low, high) => {
    zoom.value = {part, scores: view.scored.peek().scores, range: padded(low, high)};
  };
  return {
    range,
    /** Which part is shown: all, top or band. */
    part: computed(() => (zoomed.value ? zoomed.value.part : "all")),
    /** The scores between two. */
    between: (low, high) => show("band", low, high),
    /** All scores. */
    whole: () => (zoom.value = null),
    /** The scores of the best rows, and the threshold as it is now. */
    top: () => {
      const {scores, n} = view.scored.peek();
      const low = scores[Math.min(n - 1, Math.ceil(TOP_SHARE * n))];
      show("top", Math.min(low, Math.max(view.threshold.peek(), scores[n - 1])), scores[0]);
    },
  };
}

function ends({scores, n}) {
  return [scores[n - 1], scores[0]];
}

function padded(low, high) {
  const spare = high > low ? (high - low) * 0.02 : Math.max(Math.abs(high) / 10, 1e-4);
  return [low - spare, high + spare];
}

/** Pixels for a threshold and back, over a chart of some width. */
export function columns(width, [low, high]) {
  const wide = Math.max(1, width - LEFT - RIGHT);
  return {
    wide,
    x: (threshold) => LEFT + Math.min(1, Math.max(0, (threshold - low) / (high - low))) * wide,
    threshold: (x) => low + (Math.min(wide, Math.max(0, x - LEFT)) / wide) * (high - low),
  };
}

/** Round numbers between two, about `room` pixels apart on `wide`, each with its text. */
export function ticks([low, high], wide, room = 48) {
  const step = niceStep(((high - low) * room) / wide);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let place = Math.ceil(low / step); place * step <= high; place += 1) {
    found.push({value: place * step, text: (place * step).toFixed(digits)});
  }
  return found;
}

/** Call `draw` with what `read` gave, once in the next frame, whenever a signal that `read` looked at has changed. */
export function follow(view, read, draw) {
  let values;
  const work = () => draw(...values);
  view.dispose.push(
    effect(() => {
      values = read();
      soon(work);
    }),
    () => waiting.delete(work),
  );
}

function soon(work) {
  waiting.add(work);
  frame = frame || requestAnimationFrame(flush);
}

function flush() {
  frame = 0;
  const works = [...waiting];
  waiting.clear();
  for (const work of works) work();
}

/** A signal of an element's width in whole pixels; 0 until it is on the page. */
export function widthOf(view, element) {
  const width = signal(0);
  const observer = new ResizeObserver((entries) => {
    width.value = Math.floor(entries[entries.length - 1].contentRect.width);
  });
  observer.observe(element);
  view.dispose.push(() => observer.disconnect());
  return width;
}

/** Let `begin(x, event)` answer a press with what to do at each move and at the end: {move(x), end(x, moved)} or null. */
export function draggable(element, begin) {
  const at = (event) => event.clientX - element.getBoundingClientRect().left;
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const drag = begin(at(event), event);
    if (!drag) return;
    const from = at(event);
    let moved = false;
    element.setPointerCapture(event.pointerId);
    event.preventDefault();
    const move = (next) => {
      moved = moved || Math.abs(at(next) - from) > 3;
      if (moved) drag.move(at(next));
    };
    const stop = (next) => {
      element.removeEventListener("pointermove", move);
      element.removeEventListener("pointerup", stop);
      element.removeEventListener("pointercancel", stop);
      if (next.type === "pointerup") drag.end(at(next), moved);
    };
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", stop);
    element.addEventListener("pointercancel", stop);
  });
}

/** How near a press must be to a line to take hold of it. */
export function reach(event) {
  return event.pointerType === "mouse" ? 7 : 22;
}

/** A name that no other element of the page has. */
export function uniqueId(name) {
  ids += 1;
  return `es-${name}-${ids}`;
}
