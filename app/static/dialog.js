// Dialogs, and the notice at the bottom of the page.

import { button, fill, h } from "./dom.js";

const NOTICE_MS = 6000;

/** Ask in a dialog with a form. `submit(form)` may throw an ApiError, which is shown; resolves when it is closed. */
export function ask({ title, body, action, danger = false, submit }) {
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const go = h("button", { type: "submit", class: danger ? "danger" : "primary" }, action);
  const cancel = button("Cancel", () => dialog.close());
  const form = h("form", { method: "dialog" }, h("h2", {}, title), ...body, problem, h("footer", {}, cancel, go));
  const dialog = h("dialog", { "aria-label": title }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      await submit(form);
      dialog.close();
    } catch (error) {
      problem.hidden = false;
      fill(problem, error.message);
    } finally {
      go.disabled = false;
    }
  });
  return open(dialog);
}

/** Show something in a dialog until it is closed. */
export function tell(title, ...body) {
  const dialog = h("dialog", { "aria-label": title }, h("h2", {}, title), ...body);
  dialog.append(h("footer", {}, button("Close", () => dialog.close(), { class: "primary" })));
  return open(dialog);
}

/** Say something in passing. */
export function notice(text) {
  const place = document.getElementById("notices");
  const said = h("p", { class: "notice" }, text);
  place.append(said);
  setTimeout(() => said.remove(), NOTICE_MS);
}

/** A labelled field of a form. */
export function field(label, input, hint = "") {
  return h("label", { class: "field" }, h("span", {}, label), input, hint && h("small", {}, hint));
}

function open(dialog) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve();
    });
  });
}
