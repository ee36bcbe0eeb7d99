// @ts-self-types="./jobwire.d.ts"
// Follow a job or a space from any page or program: every frame once and in order, through restarts of server and network.
//
//   import { follow } from "https://jobwire.example/jobwire.js";
//   const stream = follow({ job: "01J...", key: "emit_...", lines: true }, {
//     frame(frame) { ... },          // every frame, as docs/streams.md has them
//     state(state, detail) { ... },  // "live", "away" (it comes back by itself), "over" (it does not)
//   });
//   stream.close();
//
// Owns: the position (it resumes behind the last frame that was given to `frame`, in the epoch in which it was given out),
// and the transport: a WebSocket, or an event stream read by fetch where no WebSocket opens. Never: puts the key into an
// address. jobwire.d.ts beside this file has the types. Browsers of 2022 and Node 20 run it as it stands.

const FIRST_MS = 250;
const LONGEST_MS = 15_000;
const STEADY_MS = 5_000;

/** How long a connection may take until its first frame, and how long an event stream may be silent: it has a ping every 20 s. */
const OPENING_MS = 10_000;
const SILENT_MS = 60_000;

/** How long no WebSocket is tried once an event stream came through where none opened, and how often it is where one has. */
const REMEMBERED_MS = 300_000;
const TRIES = 3;

/** Codes after which coming back makes no sense: the job has ended (1000), the key does not work any more (1008). */
const OVER = new Set([1000, 1008]);

const SILENT = "Nothing comes through: something between here and the service keeps it.";
const FOREIGN = "The answer does not come from the service, but from something else at this address.";
const BROKEN = "The connection broke.";

const TRANSPORTS = { websocket: overSocket, "event stream": overEvents };

/** What is known of a service: until when its WebSockets are not tried, and whether one ever opened. */
const services = new Map();

/**
 * Follow until `close()`, or until there is nothing more to come.
 *
 * options: `job` or `space` (an id), or `realtimeUrl` (as the answer to a create has it); `key` (without one, a job's
 * progress only); `lines` (the log's lines, too); `after`, `logsAfter`, `epoch`, or `since`, `streamInstanceId`: where to
 * go on, as in `position` of an earlier stream; `base`: the service, by default where this file comes from; `transport`:
 * "websocket" or "event stream", and no other. TypeError for options that name nothing to follow.
 */
export function follow(options, { frame = () => {}, state = () => {} } = {}) {
  return new Stream(options, frame, state);
}

class Stream {
  constructor(options, frame, state) {
    this._what = named(options);
    this.position = start(options, this._what);
    this.state = "away";
    this.detail = {};
    this._frame = frame;
    this._state = state;
    this._told = null;
    this._begins = null;
    this._failures = 0;
    this._timer = null;
    this._connection = null;
    this._closed = false;
    this._online = () => this._comeBack(0);
    globalThis.addEventListener?.("online", this._online);
    this._connect(this._transport());
  }

  /** Follow no more. */
  close() {
    this._closed = true;
    clearTimeout(this._timer);
    globalThis.removeEventListener?.("online", this._online);
    this._connection?.close();
    this._connection = null;
  }

  _transport() {
    const { transport, service } = this._what;
    if (transport) return transport;
    return globalThis.WebSocket && !(service.noSocketsUntil > Date.now()) ? "websocket" : "event stream";
  }

  /** Open a connection; `instead` of a WebSocket that did not open. */
  _connect(transport, instead = false) {
    const { key, service } = this._what;
    const connection = { openedAt: 0, close() {} };
    const text = (json) => {
      if (this._connection !== connection) return;
      const frame = said(json);
      if (!frame.type) return connection.end({ detail: { error: FOREIGN } });
      if (!connection.openedAt) {
        if (instead && service.hadSocket && this._failures < TRIES) return connection.end({});
        this._opened(connection, transport, instead);
      }
      this._move(frame);
      if (frame.type === "init" || frame.type === "connected") this._tell("live", { transport });
      call(this._frame, frame);
    };
    connection.end = (why) => {
      if (this._connection !== connection) return;
      this._connection = null;
      connection.close();
      this._ended(why, connection, transport);
    };
    this._connection = connection;
    connection.close = TRANSPORTS[transport](address(this._what, this.position, transport), key, text, connection.end);
  }

