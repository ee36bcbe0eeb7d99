// Copying to the clipboard, also where the page is not served over https.

import { button, h, setText } from "./dom.js";

const SAID_MS = 1200;

/** Put a text on the clipboard; whether that worked. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text);
  }
}

/** A button that copies what `text()` gives, and says that it did. */
export function copyButton(text, label = "Copy") {
  const made = button(
    label,
    async () => {
      setText(made, (await copy(text())) ? "Copied" : "Not allowed");
      setTimeout(() => setText(made, label), SAID_MS);
    },
    { class: "quiet copy" },
  );
  return made;
}

/** The way before there was a clipboard API; the API is there on https and on this machine only. */
function copySelected(text) {
  const area = h("textarea", { class: "offscreen", value: text });
  document.body.append(area);
  area.select();
  const worked = document.execCommand("copy");
  area.remove();
  return worked;
}
