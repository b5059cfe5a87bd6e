// The pictures of a query, best first, as many tiles as the window shows; the line at the cut; the selection.
// Where things lie is worked out by layout.js, pictures come from thumbnails.js.

import {effect, signal, untracked} from "./vendor/signals-core.js";
import {matchesAt} from "./cut.js";
import {Layout, Scroll} from "./layout.js";
import {Tile} from "./tile.js";
import {endAsk} from "./timing.js";
import {count, decimals} from "./words.js";

const GAP = 6;
const PAD = 8;
const CAPTION = 26;
const LINE = 36;
const OVERSCAN = 240;
const REST = 180; // milliseconds without a change after which the threshold has come to rest

export class Grid {
  constructor(view, thumbnails, prefix) {
    Object.assign(this, {view, thumbnails, prefix});
    this.size = signal(150);
    this.layout = null;
    this.scroll = new Scroll();
    this.tiles = new Map();
    this.pool = [];
    this.frame = 0;
    this.build();
    this.watch();
  }

  build() {
    const root = document.createElement("div");
    root.className = "es-gallery";
    root.dataset.testid = "grid";
    root.tabIndex = 0;
    root.setAttribute("aria-label", "pictures, best first");
    this.spacer = document.createElement("div");
    this.spacer.className = "es-spacer";
    this.line = document.createElement("div");
    this.line.className = "es-cut-line";
    this.line.dataset.testid = "cut-line";
    this.line.setAttribute("aria-hidden", "true");
    this.lineText = document.createElement("span");
    this.line.append(this.lineText);
    this.spacer.append(this.line);
    root.append(this.spacer);
    this.element = root;
  }

  watch() {
    const {view} = this;
    const root = this.element;
    let idle = 0;
    root.addEventListener("scroll", () => {
      this.scroll.follow(root.scrollTop);
      this.plan();
      clearTimeout(idle);
      idle = setTimeout(() => this.settle(), 150);
    });
    root.addEventListener("click", (event) => this.clicked(event));
    const sizes = new ResizeObserver(() => this.resized());
    sizes.observe(root);
    view.dispose.push(
      () => sizes.disconnect(),
      () => clearTimeout(idle),
      () => clearTimeout(this.rest),
      () => cancelAnimationFrame(this.frame),
      effect(() => {
        if (view.scored.value) this.begin();
        else this.clear();
      }),
      effect(() => {
        void [view.band.value, this.size.value];
        untracked(() => this.keepInSight());
      }),
      effect(() => {
        void view.threshold.value;
        untracked(() => this.follow());
      }),
      effect(() => {
        void [view.threshold.value, view.marks.value, view.labelled.value, view.queue.value];
        this.plan();
      }),
      effect(() => {
        const place = view.selected.value;
        untracked(() => this.select(place));
      }),
    );
  }

  // Another query: from the top. Its first tiles are the end of "es-ask".
  begin() {
    this.clear();
    this.asked = true;
    this.element.scrollTop = this.scroll.goTo(0);
    this.plan();
  }

  clear() {
    for (const tile of this.tiles.values()) tile.leave();
    this.tiles.clear();
    this.layout = null;
    this.line.hidden = true;
    this.element.removeAttribute("role");
  }

  // The places that are shown: all, or those of the review band.
  range() {
    const [scored, band] = [this.view.scored.value, this.view.band.value];
    return band ? [matchesAt(scored.scores, band[1]), matchesAt(scored.scores, band[0])] : [0, scored.n];
  }

