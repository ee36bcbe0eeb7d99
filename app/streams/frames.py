"""What viewers of a stream see: the frames of a job and of a space, encoded once for all who see the same. No I/O.

Owns: the members of every frame, and which of them a narrow caller may see; gaps are in gaps.py. Their envelopes are
app/wire/framing.py's.

Always: a frame is one line and no longer than FRAME_BYTES. JSON that belongs to users is copied as bytes, but for its
line breaks; what would not fit is left out, and the frame says so.
"""

from enum import IntEnum
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from app.model.job import ENDED, Status
from app.model.json_items import NULL
from app.model.times import rfc3339

FRAME_BYTES = 1_000_000
"""No frame is longer, as it is sent: many clients take 1 MiB, and meet what they refuse again at every return."""

ENVELOPE_BYTES = 200
"""What a transport puts around a text, at most: an id, the names of fields, lengths."""

FRAME_TEXT_BYTES = FRAME_BYTES - ENVELOPE_BYTES

END_TYPES = frozenset(status.value for status in ENDED)
"""Types of the events that end a job; they are spelled like the statuses."""


class Audience(IntEnum):
    """Who looks: progress only, every event, every event and the log's lines, or a whole space."""

    NARROW = 0
    FULL = 1
    LINES = 2
    SPACE = 3


class Stream(IntEnum):
    """A gapless sequence, counted from 1: the events of a job, the lines of its log, the events of a space."""

    EVENTS = 0
    LOGS = 1
    FEED = 2


class PublishedEvent(Struct):
    """What lua/include/emit_event.lua publishes and puts on the feed. `jobName`, `counts` and `data` are JSON."""

    type: str
    jobId: str
    jobName: Raw
    status: str
    seq: int
    feed: int
    at: int
    counts: Raw
    data: Raw
    omitted: bool = False


decode_published = msgspec.json.Decoder(PublishedEvent).decode
"""The Message in a hint or an entry of the feed."""

decode_event_item = msgspec.json.Decoder(tuple[str, int, Raw, str]).decode
"""An item of a job's list of events: type, ms, data, status."""


class Frame(Protocol):
    """Something to send. It takes a viewer from `first - 1` to `last`; both are 0 for what has no place of its own."""

    first: int
    last: int

    def text_for(self, audience: Audience) -> bytes | None:
        """The JSON object that this audience sees; None if it sees nothing of it."""

    @property
    def size_bytes(self) -> int:
        """About what it takes to keep it."""


def on_one_line(text: bytes) -> bytes:
    """The same JSON without line breaks; as it is, if it has none. Valid JSON has them only between its tokens."""
    if b"\n" in text or b"\r" in text:
        return msgspec.json.format(text, indent=-1)
    return text


def event_text(kind: str, job: str, status: str, data: bytes, *, seq: int, at_ms: int, more: bytes = b"") -> bytes:
    """The frame of one event of a job, `more` members at its end; without its data if it would be too long."""
    head = b'{"type":"%b","jobId":"%b","status":"%b","data":' % (kind.encode(), job.encode(), status.encode())
    tail = b',"seq":%d,"timestamp":"%b"%b' % (seq, rfc3339(at_ms).encode(), more)
    text = b"%b%b%b}" % (head, on_one_line(data), tail)
    return text if len(text) <= FRAME_TEXT_BYTES else b'%bnull%b,"omitted":true}' % (head, tail)


def narrow_text(kind: str, job: str, status: str, data: bytes, at_ms: int) -> bytes:
    """The same for a narrow caller: no seq, and no data unless it is progress."""
    head = b'{"type":"%b","jobId":"%b","status":"%b",' % (kind.encode(), job.encode(), status.encode())
    shown = b'"data":%b,' % data if data else b""
    return b'%b%b"seq":null,"timestamp":"%b"}' % (head, shown, rfc3339(at_ms).encode())


class JobEventFrame:
    """One event of a job."""

    __slots__ = ("_full", "_narrow", "at_ms", "first", "kind", "last", "status")

    def __init__(self, job: str, seq: int, kind: str, *, at_ms: int, data: bytes, status: str) -> None:
        self.first = self.last = seq
        self.kind = kind
        self.status = status
        self.at_ms = at_ms
        self._full = event_text(kind, job, status, data, seq=seq, at_ms=at_ms)
        completed = kind == Status.COMPLETED
        self._narrow = narrow_text(kind, job, status, b"", at_ms) if completed else None

    @property
    def ends(self) -> bool:
        """Whether this is the end of the job."""
        return self.kind in END_TYPES

    @property
    def size_bytes(self) -> int:
        return len(self._full) + 200

    def text_for(self, audience: Audience) -> bytes | None:
        return self._narrow if audience is Audience.NARROW else self._full


