// One line of a log as an element.

import { pieces } from "./ansi.js";
import { h } from "./dom.js";
import { mark } from "./search.js";
import { clock, size } from "./time.js";

const SHOWN = 2000;
const NAMED = 16;

/** The element of a line; `address` is that of its permalink, `wanted` the needles to mark. */
export function lineElement(row, address, wanted) {
  const line = document.createElement("div");
  line.className = `line ${row.level}`;
  line.dataset.seq = row.seq;
  const seq = h("a", { class: "seq", href: address, tabindex: -1 }, String(row.seq));
  const at = h("time", {}, clock(row.loggedAt));
  const level = h("span", { class: "level" }, row.level);
  line.append(seq, at, level, messageElement(row, wanted));
  return line;
}

function messageElement({ message, source }, wanted) {
  const element = h("span", { class: "message" });
  if (source) element.append(h("span", { class: "source" }, source), " ");
  appendText(element, message.slice(0, SHOWN), wanted);
  if (message.length > SHOWN) element.append(h("span", { class: "more" }, ` ... ${size(message.length - SHOWN)} more`));
  return element;
}

/** Put a message into an element: its colours, and what was searched, marked. */
export function appendText(element, message, wanted = []) {
  const cut = wanted.length ? mark(pieces(message), wanted) : pieces(message);
  for (const { text, style, marked } of cut) {
    const node = style || marked ? h(marked ? "mark" : "span", {}, text) : text;
    if (style) paint(node, style);
    element.append(node);
  }
}

function paint(element, { fg, bg, bold, dim, italic, underline, inverse, strike }) {
  const [front, back] = inverse ? [bg ?? "back", fg ?? "front"] : [fg, bg];
  colour(element, "color", "fg", bold && Number.isInteger(front) && front < NAMED / 2 ? front + NAMED / 2 : front);
  colour(element, "background-color", "bg", back);
  for (const [name, on] of Object.entries({ bold, dim, italic, underline, strike })) if (on) element.classList.add(name);
}

function colour(element, property, prefix, value) {
  if (value === null) return;
  if (String(value).startsWith("#")) element.style.setProperty(property, value);
  else element.classList.add(`${prefix}-${value}`);
}
