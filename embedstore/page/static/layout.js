// Where the tiles of a grid lie that is broken at the cut: matches end a row, a ruled line follows, the rest begins a row anew.
// Numbers only. Places are positions in the order of scores; `first` to `end` (not with it) are shown, `cut` is the
// first that does not match; lengths are pixels from the top of the whole, however tall that is.

export class Layout {
  constructor({first, end, cut, columns, rowHeight, lineHeight}) {
    Object.assign(this, {first, end, columns, rowHeight, lineHeight});
    this.cut = Math.min(Math.max(cut, first), end);
    this.rowsAbove = Math.ceil((this.cut - first) / columns);
    this.rowsBelow = Math.ceil((end - this.cut) / columns);
    this.lineTop = this.rowsAbove * rowHeight;
    this.height = this.lineTop + lineHeight + this.rowsBelow * rowHeight;
  }

  // The row, counted over both parts, and the column of a place.
  at(place) {
    const below = place >= this.cut;
    const within = place - (below ? this.cut : this.first);
    return {row: Math.floor(within / this.columns) + (below ? this.rowsAbove : 0), column: within % this.columns};
  }

  top(row) {
    return row * this.rowHeight + (row >= this.rowsAbove ? this.lineHeight : 0);
  }

  // The places [from, to) of the rows that touch the stretch from `top` to `bottom`.
  between(top, bottom) {
    const rows = this.rowsAbove + this.rowsBelow;
    const rowAt = (y) => (y < this.lineTop ? Math.floor(y / this.rowHeight) : Math.max(this.rowsAbove, Math.floor((y - this.lineHeight) / this.rowHeight)));
    const [from, last] = [Math.max(0, rowAt(top)), Math.min(rows - 1, rowAt(bottom))];
    return last < from ? [this.first, this.first] : [this.start(from), this.start(last + 1)];
  }

  // The first place of a row; of the row behind the last one, the end.
  start(row) {
    if (row < this.rowsAbove) return this.first + row * this.columns;
    return Math.min(this.end, this.cut + (row - this.rowsAbove) * this.columns);
  }

  // The place one step away: "left", "right", "up", "down". The same place where there is none.
  step(place, direction) {
    if (direction === "left") return Math.max(this.first, place - 1);
    if (direction === "right") return Math.min(this.end - 1, place + 1);
    const {row, column} = this.at(place);
    const to = row + (direction === "down" ? 1 : -1);
    if (to < 0 || to >= this.rowsAbove + this.rowsBelow) return place;
    return Math.min(this.start(to) + column, this.start(to + 1) - 1);
  }
}

// A scrolled stretch taller than browsers allow: a step of the wheel moves as many pixels as ever, a drag of the
// scroll bar moves in proportion. `base` is what to take off a true position to get the one inside the scroller.
export class Scroll {
  constructor(limit = 8e6) {
    this.limit = limit;
    this.height = 0;
    this.seen = 0;
    this.position = 0;
    this.last = 0;
  }

  get shown() {
    return Math.min(this.height, this.limit);
  }

  get base() {
    return this.position - this.last;
  }

  resize(height, seen) {
    this.height = height;
    this.seen = seen;
    this.position = Math.min(this.position, this.farthest);
  }

  get farthest() {
    return Math.max(0, this.height - this.seen);
  }

  // The scroller stands at `top`: take the true position from it.
  follow(top) {
    const moved = top - this.last;
    const end = this.shown - this.seen;
    if (this.height <= this.limit) this.position = top;
    else if (top <= 0) this.position = 0;
    else if (top >= end - 1) this.position = this.farthest;
    else if (Math.abs(moved) < 2 * this.seen) this.position += moved;
    else this.position = (top / end) * this.farthest;
    this.position = Math.min(Math.max(this.position, 0), this.farthest);
    this.last = top;
  }

  // Where the scroller should stand for a true position; it is taken as being there.
  goTo(position) {
    this.position = Math.min(Math.max(position, 0), this.farthest);
    const end = this.shown - this.seen;
    this.last = this.height <= this.limit ? this.position : Math.round((this.position / Math.max(1, this.farthest)) * end);
    return this.last;
  }
}
