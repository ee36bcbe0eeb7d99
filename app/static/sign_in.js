// The page that asks for a key.

import { field } from "./dialog.js";
import { fill, h } from "./dom.js";

/** The sign-in page; `enter(key)` signs in and may throw. `why` is shown if somebody was signed out. */
export function signInPage(enter, why = "") {
  const key = h("input", { type: "password", required: true, autocomplete: "off", spellcheck: "false", placeholder: "emit_...", autofocus: true });
  const problem = h("p", { class: "problem", role: "alert", hidden: !why }, why);
  const go = h("button", { type: "submit", class: "primary" }, "Sign in");
  const submit = async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      await enter(key.value.trim());
    } catch (error) {
      problem.hidden = false;
      fill(problem, error.message);
      key.select();
    } finally {
      go.disabled = false;
    }
  };
  const hint = "A key with jobs:read shows its space; the root key shows all of them. It is kept in this tab only.";
  return h(
    "main",
    { class: "sign-in" },
    h("form", { onsubmit: submit }, h("h1", {}, h("i", { class: "mark", "aria-hidden": "true" }), "jobwire"), field("Key", key, hint), problem, go),
  );
}
