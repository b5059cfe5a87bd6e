// Rows -> small pictures as blob addresses: at most six asked for at once, the newest wish first, none for a tile that
// has gone; the last 600 are kept and the others given back.

const AT_ONCE = 6;
const KEPT = 600;

export class Thumbnails {
  constructor(view) {
    this.view = view;
    this.version = undefined;
    this.kept = new Map(); // row -> {url} or {why}, the least recently used first
    this.wishes = new Map(); // row -> {row, tell: Set, abort}, the newest last
    this.asked = 0;
    this.planned = false;
    view.dispose.push(() => this.clear());
  }

  // Tell `tell({url} or {why})` the picture of a row, at once where it is known. Returns a function that withdraws the wish.
  want(row, tell) {
    this.keepToVersion();
    const known = this.kept.get(row);
    if (known) {
      this.kept.delete(row);
      this.kept.set(row, known);
      tell(known);
      return () => {};
    }
    const wish = this.wishes.get(row) || {row, tell: new Set(), abort: null};
    this.wishes.delete(row);
    this.wishes.set(row, wish);
    wish.tell.add(tell);
    this.plan();
    return () => this.withdraw(wish, tell);
  }

  peek(row) {
    this.keepToVersion();
    return this.kept.get(row);
  }

  withdraw(wish, tell) {
    wish.tell.delete(tell);
    if (wish.tell.size || this.wishes.get(wish.row) !== wish) return;
    this.wishes.delete(wish.row);
    if (wish.abort) wish.abort.abort();
  }

  // A frame's wishes are gathered first, so that the last tile of a fast scroll goes before all that flew by.
  plan() {
    if (this.planned) return;
    this.planned = true;
    setTimeout(() => {
      this.planned = false;
      this.pump();
    }, 0);
  }

  pump() {
    if (this.asked >= AT_ONCE) return;
    for (const wish of [...this.wishes.values()].reverse()) {
      if (this.asked >= AT_ONCE) return;
      if (!wish.abort) void this.ask(wish);
    }
  }

  async ask(wish) {
    wish.abort = new AbortController();
    this.asked += 1;
    const version = this.version;
    let found = null;
    try {
      const answer = await this.view.scoredCall("thumbnail", {row: wish.row}, {signal: wish.abort.signal});
      found = answer.missing ? {why: answer.why} : {url: URL.createObjectURL(new Blob([answer.buffers[0]], {type: "image/jpeg"}))};
    } catch (error) {
      if (error.type !== "Cancelled") found = {why: error.message};
    }
    this.asked -= 1;
    if (this.wishes.get(wish.row) === wish) this.wishes.delete(wish.row);
    if (found && version === this.version) {
      this.keep(wish.row, found);
      for (const tell of wish.tell) tell(found);
    } else if (found && found.url) {
      URL.revokeObjectURL(found.url);
    }
    this.pump();
  }

  keep(row, found) {
    this.kept.set(row, found);
    if (this.kept.size <= KEPT) return;
    const [oldest, old] = this.kept.entries().next().value;
    this.kept.delete(oldest);
    if (old.url) URL.revokeObjectURL(old.url);
  }

  // Row numbers mean something within one version of the store.
  keepToVersion() {
    const scored = this.view.scored.peek();
    const version = scored ? scored.version : undefined;
    if (version === this.version) return;
    this.clear();
    this.version = version;
  }

  clear() {
    for (const {url} of this.kept.values()) if (url) URL.revokeObjectURL(url);
    for (const {abort} of this.wishes.values()) if (abort) abort.abort();
    this.kept.clear();
    this.wishes.clear();
  }
}
