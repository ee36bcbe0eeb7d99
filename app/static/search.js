// What a search looks for, and where it stands in a text. Pure. The server searches; this only marks what it found.

/** The needles of a search, as docs/api.md says: words, and "phrases in quotes". Null for a quote that is not closed. */
export function needles(query) {
  const parts = query.split('"');
  if (parts.length % 2 === 0) return null;
  const found = parts.flatMap((part, i) => (i % 2 ? [part] : part.split(/\s+/)));
  return [...new Set(found.filter(Boolean).map((needle) => needle.toLowerCase()))];
}

/** Where the needles stand in a text: `[start, end]` pairs, ascending, not overlapping. */
export function ranges(text, wanted) {
  const lower = text.toLowerCase();
  if (lower.length !== text.length) return [];
  const found = wanted.flatMap((needle) => occurrences(lower, needle)).sort((a, b) => a[0] - b[0]);
  const merged = [];
  for (const [start, end] of found) {
    const last = merged.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else merged.push([start, end]);
  }
  return merged;
}

function occurrences(text, needle) {
  const found = [];
  for (let at = text.indexOf(needle); at >= 0; at = text.indexOf(needle, at + needle.length)) {
    found.push([at, at + needle.length]);
  }
  return found;
}

/** Pieces of a line, cut where a range begins or ends, with `marked` on those inside one. */
export function mark(pieces, wanted) {
  const text = pieces.map((piece) => piece.text).join("");
  return divide(pieces, ranges(text, wanted), (piece, range) => ({ ...piece, marked: Boolean(range) }));
}

/** Pieces of a line, cut at the edges of `ranges` in their text; `made(piece, range)` furnishes each, its range being the one
 *  that it lies in, or undefined. */
export function divide(pieces, ranges, made) {
  if (!ranges.length) return pieces;
  const found = [];
  let start = 0;
  for (const piece of pieces) {
    found.push(...split(piece, start, ranges, made));
    start += piece.text.length;
  }
  return found;
}

function split(piece, start, ranges, made) {
  const end = start + piece.text.length;
  const edges = ranges.flatMap(([from, to]) => [from, to]).filter((edge) => edge > start && edge < end);
  const stops = [...new Set([start, end, ...edges])].sort((a, b) => a - b);
  return stops.slice(1).map((stop, i) => {
    const text = piece.text.slice(stops[i] - start, stop - start);
    return made({ ...piece, text }, ranges.find(([from, to]) => from <= stops[i] && stop <= to));
  });
}
