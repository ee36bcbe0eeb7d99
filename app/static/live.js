// What happens, as it happens: the one place of this page that knows how news arrive.

import { ended } from "./status.js";
import { STATUSES } from "./status.js";

const EVERY_MS = 1000;

/** Tell of a space until `signal`: `onCounts(counts)`, `onEvent({type, jobId, status, data})`, `onState(isLive)`. */
export async function followSpace(session, spaceId, { onCounts, onState, onEvent }, signal) {
  let last = "";
  while (!signal.aborted) {
    const totals = await Promise.all(STATUSES.map((status) => session.api.page(`/spaces/${spaceId}/jobs`, { status, limit: 1 }, signal).then((x) => x.total).catch(() => null)));
    if (signal.aborted) return;
    const counts = Object.fromEntries(STATUSES.map((status, i) => [status, totals[i]]));
    onState(!totals.includes(null));
    if (!totals.includes(null)) {
      onCounts(counts);
      const now = JSON.stringify(counts);
      if (now !== last) onEvent({ type: "changed" });
      last = now;
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

/** Tell of a job until `signal`: `onEvent(frame)`, `onProgress(progress)`, `onLines(rows)`, `onState(isLive)`. */
export async function followJob(session, jobId, { onEvent, onProgress, onLines, onHead, onState }, signal) {
  let seq = null;
  let lines = null;
  while (!signal.aborted) {
    try {
      const job = await session.api.get(`/jobs/${jobId}`, {}, signal);
      for (const event of job.events) if (seq !== null && event.seq > seq) onEvent(event);
      seq = job.events.at(-1)?.seq ?? 0;
      if (!ended(job.status)) onProgress((await session.api.get(`/jobs/${jobId}/progress`, {}, signal)).progress);
      for (let more = true; more; ) {
        const page = await session.api.get(`/jobs/${jobId}/logs`, lines === null ? { limit: 1 } : { after: lines, limit: 500 }, signal);
        if (lines !== null && page.logs.length) onLines(page.logs);
        more = lines !== null && page.cursor.hasMore;
        if (lines === null) onHead(page.cursor.newestSeq ?? 0);
        lines = page.cursor.newestSeq ?? 0;
      }
      onState(true);
    } catch {
      onState(false);
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}
