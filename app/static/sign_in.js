// The page that asks for a key.

import { field } from "./dialog.js";
import { fill, h } from "./dom.js";

/** The sign-in page; `enter(key, remember)` signs in and may throw. `why` is shown if somebody was signed out. */
export function signInPage(enter, why = "") {
  const key = h("input", { type: "password", name: "password", required: true, autocomplete: "current-password", spellcheck: "false", placeholder: "emit_...", autofocus: true });
  // Password managers keep a password under a name. The key is the whole of it, so that is the service's.
  const name = h("input", { name: "username", autocomplete: "username", value: "jobwire", readonly: true, tabindex: -1, class: "offscreen", "aria-label": "User name" });
  const remember = h("input", { type: "checkbox", name: "remember" });
  const problem = h("p", { class: "problem", role: "alert", hidden: !why }, why);
  const go = h("button", { type: "submit", class: "primary" }, "Sign in");
  const submit = async (event) => {
    event.preventDefault();
    go.disabled = true;
    try {
      await enter(key.value.trim(), remember.checked);
    } catch (error) {
      problem.hidden = false;
      fill(problem, error.message);
      key.select();
    } finally {
      go.disabled = false;
    }
  };
  const hint = "A key with jobs:read shows its space; the root key shows all of them. It is kept in this tab only, unless you have it remembered.";
  return h(
    "main",
    { class: "sign-in" },
    h("form", { onsubmit: submit }, h("h1", {}, h("i", { class: "mark", "aria-hidden": "true" }), "jobwire"), name, field("Key", key, hint), h("label", { class: "check" }, remember, "Remember on this device"), problem, go, h("a", { class: "to-docs", href: "docs" }, "The API")),
  );
}
