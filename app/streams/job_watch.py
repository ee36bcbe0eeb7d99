"""A job that somebody watches: see app/streams/watch.py."""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from app.streams.frames import JobEvent, Progress, Stream, read_message
from app.streams.history import hinted_entries
from app.streams.job_topic import JobTopic
from app.streams.sequence import Page
from app.streams.topic import Need
from app.streams.watch import SHELF_BYTES, Surroundings, Watch

log = logging.getLogger("jobwire.live")

GATHER_S = 0.01
GATHERED_BYTES = 64 * 1024
"""Lines that come faster than one frame in this time are gathered into frames of up to this size."""

EVERYTHING = 2**53

Hint = tuple[int, int, int, bytes]
"""Lines that were appended: first, last, ms, and what is stored of them, or b"" when they were not in the hint."""


class Standing(NamedTuple):
    """The newest seqs of a job and the time of its progress in ms; -1 for the seq of a job that has gone."""

    seq: int
    progress_ms: int
    log_seq: int


class JobWatch(Watch):
    """One job. `open` before use; the log is followed from the first viewer on that may see it."""

    topic: JobTopic
    kind = "job"

    def __init__(self, around: Surroundings, on_gone: Callable[[Watch], None], space: str, job: str) -> None:
        super().__init__(around, on_gone)
        self.space = space
        self.job = job
        self._log_newest = 0
        self._logs_opened: asyncio.Task[None] | None = None
        self._gathered: list[Hint] = []
        self._gather_timer: asyncio.TimerHandle | None = None
        self._gathered_at_s = 0.0
        self._end_looked_at = 0

    # Opening

    async def open(self) -> None:
        """Subscribe, then read where the job stands. Raises NotFound, Unavailable."""
        await self.around.relay.subscribe(self.around.keys.live(self.space, self.job), self._hear)
        epoch = self.around.epoch.name
        start = await self.around.history.job(self.space, self.job)
        self.topic = JobTopic(
            self.job, epoch, start.status, seq=start.seq, first_kept=start.first_kept, progress=start.progress
        )
        self.topic.take_events(Page(start.events, start.first_kept, start.seq))
        self._open(epoch)

    async def open_logs(self) -> None:
        """Follow the log, too. Raises what the link raises."""
        if self._logs_opened is None or (self._logs_opened.done() and self.topic.logs is None):
            self._logs_opened = asyncio.create_task(self._open_logs())
        await asyncio.shield(self._logs_opened)

    async def _open_logs(self) -> None:
        await self.around.relay.subscribe(self.around.keys.log_live(self.job), self._hear_lines)
        first_kept, newest = await self.around.history.log_edge(self.job)
        self.topic.open_logs(newest, first_kept)
        self.topic.hear_logs(newest + 1, self._log_newest, 0, None)
        self.pump()

    # Hints

    def _take(self, payload: bytes) -> None:
        said = read_message(payload)
        if said.type == "progress":
            self.topic.hear_progress(Progress(self.job, said.seq, said.status, said.at, bytes(said.data)))
        else:
            self.topic.events.hear(
                JobEvent(self.job, said.seq, said.type, at_ms=said.at, data=bytes(said.data), status=said.status)
            )

    def _hear_lines(self, payload: bytes | None) -> None:
        if payload is None:
            if self.opened and self.topic.logs is not None:
                self.doubt()
            return
        try:
            first, last, at_ms, text = read_hint(payload)
        except ValueError:
            log.warning("somebody publishes what is no hint on a channel of log lines")
            return
        self._log_newest = max(self._log_newest, last)
        if not self.opened or self.topic.logs is None:
            return
        self._gathered.append((first, last, at_ms, text))
        if self._gather_timer is None:
            loop = asyncio.get_running_loop()
            wait_s = self._gathered_at_s + GATHER_S - loop.time()
            if wait_s <= 0:
                self._let_gathered_go()
            else:
                self._gather_timer = loop.call_later(wait_s, self._let_gathered_go)

    def _let_gathered_go(self) -> None:
        self._gather_timer = None
        self._gathered_at_s = asyncio.get_running_loop().time()
        gathered, self._gathered = self._gathered, []
        wanted = self.topic.wants_lines
        for first, last, at_ms, entries in runs(self.job, gathered, lines=wanted):
            self.topic.hear_logs(first, last, at_ms, entries or None)
        self.pump()

    # Ends

    def _advanced(self) -> None:
        waits = self.topic.end_waits
        if waits > self._end_looked_at:
            self._end_looked_at = waits
            self._spawn(self._look_at_log(waits))
        self.topic.events.trim(SHELF_BYTES)
        if self.topic.logs is not None:
            self.topic.logs.trim(SHELF_BYTES)

    async def _look_at_log(self, end: int) -> None:
        """An end waits for the log: find out how long the log is now."""

        async def look() -> None:
            _, newest = await self.around.history.log_edge(self.job)
            self.topic.pass_end(end, newest)

        await self._insist(look)
        self.pump()

    # Reads

    def _subject(self) -> tuple[str, str]:
        return self.space, self.job

    async def _page(self, need: Need) -> None:
        history = self.around.history
        if need.stream is Stream.EVENTS:
            self.topic.take_events(await history.events(self.space, self.job, need.after))
        else:
            through = self.topic.log_head if need.after < self.topic.log_head else EVERYTHING
            self.topic.take_lines(await history.lines(self.job, self.topic.status, need.after, through))

    # Doubt

    def _forget(self) -> None:
        self.topic.events.forget()
        if self.topic.logs is not None:
            self.topic.logs.forget()
        self._gathered.clear()
        self._end_looked_at = 0

    async def _compare(self) -> None:
        topic, history, epoch = self.topic, self.around.history, self.around.epoch.name
        start = await history.job(self.space, self.job, 0)
        seq = min(start.seq, await self._survived(Stream.EVENTS, topic.events.head, topic.epoch))
        first_kept, newest = await history.log_edge(self.job) if topic.logs else (1, 0)
        log_seq = min(newest, await self._survived(Stream.LOGS, topic.log_head, topic.epoch))
        if epoch != self.around.epoch.name:
            await self._compare()
            return
        if seq < topic.events.head:
            topic.status = start.status
            topic.progress = None
        topic.roll_back(Stream.EVENTS, seq)
        topic.roll_back(Stream.LOGS, log_seq)
        topic.take_events(Page([], start.first_kept, start.seq))
        topic.take_lines(Page([], first_kept, newest))
        if start.progress is not None:
            topic.hear_progress(start.progress)
        topic.begin(epoch, self.around.clock.now_ms())

    def standing(self) -> Standing:
        """Where the topic stands, to be compared with what a look at the store finds."""
        progress = self.topic.progress
        return Standing(self.topic.events.head, progress.at_ms if progress else 0, self.topic.log_head)

    def compare_with(self, found: Standing, before: Standing) -> None:
        """What a look at the store found; `before` is where the topic stood when the look began."""
        topic = self.topic
        if topic.suspended:
            return
        if found.seq < before.seq or found.log_seq < before.log_seq:
            self.doubt()
            return
        topic.events.newest = max(topic.events.newest, found.seq)
        topic.hear_logs(topic.log_head + 1, found.log_seq, 0, None)
        if found.progress_ms > self.standing().progress_ms:
            self._spawn(self._read_progress())
        self.pump()

    async def _read_progress(self) -> None:
        async def read() -> None:
            start = await self.around.history.job(self.space, self.job, 0)
            if start.progress is not None:
                self.topic.hear_progress(start.progress)

        await self._insist(read)
        self.pump()

    # Places

    async def place(self, stream: Stream, position: int, epoch: str | None) -> int:
        """How far a position may be continued: it, or a lower seq when what lies between was lost.

        Raises what the link raises.
        """
        track = self.topic.events if stream is Stream.EVENTS else self.topic.logs
        assert track is not None
        seq = position if epoch is None else await self._survived(stream, position, epoch)
        if seq > track.head:
            await self._page(Need(stream, track.head))
            self.pump()
        return min(seq, max(track.head, track.newest))

    def _unsubscribe(self) -> None:
        self.around.relay.unsubscribe(self.around.keys.live(self.space, self.job), self._hear)
        self.around.relay.unsubscribe(self.around.keys.log_live(self.job), self._hear_lines)
        if self._gather_timer is not None:
            self._gather_timer.cancel()


def read_hint(payload: bytes) -> Hint:
    """What lua/log_append.lua published. ValueError for anything else."""
    first, last, at_ms, *rest = payload.split(b" ", 3)
    return int(first), int(last), int(at_ms), rest[0] if rest else b""


def runs(job: str, gathered: list[Hint], *, lines: bool) -> list[Hint]:
    """Hints as runs, each with its lines as a JSON array; b"" where they were not in the hint or are not wanted."""
    found: list[Hint] = []
    for first, last, at_ms, text in gathered:
        entries = hinted_entries(job, first, last, at_ms, text) if text and lines else b""
        if found and entries:
            begun, before, _, those = found[-1]
            if those and before + 1 == first and len(those) + len(entries) < GATHERED_BYTES:
                found[-1] = (begun, last, at_ms, b"%b,%b" % (those[:-1], entries[1:]))
                continue
        found.append((first, last, at_ms, entries))
    return found
