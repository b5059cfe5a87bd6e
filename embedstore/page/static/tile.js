// One picture of the grid: made once, then shown again and again for other places of the order.

import {decimals, spoken} from "./words.js";

export class Tile {
  constructor(thumbnails, prefix) {
    this.thumbnails = thumbnails;
    this.prefix = prefix;
    this.place = -1;
    this.row = -1;
    this.withdraw = () => {};
    const tile = document.createElement("div");
    tile.className = "es-tile";
    tile.setAttribute("role", "option");
    tile.dataset.testid = "tile";
    tile.innerHTML =
      '<div class="es-picture"><img alt="" decoding="async" draggable="false" hidden><span class="es-missing" hidden></span></div>' +
      '<div class="es-caption"><span class="es-score"></span> <span class="es-truth" hidden></span> <span class="es-badge" hidden></span></div>';
    this.element = tile;
    [this.image, this.missing] = tile.firstChild.children;
    [this.score, this.truth, this.badge] = tile.lastChild.children;
    this.image.addEventListener("load", () => this.image.classList.add("es-here"));
    this.image.addEventListener("error", () => this.show({why: "the picture cannot be shown"}));
  }

  // Become the tile of a place.
  become(place, row, score, total) {
    this.place = place;
    this.score.textContent = decimals(score);
    this.value = score;
    const tile = this.element;
    tile.id = `${this.prefix}-${place}`;
    tile.dataset.place = place;
    tile.dataset.score = score;
    tile.setAttribute("aria-posinset", place + 1);
    tile.setAttribute("aria-setsize", total);
    this.said = "";
    this.marks = null;
    if (row === this.row) return;
    this.row = row;
    tile.dataset.row = row;
    this.withdraw();
    this.show(null);
    this.withdraw = this.thumbnails.want(row, (found) => this.show(found));
  }

  show(found) {
    const url = found && found.url;
    this.image.hidden = !url;
    this.missing.hidden = !found || Boolean(url);
    this.element.classList.toggle("es-waiting", !found);
    if (url) {
      this.image.src = url;
    } else {
      this.image.classList.remove("es-here");
      this.image.removeAttribute("src");
    }
    this.missing.textContent = found && !url ? `missing: ${found.why}` : "";
    this.missing.title = this.missing.textContent;
    if (this.marks && this.missing.textContent) this.mark(this.marks);
  }

  move(x, y) {
    if (x === this.x && y === this.y) return;
    [this.x, this.y] = [x, y];
    this.element.style.transform = `translate(${x}px, ${y}px)`;
  }

  // match: boolean; answer: yes, no, ?, open or undefined; truth: the same of a column; selected, queued: boolean.
  mark(marks) {
    this.marks = marks;
    const {match, answer, truth, selected, queued} = marks;
    const said = spoken({place: this.place, score: this.value, match, answer, truth, missing: this.missing.textContent});
    if (said === this.said && selected === this.selected && queued === this.queued) return;
    [this.said, this.selected, this.queued] = [said, selected, queued];
    const tile = this.element;
    tile.classList.toggle("es-match", match);
    tile.classList.toggle("es-selected", selected);
    tile.classList.toggle("es-queued", queued);
    tile.setAttribute("aria-selected", selected);
    tile.setAttribute("aria-label", said);
    tile.dataset.match = match;
    tile.dataset.answer = answer || "";
    this.badge.hidden = !answer;
    this.badge.textContent = answer || "";
    this.badge.dataset.answer = answer || "";
    this.truth.hidden = !truth;
    this.truth.dataset.answer = truth || "";
    this.truth.title = truth ? `the column says ${truth}` : "";
  }

  leave() {
    this.withdraw();
    this.withdraw = () => {};
    this.row = -1;
    this.place = -1;
    this.element.remove();
  }
}
