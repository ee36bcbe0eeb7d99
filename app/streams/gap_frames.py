"""The frames of gaps: what a viewer of a job is told that it will never get, and why. No I/O.

Owns: what each gap says, by its reason. `trimmed`: the store no longer keeps it (JobTopic tells it, when something
is missing or a viewer that is behind asks for it). `rolled_back`: the viewer has seen it, and the store has lost it
(JobTopic.roll_back for those who are here, Streams.job for those who come back).
Never: finds out what the store has. app/streams/job_watch.py does, for the topic and for a position that is resumed.
A space has no gaps: it says `connected` again, with `missed`.
"""

import msgspec

from app.streams.frames import Audience, Stream
from app.streams.topic import Viewer


class GapFrame:
    """What cannot be replayed. Only for those who follow by seq."""

    __slots__ = ("_text", "first", "last", "stream")

    def __init__(self, job: str, stream: Stream, first: int, last: int, *, reason: str) -> None:
        self.stream = stream
        self.first = first
        self.last = last
        self._text = msgspec.json.encode(
            {
                "type": "gap",
                "jobId": job,
                "stream": stream.name.lower(),
                "from": first,
                "to": last,
                "reason": reason,
            }
        )

    @property
    def size_bytes(self) -> int:
        return len(self._text)

    def text_for(self, audience: Audience) -> bytes | None:
        return None if audience is Audience.NARROW else self._text


def trimmed_gap(job: str, stream: Stream, first: int, last: int) -> GapFrame:
    """The store no longer keeps these: they will not come."""
    return GapFrame(job, stream, first, last, reason="trimmed")


def rolled_back_gap(job: str, stream: Stream, kept: int, seen: int) -> GapFrame:
    """The store has lost what came after `kept`. A viewer that has seen up to `seen` goes on from `kept`."""
    gap = GapFrame(job, stream, kept + 1, seen, reason="rolled_back")
    gap.last = kept
    return gap


def gaps_of_resume(job: str, viewer: Viewer, after: int, logs_after: int) -> list[GapFrame]:
    """What a viewer that comes back has seen, up to these positions, and the store has lost: it resumes before them."""
    return [
        rolled_back_gap(job, stream, kept, seen)
        for stream, kept, seen in ((Stream.EVENTS, viewer.seq, after), (Stream.LOGS, viewer.log_seq, logs_after))
        if kept < seen
    ]
