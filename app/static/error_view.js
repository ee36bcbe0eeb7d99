// An error as it is read: what happened first, the traceback that leads there on demand.

import { cut, visible } from "./ansi.js";
import { h } from "./dom.js";
import { headline } from "./history.js";
import { count } from "./time.js";

const HEAD = 500;
const WHOLE = 100_000;

/** What happened, in one short line. */
export function errorHead(text, most = HEAD) {
  return visible(cut(headline(text), most));
}

/** What happened, and below it all of the text, to be opened, if there is more of it. */
export function errorView(text) {
  const lines = text.trimEnd().split("\n").length;
  const head = h("p", { class: "error-head" }, errorHead(text));
  if (lines === 1 && text.length <= HEAD) return [head];
  const all = cut(text, WHOLE);
  const left = text.length - all.length;
  const whole = h("pre", { tabindex: 0 }, visible(all), left > 0 && h("span", { class: "more" }, `\n... ${count(left)} characters more`));
  return [head, h("details", { class: "traceback" }, h("summary", {}, lines > 1 ? `All ${count(lines)} lines` : "All of it"), whole)];
}
