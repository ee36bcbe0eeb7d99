// The controls of a log: search, levels, wrapping, following, download.

import { notice } from "./dialog.js";
import { button, h, setText, show } from "./dom.js";
import { needles } from "./search.js";
import { count, size } from "./time.js";

const LEVELS = ["trace", "debug", "info", "warn", "error", "fatal"];
const SYNTAX = 'Words that must all occur, "a phrase" in quotes (/)';
const REST_MS = 300;
const WRAP = "jobwire.wrap";

/** The toolbar of a LogView, and the button that leads back to the end. */
export class LogToolbar {
  constructor(view) {
    this.view = view;
    this.levels = new Map(LEVELS.map((level) => [level, this.#level(level)]));
    this.search = h("input", { type: "search", placeholder: "Search the whole log", title: SYNTAX, "aria-label": "Search the whole log", maxlength: 1024, oninput: () => this.#soon() });
    this.place = h("span", { class: "place" });
    this.follow = button("Follow", () => view.toggleFollowing(), { class: "follow" });
    this.wrap = button("Wrap", () => this.setWrap(this.wrap.ariaPressed !== "true"), { class: "quiet wrapping", title: "Wrap long lines (w)" });
    this.save = button("Download", () => this.#download(), { class: "quiet", title: "All lines that match, as NDJSON" });
    this.jump = button("", () => view.toTail(), { class: "to-end primary", hidden: true });
    const levels = h("div", { class: "levels", role: "group", "aria-label": "Levels" }, ...this.levels.values());
    this.element = h("header", { class: "toolbar" }, this.search, levels, this.place, h("div", { class: "acts" }, this.wrap, this.save, this.follow));
    this.setWrap((localStorage.getItem(WRAP) ?? "true") === "true");
  }

  /** Show what the view does. */
  show() {
    const { following, newest, below, window, source, live } = this.view;
    this.follow.ariaPressed = String(following);
    this.follow.dataset.live = live;
    setText(this.follow, !following ? "Paused" : live === false ? "Following, not live" : "Following");
    this.follow.title = following ? "Pause (f)" : "Go on at the end (f)";
    show(this.jump, !following);
    setText(this.jump, below && !source.filtered ? `${count(below)} newer` : "To the end");
    const lines = `${count(Math.max(0, newest - this.view.first + 1))} lines`;
    setText(this.place, source.filtered ? `${count(window.length)}${window.hasOlder || window.hasNewer ? "+" : ""} of ${lines}` : lines);
  }

  /** Wrap long lines, or let them run to the right. */
  setWrap(on) {
    this.wrap.ariaPressed = String(on);
    localStorage.setItem(WRAP, String(on));
    this.view.pages.element.classList.toggle("wrap", on);
  }

  /** Show only lines of these levels; none means all. */
  setLevels(levels) {
    for (const [level, made] of this.levels) made.ariaPressed = String(levels.includes(level));
    this.#apply();
  }

  /** Show a search and levels, as an address has them; what is to be looked for: `{q, levels}`. */
  read({ q = "", level = "" }) {
    const named = level.split(",");
    this.search.value = q;
    for (const [name, made] of this.levels) made.ariaPressed = String(named.includes(name));
    return this.#wanted() ?? { q: "", levels: this.#chosen() };
  }

  /** Errors only, or everything. */
  toggleErrors() {
    this.setLevels(this.#chosen().join() === "error,fatal" ? [] : ["error", "fatal"]);
  }

  /** Leave nothing out any more. */
  clear() {
    this.search.value = "";
    this.setLevels([]);
  }

  #level(level) {
    const toggle = () => {
      made.ariaPressed = String(made.ariaPressed !== "true");
      this.#apply();
    };
    const made = button(level, toggle, { class: `level ${level}`, "aria-pressed": "false" });
    return made;
  }

  #chosen() {
    return [...this.levels].filter(([, made]) => made.ariaPressed === "true").map(([level]) => level);
  }

  #soon() {
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.#apply(), REST_MS);
  }

  #apply() {
    const wanted = this.#wanted();
    if (wanted) this.view.filter(wanted);
  }

  /** What is to be looked for; null while it is not yet said. */
  #wanted() {
    const q = this.search.value.trim();
    const open = needles(q) === null;
    this.search.classList.toggle("open", open);
    this.search.title = open ? "A quote is not closed yet." : SYNTAX;
    return open ? null : { q, levels: this.#chosen() };
  }

  async #download() {
    this.save.disabled = true;
    try {
      const blob = await this.view.source.download((bytes) => setText(this.save, size(bytes)), this.view.signal);
      const address = URL.createObjectURL(blob);
      h("a", { href: address, download: `${this.view.jobId}.ndjson` }).click();
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
    } catch (error) {
      notice(error.message);
    } finally {
      this.save.disabled = false;
      setText(this.save, "Download");
    }
  }
}
