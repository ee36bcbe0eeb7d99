// What happens in a space and to a job, as it happens: the frames of docs/streams.md, taken apart for the pages.
//
// Always: every event and every line is told once, in order, over breaks too; what cannot be told is told as missed. While
// nothing comes, the pages are asked to read what there is, so that they are late but not wrong.

import { follow } from "./jobwire.js";

const REVOKED = 1008;
const KNOWN_MS = 1000;
const STALE_MS = 5000;

/** Tell of a space until `signal`: `onCounts(counts)`, `onEvent(frame)`, `onMissed()` when some events were not told or
 *  came before the first, `onState(isLive, detail)` and `onStale(detail)`, as all. */
export function followSpace(session, spaceId, { onCounts, onEvent, onMissed, ...all }, signal) {
  let begun = false;
  const frame = (told) => {
    if (told.type !== "connected") onEvent(told);
    else if (told.missed || !begun) onMissed();
    begun = true;
    if (told.counts) onCounts(told.counts);
  };
  open(session, { space: spaceId }, { frame, ...all }, signal);
}

/** Tell of a job until `signal`: `onEvent(frame)`, its type being "gap" when some were not told, `onBegin(init)` at the
 *  beginning, `onProgress(progress)`, `onLines(rows)`, `onHead(seq)` with the seq of the newest line, `onRolledBack()` when
 *  the service has lost what it had told before, `onState(isLive, detail)` and `onStale(detail)`, as all. */
export function followJob(session, jobId, listeners, signal) {
  const frame = (told) => jobFrame(told, listeners);
  open(session, { job: jobId, lines: true }, { frame, ...listeners }, signal);
}

/** Follow. `onState(isLive, detail)`: whether news come (null: none will any more), with what jobwire.js says of it;
 *  `onStale(detail)`: again and again while none have come for some seconds. */
function open(session, what, { frame, onState, onStale }, signal) {
  let timer = setInterval(() => onStale(stream.detail), STALE_MS);
  const state = (name, detail) => {
    const { code, status } = detail;
    clearInterval(timer);
    if (name === "away") timer = setInterval(() => onStale(stream.detail), STALE_MS);
    onState(name === "over" ? null : name === "live", detail);
    // The key may be the reason: an ordinary call finds out, and signs out. Everybody knows of a revoked key after 1 s.
    if (code === REVOKED || status === 401) setTimeout(() => session.api.get("/whoami", {}, signal).catch(() => {}), KNOWN_MS);
  };
  const stream = follow({ ...what, key: session.api.key }, { frame, state });
  signal.addEventListener("abort", () => {
    clearInterval(timer);
    stream.close();
  });
}

function jobFrame(frame, { onEvent, onBegin, onProgress, onLines, onHead, onRolledBack }) {
  const { type, data, logSeq, stream, to, reason } = frame;
  if (type === "init") {
    onBegin(frame);
    if (logSeq) onHead(logSeq);
    if (data) onProgress(data);
  } else if (type === "logs") {
    if (data.entries) onLines(data.entries);
    else onHead(data.toSeq);
  } else if (type === "progress") onProgress(data);
  else if (type !== "gap") onEvent(frame);
  else if (reason === "rolled_back") onRolledBack();
  else if (stream === "logs") onHead(to);
  else onEvent(frame);
}