  plan() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      untracked(() => this.draw());
    });
  }

  measure() {
    const {view} = this;
    const width = this.element.clientWidth - 2 * PAD;
    this.columns = Math.max(1, Math.floor((width + GAP) / (this.size.value + GAP)));
    this.tileWidth = Math.floor((width - GAP * (this.columns - 1)) / this.columns);
    const [first, end] = this.range();
    this.layout = new Layout({
      first,
      end,
      cut: view.matches.value,
      columns: this.columns,
      rowHeight: this.tileWidth + CAPTION + GAP,
      lineHeight: LINE,
    });
    this.scroll.resize(this.layout.height + 2 * PAD, this.element.clientHeight);
    const shown = `${this.scroll.shown}px`;
    if (this.spacer.style.height !== shown) this.spacer.style.height = shown;
  }

  draw() {
    if (!this.view.scored.value || !this.element.clientWidth) return;
    this.measure();
    const {layout, scroll} = this;
    const top = scroll.position - PAD;
    const [from, to] = layout.between(top - OVERSCAN, top + scroll.seen + OVERSCAN);
    for (const [place, tile] of this.tiles) {
      if (place >= from && place < to) continue;
      tile.leave();
      this.tiles.delete(place);
      if (this.pool.length < 200) this.pool.push(tile);
    }
    // From the last to the first: each new tile goes before the one that follows it, and is asked for after it.
    let next = null;
    for (let place = to - 1; place >= from; place -= 1) next = this.drawTile(place, next);
    this.drawLine();
    if (to > from) this.element.setAttribute("role", "listbox");
    else this.element.removeAttribute("role");
    if (this.asked) endAsk();
    this.asked = false;
  }

  drawTile(place, next) {
    const {view, layout, scroll} = this;
    const scored = view.scored.value;
    let tile = this.tiles.get(place);
    if (!tile) {
      tile = this.pool.pop() || new Tile(this.thumbnails, this.prefix);
      tile.become(place, scored.rows[place], scored.scores[place], scored.n);
      this.tiles.set(place, tile);
      this.spacer.insertBefore(tile.element, next);
    }
    if (tile.width !== this.tileWidth) {
      tile.width = this.tileWidth;
      tile.element.style.width = `${this.tileWidth}px`;
      tile.element.style.height = `${this.tileWidth + CAPTION}px`;
    }
    const {row, column} = layout.at(place);
    tile.move(PAD + column * (this.tileWidth + GAP), PAD + layout.top(row) - scroll.base);
    tile.mark(this.markOf(place));
    return tile.element;
  }

  markOf(place) {
    const {view} = this;
    const row = view.scored.value.rows[place];
    return {
      match: place < view.matches.value,
      answer: view.marks.value.get(row),
      truth: view.truth.value ? view.answers.value.get(row) : undefined,
      selected: place === view.selected.value,
      queued: view.queue.value.includes(place),
    };
  }

  drawLine() {
    const {layout, scroll, view} = this;
    const scored = view.scored.value;
    const words = `threshold ${decimals(view.threshold.value)}: ${count(view.matches.value)} above, ${count(scored.n - view.matches.value)} below`;
    if (this.lineText.textContent !== words) this.lineText.textContent = words;
    const top = PAD + layout.lineTop - scroll.position;
    this.line.hidden = !scored.n || top < -2 * LINE - OVERSCAN || top > scroll.seen + OVERSCAN;
    this.line.style.transform = `translateY(${PAD + layout.lineTop - scroll.base}px)`;
  }

  // After a scroll of a capped height the scroll bar is set to where the true position is.
  settle() {
    if (this.scroll.height <= this.scroll.limit) return;
    this.element.scrollTop = this.scroll.goTo(this.scroll.position);
    this.plan();
  }

  goTo(position) {
    this.element.scrollTop = this.scroll.goTo(position);
    this.plan();
  }

  // Whoever had the line before their eyes has it there again when the threshold has come to rest.
  follow() {
    if (!this.layout) return;
    if (this.rest === undefined) this.watched = this.lineInSight();
    clearTimeout(this.rest);
    this.rest = setTimeout(() => {
      this.rest = undefined;
      if (!this.watched || !this.view.scored.value || !this.element.clientWidth) return;
      this.measure();
      if (!this.lineInSight()) this.toBoundary();
    }, REST);
  }

  lineInSight() {
    const top = PAD + this.layout.lineTop - this.scroll.position;
    return top > -LINE / 2 && top < this.scroll.seen - LINE / 2;
  }

  toBoundary() {
    if (!this.view.scored.value || !this.element.clientWidth) return;
    this.measure();
    this.goTo(PAD + this.layout.lineTop + LINE / 2 - this.scroll.seen / 2);
  }

  // The first place in sight stays in sight when the size or the band changes.
  keepInSight() {
    const before = this.layout;
    if (!before || !this.view.scored.value) return;
    const [place] = before.between(this.scroll.position - PAD, this.scroll.position - PAD);
    this.measure();
    const inside = Math.min(Math.max(place, this.layout.first), Math.max(this.layout.first, this.layout.end - 1));
    this.goTo(this.scroll.position < 1 ? 0 : this.layout.top(this.layout.at(inside).row));
  }

  select(place) {
    this.plan();
    if (place < 0) {
      this.element.removeAttribute("aria-activedescendant");
      return;
    }
    this.reveal(place);
    this.element.setAttribute("aria-activedescendant", `${this.prefix}-${place}`);
  }

  reveal(place) {
    if (!this.view.scored.value || !this.element.clientWidth) return;
    this.measure();
    const {layout, scroll} = this;
    if (place < layout.first || place >= layout.end) return;
    const top = PAD + layout.top(layout.at(place).row);
    if (top < scroll.position + PAD) this.goTo(top - PAD);
    else if (top + layout.rowHeight > scroll.position + scroll.seen) this.goTo(top + layout.rowHeight + PAD - scroll.seen);
  }

  // A selected picture that was in sight is so after something beside the grid has grown, such as the bar of a round.
  resized() {
    const {view, layout, scroll} = this;
    const place = view.selected.peek();
    this.plan();
    if (!layout || !view.scored.peek() || place < layout.first || place >= layout.end) return;
    const top = PAD + layout.top(layout.at(place).row);
    if (top + layout.rowHeight > scroll.position && top < scroll.position + scroll.seen) this.reveal(place);
  }

  // Move the selection: left, right, up, down, home, end, pageup, pagedown. The first move selects what is in sight.
  move(direction) {
    const {view} = this;
    if (!view.scored.value || !view.scored.value.n) return;
    this.measure();
    const {layout, scroll} = this;
    let place = view.selected.value;
    if (place < layout.first || place >= layout.end) {
      [place] = layout.between(scroll.position, scroll.position + 1);
    } else if (direction === "home") place = layout.first;
    else if (direction === "end") place = layout.end - 1;
    else if (direction.startsWith("page")) {
      const rows = Math.max(1, Math.floor(scroll.seen / layout.rowHeight));
      for (let i = 0; i < rows; i += 1) place = layout.step(place, direction === "pageup" ? "up" : "down");
    } else place = layout.step(place, direction);
    view.selected.value = place;
  }

  clicked(event) {
    const tile = event.target.closest(".es-tile");
    if (!tile) return;
    const place = Number(tile.dataset.place);
    const again = this.view.selected.value === place;
    this.view.selected.value = place;
    if (again && event.detail > 1 && this.opened) this.opened();
  }
}
