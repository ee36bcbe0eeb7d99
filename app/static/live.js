// What happens in a space and to a job, as it happens: the frames of docs/streams.md, taken apart for the pages.
//
// Always: every event and every line is told once, in order, over breaks too; what cannot be told is told as missed.

import { follow } from "./jobwire.js";

const REVOKED = 1008;
const KNOWN_MS = 1000;

/** Tell of a space until `signal`: `onCounts(counts)`, `onEvent(frame)`, `onMissed()` when some events were not told or came before the first,
 *  `onState(isLive)`. */
export function followSpace(session, spaceId, { onCounts, onEvent, onMissed, onState }, signal) {
  let begun = false;
  const frame = (told) => {
    if (told.type !== "connected") onEvent(told);
    else if (told.missed || !begun) onMissed();
    begun = true;
    if (told.counts) onCounts(told.counts);
  };
  open(session, { space: spaceId }, { frame, onState }, signal);
}

/** Tell of a job until `signal`: `onEvent(frame)`, its type being "gap" when some were not told, `onBegin(init)` at the
 *  beginning, `onProgress(progress)`, `onLines(rows)`, `onHead(seq)` with the seq of
 *  the newest line, `onRolledBack()` when the service has lost what it had told before, `onState(isLive)`. */
export function followJob(session, jobId, listeners, signal) {
  const frame = (told) => jobFrame(told, listeners);
  open(session, { job: jobId, lines: true }, { frame, onState: listeners.onState }, signal);
}

function open(session, what, { frame, onState }, signal) {
  const state = (name, { code, status }) => {
    onState(name === "over" ? null : name === "live");
    // The key may be the reason: an ordinary call finds out, and signs out. Everybody knows of a revoked key after 1 s.
    if (code === REVOKED || status === 401) setTimeout(() => session.api.get("/whoami", {}, signal).catch(() => {}), KNOWN_MS);
  };
  const stream = follow({ ...what, key: session.api.key }, { frame, state });
  signal.addEventListener("abort", () => stream.close());
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
