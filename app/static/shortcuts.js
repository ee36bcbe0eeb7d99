// Keys that do something, and the list of them.

import { tell } from "./dialog.js";
import { h } from "./dom.js";

/** Listen to keys: `current()` gives the shortcuts of the page that is shown, `{key: [what it does, function]}`. */
export function listenToKeys(current) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.target.matches("input, textarea, select")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const [, act] = current()[event.key] || [];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

/** Show what the keys do. */
export function showKeys(shortcuts) {
  const rows = Object.entries(shortcuts)
    .filter(([, shortcut]) => shortcut)
    .map(([key, [text]]) => [h("dt", {}, h("kbd", {}, key === "Escape" ? "Esc" : key)), h("dd", {}, text)]);
  return tell("Keys", h("dl", { class: "shortcuts" }, ...rows.flat()));
}
