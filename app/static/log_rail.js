// The rail beside a log: where in the whole log one is, and the way to anywhere else in it.

import { h, setText } from "./dom.js";
import { seqAt, thumb } from "./log_window.js";
import { count } from "./time.js";

const REST_MS = 90;

/** A scroll bar over seqs. `onJump(seq)` is called while the thumb rests under the pointer, and when it is let go. */
export class LogRail {
  constructor(onJump) {
    this.onJump = onJump;
    this.first = 1;
    this.last = 1;
    this.grip = h("div", { class: "grip" });
    this.label = h("output", { hidden: true });
    this.element = h("div", { class: "rail", "aria-hidden": "true" }, this.grip, this.label);
    this.element.addEventListener("pointerdown", (event) => this.#down(event));
    this.element.addEventListener("pointermove", (event) => this.#drag(event));
    for (const name of ["pointerup", "pointercancel"]) this.element.addEventListener(name, () => this.#up());
  }

  /** Show that lines `top` to `bottom` of a log from `first` to `last` are visible. */
  set(first, last, top, bottom) {
    this.first = first;
    this.last = last;
    if (this.dragged === undefined) this.#place(thumb(first, last, top, bottom));
  }

  #place({ travelled, height }) {
    this.grip.style.setProperty("--travelled", travelled);
    this.grip.style.setProperty("--height", height);
  }

  #down(event) {
    event.preventDefault();
    this.element.setPointerCapture(event.pointerId);
    this.dragged = null;
    this.#drag(event);
  }

  #drag(event) {
    if (this.dragged === undefined) return;
    const box = this.element.getBoundingClientRect();
    const part = (event.clientY - box.top) / box.height;
    this.dragged = seqAt(this.first, this.last, part);
    this.#place(thumb(this.first, this.last, this.dragged, this.dragged));
    this.label.hidden = false;
    setText(this.label, count(this.dragged));
    this.label.style.setProperty("top", `${Math.min(1, Math.max(0, part)) * 100}%`);
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.onJump(this.dragged), REST_MS);
  }

  #up() {
    if (this.dragged === undefined) return;
    clearTimeout(this.resting);
    const seq = this.dragged;
    this.dragged = undefined;
    this.label.hidden = true;
    this.onJump(seq);
  }
}
