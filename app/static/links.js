// Addresses in a line, as links. Pure.
//
// Always: an address is http or https, names nobody's password, and is read from what is shown, so that a character
// which cannot be seen ends it.

import { divide } from "./search.js";

const ADDRESS = /\bhttps?:\/\/[^\s<>"'`{}|\\^\u2400-\u2421]+/gi;
const AFTER = /[.,;:!?*_~]+$/;
const PAIRS = { ")": "(", "]": "[" };

/** Where addresses stand in a text: `[start, end, address]`, ascending. */
export function addresses(text) {
  if (!text.includes("://")) return [];
  return [...text.matchAll(ADDRESS)].map(({ index, 0: found }) => target(trimmed(found), index)).filter(Boolean);
}

/** Pieces of a line, those of an address with it as `href`. */
export function link(pieces) {
  const found = addresses(pieces.map((piece) => piece.text).join(""));
  return divide(pieces, found, (piece, range) => (range ? { ...piece, href: range[2] } : piece));
}

function target(text, start) {
  if (!URL.canParse(text)) return null;
  const { protocol, username, password, href } = new URL(text);
  const safe = (protocol === "http:" || protocol === "https:") && !username && !password;
  return safe ? [start, start + text.length, href] : null;
}

/** Without what belongs to the sentence around it: full stops, and brackets that were not opened in it. */
function trimmed(text) {
  const end = text.replace(AFTER, "");
  const last = end.at(-1);
  const open = PAIRS[last];
  if (open && end.split(last).length > end.split(open).length) return trimmed(end.slice(0, -1));
  return end === text ? text : trimmed(end);
}
