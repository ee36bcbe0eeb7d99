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
  const edges = ranges(text, wanted);
  if (!edges.length) return pieces;
  const cut = [];
  let start = 0;
  for (const piece of pieces) {
    cut.push(...split(piece, start, edges));
    start += piece.text.length;
  }
  return cut;
}

function split(piece, start, edges) {
  const end = start + piece.text.length;
  const stops = [...new Set([start, end, ...edges.flat().filter((edge) => edge > start && edge < end)])].sort((a, b) => a - b);
  return stops.slice(1).map((stop, i) => ({
    text: piece.text.slice(stops[i] - start, stop - start),
    style: piece.style,
    marked: edges.some(([from, to]) => from <= stops[i] && stop <= to),
  }));
}
