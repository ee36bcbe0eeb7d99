// What happened to a job: its events, its attempts, the tries of its callback.

import { visible } from "./ansi.js";
import { button, fill, h } from "./dom.js";
import { attempts, callbacks } from "./history.js";
import { pretty } from "./json_text.js";
import { between, clock, count, moment } from "./time.js";

const SHOWN = 100;
const TEXT = 2000;

/** The list of events, newest first; the older ones on demand. */
export class Timeline {
  constructor() {
    this.element = h("ol", { class: "timeline" });
    this.shown = SHOWN;
  }

  set(events) {
    this.events = events;
    const newest = events.slice(-this.shown).reverse();
    const left = events.length - newest.length;
    const more = button(`${count(left)} older`, () => this.#showMore(), { class: "quiet" });
    fill(this.element, ...newest.map(item), left > 0 && h("li", {}, more));
  }

  #showMore() {
    this.shown += 10 * SHOWN;
    this.set(this.events);
  }
}

function item({ type, data, createdAt }) {
  const empty = data === null || data === undefined;
  const text = empty ? "" : visible(typeof data === "string" ? data : pretty(data));
  return h(
    "li",
    { dataset: { type } },
    h("time", { title: moment(createdAt) }, clock(createdAt)),
    h("div", {}, h("b", {}, type.replaceAll("_", " ")), !empty && type !== "completed" && h("pre", {}, cut(text))),
  );
}

/** The table of attempts. */
export function attemptsTable(events) {
  const rows = attempts(events).map(({ number, deliveredAt, startedAt, endedAt, outcome, error }) =>
    h(
      "tr",
      {},
      h("td", { class: "number" }, number + 1),
      h("td", { title: moment(startedAt ?? deliveredAt) }, clock(startedAt ?? deliveredAt)),
      h("td", { class: "number" }, between(startedAt ?? deliveredAt, endedAt)),
      h("td", { class: "outcome", dataset: { outcome: outcome ?? "" } }, outcome ?? "at work", error && h("p", { title: cut(String(error)) }, cut(lastLine(String(error))))),
    ),
  );
  return rows.length ? table(["#", "At", "Took", "Outcome"], rows) : null;
}

/** The table of a callback's tries. */
export function callbackTable(events) {
  const rows = callbacks(events).map(({ at, sent, statusCode, error, responseBody, willRetry, retryAttempt }) =>
    h(
      "tr",
      {},
      h("td", { class: "number" }, retryAttempt === undefined ? "" : String(retryAttempt)),
      h("td", { title: moment(at) }, clock(at)),
      h("td", { class: "number" }, statusCode ? String(statusCode) : "-"),
      h(
        "td",
        { class: "outcome", dataset: { outcome: sent ? "completed" : "dead" } },
        sent ? "taken" : willRetry ? "failed, will try again" : "failed, given up",
        error && h("p", {}, cut(visible(String(error)))),
        responseBody && h("pre", {}, cut(visible(String(responseBody)))),
      ),
    ),
  );
  return rows.length ? table(["Try", "At", "Status", "Outcome"], rows) : null;
}

function table(heads, rows) {
  return h("table", { class: "plain" }, h("thead", {}, h("tr", {}, ...heads.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, ...rows));
}

/** Where a traceback says what happened. */
function lastLine(text) {
  return visible(text.trim().split("\n").at(-1));
}

function cut(text) {
  return text.length > TEXT ? `${text.slice(0, TEXT)} ...` : text;
}