  _opened(connection, transport, instead) {
    const { service } = this._what;
    connection.openedAt = Date.now();
    if (transport === "websocket") service.hadSocket = true;
    else if (instead) Object.assign(service, { hadSocket: false, noSocketsUntil: Date.now() + REMEMBERED_MS });
  }

  /** A connection has ended, or did not open. Why a WebSocket did not, a browser hides: an event stream is told. */
  _ended({ isOver = false, waitMs, detail = {} }, { openedAt }, transport) {
    if (isOver) return this._end(detail);
    if (!openedAt && transport === "websocket" && !this._what.transport) return this._connect("event stream", true);
    if (openedAt && Date.now() - openedAt > STEADY_MS) this._failures = 0;
    this._failures += 1;
    this._tell("away", { error: BROKEN, ...detail });
    return this._comeBack(waitMs ?? pause(this._failures));
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
    if (this._closed || this._connection) return;
    this._timer = setTimeout(() => this._closed || this._connection || this._connect(this._transport()), waitMs);
  }

  _end(detail) {
    this.close();
    this._tell("over", detail);
  }

  /** Tell of another state, once; `detail` has the newest reason of the same one. */
  _tell(state, detail) {
    this.state = state;
    this.detail = detail;
    if (this._told === state) return;
    this._told = state;
    call(this._state, state, detail);
  }
}

// Transports: each opens an address, gives the text of every frame to `text`, calls `end({isOver, waitMs, detail})` once,
// and returns what closes it.

/** The key goes into the subprotocols: a browser sets no header on a WebSocket. */
function overSocket(url, key, text, end) {
  const socket = key ? new WebSocket(url, ["jobwire", `jobwire.key.${base64url(key)}`]) : new WebSocket(url);
  const timer = setTimeout(() => end({ detail: { error: SILENT } }), OPENING_MS);
  let heard = false;
  socket.onmessage = ({ data }) => {
    heard = true;
    clearTimeout(timer);
    text(data);
  };
  socket.onerror = () => heard || end({});
  socket.onclose = ({ code, reason }) => {
    clearTimeout(timer);
    const told = said(reason);
    end({ isOver: heard && OVER.has(code), waitMs: told.reconnectAfterMs, detail: { code, reason, ...told } });
  };
  return () => {
    clearTimeout(timer);
    socket.close(1000);
  };
}

function overEvents(url, key, text, end) {
  const asking = new AbortController();
  let timer = null;
  const silent = () => asking.abort(new Error(SILENT));
  const heard = (ms = SILENT_MS) => {
    clearTimeout(timer);
    timer = setTimeout(silent, ms);
  };
  heard(OPENING_MS);
  read(url, key, asking.signal, heard, text)
    .catch((error) => ({ detail: { error: error.message === SILENT ? SILENT : "The service does not answer." } }))
    .then((why) => {
      clearTimeout(timer);
      end(why);
    });
  return () => {
    clearTimeout(timer);
    asking.abort();
  };
}

/** Read an event stream to its end; why it ended. */
async function read(url, key, signal, heard, text) {
  const headers = { accept: "text/event-stream", ...(key && { "x-api-key": key }) };
  const answer = await fetch(url, { headers, cache: "no-store", signal });
  if (!answer.ok || !/^text\/event-stream\b/.test(answer.headers.get("content-type"))) return refusal(answer);
  const parser = new EventParser();
  const reader = answer.body.getReader();
  let waitMs;
  for (let step = await reader.read(); !step.done; step = await reader.read()) {
    for (const { event, data, retry } of parser.push(step.value)) {
      if (event === "end") return { isOver: true, detail: { code: 1000, reason: data, ...said(data) } };
      waitMs = retry;
      if (event) text(data);
    }
    if (parser.began) heard();
  }
  return { waitMs };
}

