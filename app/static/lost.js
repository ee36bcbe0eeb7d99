// What is shown where nothing is.

import { h } from "./dom.js";

/** A sentence in the middle of a page, and the way out of it. */
export function lost(title, text) {
  return h("div", { class: "lost" }, h("h1", {}, title), h("p", {}, text), h("a", { class: "as-button", href: "#/" }, "To the beginning"));
}

/** Whether an error says that a thing is not there for this key. */
export function isLost({ status }) {
  return status === 404 || status === 403;
}

/** An address that names no page. */
export class LostView {
  constructor() {
    this.element = h("main", {}, lost("There is no such page", "This address does not exist on this service."));
  }

  start() {}

  shortcuts() {
    return {};
  }
}
