// Bars of progress and of its stages.

import { visible } from "./ansi.js";
import { h, setText } from "./dom.js";

/** A bar with its text. `set(percent, message)` changes it in place. */
export class ProgressBar {
  constructor(label = "") {
    this.fill = h("div", { class: "fill" });
    this.track = h("div", { class: "track", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, this.fill);
    this.label = h("span", { class: "bar-label" }, visible(label));
    this.percent = h("span", { class: "percent" });
    this.message = h("span", { class: "bar-message" });
    const text = h("div", { class: "bar-text" }, label && this.label, this.message, this.percent);
    this.element = h("div", { class: "bar" }, text, this.track);
    this.track.setAttribute("aria-label", label || "progress");
  }

  set(percent, message) {
    const shown = Math.min(100, Math.max(0, Number(percent) || 0));
    this.fill.style.setProperty("transform", `scaleX(${shown / 100})`);
    this.element.classList.toggle("full", shown === 100);
    this.track.setAttribute("aria-valuenow", Math.round(shown));
    setText(this.percent, `${Math.floor(shown * 10) / 10} %`);
    setText(this.message, visible(message ?? ""));
  }
}

/** The progress of a job: its own bar, and one for each stage of `subProgress`. */
export class Progress {
  constructor() {
    this.main = new ProgressBar();
    this.stages = new Map();
    this.list = h("div", { class: "stages" });
    this.element = h("div", { class: "progress", hidden: true }, this.main.element, this.list);
  }

  /** Show a progress as the API has it; null hides it. */
  set(progress) {
    this.element.hidden = !progress;
    if (!progress) return;
    this.main.set(progress.percent, progress.message);
    const stages = Object.entries(progress.subProgress ?? {});
    const names = new Set(stages.map(([name]) => name));
    for (const [name, bar] of this.stages) {
      if (names.has(name)) continue;
      bar.element.remove();
      this.stages.delete(name);
    }
    for (const [name, stage] of stages) this.#stage(name).set(stage.percent, stage.message);
  }

  #stage(name) {
    let bar = this.stages.get(name);
    if (!bar) {
      bar = new ProgressBar(name);
      this.stages.set(name, bar);
      this.list.append(bar.element);
    }
    return bar;
  }
}
