// What happened to a job: its events, its attempts, the tries of its callback.

import { cut, visible } from "./ansi.js";
import { button, fill, h, setText } from "./dom.js";
import { errorView } from "./error_view.js";
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

  /** Show events; the list stays as it is, with what is scrolled and selected in it, while they are the same. */
  set(events) {
    if (same(this.events, events)) return;
    this.events = events;
    this.#draw();
  }

  #draw() {
    const { events } = this;
    const newest = events.slice(-this.shown).reverse();
    const left = events.length - newest.length;
    const more = button(`${count(left)} older`, () => this.#showMore(), { class: "quiet" });
    fill(this.element, ...newest.map(item), left > 0 && h("li", {}, more));
  }

  #showMore() {
    this.shown += 10 * SHOWN;
    this.#draw();
  }
}

function item({ type, data, createdAt }) {
  const empty = data === null || data === undefined;
  const text = empty ? "" : visible(typeof data === "string" ? data : pretty(data));
  return h(
    "li",
    { dataset: { type } },
    h("time", { title: moment(createdAt) }, clock(createdAt)),
    h("div", {}, h("b", {}, type.replaceAll("_", " ")), !empty && type !== "completed" && h("pre", { tabindex: 0 }, shortened(text))),
  );
}

/** The table of attempts; that of a running one grows by `tick`. */
export class Attempts {
  constructor() {
    this.rows = [];
    this.element = h("div", {});
  }

  /** Whether there are any in these events. */
  set(events) {
    if (same(this.events, events)) return this.rows.length > 0;
    this.events = events;
    this.rows = attempts(events).map(attemptRow);
    fill(this.element, this.rows.length > 0 && table(["#", "At", "Took", "Outcome"], this.rows.map(({ element }) => element)));
    return this.rows.length > 0;
  }

  tick() {
    for (const { took, since, until } of this.rows) if (!until) setText(took, between(since, until));
  }
}

function attemptRow({ number, deliveredAt, startedAt, endedAt, outcome, error }) {
  const since = startedAt ?? deliveredAt;
  const took = h("td", { class: "number" }, between(since, endedAt));
  const why = error !== null && errorView(String(error));
  const element = h(
    "tr",
    {},
    h("td", { class: "number" }, number + 1),
    h("td", { class: "number", title: moment(since) }, clock(since)),
    took,
    h("td", { class: "outcome", dataset: { outcome: outcome ?? "" } }, outcome ?? "at work", why),
  );
  return { element, took, since, until: endedAt };
}

function same(shown, events) {
  return shown?.length === events.length && shown.at(-1)?.seq === events.at(-1)?.seq && shown[0]?.seq === events[0]?.seq;
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
        error && h("p", {}, shortened(visible(String(error)))),
        responseBody && h("pre", { tabindex: 0 }, shortened(visible(String(responseBody)))),
      ),
    ),
  );
  return rows.length ? table(["Try", "At", "Status", "Outcome"], rows) : null;
}

function table(heads, rows) {
  return h("table", { class: "plain" }, h("thead", {}, h("tr", {}, ...heads.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, ...rows));
}

function shortened(text) {
  return text.length > TEXT ? `${cut(text, TEXT)} ...` : text;
}
