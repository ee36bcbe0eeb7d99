// What a key that may not read jobs is shown: the progress of one, live, or a sentence that says what it may.

import { field } from "./dialog.js";
import { fill, h, setText, show } from "./dom.js";
import { followJob } from "./live.js";
import { isLost, lost } from "./lost.js";
import { Progress } from "./progress_bar.js";
import { go, jobAddress } from "./router.js";
import { badge, ended, setBadge } from "./status.js";

const ONLY = "This key shows progress only. A key with jobs:read shows the log and everything else.";

/** Show a job's progress until `signal`. */
export class ProgressView {
  constructor(session, shell, { id }, signal) {
    Object.assign(this, { session, shell, id, signal });
    this.badge = badge("pending");
    this.progress = new Progress();
    this.none = h("p", {}, "No progress was told yet.");
    this.badge.hidden = true;
    const head = h("header", {}, this.badge, h("h1", {}, `Job ${id}`));
    this.element = h("main", { class: "narrow" }, head, this.progress.element, this.none, h("p", { class: "hint" }, ONLY));
  }

  async start() {
    const nothing = () => {};
    const listeners = {
      onBegin: ({ status }) => this.#status(status),
      onEvent: ({ status }) => this.#status(status),
      onProgress: (progress) => this.#show(progress),
      onState: (live, detail) => this.#state(live, detail),
      onStale: (detail) => this.#late(detail),
      onLines: nothing,
      onHead: nothing,
      onRolledBack: nothing,
    };
    if (await this.#load()) followJob(this.session, this.id, listeners, this.signal);
  }

  /** Read the progress; whether the job is there, as far as is known. */
  async #load() {
    try {
      const { progress } = await this.session.api.get(`/jobs/${this.id}/progress`, {}, this.signal);
      if (progress) this.#show(progress);
      this.shell.problem(null);
      return true;
    } catch (error) {
      if (error.name === "AbortError") return false;
      if (!isLost(error)) return this.shell.problem(error) ?? true;
      fill(this.element, lost("This job is not there", `${error.message} It was ${this.id}.`));
      return false;
    }
  }

  #state(live, detail = {}) {
    this.shell.live(live, detail);
    if (live === null && typeof detail.status === "string") this.#status(detail.status);
  }

  #late(detail) {
    this.shell.stale(detail);
    this.#load();
  }

  shortcuts() {
    return {};
  }

  #show(progress) {
    show(this.none, false);
    this.progress.set(progress);
  }

  #status(status) {
    if (!status) return;
    show(this.badge, true);
    setBadge(this.badge, status);
    this.progress.element.dataset.status = status;
    if (ended(status)) setText(this.none, "The job ended without reporting progress.");
  }
}

/** The page of a space for such a key. */
export class NarrowView {
  constructor(session) {
    const id = h("input", { required: true, spellcheck: "false", autocomplete: "off", maxlength: 64 });
    const submit = (event) => {
      event.preventDefault();
      go(jobAddress(id.value.trim()));
    };
    const open = h("form", { onsubmit: submit }, field("Job", id, "Its id, as the create answered it."), h("button", { type: "submit", class: "primary" }, "Show"));
    const may = session.can("jobs:read:progress");
    const scopes = [...session.scopes].join(", ");
    const text = may ? "This key shows the progress of a job, and nothing else." : `This key looks at nothing: it has ${scopes}.`;
    this.element = h("main", { class: "narrow" }, h("h1", {}, "Progress"), h("p", {}, text), may && open);
  }

  start() {}

  shortcuts() {
    return {};
  }
}
