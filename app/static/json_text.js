// JSON as it was written: numbers keep every digit. Pure.
//
// `parse` gives ordinary values, but a number that JavaScript would change (a 64-bit id, 1.0) becomes an ExactNumber.

/** A number and the characters it was written with. Counts like the number in arithmetic. */
export class ExactNumber {
  constructor(source) {
    this.source = source;
  }

  valueOf() {
    return Number(this.source);
  }

  toString() {
    return this.source;
  }
}

/** What a JSON text says. Throws SyntaxError. Browsers that do not tell a number's source give the nearest number. */
export function parse(text) {
  return JSON.parse(text, (_, value, context) => {
    const changed = typeof value === "number" && context?.source !== undefined && context.source !== String(value);
    return changed ? new ExactNumber(context.source) : value;
  });
}

/** The object or array that a text is; null for any other text. */
export function container(text) {
  const ends = { "{": "}", "[": "]" };
  const bare = text.trim();
  if (bare.length < 2 || bare.at(-1) !== ends[bare[0]]) return null;
  try {
    return parse(bare);
  } catch {
    return null;
  }
}

/** JSON text of a value, indented by two blanks, one member a line. */
export function pretty(value, indent = "") {
  if (value instanceof ExactNumber) return value.source;
  if (value === null || typeof value !== "object") return JSON.stringify(value) ?? "null";
  const inner = `${indent}  `;
  const list = Array.isArray(value);
  const items = list
    ? value.map((item) => inner + pretty(item, inner))
    : Object.entries(value).map(([name, item]) => `${inner}${JSON.stringify(name)}: ${pretty(item, inner)}`);
  const [open, close] = list ? "[]" : "{}";
  return items.length ? `${open}\n${items.join(",\n")}\n${indent}${close}` : open + close;
}

const TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|\b(true|false|null)\b/g;

/** A JSON text cut into `{kind, text}`, kind being key, string, number, word or "" for what is between. */
export function tokens(text) {
  const found = [];
  let at = 0;
  for (const match of text.matchAll(TOKEN)) {
    if (match.index > at) found.push({ kind: "", text: text.slice(at, match.index) });
    const [, string, colon, number] = match;
    if (string) found.push({ kind: colon ? "key" : "string", text: string });
    else found.push({ kind: number ? "number" : "word", text: match[0] });
    if (colon) found.push({ kind: "", text: colon });
    at = match.index + match[0].length;
  }
  if (at < text.length) found.push({ kind: "", text: text.slice(at) });
  return found;
}