/** What an answer says that is no event stream. Final is what the service itself says of a request; what a proxy says passes. */
async function refusal(answer) {
  const { status } = answer;
  const told = said(await answer.text());
  const detail = { status, error: `${new URL(answer.url).host} answered ${status}.`, ...told };
  const isOver = status >= 400 && status < 500 && status !== 429 && typeof told.code === "string";
  const after_s = Number(answer.headers.get("retry-after") ?? NaN);
  return { isOver, waitMs: after_s >= 0 ? after_s * 1000 * (1 + Math.random()) : undefined, detail };
}

/** A parser of event streams, as https://html.spec.whatwg.org/multipage/server-sent-events.html has them. */
export class EventParser {
  constructor() {
    this.began = false;
    this._decoder = new TextDecoder();
    this._line = "";
    this._afterCr = false;
    this._data = [];
    this._event = "";
    this._id = "";
  }

  /** What ends in these bytes, in order: `{event, data, id}` of an event, `{retry}` (in ms) of a new time to wait. */
  push(bytes) {
    const text = this._decoder.decode(bytes, { stream: true });
    if (!text) return [];
    const begins = this._afterCr && text.startsWith("\n") ? 1 : 0;
    this._afterCr = text.endsWith("\r");
    const lines = text.slice(begins).split(/\r\n|\r|\n/);
    lines[0] = this._line + lines[0];
    this._line = lines.pop();
    return lines.flatMap((line) => this._read(line) ?? []);
  }

  _read(line) {
    if (line === "") return this._dispatch();
    const [, field, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
    if (field === "data") this._data.push(value ?? "");
    else if (field === "event") this._event = value ?? "";
    else if (field === "id" && !value?.includes("\0")) this._id = value ?? "";
    else if (field === "retry" && /^\d+$/.test(value)) return { retry: Number(value) };
    return null;
  }

  _dispatch() {
    const found = this._data.length ? { event: this._event || "message", data: this._data.join("\n"), id: this._id } : null;
    this._data = [];
    this._event = "";
    this.began ||= found !== null;
    return found;
  }
}

/** What is followed: `{base, service, job or space, key, lines, transport}`. TypeError for what cannot be. */
function named({ base, job, space, realtimeUrl, key = "", lines, transport }) {
  if (realtimeUrl) [, base, space, job] = /^(.*)\/api\/v1\/realtime\/(?:spaces\/([^/?]+)|([^/?]+))/.exec(realtimeUrl) ?? [];
  if (Boolean(job) === Boolean(space)) throw new TypeError("follow a job or a space");
  if (!/^[!-~]*$/.test(key)) throw new TypeError("a key has printable ASCII characters only");
  if (transport && !(transport in TRANSPORTS)) throw new TypeError("a transport is websocket or event stream");
  base = String(base ?? import.meta.url.replace(/\/(static\/)?[^/]*$/, "")).replace(/^ws/, "http").replace(/\/$/, "");
  if (!/^https?:/.test(base)) throw new TypeError("base is the service's address");
  if (!services.has(base)) services.set(base, { noSocketsUntil: 0, hadSocket: false });
  return { base, service: services.get(base), job, space, key, lines, transport };
}

function start({ after, logsAfter, epoch, since, streamInstanceId }, { job }) {
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

function address({ base, job, space, lines }, position, transport) {
  const place = job ? encodeURIComponent(job) : `spaces/${encodeURIComponent(space)}`;
  const given = Object.entries({ ...position, logs: lines ? "true" : undefined }).filter(([, value]) => value !== undefined);
  const root = transport === "websocket" ? base.replace(/^http/, "ws") : base;
  return `${root}/api/v1/realtime/${place}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

/** A key as a subprotocol may have it. https://www.rfc-editor.org/rfc/rfc4648#section-5 */
function base64url(key) {
  return btoa(key).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Call a listener. What it throws is not for the stream: it is thrown where nobody catches it. */
function call(listener, ...args) {
  try {
    listener(...args);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** The members of what the server said in a frame, the reason of a close or the body of a refusal; none for what is no JSON. */
function said(text) {
  try {
    const found = JSON.parse(text);
    return typeof found === "object" && found ? found : {};
  } catch {
    return {};
  }
}

/** Exponential backoff with full jitter, so that a thousand pages do not come back at the same moment. */
function pause(failures) {
  return Math.random() * Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(failures, 16));
}
