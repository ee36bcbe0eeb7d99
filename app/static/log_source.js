// Pages of a job's log, from the service.

const LIMIT = 500;
const MERGE_BYTES = 8_388_608;

/** One job's log through one filter: `{q, levels}`, both possibly empty. Pages are `{rows, oldest, newest, hasMore, firstSeq}`. */
export class LogSource {
  constructor(api, jobId, filter) {
    this.api = api;
    this.path = `/jobs/${jobId}/logs`;
    this.filter = filter;
  }

  /** Whether some lines are left out. */
  get filtered() {
    return Boolean(this.filter.q || this.filter.levels.length);
  }

  tail(signal) {
    return this.#page({ limit: LIMIT }, signal);
  }

  before(seq, signal, limit = LIMIT) {
    return this.#page({ before: seq, limit }, signal);
  }

  after(seq, signal, limit = LIMIT) {
    return this.#page({ after: seq, limit }, signal);
  }

  /** One line, with its numbers as they were written. */
  async line(seq, signal) {
    const { logs } = await this.api.get(this.path, { after: seq - 1, limit: 1 }, signal);
    return logs[0];
  }

  /** Every line from the first, NDJSON, as a Blob; `onBytes` hears how far it is. */
  async download(onBytes, signal) {
    const query = new URLSearchParams({ after: 0, ...this.#query() });
    const answer = await this.api.fetch(`${this.path}?${query}`, { headers: { accept: "application/x-ndjson" }, signal });
    let blob = new Blob([], { type: "application/x-ndjson" });
    let pieces = [];
    let held = 0;
    let all = 0;
    const reader = answer.body.getReader();
    for (let step = await reader.read(); !step.done; step = await reader.read()) {
      pieces.push(step.value);
      held += step.value.length;
      all += step.value.length;
      if (held < MERGE_BYTES) continue;
      // Blobs may live on disk; only what was not merged yet is held in memory.
      blob = new Blob([blob, ...pieces], { type: blob.type });
      pieces = [];
      held = 0;
      onBytes(all);
    }
    return new Blob([blob, ...pieces], { type: blob.type });
  }

  #query() {
    const { q, levels } = this.filter;
    return { ...(q && { q }), ...(levels.length && { level: levels.join(",") }) };
  }

  async #page(query, signal) {
    const { logs, cursor } = await this.api.get(this.path, { ...query, ...this.#query() }, signal);
    return { rows: logs, oldest: cursor.oldestSeq, newest: cursor.newestSeq, hasMore: cursor.hasMore, firstSeq: cursor.firstSeq };
  }
}
