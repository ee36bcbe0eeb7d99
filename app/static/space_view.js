// A space: how many jobs stand where, how fast they come and go, and the list of them, live.

import { createJob } from "./create_job.js";
import { ask, field, notice } from "./dialog.js";
import { button, fill, h, setText } from "./dom.js";
import { JobList } from "./job_list.js";
import { followSpace } from "./live.js";
import { isLost, lost } from "./lost.js";
import { NamesTable } from "./names_table.js";
import { Sparkline } from "./rates.js";
import { go, keysAddress, settingsAddress, spaceAddress } from "./router.js";
import { STATUSES } from "./status.js";
import { count } from "./time.js";

const PAGE = 50;
const AGAIN_MS = 1000;
const REST = 10;
const RETRIED = new Set(["dead", "killed"]);

/** Show a space until `signal`. */
export class SpaceView {
  constructor(session, shell, { id, query }, signal) {
    Object.assign(this, { session, shell, id, signal });
    this.status = STATUSES.includes(query.status) ? query.status : null;
    this.offset = Math.max(0, Math.trunc(Number(query.offset)) || 0);
    this.shown = PAGE;
    this.list = new JobList();
    this.names = new NamesTable(session, id, signal);
    this.sparkline = new Sparkline();
    this.tiles = new Map([null, ...STATUSES].map((status) => [status, this.#tile(status)]));
    this.place = h("span", { class: "place" });
    this.newer = button("Newer", () => this.#turn(-PAGE), { class: "quiet" });
    this.older = button("Older", () => this.#turn(this.shown), { class: "quiet" });
    this.element = this.#layout();
    this.dirty = false;
    this.known = new Set();
  }

  async start() {
    this.#follow();
    const timer = setInterval(() => this.#tick(), 1000);
    this.signal.addEventListener("abort", () => clearInterval(timer));
    document.addEventListener("visibilitychange", () => this.dirty && this.#touch(), { signal: this.signal });
    this.waiting = true;
    await this.#again();
  }

  shortcuts() {
    return {
      j: ["Next job", () => this.list.move(1)],
      k: ["Job before", () => this.list.move(-1)],
      c: this.session.can("jobs:create") && ["Create a job", () => this.#create()],
      s: this.session.root && ["Settings", () => go(settingsAddress(this.id))],
      "]": ["Older jobs", () => this.older.disabled || this.#turn(this.shown)],
      "[": ["Newer jobs", () => this.newer.disabled || this.#turn(-PAGE)],
    };
  }

  #layout() {
    const retry = RETRIED.has(this.status) && this.session.can("jobs:retry") && button("Retry all", () => this.#retryAll());
    const create = this.session.can("jobs:create") && button("Create job", () => this.#create(), { class: "primary" });
    return h(
      "main",
      { class: "space" },
      this.session.root && h("nav", { class: "doors", "aria-label": "Of this space" }, h("a", { href: keysAddress(this.id) }, "keys"), h("a", { href: settingsAddress(this.id) }, "settings")),
      h("section", { class: "overview" }, h("nav", { class: "tiles", "aria-label": "Jobs by status" }, ...this.tiles.values()), this.sparkline.element),
      this.names.element,
      h("section", { class: "list" }, h("header", {}, h("h2", {}, this.status ?? "All jobs"), this.place, this.newer, this.older, retry, create), this.list.element),
    );
  }

  #tile(status) {
    const props = { class: "tile", href: spaceAddress(this.id, { status }), dataset: { status: status ?? "all" } };
    const current = status === this.status && { "aria-current": "page" };
    return h("a", { ...props, ...current }, h("b", {}, "-"), h("span", {}, h("i", { class: "dot" }), status ?? "all"));
  }

  #follow() {
    const listeners = {
      onCounts: (counts) => this.#countSoon(counts),
      onEvent: (event) => this.#event(event),
      onMissed: () => this.#touch(),
      onState: (live, detail) => this.shell.live(live, detail),
      onStale: (detail) => this.#stale(detail),
    };
    followSpace(this.session, this.id, listeners, this.signal);
  }

  /** Counts come with every event; they are shown once a frame. */
  #countSoon(counts) {
    if (!this.counts) requestAnimationFrame(() => this.#count());
    this.counts = counts;
  }

  #count() {
    const counts = this.counts;
    this.counts = null;
    const total = Object.values(counts).reduce((sum, number) => sum + number, 0);
    for (const [status, tile] of this.tiles) setText(tile.firstChild, count(status ? counts[status] : total));
  }

  #event({ type, jobId, data }) {
    const now_s = Math.floor(Date.now() / 1000);
    if (type === "progress") this.#progress(jobId, data);
    else this.#touch();
    if (type === "created") this.sparkline.created.add(1, now_s);
    if (type === "completed" || type === "dead" || type === "killed") this.sparkline.ended.add(1, now_s);
  }

  /** No news come: read what there is. */
  async #stale(detail) {
    this.shell.stale(detail);
    this.#touch();
    const totals = await Promise.all(STATUSES.map((status) => this.#total(status))).catch(() => null);
    if (totals) this.#countSoon(Object.fromEntries(STATUSES.map((status, i) => [status, totals[i]])));
  }

  async #total(status) {
    return (await this.session.api.page(`/spaces/${this.id}/jobs`, { status, limit: 1 }, this.signal)).total;
  }

  #tick() {
    if (document.hidden) return;
    this.sparkline.draw();
    this.list.tick();
    this.names.tick();
  }

  /** Something changed: read the page again, soon but not all the time. */
  #touch() {
    this.dirty = true;
    if (this.waiting || document.hidden) return;
    this.waiting = setTimeout(() => this.#again(), this.pause_ms ?? AGAIN_MS);
  }

  async #again() {
    this.dirty = false;
    const began = performance.now();
    await this.#load();
    this.pause_ms = Math.max(AGAIN_MS, REST * (performance.now() - began));
    this.waiting = null;
    if (this.dirty) this.#touch();
  }

  async #load() {
    try {
      const query = { status: this.status, limit: PAGE, offset: this.offset };
      const { body, total } = await this.session.api.page(`/spaces/${this.id}/jobs`, query, this.signal);
      this.#showPage(body, total);
      this.names.start();
      await this.#loadProgress();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (isLost(error)) this.#isLost(error);
      else this.shell.problem(error);
    }
  }

  #isLost({ message }) {
    this.shell.live(null);
    this.element.className = "";
    fill(this.element, lost("This space is not there", `${message} It was ${this.id}.`));
  }

  #showPage(jobs, total) {
    this.shell.problem(null);
    this.list.set(jobs);
    this.shown = jobs.length || PAGE; // large jobs make a short page
    setText(this.place, jobs.length ? `${count(this.offset + 1)} - ${count(this.offset + jobs.length)} of ${count(total)}` : "");
    this.newer.disabled = this.offset === 0;
    this.older.disabled = this.offset + jobs.length >= total;
  }

  /** The list has no progress: ask for that of the jobs at work, once each; from then on it comes by itself. */
  async #loadProgress() {
    const asked = this.list.working().filter((id) => !this.known.has(id));
    await Promise.all(asked.map((id) => this.#loadOne(id)));
  }

  async #loadOne(id) {
    const { progress } = await this.session.api.get(`/jobs/${id}/progress`, {}, this.signal);
    if (progress && !this.known.has(id)) this.list.progress(id, progress);
    this.known.add(id);
  }

  /** What comes is newer than what was asked for before. */
  #progress(id, progress) {
    if (this.list.progress(id, progress)) this.known.add(id);
  }

  #turn(by) {
    go(spaceAddress(this.id, { status: this.status, offset: Math.max(0, this.offset + by) }));
  }

  #retryAll() {
    const name = h("input", { maxlength: 200, placeholder: "any", autofocus: true });
    const submit = async () => {
      const body = { status: this.status, ...(name.value && { name: name.value }) };
      const { retried } = await this.session.api.post(`/spaces/${this.id}/jobs/retry`, JSON.stringify(body));
      notice(`${count(retried)} jobs run again.`);
    };
    const body = [h("p", {}, `The oldest ${this.status} jobs run again, up to a thousand at once.`), field("Only those named", name)];
    return ask({ title: `Retry ${this.status} jobs?`, body, action: "Retry", submit });
  }

  #create() {
    return createJob(this.session, this.id);
  }
}
