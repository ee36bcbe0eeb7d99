// What the events of a job say: its attempts, the tries of its callback, what went wrong. Pure.

const ENDS = {
  retried: "failed",
  delivery_timeout: "not acknowledged",
  released: "released",
  completed: "completed",
  dead: "dead",
  killed: "killed",
};

/** A job as it was read, moved on by the frames of its events that are newer, whichever came first: `told` ascends by seq. */
export function movedOn(job, told) {
  const newest = job.events.at(-1)?.seq ?? 0;
  const newer = told.filter(({ seq }) => seq > newest);
  if (!newer.length) return job;
  const events = newer.map(({ type, data, seq, timestamp }) => ({ type, data, seq, createdAt: timestamp }));
  const status = newer.at(-1).status ?? job.status;
  const ended = newer.findLast(({ type }) => type === "dead" || type === "killed");
  return { ...job, status, result: ended?.data ?? job.result, events: [...job.events, ...events] };
}

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

/** The line of an error that says what happened: the last one that is not indented, which a traceback of Python ends with,
 *  and one of Java, JavaScript or Go begins its last cause with. */
export function headline(error) {
  const lines = error.split(/\r?\n/).filter((line) => line.trim());
  const told = lines.filter((line) => /^\S/.test(line) && /[\p{L}\p{N}]/u.test(line) && !/^Node\.js v\d/.test(line));
  return (told.at(-1) ?? lines.at(-1) ?? "").trim();
}

function text(value) {
  return value === null || value === undefined || value === "" ? null : String(value);
}
