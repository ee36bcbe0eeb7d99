// The part of a log that is on the page: a run of pages without a hole, bounded in length. Pure.
//
// Owns: which lines are held, and from where to go on reading in both directions. Always: lines ascend by seq, none
// twice; between `oldest` and `newest` every line that the filter lets through is held.

/** Live lines are gathered in pages of this length. */
export const PAGE_LINES = 100;

/** A window on a log, of at most `most_lines` lines, or `most_grown` while it grows by itself. `oldest` and `newest` are the
 *  seqs to read `before` and `after` from; null when nothing was read. */
export class LogWindow {
  constructor(most_lines, most_grown = most_lines) {
    this.most_lines = most_lines;
    this.most_grown = most_grown;
    this.clear();
  }

  clear() {
    this.pages = [];
    this.oldest = null;
    this.newest = null;
    this.hasOlder = false;
    this.hasNewer = false;
  }

  /** How many lines are held. */
  get length() {
    return this.pages.reduce((sum, page) => sum + page.length, 0);
  }

  /** Begin anew with one page of an answer. */
  begin(page, { hasOlder, hasNewer }) {
    this.clear();
    this.oldest = page.oldest;
    this.newest = page.newest;
    this.hasOlder = hasOlder;
    this.hasNewer = hasNewer;
    if (page.rows.length) this.pages.push([...page.rows]);
  }

  /** Put an answer's lines before the others. Returns how many pages were dropped at the other end. */
  prepend(page) {
    this.oldest = page.oldest ?? this.oldest;
    this.hasOlder = page.hasMore;
    if (page.rows.length) this.pages.unshift([...page.rows]);
    const dropped = this.#excess([...this.pages].reverse(), this.most_lines);
    if (dropped) {
      this.pages.length -= dropped;
      this.newest = this.pages.at(-1).at(-1).seq;
      this.hasNewer = true;
    }
    return dropped;
  }

  /** Put an answer's lines after the others, as a page of their own. Returns how many pages were dropped in front. */
  append(page) {
    this.newest = Math.max(page.newest ?? 0, this.newest ?? 0);
    this.hasNewer = page.hasMore;
    if (page.rows.length) this.pages.push([...page.rows]);
    return this.#dropOldest(this.most_lines);
  }

  /** Put live lines after the others; the last page takes them until it is full. Returns dropped pages, as `append`. */
  grow(rows) {
    for (const row of rows) {
      if (!this.pages.length || this.pages.at(-1).length >= PAGE_LINES) this.pages.push([]);
      this.pages.at(-1).push(row);
    }
    this.oldest ??= rows[0].seq;
    this.newest = rows.at(-1).seq;
    return this.#dropOldest(this.most_grown);
  }

  /** The lines of these that come next: without those that are held. Null when there is a hole before the first. */
  next(rows) {
    const fresh = rows.filter((row) => row.seq > (this.newest ?? 0));
    return fresh.length && fresh[0].seq !== (this.newest ?? 0) + 1 ? null : fresh;
  }

  /** The line with a seq, if it is held. */
  find(seq) {
    return this.pages.flat().find((row) => row.seq === seq);
  }

  #dropOldest(most_lines) {
    const dropped = this.#excess(this.pages, most_lines);
    if (dropped) {
      this.pages.splice(0, dropped);
      this.oldest = this.pages[0][0].seq;
      this.hasOlder = true;
    }
    return dropped;
  }

  /** How many pages, taken in this order, are too many. A page of a search may hold one line only: lines count. */
  #excess(pages, most_lines) {
    let left = this.length;
    let dropped = 0;
    while (left > most_lines) {
      left -= pages[dropped].length;
      dropped += 1;
    }
    return dropped;
  }
}

/** Where the thumb of the rail stands, for visible seqs in a log from first to last: its height as a part of the rail's,
 *  and how far it has travelled, from 0 (the first line is visible) to 1 (the last one is). */
export function thumb(first, last, top, bottom) {
  const all = Math.max(1, last - first + 1);
  const visible = Math.min(all, bottom - top + 1);
  const travelled = all === visible ? 1 : (top - first) / (all - visible);
  return { height: visible / all, travelled: Math.min(1, Math.max(0, travelled)) };
}

/** The seq at a part of the rail. */
export function seqAt(first, last, part) {
  return Math.round(first + Math.min(1, Math.max(0, part)) * (last - first));
}
