"""The live stream of one job, as server-sent events: what comes over the wire, frame by frame.

Never: reconnects; whoever follows knows the position. https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from ..api.http_client import Http, Query
from ..api.response_structs import ENDED, LogLine

CONTENT_TYPE = "text/event-stream"
LONGEST_EVENT_BYTES = 64 * 1024 * 1024
END = "end"


class NoStream(Exception):
    """There is nothing to follow live: the service has no streams, or the job has ended."""


class LogsData(msgspec.Struct, rename="camel"):
    """The data of a `logs` frame."""

    to_seq: int = 0
    entries: list[LogLine] = []


class Frame(msgspec.Struct):
    """What a follower of lines wants to know of a frame. `first` and `last` bound a gap, `log_seq` its begin.

    `end` is all that a narrow key is told of how the job ended.
    """

    type: str = ""
    status: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    stream: str = ""
    first: int = msgspec.field(default=0, name="from")
    last: int = msgspec.field(default=0, name="to")
    reason: str = ""
    epoch: str = ""
    seq: int | None = None
    log_seq: int | None = msgspec.field(default=None, name="logSeq")

    @property
    def is_end(self) -> bool:
        """Whether the job has ended with this event. A narrow key, which is told no seq, waits for `end`."""
        return self.type in ENDED and self.seq is not None

    def lines(self) -> LogsData:
        """The lines of a `logs` frame."""
        return msgspec.json.decode(self.data, type=LogsData)


def frames(http: Http, path: str, *, logs_after: int, epoch: str) -> Iterator[Frame]:
    """Frames from now on, lines from behind a seq. Raises what `Http.stream` raises, and NoStream."""
    query: Query = {"logs": "true", "logsAfter": logs_after, "epoch": epoch or None}
    content_type, chunks = http.stream(path, query=query, accept=CONTENT_TYPE)
    if not content_type.startswith(CONTENT_TYPE):
        raise NoStream
    for event in events(chunks):
        if event.data:
            frame = msgspec.json.decode(event.data, type=Frame)
            frame.type = event.type or frame.type
            yield frame


class Event(NamedTuple):
    """One server-sent event: its type ("" for a frame), its data, its id, and when to come back, if it says so."""

    type: str
    data: bytes
    id: str
    retry_ms: int | None


def events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """Each event in a body. ValueError for one that does not end."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n\n")
        if len(rest) > LONGEST_EVENT_BYTES:
            raise ValueError("an event does not end")
        for event in whole:
            fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if b": " in line)
            retry = fields.get(b"retry", b"")
            yield Event(
                fields.get(b"event", b"").decode(),
                fields.get(b"data", b""),
                fields.get(b"id", b"").decode(),
                int(retry) if retry.isdigit() else None,
            )
