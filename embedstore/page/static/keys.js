// The keys of the page, and the help that lists them. They are off while one types, with a modifier, and in dialogs.

import {can} from "./state.js";

export const KEYS = [
  ["y", "label the selected picture yes"],
  ["n", "label it no"],
  ["?", "say that you cannot tell"],
  ["u", "undo the last label"],
  ["m", "more: the next pictures to label"],
  ["← → ↑ ↓", "move the selection; Home, End, Page Up, Page Down too"],
  ["[ ]", "threshold to the neighbouring score below or above"],
  ["v", "to the slider"],
  ["b", "to the boundary in the grid"],
  ["Enter", "details of the selected picture"],
  ["Escape", "close the details, or leave the selection"],
  ["/", "to the query"],
  ["h", "this help"],
];

const MOVES = {ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", Home: "home", End: "end", PageUp: "pageup", PageDown: "pagedown"};
const POINTED = ["range", "checkbox", "radio", "button", "submit", "file", "color"];

function typing(target) {
  if (!target || !target.closest) return false;
  if (target.closest("dialog, [role=dialog], select, textarea, [contenteditable]")) return true;
  return target.tagName === "INPUT" && !POINTED.includes(target.type);
}

// What a key event does to a panel; true where it did something. `panel` has view, grid, details, slider(), focusQuery(), help().
export function pressed(event, panel) {
  const {target, key} = event;
  if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || typing(target)) return false;
  const own = target.closest && target.closest("input, button, summary, a, [data-testid=curve], [data-testid=histogram], [role=slider]");
  if (key in MOVES) {
    if (own && !own.matches("button")) return false;
    panel.grid.move(MOVES[key]);
    return true;
  }
  if (key === "Enter") {
    if (own) return false;
    panel.details.show();
    return true;
  }
  const act = actions(panel)[key.length === 1 ? key.toLowerCase() : key];
  if (!act || !panel.view.scored.value) return key === "h" ? (panel.help(), true) : key === "/" ? (panel.focusQuery(), true) : false;
  act();
  return true;
}

function actions(panel) {
  const {view, grid, details} = panel;
  const canLabel = can(view, "label");
  const label = (answer) => () => {
    if (canLabel) void view.label(answer);
  };
  return {
    y: label("yes"),
    n: label("no"),
    "?": label("?"),
    u: () => canLabel && void view.undo(),
    m: () => canLabel && void view.next(),
    "[": () => view.step(-1),
    "]": () => view.step(1),
    v: () => panel.slider() && panel.slider().focus(),
    b: () => grid.toBoundary(),
    h: () => panel.help(),
    "/": () => panel.focusQuery(),
    Escape: () => {
      if (details.open.value) details.close();
      else view.selected.value = -1;
      grid.element.focus({preventScroll: true});
    },
  };
}
