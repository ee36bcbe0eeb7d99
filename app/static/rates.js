// Events a second, over the last minutes, and their picture.

import { h, setText, svg } from "./dom.js";

/** Counts in buckets of a second; the newest `seconds` of them are kept. Pure. */
export class Rates {
  constructor(seconds, now_s) {
    this.seconds = seconds;
    this.buckets = new Array(seconds).fill(0);
    this.now_s = now_s;
  }

  /** Count `number` events at a moment in whole seconds. */
  add(number, now_s) {
    this.advance(now_s);
    this.buckets[this.seconds - 1] += number;
  }

  /** Let time pass. */
  advance(now_s) {
    const passed = Math.min(this.seconds, Math.max(0, now_s - this.now_s));
    this.now_s = Math.max(this.now_s, now_s);
    this.buckets.splice(0, passed);
    while (this.buckets.length < this.seconds) this.buckets.push(0);
  }

  /** Events a second over the last `span` whole seconds; 0 when that is none. */
  mean(span) {
    const whole = this.buckets.slice(-1 - span, -1);
    return whole.reduce((sum, number) => sum + number, 0) / Math.max(1, span);
  }
}

/** The points of a line through numbers, the newest one at the right edge of a box, the highest at its top. Pure. */
export function points(numbers, { width, height, step, most }) {
  const left = width - (numbers.length - 1) * step;
  return numbers.map((number, i) => `${(left + i * step).toFixed(1)},${(height - (number / most) * height).toFixed(1)}`).join(" ");
}

const WIDTH = 240;
const HEIGHT = 40;
const SECONDS = 120;
const MEAN_S = 10;

/** Two lines over the last two minutes, or since the page was opened: jobs created and jobs ended. */
export class Sparkline {
  constructor() {
    const now_s = Math.floor(Date.now() / 1000);
    this.opened_s = now_s;
    this.created = new Rates(SECONDS, now_s);
    this.ended = new Rates(SECONDS, now_s);
    this.createdLine = svg("polyline", { class: "created" });
    this.endedLine = svg("polyline", { class: "ended" });
    this.endedArea = svg("polygon", { class: "ended-area" });
    this.createdText = h("b", {}, "0");
    this.endedText = h("b", {}, "0");
    const picture = svg(
      "svg",
      { viewBox: `0 -2 ${WIDTH} ${HEIGHT + 4}`, preserveAspectRatio: "none", role: "img", "aria-label": "Jobs a second over two minutes" },
      this.endedArea,
      this.createdLine,
      this.endedLine,
    );
    this.element = h(
      "figure",
      { class: "sparkline" },
      h("figcaption", {}, h("span", { class: "created" }, this.createdText, " created/s"), h("span", { class: "ended" }, this.endedText, " ended/s")),
      picture,
    );
    this.draw();
  }

  /** Draw what was counted, as of now. */
  draw() {
    const now_s = Math.floor(Date.now() / 1000);
    this.created.advance(now_s);
    this.ended.advance(now_s);
    const seen = Math.min(SECONDS - 1, now_s - this.opened_s);
    const created = this.created.buckets.slice(-1 - seen, -1);
    const finished = this.ended.buckets.slice(-1 - seen, -1);
    const box = { width: WIDTH, height: HEIGHT, step: WIDTH / (SECONDS - 2), most: Math.max(1, ...created, ...finished) };
    const line = points(finished, box);
    const left = WIDTH - (finished.length - 1) * box.step;
    this.createdLine.setAttribute("points", points(created, box));
    this.endedLine.setAttribute("points", line);
    this.endedArea.setAttribute("points", finished.length ? `${left},${HEIGHT} ${line} ${WIDTH},${HEIGHT}` : "");
    setText(this.createdText, rounded(this.created.mean(Math.min(MEAN_S, seen))));
    setText(this.endedText, rounded(this.ended.mean(Math.min(MEAN_S, seen))));
  }
}

function rounded(rate) {
  return rate >= 10 ? Math.round(rate) : Math.round(rate * 10) / 10;
}
