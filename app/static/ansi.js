// Colours of a terminal, read out of a log line. Pure.
//
// Owns: what an escape sequence means (ECMA-48; ISO/IEC 8613-6 for 256 and 16 million colours). Only colours and weights
// are kept; a sequence that would move a cursor, set a title or make a link is dropped. A character that cannot be seen,
// or that turns the direction of writing, is replaced by one that can; joiners stay where a script or an emoji needs them.

// CSI sequences, OSC and other strings up to their end, two-character escapes, then the same in C1 characters.
const SEQUENCE =
  /(?:\x1b\[|\x9b)([0-?]*)([ -/]*)([@-~])|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|$)|\x1b[ -/]*[0-~]?/g;
const ORDINARY = /^[\t\n\x20-\x7e]*$/;

// Scripts in which U+200C and U+200D choose between forms of letters (Unicode 16, 9.2 and 12.1 and on; RFC 5892, A.1 and A.2).
const JOINING = `[[\\p{scx=Arab}\\p{scx=Syrc}\\p{scx=Mong}\\p{scx=Nkoo}\\p{scx=Deva}\\p{scx=Beng}\\p{scx=Guru}\\p{scx=Gujr}\\p{scx=Orya}\\p{scx=Taml}\\p{scx=Telu}\\p{scx=Knda}\\p{scx=Mlym}\\p{scx=Sinh}]&&[\\p{L}\\p{M}]]`;

// An emoji of several is joined by U+200D (UTS 51, ED-16).
const JOINED = `(?<=\\p{Extended_Pictographic}[\\ufe0f\\p{Emoji_Modifier}]?)\\u200d(?=\\p{Extended_Pictographic})`;
const STAYS = `${JOINED}|(?<=${JOINING})[\\u200c\\u200d](?=${JOINING})`;

// Controls, fillers and blanks that are no space, marks of direction, tags, and variation selectors that select nothing.
const HIDDEN =
  "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\xad\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u2800\\u3164\\ufeff\\uffa0\\ufff9-\\ufffb\\u{1d173}-\\u{1d17a}\\u{e0000}-\\u{e007f}]" +
  "|(?<=^|[\\s\\ufe00-\\ufe0f])[\\ufe00-\\ufe0f]|(?<!\\p{Script=Han})[\\u{e0100}-\\u{e01ef}]";
const UNSEEN = new RegExp(`(${STAYS})|${HIDDEN}`, "gv");
const graphemes = globalThis.Intl?.Segmenter && new Intl.Segmenter(undefined, { granularity: "grapheme" });

/** How far behind a cut a character may go on. */
const LONGEST_CHARACTER = 64;

/** @typedef {{fg: ?(number|string), bg: ?(number|string), bold: boolean, dim: boolean, italic: boolean,
 *    underline: boolean, inverse: boolean, strike: boolean}} Style   a colour is 0-15, or "#rrggbb" */

const PLAIN = Object.freeze({
  fg: null,
  bg: null,
  bold: false,
  dim: false,
  italic: false,
  underline: false,
  inverse: false,
  strike: false,
});

/** A line cut into `{text, style}` of one style each; a line without escapes is one piece whose style is null. */
export function pieces(line) {
  if (!/[\x1b\x80-\x9f]/.test(line)) return [{ text: visible(line), style: null }];
  const found = [];
  let style = PLAIN;
  let at = 0;
  const add = (end) => {
    if (end > at) found.push({ text: visible(line.slice(at, end)), style: style === PLAIN ? null : style });
  };
  for (const match of line.matchAll(SEQUENCE)) {
    add(match.index);
    at = match.index + match[0].length;
    if (match[3] === "m" && !match[2]) style = select(style, match[1]);
  }
  add(line.length);
  return found;
}

/** A line without escapes, as it is searched and copied. */
export function plain(line) {
  return line.replace(SEQUENCE, "");
}

/** Control characters as their pictures, those that turn or hide text as their number. */
export function visible(text) {
  if (ORDINARY.test(text)) return text;
  return text.replace(UNSEEN, (character, stays) => {
    if (stays) return character;
    const code = character.codePointAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code === 0x7f ? "\u2421" : `<U+${code.toString(16).toUpperCase().padStart(4, "0")}>`;
  });
}

/** The beginning of a text, of at most `most` UTF-16 units: no character and no escape sequence is cut in two. */
export function cut(text, most) {
  if (text.length <= most) return text;
  let end = most;
  for (const { index, 0: sequence } of text.matchAll(SEQUENCE)) {
    if (index >= end) break;
    if (index + sequence.length > end) end = index;
  }
  if (end === most) end = graphemes?.segment(text.slice(0, most + LONGEST_CHARACTER)).containing(most)?.index ?? end;
  if (end === 0) end = most;
  return text.slice(0, end - (isHighSurrogate(text.charCodeAt(end - 1)) ? 1 : 0));
}

function isHighSurrogate(unit) {
  return unit >= 0xd800 && unit <= 0xdbff;
}

const SIMPLE = {
  1: { bold: true },
  2: { dim: true },
  3: { italic: true },
  4: { underline: true },
  7: { inverse: true },
  9: { strike: true },
  21: { underline: true },
  22: { bold: false, dim: false },
  23: { italic: false },
  24: { underline: false },
  27: { inverse: false },
  29: { strike: false },
  39: { fg: null },
  49: { bg: null },
};

/** The style after one "select graphic rendition" sequence with these parameters. */
function select(style, parameters) {
  const codes = parameters.split(/[;:]/).map((word) => (word === "" ? 0 : Number(word)));
  for (let i = 0; i < codes.length; i += 1) {
    const code = codes[i];
    if (code === 0) style = PLAIN;
    else if (code === 38 || code === 48) {
      const [colour, used] = extended(codes.slice(i + 1, i + 6));
      if (colour !== null) style = { ...style, [code === 38 ? "fg" : "bg"]: colour };
      i += used;
    } else style = { ...style, ...(SIMPLE[code] ?? basic(code)) };
  }
  return style;
}

function basic(code) {
  if (code >= 30 && code <= 37) return { fg: code - 30 };
  if (code >= 90 && code <= 97) return { fg: code - 82 };
  if (code >= 40 && code <= 47) return { bg: code - 40 };
  if (code >= 100 && code <= 107) return { bg: code - 92 };
  return {};
}

/** The colour after 38 or 48, null if it makes no sense, and how many parameters it took. */
function extended([mode, ...rest]) {
  if (mode === 5) return [rest[0] <= 255 ? indexed(rest[0]) : null, 2];
  if (mode !== 2) return [null, 1];
  const channels = rest.slice(0, 3);
  return [channels.length === 3 && channels.every((value) => value <= 255) ? hex(channels) : null, 4];
}

/** A colour of the 256: the 16 named ones, a cube of 6 x 6 x 6, and 24 greys. */
function indexed(index) {
  if (index < 16) return index;
  if (index >= 232) return hex(Array(3).fill(8 + (index - 232) * 10));
  const level = (value) => (value ? 55 + value * 40 : 0);
  const cube = index - 16;
  return hex([level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6)]);
}

function hex(channels) {
  return `#${channels.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

/** What a terminal would show of lines that were redrawn: of each the text behind its last carriage return. */
export function lastState(text) {
  if (!text.includes("\r")) return text;
  return text
    .split("\n")
    .map((line) => line.replace(/\r+$/, "").replace(/^.*\r/s, ""))
    .join("\n");
}
