// A part of the settings: a form whose fields say themselves what the service has against them.

import { notice } from "./dialog.js";
import { fill, h, show } from "./dom.js";

/** What is wrong with one field; `path` is that field's. */
export class FieldError extends Error {
  constructor(path, text) {
    super(text);
    this.path = path;
  }
}

/** An input, or the first one of a group, with its label; `path` is how the service calls it when it refuses: `push.url`. */
export class Field {
  constructor(path, input, labelled) {
    Object.assign(this, { path, input });
    this.problem = problemLine();
    this.element = h("div", { class: "told" }, labelled, this.problem);
    input.setAttribute("aria-describedby", this.problem.id);
  }

  /** Say what is wrong; null when nothing is. */
  tell(error) {
    tell(this.problem, error);
    if (error) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
  }
}

/** A titled part. Its `buttons` and `submit` (a function that is called with Enter, too) may throw what is then told
 *  beside the field that it is about, or below them all. */
export class Part {
  constructor(title, { about = [], fields = [], buttons = [], submit = null }) {
    this.fields = fields;
    this.problem = problemLine();
    const form = h("form", {}, ...fields.map(({ element }) => element), this.problem, h("footer", {}, ...buttons));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (submit) this.attempt(submit);
    });
    this.element = h("section", { class: "part", "aria-label": title }, h("h3", {}, title), ...about, form);
  }

  /** Do something once at a time, say that it is done (what it returns, if anything) or what is against it. */
  async attempt(act) {
    if (this.busy) return;
    this.busy = true;
    this.#tell(null);
    try {
      const done = await act();
      if (done) notice(done);
    } catch (error) {
      this.#tell(error);
    } finally {
      this.busy = false;
    }
  }

  #tell(error) {
    const about = error && this.fields.find(({ path }) => error.path === path || error.message.includes(path));
    for (const each of this.fields) each.tell(each === about ? error : null);
    tell(this.problem, about ? null : error);
    about?.input.focus();
  }
}

let lines = 0;

function problemLine() {
  lines += 1;
  return h("p", { class: "problem", id: `problem-${lines}`, role: "alert", hidden: true });
}

function tell(line, error) {
  show(line, error !== null);
  fill(line, error?.message);
}
