// The table of jobs: one page of them, newest first, kept as it is in the service.

import { visible } from "./ansi.js";
import { errorHead } from "./error_view.js";
import { fill, h, setText, show } from "./dom.js";
import { ProgressBar } from "./progress_bar.js";
import { go, jobAddress } from "./router.js";
import { badge, ended, setBadge } from "./status.js";
import { age, between, moment } from "./time.js";

const SAID = 200;
const HEADS = ["Status", "Job", "Progress", "Attempt", "Age", "Ran for"];

/** The table. `set(jobs)` shows a page of jobs, moving and changing rows in place; `progress` and `tick` touch one thing. */
export class JobList {
  constructor() {
    this.rows = new Map();
    this.body = h("tbody", {});
    this.empty = h("p", { class: "empty", hidden: true }, "No jobs here.");
    const head = h("tr", {}, ...HEADS.map((name) => h("th", { scope: "col" }, name)));
    this.table = h("table", { class: "jobs" }, h("thead", {}, head), this.body);
    this.element = h("div", { class: "job-list" }, this.table, this.empty);
  }

  set(jobs) {
    show(this.empty, !jobs.length);
    show(this.table, jobs.length);
    const wanted = new Set(jobs.map((job) => job.id));
    for (const [id, row] of this.rows) {
      if (wanted.has(id)) continue;
      row.element.remove();
      this.rows.delete(id);
    }
    jobs.forEach((job, place) => this.#put(job, place));
  }

  /** Show a job's progress; whether the job is on this page. */
  progress(jobId, progress) {
    this.rows.get(jobId)?.progress(progress);
    return this.rows.has(jobId);
  }

  /** Let ages grow. */
  tick() {
    for (const row of this.rows.values()) row.tick();
  }

  /** Ids of the jobs on this page that are being worked on. */
  working() {
    return [...this.rows.values()].filter(({ job }) => job.status === "running" || job.status === "delivered").map(({ job }) => job.id);
  }

  /** Move the focus by some rows, or to the first one. */
  move(by) {
    const links = [...this.body.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    links[at < 0 ? 0 : Math.min(links.length - 1, Math.max(0, at + by))]?.focus();
  }

  #put(job, place) {
    let row = this.rows.get(job.id);
    if (!row) {
      row = new Row(job);
      this.rows.set(job.id, row);
    }
    row.set(job);
    const there = this.body.children[place];
    if (there !== row.element) this.body.insertBefore(row.element, there ?? null);
  }
}

class Row {
  constructor(job) {
    this.job = job;
    this.badge = badge(job.status);
    this.bar = new ProgressBar();
    this.attempt = h("td", { class: "number", dataset: { head: "attempt" } });
    this.age = h("td", { class: "number", dataset: { head: "age" } });
    this.ran = h("td", { class: "number", dataset: { head: "ran for" } });
    this.where = h("td", { class: "where" }, this.bar.element);
    const name = h("a", { href: jobAddress(job.id) }, h("span", { class: "name" }, visible(job.name)), h("code", { class: "id" }, job.id));
    this.element = h(
      "tr",
      { onclick: (event) => event.target.closest("a") || go(jobAddress(job.id)) },
      h("td", { class: "status" }, this.badge),
      h("td", { class: "what" }, name),
      this.where,
      this.attempt,
      this.age,
      this.ran,
    );
    this.bar.element.hidden = true;
  }

  set(job) {
    this.job = job;
    setBadge(this.badge, job.status);
    this.element.dataset.status = job.status;
    setText(this.attempt, `${job.attemptNumber + 1} of ${job.maxRetries + 1}`);
    this.attempt.classList.toggle("again", job.attemptNumber > 0);
    if (job.status === "completed") this.#said("");
    else if (job.status === "pending" || job.status === "scheduled") this.#waiting(job);
    else if (job.status === "dead" || job.status === "killed") this.#said(errorHead(String(job.result?.error ?? job.result?.reason ?? ""), SAID));
    this.tick();
  }

  progress(progress) {
    this.bar.element.hidden = !progress;
    if (!progress) return;
    if (!this.bar.element.isConnected) fill(this.where, this.bar.element);
    this.bar.set(progress.percent, progress.message);
  }

  tick() {
    const { createdAt, deliveredAt, startedAt, completedAt, status } = this.job;
    setText(this.age, age(createdAt));
    this.age.title = `created ${moment(createdAt)}`;
    const began = startedAt ?? deliveredAt;
    setText(this.ran, began && (completedAt || !ended(status)) ? between(began, completedAt) : "-");
  }

  #waiting({ scheduledFor }) {
    this.#said(scheduledFor ? `due ${moment(scheduledFor)}` : "");
  }

  #said(text) {
    if (this.where.textContent !== text || this.bar.element.isConnected) fill(this.where, h("span", { class: "said" }, text));
  }
}
