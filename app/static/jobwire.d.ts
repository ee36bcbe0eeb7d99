// The types of jobwire.js: what docs/streams.md says, for a compiler.

/** How a job ended. */
export type Ended = "completed" | "dead" | "killed";

/** Where a job stands. */
export type Status = "pending" | "scheduled" | "delivered" | "running" | Ended;

export type Transport = "websocket" | "event stream";

/** Where to go on in a job; an `epoch` belongs to the positions with which it was given out. */
export interface JobPosition {
  after?: number;
  logsAfter?: number;
  epoch?: string;
}

/** Where to go on in a space. */
export interface SpacePosition {
  since?: number;
  streamInstanceId?: string;
}

interface Common {
  /** Needs `jobs:read`; without a key, or with `jobs:read:progress`, a job's progress is shown. Goes into no address. */
  key?: string;
  /** The service, with the path below which it is served; by default where the module was loaded from. */
  base?: string | URL;
  /** This transport and no other; by default a WebSocket, and an event stream where none opens. */
  transport?: Transport;
}

export interface JobOptions extends Common, JobPosition {
  job: string;
  space?: undefined;
  realtimeUrl?: undefined;
  /** The log's lines, too. */
  lines?: boolean;
}

export interface SpaceOptions extends Common, SpacePosition {
  space: string;
  job?: undefined;
  realtimeUrl?: undefined;
}

export interface UrlOptions extends Common, JobPosition, SpacePosition {
  /** As the answer to a create has it; `base` is not asked for then. */
  realtimeUrl: string;
  job?: undefined;
  space?: undefined;
  lines?: boolean;
}

export type Options = JobOptions | SpaceOptions | UrlOptions;

/** One line of a log. */
export interface Line {
  seq: number;
  level: "trace" | "debug" | "info" | "warn" | "error" | "fatal";
  message: string;
  source: string | null;
  metadata: unknown;
  loggedAt: string;
  [more: string]: unknown;
}

/** The first frame of a job's stream; `seq` and `logSeq` are null for those who see no more than progress. */
export interface Init {
  type: "init";
  jobId: string;
  status: Status;
  /** The last progress. */
  data: Record<string, unknown> | null;
  seq: number | null;
  logSeq: number | null;
  epoch: string;
  timestamp: string;
}

export interface Logs {
  type: "logs";
  jobId: string;
  status: Status;
  data: { fromSeq: number; toSeq: number; inserted: number; entries?: Line[] };
  timestamp: string;
}

/** What was asked for and is not there: `trimmed` was kept no longer, `rolled_back` was lost by the store. */
export interface Gap {
  type: "gap";
  jobId: string;
  stream: "events" | "logs";
  from: number;
  to: number;
  reason: "trimmed" | "rolled_back";
}

/** The first frame of a space's stream, and of each of its epochs. */
export interface Connected {
  type: "connected";
  seq: number;
  streamInstanceId: string;
  missed: boolean;
  counts: Record<Status, number>;
}

/** Something happened to a job, or it told its progress. */
export interface JobEvent {
  type:
    | "created"
    | "pending"
    | "delivered"
    | "started"
    | "progress"
    | "checkpoint"
    | "event"
    | "retried"
    | "delivery_timeout"
    | "released"
    | "completed"
    | "dead"
    | "killed"
    | "requeued"
    | "callback_sent"
    | "callback_failed";
  jobId: string;
  status: Status;
  data: unknown;
  seq: number | null;
  timestamp: string;
  /** `data` was too long for a frame: `GET` has it. */
  omitted?: true;
  /** In a space only. */
  jobName?: string;
  /** In a space only, where a status changed. */
  counts?: Record<Status, number>;
}

export type Frame = Init | Connected | JobEvent | Logs | Gap;

/** Frames come, by this transport. */
export interface Live {
  transport: Transport;
}

/** None come now; it comes back by itself. */
export interface Away {
  /** Why, in a sentence. */
  error: string;
  /** An HTTP status, where the service or a proxy answered with one. */
  status?: number;
  /** Of the WebSocket's close, or of the service's refusal. */
  code?: number | string;
  reason?: string;
}

/** The stream was closed for good: 1000 when the job has ended and nothing more is shown, 1008 for a key or job that is gone. */
export interface Closed {
  code: number;
  reason: string;
  /** How the job ended, for those who see no more than progress. */
  status?: Ended;
}

/** The service refused it for good. */
export interface Refused {
  status: number;
  code: string;
  error: string;
}

export interface Listeners {
  frame?(frame: Frame): void;
  /** Another state; told once. */
  state?(...told: ["live", Live] | ["away", Away] | ["over", Closed | Refused]): void;
}

export interface Stream {
  readonly state: "live" | "away" | "over";
  /** What `state` was told last, or, while away, the newest reason. */
  readonly detail: Partial<Live & Away> | Closed | Refused;
  /** Behind the last frame that was told: options for another `follow`. */
  readonly position: JobPosition & SpacePosition;
  /** Follow no more. */
  close(): void;
}

/** Follow a job or a space until `close()`, or until nothing more can come. TypeError for what cannot be followed. */
export function follow(options: Options, listeners?: Listeners): Stream;

/** What ends in the bytes of an event stream: an event, or a new time to wait, in ms. */
export type Parsed =
  | { event: string; data: string; id: string; retry?: undefined }
  | { retry: number; event?: undefined; data?: undefined; id?: undefined };

/** A parser of event streams, as the HTML standard has them. */
export class EventParser {
  /** Whether an event has been seen. */
  readonly began: boolean;
  push(bytes: Uint8Array): Parsed[];
}
