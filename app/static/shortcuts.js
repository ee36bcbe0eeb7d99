// Keys that do something, and the list of them.

import { tell } from "./dialog.js";
import { h } from "./dom.js";

const PLACES = { BracketLeft: "[", BracketRight: "]" };

/** Listen to keys: `current()` gives the shortcuts of the page that is shown, `{key: [what it does, function]}`. */
export function listenToKeys(current) {
  document.addEventListener("keydown", (event) => {
    const isCommand = (event.ctrlKey || event.metaKey || event.altKey) && !event.getModifierState("AltGraph");
    if (isCommand || document.querySelector("dialog[open]")) return;
    if (event.target.matches("input, textarea, select")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const known = current();
    const [, act] = known[shortcutOf(event, known)] || [];
    if (!act) return;
    event.preventDefault();
    act();
  });
}

/** Which of the known shortcuts a key is: what it writes, or, on a layout where it writes something else, where it lies on
 *  a keyboard of the US. A letter of another layout that is Latin, too, means itself. Pure. */
export function shortcutOf({ key, code, shiftKey }, known) {
  if (known[key]) return key;
  const letter = /^Key([A-Z])$/.exec(code)?.[1];
  if (letter) return /^[\x20-\x7e]$/.test(key) ? null : shiftKey ? letter : letter.toLowerCase();
  return PLACES[code] ?? null;
}

/** Show what the keys do. */
export function showKeys(shortcuts) {
  const rows = Object.entries(shortcuts)
    .filter(([, shortcut]) => shortcut)
    .map(([key, [text]]) => [h("dt", {}, h("kbd", {}, key === "Escape" ? "Esc" : key)), h("dd", {}, text)]);
  return tell("Keys", h("dl", { class: "shortcuts" }, ...rows.flat()));
}
