// What happens in a space and to a job, as it happens: the frames of docs/api.md, taken apart for the pages.
//
// Always: every event and every line is told once, in order, over breaks too; what cannot be told is told as missed.

import { follow } from "./stream.js";

/** Tell of a space until `signal`: `onCounts(counts)`, `onEvent(frame)`, `onMissed()` when some events were not told,
 *  `onState(isLive)`. */
export function followSpace(session, spaceId, { onCounts, onEvent, onMissed, onState }, signal) {
  const position = { since: null, streamInstanceId: null };
  const onFrame = (frame) => {
    if (frame.type === "connected") {
      if (frame.missed) onMissed();
      position.streamInstanceId = frame.streamInstanceId;
    } else onEvent(frame);
    position.since = frame.seq;
    if (frame.counts) onCounts(frame.counts);
  };
  return follow({ session, path: `/spaces/${spaceId}`, query: () => position, onFrame, onState }, signal);
}

/** Tell of a job until `signal`: `onEvent(frame)`, `onProgress(progress)`, `onLines(rows)`, `onHead(seq)` with the seq of
 *  the newest line, `onRolledBack()` when the service has lost what it had told before, `onState(isLive)`. */
export function followJob(session, jobId, listeners, signal) {
  const position = { after: null, logsAfter: null, epoch: null };
  const onFrame = (frame) => jobFrame(frame, position, listeners);
  const query = () => ({ ...position, logs: true });
  return follow({ session, path: `/${jobId}`, query, onFrame, onState: listeners.onState }, signal);
}

function jobFrame(frame, position, { onEvent, onProgress, onLines, onHead, onRolledBack }) {
  const { type, data, seq } = frame;
  if (type === "init") {
    Object.assign(position, { after: seq, logsAfter: frame.logSeq, epoch: frame.epoch });
    if (frame.logSeq) onHead(frame.logSeq);
    if (data) onProgress(data);
  } else if (type === "logs") {
    position.logsAfter = data.toSeq;
    if (data.entries) onLines(data.entries);
    else onHead(data.toSeq);
  } else if (type === "progress") {
    onProgress(data);
  } else if (type === "gap") {
    passGap(frame, position, { onEvent, onHead, onRolledBack });
  } else {
    position.after = seq;
    onEvent(frame);
  }
}

function passGap({ stream, to, reason, epoch }, position, { onEvent, onHead, onRolledBack }) {
  if (reason === "rolled_back") {
    position.epoch = epoch;
    onRolledBack();
  } else if (stream === "logs") {
    position.logsAfter = to;
    onHead(to);
  } else {
    position.after = to;
    onEvent({ type: "gap" });
  }
}
