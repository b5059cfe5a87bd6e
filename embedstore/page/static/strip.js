// A strip of pictures on both sides of the cut: the last that match, the first that do not. It follows the threshold:
// scores at once, pictures when it has rested a moment.

import {effect, untracked} from "./vendor/signals-core.js";
import {decimals} from "./words.js";

const SIDE = 8;
const REST = 120; // milliseconds

export function strip(view, thumbnails) {
  const root = document.createElement("div");
  root.className = "es-strip";
  root.dataset.testid = "strip";
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", "pictures on both sides of the threshold");
  const slots = Array.from({length: 2 * SIDE}, (_, at) => slot(view, root, at));
  const cut = document.createElement("div");
  cut.className = "es-strip-cut";
  root.insertBefore(cut, slots[SIDE].element);
  let timer = 0;
  const pictures = () => slots.forEach((one) => one.fetch(thumbnails));
  view.dispose.push(
    () => clearTimeout(timer),
    effect(() => {
      const scored = view.scored.value;
      const matches = view.matches.value;
      const marks = view.marks.value;
      untracked(() => {
        root.hidden = !scored || !scored.n;
        if (!scored) return;
        slots.forEach((one, at) => one.become(scored, matches - SIDE + at, marks, thumbnails));
        clearTimeout(timer);
        timer = setTimeout(pictures, REST);
      });
    }),
  );
  return root;
}

function slot(view, root, at) {
  const element = document.createElement("button");
  element.type = "button";
  element.tabIndex = -1;
  element.className = `es-slot ${at < SIDE ? "es-match" : ""}`;
  // The farthest from the cut leave first where it is narrow.
  element.dataset.far = at < SIDE ? SIDE - at : at - SIDE + 1;
  element.innerHTML = '<img alt="" decoding="async" hidden><span class="es-score"></span>';
  const [image, score] = element.children;
  root.append(element);
  let [place, row, withdraw] = [-1, -1, () => {}];
  element.addEventListener("click", () => {
    if (place >= 0) view.selected.value = place;
  });
  const show = (found) => {
    image.hidden = !found || !found.url;
    if (found && found.url) image.src = found.url;
    else image.removeAttribute("src");
    element.title = found && found.why ? `missing: ${found.why}` : "";
  };
  return {
    element,
    become(scored, to, marks, thumbnails) {
      const inside = to >= 0 && to < scored.n;
      place = inside ? to : -1;
      element.classList.toggle("es-empty", !inside);
      element.disabled = !inside;
      const next = inside ? scored.rows[to] : -1;
      const said = inside ? decimals(scored.scores[to]) : "";
      if (score.textContent !== said) score.textContent = said;
      if (inside) element.dataset.score = scored.scores[to];
      else delete element.dataset.score;
      element.dataset.answer = (inside && marks.get(next)) || "";
      element.setAttribute("aria-label", inside ? `place ${to + 1}, score ${said}` : "no picture");
      if (next === row) return;
      row = next;
      withdraw();
      withdraw = () => {};
      show(inside ? thumbnails.peek(row) : null);
    },
    fetch(thumbnails) {
      if (row >= 0 && image.hidden) withdraw = thumbnails.want(row, show);
    },
  };
}
