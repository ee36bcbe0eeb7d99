// A job: how it stands, what went wrong, how it came there, and its log, live.

import { visible } from "./ansi.js";
import { copyButton } from "./copy.js";
import { createJob } from "./create_job.js";
import { ask, field, notice } from "./dialog.js";
import { button, fill, h, setText, show } from "./dom.js";
import { errorView } from "./error_view.js";
import { complaint, movedOn } from "./history.js";
import { pretty } from "./json_text.js";
import { jsonView } from "./json_view.js";
import { followJob } from "./live.js";
import { LogView } from "./log_controller.js";
import { isLost, lost } from "./lost.js";
import { Progress } from "./progress_bar.js";
import { go, spaceAddress } from "./router.js";
import { badge, ended, setBadge } from "./status.js";
import { age, between, moment, serverNow, duration } from "./time.js";
import { Attempts, Timeline, callbackTable } from "./timeline.js";

const AGAIN_MS = 300;
const TOLD_MOST = 1000;

/** Sections that are open even where the log stands below them. */
const SHORT = new Set(["Attempts"]);

/** Show a job until `signal`. */
export class JobView {
  constructor(session, shell, to, signal) {
    Object.assign(this, { session, shell, id: to.id, to, signal });
    this.log = new LogView(session, to.id, signal);
    this.told = [];
    this.progress = new Progress();
    this.timeline = new Timeline();
    this.attempts = new Attempts();
    this.badge = badge("pending");
    this.name = h("h1", {});
    this.facts = h("dl", { class: "facts" });
    this.complaint = h("div", { class: "complaint", role: "alert", hidden: true });
    this.kill = button("Kill", () => this.#kill(), { class: "danger", hidden: true });
    this.retry = button("Retry", () => this.#act("retry"), { class: "primary", hidden: true });
    this.again = button("Create another", () => this.#createAnother(), { class: "quiet", hidden: true });
    this.sections = Object.fromEntries(["Attempts", "Timeline", "Payload", "Result", "Checkpoint", "Callback"].map((name) => [name, section(name)]));
    this.element = this.#layout();
  }

  async start() {
    const { signal } = this;
    const listeners = {
      onEvent: (frame) => this.#event(frame),
      onBegin: (init) => this.#begins(init),
      onProgress: (progress) => this.#progress(progress),
      onLines: (rows) => this.log.lines(rows),
      onHead: (seq) => this.log.head(seq),
      onRolledBack: () => this.#rolledBack(),
      onState: (live, detail) => this.#live(live, detail),
      onStale: (detail) => this.#stale(detail),
    };
    followJob(this.session, this.id, listeners, signal);
    const timer = setInterval(() => this.job && this.#tick(), 1000);
    signal.addEventListener("abort", () => clearInterval(timer));
    await Promise.all([this.#load(), this.#loadProgress(), this.log.start(this.to)]);
  }

  shortcuts() {
    const { log } = this;
    return {
      f: ["Follow the log, or pause", () => log.toggleFollowing()],
      "/": ["Search the log", () => log.toolbar.search.focus()],
      e: ["Errors only, or all lines", () => log.toolbar.toggleErrors()],
      w: ["Wrap long lines, or not", () => log.toolbar.setWrap(log.toolbar.wrap.ariaPressed !== "true")],
      j: ["Next line", () => log.selectNext(1)],
      k: ["Line before", () => log.selectNext(-1)],
      g: ["First line of the log", () => log.toStart()],
      G: ["End of the log", () => log.toTail()],
      r: ["Retry", () => this.retry.hidden || this.#act("retry")],
      x: ["Kill", () => this.kill.hidden || this.#kill()],
      u: ["Up to the space", () => this.job && go(spaceAddress(this.job.spaceId))],
      Escape: ["Close the line", () => log.select(null)],
    };
  }

  /** The address names another place in the log of the same job. */
  update(to) {
    this.log.open(to);
  }

  #layout() {
    const acts = h("div", { class: "acts" }, copyButton(() => this.id, "Copy id"), this.again, this.retry, this.kill);
    const { Attempts, Timeline: events, Payload, Result, Checkpoint, Callback } = this.sections;
    fill(events.body, this.timeline.element);
    fill(Attempts.body, this.attempts.element);
    return h(
      "main",
      { class: "job" },
      h("header", { class: "job-head" }, this.badge, this.name, acts),
      h(
        "aside",
        { class: "about" },
        this.complaint,
        this.progress.element,
        this.facts,
        ...[Attempts, Callback, events, Result, Payload, Checkpoint].map(({ element }) => element),
      ),
      this.log.element,
    );
  }

  #live(live, detail) {
    this.shell.live(live, detail);
    this.log.setLive(live);
  }

  /** No news come: read what there is. */
  #stale(detail) {
    this.shell.stale(detail);
    this.#loadSoon();
    this.#loadProgress();
    this.log.poll();
  }

  /** The service lost what it had told: show what it has now. */
  #rolledBack() {
    this.#loadSoon();
    this.log.reset();
  }

  /** An event came, before, during or after a load: it is shown at once, and what else it changed is read. */
  #event(frame) {
    if (frame.type !== "gap") this.told = [...this.told.slice(1 - TOLD_MOST), frame];
    if (this.read && frame.type !== "gap") this.#show(this.read);
    this.#loadSoon();
  }

  /** The stream begins behind an event that may have come after the job was read. */
  #begins({ seq, status }) {
    this.told = this.told.filter((frame) => frame.seq <= seq);
    this.began = { seq, status };
    this.#readAgain();
  }

  #readAgain() {
    if (!this.read || !this.began) return;
    const { seq, status } = this.began;
    this.began = null;
    if (status !== this.read.status || seq > (this.read.events.at(-1)?.seq ?? 0)) this.#loadSoon();
  }

  #loadSoon() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.#load();
    }, AGAIN_MS);
  }

  /** One load at a time, so that no older answer comes after a newer one; what is asked for meanwhile is read after it. */
  async #load() {
    this.wanted = true;
    if (this.loading) return;
    this.loading = true;
    while (this.wanted && !this.signal.aborted) {
      this.wanted = false;
      await this.#loadOnce();
    }
    this.loading = false;
  }

  async #loadOnce() {
    try {
      this.read = await this.session.api.get(`/jobs/${this.id}`, {}, this.signal);
      this.#show(this.read);
      this.#readAgain();
      this.shell.problem(null);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (isLost(error)) this.#isLost(error);
      else this.shell.problem(error);
    }
  }

  #isLost({ message }) {
    this.job = null;
    this.shell.live(null);
    this.element.className = "";
    fill(this.element, lost("This job is not there", `${message} It was ${this.id}.`));
  }

  #progress(progress) {
    this.hasProgress = true;
    this.progress.set(progress);
  }

  /** What was told while this was asked for is newer. */
  async #loadProgress() {
    const { progress } = await this.session.api.get(`/jobs/${this.id}/progress`, {}, this.signal).catch(() => ({}));
    if (progress && !this.hasProgress) this.progress.set(progress);
  }

  #show(read) {
    const job = (this.job = movedOn(read, this.told));
    this.shell.place(job.spaceId, job.name);
    setBadge(this.badge, job.status);
    this.progress.element.dataset.status = job.status;
    setText(this.name, visible(job.name));
    this.#showActions(job);
    this.#showComplaint(job);
    this.#showFacts();
    this.timeline.set(job.events);
    show(this.sections.Timeline.element, job.events.length);
    show(this.sections.Attempts.element, this.attempts.set(job.events));
    this.log.setEnded(ended(job.status));
    put(this.sections.Callback, this.#callback(job));
    this.#put("Payload", job.payload);
    this.#put("Checkpoint", job.checkpoint);
    this.#put("Result", job.status === "completed" ? job.result : null);
  }

  /** Show a value, unless it is the one that is shown: it may be long, and somebody may be reading it. */
  #put(name, value) {
    const text = pretty(value ?? null);
    const place = this.sections[name];
    if (place.text === text) return;
    place.text = text;
    put(place, value === null || value === undefined ? null : jsonView(value));
  }

  #callback({ status, callbackUrl, callbackHeaders, events }) {
    if (!callbackUrl) return null;
    const again = ended(status) && this.session.can("jobs:retry") && button("Send again", () => this.#act("callback/retry"), { class: "quiet" });
    return h("div", {}, h("code", { class: "address" }, visible(callbackUrl)), callbackHeaders && jsonView(callbackHeaders), callbackTable(events), again);
  }

  #showActions({ status }) {
    const { session } = this;
    show(this.kill, !ended(status) && session.can("jobs:kill"));
    show(this.retry, (status === "dead" || status === "killed") && session.can("jobs:retry"));
    show(this.again, session.can("jobs:create"));
  }

  #showComplaint(job) {
    const text = complaint(job);
    show(this.complaint, text !== null);
    if (this.complained !== text) fill(this.complaint, text === null ? null : errorView(text));
    this.complained = text;
    this.complaint.dataset.status = job.status;
  }

  #tick() {
    this.#showFacts();
    this.attempts.tick();
  }

  #showFacts() {
    const { job } = this;
    const began = job.startedAt ?? job.deliveredAt;
    const facts = {
      Created: `${moment(job.createdAt)} (${age(job.createdAt)} ago)`,
      "Not before": job.scheduledFor && `${moment(job.scheduledFor)} (${inWhile(job.scheduledFor)})`,
      Started: job.startedAt && moment(job.startedAt),
      Ended: job.completedAt && moment(job.completedAt),
      [job.completedAt ? "Ran for" : "Running for"]: began && between(began, job.completedAt),
      Attempt: `${job.attemptNumber + 1} of ${job.maxRetries + 1}`,
      Lease: `${duration(job.timeoutSeconds * 1000)}`,
      Id: job.id,
    };
    const shown = Object.entries(facts).filter(([, value]) => value);
    if (this.facts.childElementCount !== shown.length * 2) fill(this.facts, ...shown.flatMap(([name]) => [h("dt", {}, name), h("dd", {})]));
    shown.forEach(([name, value], i) => {
      setText(this.facts.children[2 * i], name);
      setText(this.facts.children[2 * i + 1], value);
    });
  }

  #kill() {
    const reason = h("input", { maxlength: 1000, placeholder: "why", autofocus: true });
    const submit = () => this.session.api.post(`/jobs/${this.id}/kill`, JSON.stringify(reason.value ? { reason: reason.value } : {}));
    return ask({ title: "Kill this job?", body: [h("p", {}, "Its worker is told at its next call."), field("Reason", reason)], action: "Kill", danger: true, submit });
  }

  async #act(verb) {
    try {
      await this.session.api.post(`/jobs/${this.id}/${verb}`);
      await this.#load();
    } catch (error) {
      notice(error.message);
    }
  }

  #createAnother() {
    const { job } = this;
    return createJob(this.session, job.spaceId, { ...job, payload: pretty(job.payload) });
  }
}

function section(name) {
  const body = h("div", { class: "body" });
  const open = SHORT.has(name) || !matchMedia("(max-width: 900px)").matches;
  const element = h("details", { class: "section", hidden: true, open }, h("summary", {}, name), body);
  return { element, body };
}

function put({ element, body }, content) {
  element.hidden = !content;
  if (content) fill(body, content);
}

function inWhile(iso) {
  const ms = Date.parse(iso) - serverNow();
  return ms > 0 ? `in ${duration(ms)}` : "due";
}
