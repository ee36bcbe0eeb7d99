// What the events of a job say: its attempts, and the tries of its callback. Pure.

const ENDS = { retried: "failed", delivery_timeout: "not acknowledged", completed: "completed", dead: "dead", killed: "killed" };

/** The attempts of a job, oldest first: `{number, deliveredAt, startedAt, endedAt, outcome, error}`; nulls until known. */
export function attempts(events) {
  const found = [];
  let current = null;
  let number = 0;
  const begin = (at) => {
    current = { number, deliveredAt: at, startedAt: null, endedAt: null, outcome: null, error: null };
    found.push(current);
  };
  for (const { type, data, createdAt } of events) {
    if (type === "delivered") begin(createdAt);
    if (type === "started") {
      if (!current) begin(createdAt);
      current.startedAt = createdAt;
    }
    if (ENDS[type] && current) {
      Object.assign(current, { endedAt: createdAt, outcome: outcome(type, data), error: data?.error ?? data?.reason ?? null });
      current = null;
    }
    if (type === "retried") number = Number(data?.attemptNumber ?? number + 1);
    if (type === "requeued") number += 1;
  }
  return found;
}

function outcome(type, data) {
  return data?.reason === "timeout" ? "timed out" : ENDS[type];
}

/** The tries of a job's callback, oldest first. */
export function callbacks(events) {
  return events
    .filter(({ type }) => type === "callback_sent" || type === "callback_failed")
    .map(({ type, data, createdAt, seq }) => ({ ...data, seq, at: createdAt, sent: type === "callback_sent" }));
}

/** What went wrong with a job that is dead or killed, in one text; null for another job. */
export function complaint({ status, result }) {
  if (status === "dead") return text(result?.error) ?? "It failed without saying why.";
  if (status === "killed") return text(result?.reason) ?? "Killed without a reason.";
  return null;
}

function text(value) {
  return value === null || value === undefined || value === "" ? null : String(value);
}
