"""What streams read from the store: where a topic begins, pages of it, and how far it survived. Reads only.

Owns: how a stored event, line or feed entry becomes a frame: the same frame that a hint becomes.
"""

from collections.abc import Sequence
from typing import NamedTuple

from app.jobs.job_store import JobStore
from app.logs.lines import Stored, encode_array
from app.logs.log_store import LogStore
from app.model.errors import Outage
from app.model.limits import KIB
from app.model.redis_keys import Keys
from app.redis_links.link import Link
from app.redis_links.scripts import Scripts
from app.streams.frames import (
    JobEventFrame,
    LogLinesFrame,
    ProgressFrame,
    SpaceEventFrame,
    Stream,
    decode_event_item,
    decode_published,
)
from app.streams.sequence import FramePage

EVENTS_PAGE = 500
EVENTS_PAGE_BYTES = 512 * KIB
NEWEST_EVENTS = 256
NEWEST_BYTES = 128 * KIB
"""What a topic begins with, so that those who come back a moment later need no page."""

LINES_PAGE = 10_000
LINES_PAGE_BYTES = 256 * KIB


class JobStart(NamedTuple):
    """Where a job stands."""

    status: str
    progress: ProgressFrame | None
    seq: int
    first_kept: int
    events: list[JobEventFrame]


class SpaceStart(NamedTuple):
    """Where a space stands; `counts` is a JSON object."""

    instance: str
    counts: bytes
    page: FramePage[SpaceEventFrame]


class History:
    """Reads for streams, over the link of large answers."""

    def __init__(self, bulk: Link, keys: Keys, store: JobStore, logs: LogStore) -> None:
        self._scripts = Scripts(bulk)
        self._bulk = bulk
        self._keys = keys
        self._store = store
        self._logs = logs

    async def read_job(self, space: str, job: str, events: int = NEWEST_EVENTS) -> JobStart:
        """Where a job stands, and its newest events. Refusal `job_not_found`."""
        status, progress, at_ms, seq, kept, items = await self._scripts.run(
            "job_watch", [self._keys.space(space)], [job, events, NEWEST_BYTES]
        )
        last = None if progress is None else ProgressFrame(job, seq, status.decode(), int(at_ms), progress)
        first = seq - len(items) + 1
        frames = [job_event(job, first + i, item) for i, item in enumerate(items)]
        return JobStart(status.decode(), last, seq, seq - kept + 1, frames)

    async def read_events(self, space: str, job: str, after: int) -> FramePage[JobEventFrame]:
        """A page of a job's events. Refusal `job_not_found`."""
        page = await self._store.read_events(space, job, after, EVENTS_PAGE, EVENTS_PAGE_BYTES)
        return FramePage([job_event(job, event.seq, event.item) for event in page.events], page.first_kept, page.newest)

    async def read_lines(self, job: str, status: str, after: int, through: int) -> FramePage[LogLinesFrame]:
        """A page of a job's log; without a log, an empty one."""
        batch = await self._logs.read_after(job, after, LINES_PAGE, LINES_PAGE_BYTES, through)
        frames = [LogLinesFrame(job, status, c.first, c.last, at_ms=c.at_ms, entries=c.entries) for c in batch.chunks]
        return FramePage(frames, batch.first_kept, batch.newest)

    async def read_log_edge(self, job: str) -> tuple[int, int]:
        """The oldest and the newest seq of a job's log; 1 and 0 without one."""
        with self._logs.unreadable_logs.guard(job):
            first, last = await self._bulk.call("HMGET", self._keys.log_meta(job), "firstSeq", "lastSeq")
            return int(first or 1), int(last or 0)

    async def read_space(self, space: str, after: int) -> SpaceStart:
        """A page of a space's feed (-1: the newest), and where the space stands. Refusal `space_not_found`."""
        instance, counts, first_kept, newest, texts = await self._scripts.run(
            "feed_read", [self._keys.space(space)], [after, NEWEST_EVENTS if after < 0 else EVENTS_PAGE]
        )
        frames = [SpaceEventFrame(decode_published(text)) for text in texts]
        return SpaceStart(instance.decode(), counts, FramePage(frames, first_kept, newest))

    async def find_survived(self, stream: Stream, space: str, job: str, position: int, moment_ms: int) -> int:
        """How much of what lies up to `position` was written before a moment: all of it, or up to an earlier seq.

        Times grow with seqs: looking at the position itself is enough where nothing was lost.
        """
        if not moment_ms:
            return 0
        old, new = 0, position + 1
        probe = position
        while old + 1 < new:
            at_ms = await self._time_of(stream, space, job, probe)
            if at_ms is not None and at_ms < moment_ms:
                old = probe
            else:
                new = probe
            probe = (old + new) // 2
        return old

    async def _time_of(self, stream: Stream, space: str, job: str, seq: int) -> int | None:
        """When the entry with this seq was written, or the oldest one kept after it; None without one."""
        if stream is Stream.LOGS:
            chunks = (await self._logs.read_after(job, seq - 1, 1, 1, seq)).chunks
            return chunks[0].at_ms if chunks else None
        if stream is Stream.EVENTS:
            events = (await self._store.read_events(space, job, seq - 1, 1)).events
            return int(decode_event_item(events[0].item)[1]) if events else None
        keys, args = [self._keys.space(space)], [seq - 1, 1]
        texts = (await self._scripts.run("feed_read", keys, args))[-1]
        return decode_published(texts[0]).at if texts else None

    async def read_standings(self, jobs: Sequence[tuple[str, str]]) -> list[tuple[int, int] | None]:
        """Of each job (space, id): its newest seq and the time of its progress in ms; -1 if it has gone.

        None while the server of a cluster that has it is away.
        """
        calls = (("HMGET", self._keys.job(space, job), "eventSeq", "progressAt") for space, job in jobs)
        replies = await self._bulk.pipeline_by_server(*calls)
        return [
            None if isinstance(reply, Outage) else (-1 if reply[0] is None else int(reply[0]), int(reply[1] or 0))
            for reply in replies
        ]

    async def read_newest_lines(self, jobs: Sequence[str]) -> list[int]:
        """Of each job, the seq of its newest line; 0 without one, or while the server that has the log is away."""
        calls = (("HGET", self._keys.log_meta(job), "lastSeq") for job in jobs)
        replies = await self._bulk.pipeline_by_server(*calls)
        return [0 if seq is None or isinstance(seq, Outage) else int(seq) for seq in replies]

    async def read_newest_feed_seqs(self, spaces: Sequence[str]) -> list[int | None]:
        """Of each space, the seq of its newest event; -1 if it has gone, None while its server is away."""
        calls = (("HGET", self._keys.space(space), "seq") for space in spaces)
        replies = await self._bulk.pipeline_by_server(*calls)
        return [None if isinstance(seq, Outage) else -1 if seq is None else int(seq) for seq in replies]


def job_event(job: str, seq: int, item: bytes) -> JobEventFrame:
    """The frame of an item of a job's list of events."""
    kind, at_ms, data, status = decode_event_item(item)
    return JobEventFrame(job, seq, kind, at_ms=at_ms, data=bytes(data), status=status)


def hinted_entries(job: str, first: int, last: int, at_ms: int, text: bytes) -> bytes:
    """The lines of a hint as the API answers them, a JSON array."""
    return encode_array(Stored(first, last, at_ms, text).build_rows(job, range(first, last + 1)))
