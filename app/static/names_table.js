// How the jobs of a space fare, by name: how they ended over the last hour and day, how long they took, what is pending.

import { visible } from "./ansi.js";
import { button, fill, h, setText, show } from "./dom.js";
import { age, count, duration } from "./time.js";

const AGAIN_MS = 10_000;
const FEW = matchMedia("(max-width: 700px)").matches ? 3 : 5;
const HEADS = ["Name", "Pending", "Oldest", "Over", "Completed", "Dead", "Killed", "p50", "p95"];
const OTHERS = "all other names";

/** The table; nothing is seen of it before there is a name. `start` reads it, `tick` (once a second) keeps it true. */
export class NamesTable {
  constructor(session, spaceId, signal) {
    Object.assign(this, { session, spaceId, signal });
    this.names = [];
    this.rows = new Map();
    this.read_ms = null;
    this.isWhole = false;
    this.oldest = h("span", { class: "place" });
    this.more = button("", () => this.#more(), { class: "quiet" });
    this.problem = h("p", { class: "problem", role: "status", hidden: true });
    this.table = h("table", { class: "plain" }, h("thead", {}, h("tr", {}, ...HEADS.map((name) => h("th", { scope: "col" }, name)))));
    this.element = h("section", { class: "names", hidden: true }, h("header", {}, h("h2", {}, "By name"), this.oldest, this.more), this.problem, this.table);
  }

  start() {
    if (this.read_ms === null) return this.#load();
  }

  tick() {
    if (this.read_ms === null) return;
    this.#ages();
    if (performance.now() - this.read_ms >= AGAIN_MS) this.#load();
  }

  async #load() {
    this.read_ms = Infinity; // not again before this one has ended
    try {
      const { names, oldestPendingAt } = await this.session.api.get(`/spaces/${this.spaceId}/stats`, {}, this.signal);
      Object.assign(this, { names, oldestPendingAt });
      show(this.problem, false);
      this.#show();
    } catch (error) {
      if (error.name === "AbortError") return;
      show(this.problem, true);
      setText(this.problem, `These numbers could not be read again: ${error.message}`);
    } finally {
      this.read_ms = performance.now();
    }
  }

  #show() {
    const shown = this.names.slice(0, this.isWhole ? undefined : FEW);
    const rows = shown.map((stats) => this.#row(stats));
    this.rows = new Map(shown.map(({ name }, i) => [name, rows[i]]));
    const bodies = rows.map(({ element }) => element);
    if ([...this.table.tBodies].some((body, i) => body !== bodies[i]) || this.table.tBodies.length !== bodies.length) {
      fill(this.table, this.table.tHead, ...bodies);
    }
    setText(this.more, this.isWhole ? "The busiest only" : `All ${count(this.names.length)} names`);
    this.more.setAttribute("aria-expanded", this.isWhole);
    show(this.more, this.names.length > FEW);
    show(this.element, this.names.length > 0);
    this.#ages();
  }

  #row(stats) {
    const row = this.rows.get(stats.name) ?? new NameRows(stats.name);
    row.set(stats);
    return row;
  }

  #ages() {
    setText(this.oldest, this.oldestPendingAt ? `oldest pending ${age(this.oldestPendingAt)}` : "");
    for (const row of this.rows.values()) row.tick();
  }

  #more() {
    this.isWhole = !this.isWhole;
    this.#show();
  }
}

/** The two rows of a name, changed in place, so that what is selected stays so. */
class NameRows {
  constructor(name) {
    this.hour = new Ends("last hour");
    this.day = new Ends("last day");
    this.pending = h("td", { class: "waits", rowspan: 2, dataset: { head: "pending" } });
    this.oldest = h("td", { class: "waits", rowspan: 2, dataset: { head: "oldest" } });
    const head = h("th", { class: name === null ? "name others" : "name", scope: "rowgroup", rowspan: 2 }, name === null ? OTHERS : visible(name));
    this.element = h("tbody", {}, h("tr", {}, head, this.pending, this.oldest, ...this.hour.cells), h("tr", {}, ...this.day.cells));
  }

  set({ name, lastHour, lastDay, pending, oldestPendingAt }) {
    this.since = oldestPendingAt;
    setText(this.pending, name === null ? "-" : count(pending));
    this.hour.set(lastHour);
    this.day.set(lastDay);
  }

  tick() {
    setText(this.oldest, this.since ? age(this.since) : "-");
  }
}

/** The cells of an hour or a day. */
class Ends {
  constructor(over) {
    const cell = (head, outcome) => h("td", { dataset: { head, ...(outcome && { status: outcome }) } });
    this.outcomes = ["completed", "dead", "killed"].map((outcome) => cell(outcome, outcome));
    this.times = [cell("p50"), cell("p95")];
    this.cells = [h("th", { class: "over", scope: "row" }, over), ...this.outcomes, ...this.times];
  }

  set({ completed, dead, killed, p50Ms, p95Ms }) {
    [completed, dead, killed].forEach((number, i) => {
      setText(this.outcomes[i], count(number));
      this.outcomes[i].classList.toggle("none", number === 0);
    });
    [p50Ms, p95Ms].forEach((ms, i) => setText(this.times[i], ms === null ? "-" : duration(ms)));
  }
}
