// The seven statuses: their order, which of them are ends, and their badge.

import { h } from "./dom.js";

export const STATUSES = ["running", "delivered", "pending", "scheduled", "completed", "dead", "killed"];

const ENDS = new Set(["completed", "dead", "killed"]);

/** Whether a job in this status has ended. */
export function ended(status) {
  return ENDS.has(status);
}

/** A badge; its colour is never the only sign. */
export function badge(status) {
  return h("span", { class: "badge", dataset: { status } }, h("span", { class: "dot" }), status);
}

/** Change a badge in place. */
export function setBadge(element, status) {
  if (element.dataset.status === status) return;
  element.dataset.status = status;
  element.lastChild.data = status;
}
