// Follow a job or a space from any page: every frame once and in order, through restarts of server and network.
//
//   import { follow } from "https://jobwire.example/jobwire.js";
//   const stream = follow({ job: "01J...", key: "emit_...", lines: true }, {
//     frame(frame) { ... },          // every frame, as docs/streams.md has them
//     state(state, detail) { ... },  // "live", "away" (it comes back by itself), "over" (it does not; detail says why:
//                                  `code` and `reason`, or `status` and `error` of a refusal; `status` also says how the
//                                  job ended ("completed", "dead", "killed") to those who see no more than progress)
//   });
//   stream.close();
//
// Owns the position: it resumes behind the last frame that was given to `frame`, in the epoch in which it was given out.

const FIRST_MS = 250;
const LONGEST_MS = 15_000;
const STEADY_MS = 5_000;

/** Codes after which coming back makes no sense: the job has ended (1000), the key does not work any more (1008). */
const OVER = new Set([1000, 1008]);

/**
 * Follow until `close()`, or until there is nothing more to come.
 *
 * options: `job` or `space` (an id); `key` (without one, a job's progress only); `lines` (the log's lines, too);
 * `after`, `logsAfter`, `epoch`, or `since`, `streamInstanceId`: where to go on, as in `position` of an earlier stream;
 * `base`: the service, by default where this file comes from.
 */
export function follow(options, { frame = () => {}, state = () => {} } = {}) {
  return new Stream(options, frame, state);
}

class Stream {
  constructor(options, frame, state) {
    this.position = start(options);
    this.state = "away";
    this._options = options;
    this._frame = frame;
    this._state = state;
    this._begins = null;
    this._failures = 0;
    this._timer = null;
    this._closed = false;
    this._online = () => this._comeBack(0);
    globalThis.addEventListener?.("online", this._online);
    this._connect();
  }

  /** Follow no more. */
  close() {
    this._closed = true;
    clearTimeout(this._timer);
    globalThis.removeEventListener?.("online", this._online);
    this._socket?.close(1000);
  }

  _connect() {
    const socket = new WebSocket(address(this._options, this.position, "ws"));
    this._socket = socket;
    let openedAt = 0;
    socket.onmessage = ({ data }) => {
      if (this._socket !== socket || this._closed) return;
      openedAt ||= Date.now();
      const frame = JSON.parse(data);
      this._move(frame);
      if (frame.type === "init" || frame.type === "connected") this._tell("live");
      this._frame(frame);
    };
    socket.onclose = ({ code, reason }) => {
      if (this._socket !== socket) return;
      this._socket = null;
      if (this._closed) return;
      if (openedAt && OVER.has(code)) return this._end({ code, reason, ...said(reason) });
      if (openedAt && Date.now() - openedAt > STEADY_MS) this._failures = 0;
      this._tell("away");
      this._failures += 1;
      const wait = said(reason).reconnectAfterMs ?? pause(this._failures);
      if (openedAt) this._comeBack(wait);
      else this._refused().then((why) => (why ? this._end(why) : this._comeBack(wait)));
    };
  }

  /** Go to the position behind a frame. An epoch is good only for what it began with: gaps up to there come first. */
  _move(frame) {
    const { position } = this;
    move(position, frame);
    if (frame.type === "init") this._begins = frame;
    const begins = this._begins;
    if (begins && position.after === known(begins.seq) && position.logsAfter === known(begins.logSeq)) {
      position.epoch = begins.epoch;
      this._begins = null;
    }
  }

  _comeBack(waitMs) {
    clearTimeout(this._timer);
    if (this._closed || this._socket) return;
    this._timer = setTimeout(() => this._closed || this._socket || this._connect(), waitMs);
  }

  /** A browser hides why a WebSocket was refused: ask by HTTP. The refusal's body, or null when coming back helps. */
  async _refused() {
    const asking = new AbortController();
    try {
      const answer = await fetch(address(this._options, this.position, "http"), { signal: asking.signal });
      const isFinal = answer.status >= 400 && answer.status < 500 && answer.status !== 429;
      return isFinal ? { status: answer.status, ...(await answer.json()) } : null;
    } catch {
      return null;
    } finally {
      asking.abort();
    }
  }

  _end(detail) {
    this.close();
    this._tell("over", detail);
  }

  _tell(state, detail = {}) {
    if (this.state === state) return;
    this.state = state;
    this._state(state, detail);
  }
}

function start({ job, space, after, logsAfter, epoch, since, streamInstanceId }) {
  if (Boolean(job) === Boolean(space)) throw new TypeError("follow a job or a space");
  return job ? { after, logsAfter, epoch } : { since, streamInstanceId };
}

/** Narrow callers have no position: their seqs are null. */
const known = (seq) => seq ?? undefined;

/** Move a position behind a frame. */
function move(position, frame) {
  if (frame.type === "connected") {
    position.since = frame.seq;
    position.streamInstanceId = frame.streamInstanceId;
  } else if ("streamInstanceId" in position) {
    position.since = frame.seq ?? position.since;
  } else if (frame.type === "init") {
    position.after ??= known(frame.seq);
    position.logsAfter ??= known(frame.logSeq);
  } else if (frame.type === "logs") {
    position.logsAfter = frame.data.toSeq;
  } else if (frame.type === "gap") {
    position[frame.stream === "logs" ? "logsAfter" : "after"] = frame.reason === "trimmed" ? frame.to : frame.from - 1;
  } else {
    position.after = known(frame.seq);
  }
}

function address({ base, job, space, key, lines }, position, scheme) {
  const url = new URL(base ?? new URL(import.meta.url).origin);
  url.protocol = url.protocol.replace("http", scheme);
  url.pathname = `${url.pathname.replace(/\/$/, "")}/api/v1/realtime/${job ?? `spaces/${space}`}`;
  const query = { ...position, token: key, logs: lines ? "true" : undefined };
  for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, value);
  return url.href;
}

/** What the server said in the reason of a close: how long to stay away, or how the job ended. */
function said(reason) {
  try {
    return Object(JSON.parse(reason));
  } catch {
    return {};
  }
}

/** Exponential backoff with full jitter, so that a thousand pages do not come back at the same moment. */
function pause(failures) {
  return Math.random() * Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(failures, 16));
}
