// A JSON value as text, coloured while it is small, with a button that copies all of it.

import { copyButton } from "./copy.js";
import { h } from "./dom.js";
import { pretty, tokens } from "./json_text.js";
import { size } from "./time.js";
import { cut, visible } from "./ansi.js";

const SHOWN = 100_000;
const COLOURED = 30_000;

/** The element that shows a value. */
export function jsonView(value) {
  const text = pretty(value);
  const shown = cut(text, SHOWN);
  const code = text.length <= COLOURED ? tokens(shown).map(coloured) : [visible(shown)];
  const rest = text.length - shown.length;
  return h(
    "div",
    { class: "json" },
    copyButton(() => text),
    h("pre", { tabindex: 0 }, ...code, rest > 0 && h("span", { class: "more" }, `\n... ${size(rest)} more: copy to have it all`)),
  );
}

function coloured({ kind, text }) {
  return kind ? h("span", { class: `json-${kind}` }, visible(text)) : visible(text);
}
