// One line of a log as an element.

import { cut, lastState, pieces, plain, visible } from "./ansi.js";
import { isDark, onBothThemes } from "./contrast.js";
import { button, h } from "./dom.js";
import { container } from "./json_text.js";
import { jsonView } from "./json_view.js";
import { link } from "./links.js";
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

/** A line as it is copied: on one line, unless its message has several. */
export function lineText({ loggedAt, level, source, message }) {
  return [clock(loggedAt), level, source, plain(message)].filter(Boolean).join(" ");
}

function messageElement({ message, source }, wanted) {
  const element = h("span", { class: "message" });
  if (source) element.append(h("span", { class: "source" }, visible(source)), " ");
  const value = container(message);
  if (value) element.append(expander(element, value), " ");
  const state = lastState(message);
  const shown = cut(state, SHOWN);
  appendText(element, shown, wanted);
  if (state.length > shown.length) element.append(h("span", { class: "more" }, ` ... ${size(state.length - shown.length)} more`));
  return element;
}

/** The button that opens a line of JSON, one member a line. */
function expander(element, value) {
  const toggle = () => {
    const open = made.ariaExpanded !== "true";
    made.ariaExpanded = String(open);
    if (open) element.append(jsonView(value));
    else element.lastChild.remove();
  };
  const made = button("{ }", toggle, { class: "expand", "aria-expanded": "false", "aria-label": "Expand JSON" });
  return made;
}

/** Put a message into an element: its colours, its addresses as links, and what was searched, marked. */
export function appendText(element, message, wanted = []) {
  const linked = link(pieces(message));
  for (const { text, style, marked, href } of wanted.length ? mark(linked, wanted) : linked) {
    const node = style || marked ? h(marked ? "mark" : "span", {}, text) : text;
    if (style) paint(node, style);
    element.append(href ? h("a", { class: "link", href, title: href, target: "_blank", rel: "noopener noreferrer" }, node) : node);
  }
}

function paint(element, { fg, bg, bold, dim, italic, underline, inverse, strike }) {
  const [front, back] = inverse ? [bg ?? "back", fg ?? "front"] : [fg, bg];
  if (back !== null) element.classList.add(...standing(back));
  else colour(element, "color", "fg", bold && Number.isInteger(front) && front < NAMED / 2 ? front + NAMED / 2 : front);
  colour(element, "background-color", "bg", back);
  for (const [name, on] of Object.entries({ bold, dim, italic, underline, strike })) if (on) element.classList.add(name);
}

/** Classes of a text on a ground that was chosen. */
function standing(ground) {
  return [isExact(ground) ? (isDark(ground) ? "ground-dark" : "ground-light") : "ground"];
}

function isExact(value) {
  return String(value).startsWith("#");
}

function colour(element, property, prefix, value) {
  if (value === null) return;
  if (isExact(value)) element.style.setProperty(property, property === "color" ? onBothThemes(value) : value);
  else element.classList.add(`${prefix}-${value}`);
}
