// What surrounds every page: where one is, whether news arrive, what is wrong, and the way out.

import { visible } from "./ansi.js";
import { button, fill, h, setText, show } from "./dom.js";
import { keysAddress, settingsAddress, spaceAddress } from "./router.js";
import { clock, serverNow } from "./time.js";
import { nextTheme, useTheme } from "./theme.js";

const INSTEAD = "No WebSocket comes through, perhaps because a proxy passes no upgrades. An event stream is read instead: nothing is missing.";

/** The frame of a signed-in page. */
export class Shell {
  constructor(session, { signOut, showKeys }) {
    this.session = session;
    this.names = new Map(session.space ? [[session.space, session.spaceName]] : []);
    this.crumbs = h("nav", { class: "crumbs", "aria-label": "Where you are" });
    this.state = h("span", { class: "state", role: "status" });
    this.trouble = h("p", { class: "trouble", role: "alert", hidden: true });
    this.theme = button(useTheme(), () => setText(this.theme, nextTheme()), { class: "quiet theme" });
    this.still = h("p", { class: "still", role: "status", hidden: true });
    const bar = h(
      "header",
      { class: "topbar" },
      h("a", { class: "logo", href: "#/" }, h("i", { class: "mark", "aria-hidden": "true" }), "jobwire"),
      this.crumbs,
      this.state,
      h("a", { class: "quiet to-docs", href: "docs", title: "The API" }, "API"),
      this.theme,
      button("Shortcuts", showKeys, { class: "quiet keyboard", title: "What the keys do (?)" }),
      button("Sign out", signOut, { class: "quiet" }),
    );
    this.element = h("div", { class: "shell" }, bar, this.trouble, this.still);
  }

  /** Show a page's element. */
  page(element) {
    this.problem(null);
    this.live(null);
    fill(this.element, this.element.children[0], this.trouble, this.still, element);
  }

  /** Say where one is: in a space, at something. */
  async place(space, at = "") {
    this.at = at;
    document.title = at ? `${at} - jobwire` : "jobwire";
    if (!space) return fill(this.crumbs);
    const name = await this.#name(space);
    if (this.at !== at) return this.crumbs;
    const keys = this.session.root && h("a", { href: keysAddress(space), class: "to-keys" }, "keys");
    const settings = this.session.root && h("a", { href: settingsAddress(space), class: "to-settings" }, "settings");
    return fill(this.crumbs, h("a", { href: spaceAddress(space) }, visible(name)), at && h("span", {}, visible(at)), !at && keys, !at && settings);
  }

  /** A space has another name. */
  rename(space, name) {
    this.names.set(space, name);
    this.place(space, this.at);
  }

  /** Say whether news arrive, and how or why not; null when none are waited for, or none will come. */
  live(live, { transport, error, reason, status } = {}) {
    const instead = transport === "event stream";
    setText(this.state, live === null ? "" : live ? (instead ? "live, by event stream" : "live") : "reconnecting");
    this.state.title = live && instead ? INSTEAD : live === false ? (error ?? "") : "";
    if (live && this.error?.status === 0) this.problem(null);
    this.since = live === false ? (this.since ?? serverNow()) : null;
    this.state.dataset.live = live === null ? "" : live;
    const last = (typeof status === "string" ? "" : (error ?? reason)) || "";
    show(this.still, live === null && last !== "");
    setText(this.still, last && `Not live: ${last}`);
  }

  /** Say that none have come for a while, and what the page does meanwhile. */
  stale({ error = "There is no connection yet." }) {
    show(this.still, true);
    const since = this.since ? ` since ${clock(new Date(this.since)).slice(0, 8)}` : "";
    setText(this.still, `Not live: ${error} Read again every few seconds${since}.`);
  }

  /** Say what is wrong; null when nothing is. */
  problem(error) {
    this.error = error;
    show(this.trouble, error !== null);
    setText(this.trouble, error?.message ?? "");
  }

  async #name(space) {
    if (!this.names.has(space)) {
      const { name } = await this.session.api.get(`/spaces/${space}`).catch(() => ({ name: space }));
      this.names.set(space, name);
    }
    return this.names.get(space);
  }
}
