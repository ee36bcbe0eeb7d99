// The lines of a log as they are drawn, page by page; where one reads stays still while pages come and go.
//
// Never: decides which lines are loaded (log_controller.js), or how one line looks (log_line.js).

import { h } from "./dom.js";
import { PAGE_LINES } from "./log_window.js";
import { lineElement, lineText } from "./log_line.js";
import { jobAddress } from "./router.js";

/** The scrolling part of a log. It holds what its LogWindow holds. */
export class LogLinesView {
  constructor(jobId) {
    this.jobId = jobId;
    this.wanted = [];
    this.top = h("div", { class: "end" });
    this.body = h("div", { class: "pages" });
    this.bottom = h("div", { class: "end" });
    this.element = h("div", { class: "lines", tabindex: 0, role: "region", "aria-label": "Lines" }, this.top, this.body, this.bottom);
    this.element.addEventListener("copy", (event) => this.#copy(event));
    this.rows = new WeakMap();
  }

  begin(rows) {
    this.body.replaceChildren();
    if (rows.length) this.body.append(this.#page(rows));
  }

  /** Put a page before the others and drop some at the other end; what is being read stays where it is. */
  prepend(rows, dropped) {
    this.#still(() => {
      if (rows.length) this.body.prepend(this.#page(rows));
      for (let i = 0; i < dropped; i += 1) this.body.lastChild.remove();
    });
  }

  append(rows, dropped) {
    this.#still(() => {
      if (rows.length) this.body.append(this.#page(rows));
      for (let i = 0; i < dropped; i += 1) this.body.firstChild.remove();
    });
  }

  /** Put live lines at the end, as LogWindow.grow does; for a reader who is there. */
  grow(rows, dropped) {
    for (let at = 0; at < rows.length; ) {
      const last = this.body.lastChild;
      const room = last ? PAGE_LINES - last.childElementCount : 0;
      const taken = rows.slice(at, at + (room > 0 ? room : PAGE_LINES));
      if (room > 0) last.append(...taken.map((row) => this.#line(row)));
      else this.body.append(this.#page(taken));
      at += taken.length;
    }
    for (let i = 0; i < dropped; i += 1) this.body.firstChild.remove();
  }

  toEnd() {
    this.element.scrollTop = this.element.scrollHeight;
  }

  toStart() {
    this.element.scrollTop = 0;
  }

  /** How many pixels are above and below what is visible. */
  room() {
    const { scrollTop, clientHeight, scrollHeight } = this.element;
    return { above: scrollTop, below: scrollHeight - clientHeight - scrollTop };
  }

  line(seq) {
    return this.body.querySelector(`[data-seq="${Number(seq)}"]`);
  }

  /** Show a line, in the middle or where `block` says; whether it is here. */
  reveal(seq, block = "center") {
    const line = this.line(seq);
    line?.scrollIntoView({ block });
    return Boolean(line);
  }

  /** Seqs of the first and the last visible line; null without lines. */
  visible() {
    const box = this.element.getBoundingClientRect();
    const top = this.#lineAt(box.top);
    const bottom = this.#lineAt(box.bottom);
    return top && bottom ? [Number(top.dataset.seq), Number(bottom.dataset.seq)] : null;
  }

  /** The first line whose lower edge is below `y`, or the last one. */
  #lineAt(y) {
    const page = firstBelow(this.body.children, y) ?? this.body.lastChild;
    return page && (firstBelow(page.children, y) ?? page.lastChild);
  }

  #still(change) {
    const kept = this.#lineAt(this.element.getBoundingClientRect().top);
    const before = kept?.getBoundingClientRect().top;
    change();
    if (kept?.isConnected) this.element.scrollTop += kept.getBoundingClientRect().top - before;
  }

  #page(rows) {
    return h("div", { class: "page" }, ...rows.map((row) => this.#line(row)));
  }

  #line(row) {
    const line = lineElement(row, jobAddress(this.jobId, row.seq), this.wanted);
    this.rows.set(line, row);
    return line;
  }

  /** What was selected over several lines is copied as these lines, whole. A part of one is copied as it is. */
  #copy(event) {
    const selection = getSelection();
    const range = selection.rangeCount ? selection.getRangeAt(0) : null;
    const lines = range ? [...this.body.querySelectorAll(".line")].filter((line) => selects(range, line)) : [];
    if (lines.length < 2) return;
    event.preventDefault();
    event.clipboardData.setData("text/plain", lines.map((line) => lineText(this.rows.get(line))).join("\n"));
  }
}

/** Whether some text of an element lies in a range. */
function selects(range, element) {
  if (!range.intersectsNode(element)) return false;
  const inside = document.createRange();
  inside.selectNodeContents(element);
  if (inside.comparePoint(range.startContainer, range.startOffset) === 0) inside.setStart(range.startContainer, range.startOffset);
  if (inside.comparePoint(range.endContainer, range.endOffset) === 0) inside.setEnd(range.endContainer, range.endOffset);
  return String(inside) !== "";
}

/** Of elements one below the other: the first whose lower edge is below `y`, found by halving. */
function firstBelow(elements, y) {
  let [low, high] = [0, elements.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (elements[middle].getBoundingClientRect().bottom > y) high = middle;
    else low = middle + 1;
  }
  return elements[low] ?? null;
}
