"""The live stream of one job, as server-sent events: what comes over the wire, frame by frame.

Never: reconnects; whoever follows knows the position. https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from .http import Http, Query
from .record import LogLine

CONTENT_TYPE = "text/event-stream"
LONGEST_EVENT_BYTES = 64 * 1024 * 1024
ENDS = ("completed", "dead", "killed")


class NoStream(Exception):
    """There is nothing to follow live: the service has no streams, or the job has ended."""


class LogsData(msgspec.Struct, rename="camel"):
    """The data of a `logs` frame."""

    to_seq: int = 0
    entries: list[LogLine] = []


class Frame(msgspec.Struct):
    """What a follower of lines wants to know of a frame. `first` and `last` bound a gap, `log_seq` its begin."""

    type: str
    status: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    stream: str = ""
    first: int = msgspec.field(default=0, name="from")
    last: int = msgspec.field(default=0, name="to")
    reason: str = ""
    epoch: str = ""
    log_seq: int | None = msgspec.field(default=None, name="logSeq")

    @property
    def is_end(self) -> bool:
        """Whether the job has ended with this event."""
        return self.type in ENDS

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
        yield msgspec.json.decode(event, type=Frame)


def events(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The `data` of each event in a body. ValueError for one that does not end."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n\n")
        if len(rest) > LONGEST_EVENT_BYTES:
            raise ValueError("an event does not end")
        for event in whole:
            data = [line[6:] for line in event.split(b"\n") if line.startswith(b"data: ")]
            if data:
                yield b"\n".join(data)