class ProgressFrame:
    """The latest progress of a job; `seq` is that of the event before it."""

    __slots__ = ("_data", "_job", "_status", "at_ms", "first", "last", "seq")

    def __init__(self, job: str, seq: int, status: str, at_ms: int, data: bytes) -> None:
        self.first = self.last = 0
        self.seq = seq
        self.at_ms = at_ms
        self._job = job
        self._status = status
        self._data = on_one_line(data)

    @property
    def data(self) -> bytes:
        """The progress itself, as JSON."""
        return self._data

    @property
    def size_bytes(self) -> int:
        return len(self._data) + 200

    def text_for(self, audience: Audience) -> bytes | None:
        if audience is Audience.NARROW:
            return narrow_text("progress", self._job, self._status, self._data, self.at_ms)
        return event_text("progress", self._job, self._status, self._data, seq=self.seq, at_ms=self.at_ms)


class LogLinesFrame:
    """Lines of a job's log: that they came, and, for those who want them, what they say (`entries`, a JSON array)."""

    __slots__ = ("_head", "_tail", "at_ms", "entries", "first", "last")

    def __init__(
        self, job: str, status: str, first: int, last: int, *, at_ms: int, entries: bytes | None = None
    ) -> None:
        self.first = first
        self.last = last
        self.at_ms = at_ms
        self.entries = None if entries is None else on_one_line(entries)
        self._head = b'{"type":"logs","jobId":"%b","status":"%b","data":{"fromSeq":%d,"toSeq":%d,"inserted":%d' % (
            job.encode(),
            status.encode(),
            first,
            last,
            last - first + 1,
        )
        self._tail = b'},"timestamp":"%b"}' % rfc3339(at_ms).encode()

    @property
    def size_bytes(self) -> int:
        return len(self.entries or b"") + 400

    def entry(self, seq: int) -> Any:
        """The line with this seq; None if it is not shown."""
        return None if self.entries is None else msgspec.json.decode(self.entries)[seq - self.first]

    def text_for(self, audience: Audience) -> bytes | None:
        if audience is Audience.NARROW:
            return None
        if audience is Audience.LINES and self.entries is not None:
            return b'%b,"entries":%b%b' % (self._head, self.entries, self._tail)
        return self._head + self._tail


class InitFrame:
    """The first frame of a job stream: where it begins, in which epoch. It comes again when another epoch begins."""

    __slots__ = ("_told", "first", "last")

    def __init__(
        self, job: str, status: str, progress: bytes, *, seq: int, log_seq: int, epoch: str, at_ms: int
    ) -> None:
        self.first = self.last = 0
        self._told = {
            "type": "init",
            "jobId": job,
            "status": status,
            "data": Raw(progress),
            "seq": seq,
            "logSeq": log_seq,
            "epoch": epoch,
            "timestamp": rfc3339(at_ms),
        }

    @property
    def size_bytes(self) -> int:
        return 200

    def text_for(self, audience: Audience) -> bytes:
        narrow = {"seq": None, "logSeq": None} if audience is Audience.NARROW else {}
        return msgspec.json.encode(self._told | narrow)


class SpaceEventFrame:
    """One event of a job, or its progress, as the viewers of its space see it. `after` is the event before progress."""

    __slots__ = ("_text", "after", "counts", "first", "last")

    def __init__(self, message: PublishedEvent) -> None:
        self.after = message.feed
        self.first = self.last = 0 if message.type == "progress" else message.feed
        self.counts = b"" if message.counts == NULL else bytes(message.counts)
        more = b',"jobName":%b' % bytes(message.jobName)
        if self.counts:
            more += b',"counts":%b' % self.counts
        if message.omitted:
            more += b',"omitted":true'
        self._text = event_text(
            message.type,
            message.jobId,
            message.status,
            bytes(message.data),
            seq=message.feed,
            at_ms=message.at,
            more=more,
        )

    @property
    def size_bytes(self) -> int:
        return len(self._text) + 200

    def text_for(self, audience: Audience) -> bytes | None:
        return self._text


def connected_text(seq: int, instance_id: str, counts: bytes, *, missed: bool) -> bytes:
    """The first frame of a space stream. It comes again when another epoch begins, or something is missed."""
    return msgspec.json.encode(
        {"type": "connected", "seq": seq, "streamInstanceId": instance_id, "missed": missed, "counts": Raw(counts)}
    )
