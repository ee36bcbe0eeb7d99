"""A job that somebody watches: see app/streams/watch.py."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from app.streams.frames import JobEventFrame, ProgressFrame, Stream, decode_published
from app.streams.heard_hints import HeardHints
from app.streams.history import hinted_entries
from app.streams.job_topic import JobTopic
from app.streams.sequence import FramePage
from app.streams.topic import PageNeed
from app.streams.watch import SHELF_BYTES, Watch, WatchContext, is_same

log = logging.getLogger("jobwire.live")

GATHER_S = 0.01
GATHERED_BYTES = 64 * 1024
"""Lines that come faster than one frame in this time are gathered into frames of up to this size."""

EVERYTHING = 2**53

LogHint = tuple[int, int, int, bytes]
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

    def __init__(self, context: WatchContext, on_gone: Callable[[Watch], None], space: str, job: str) -> None:
        super().__init__(context, on_gone)
        self.space = space
        self.job = job
        self._log_newest = 0
        self._logs_opened: asyncio.Task[None] | None = None
        self._gathered: list[LogHint] = []
        self._gather_timer: asyncio.TimerHandle | None = None
        self._gathered_at_s = 0.0
        self._end_looked_at = 0
        self._heard_events = HeardHints()
        self._heard_lines = HeardHints()

    # Opening

    async def open(self) -> None:
        """Subscribe, then read where the job stands. Raises NotFound, Unavailable."""
        await self.context.relay.subscribe(self.context.keys.live(self.space, self.job), self._on_hint)
        epoch = self.epoch
        start = await self.context.history.read_job(self.space, self.job)
        self.topic = JobTopic(
            self.job, epoch, start.status, seq=start.seq, first_kept=start.first_kept, progress=start.progress
        )
        self.topic.add_event_page(FramePage(start.events, start.first_kept, start.seq))
        self._finish_open(epoch)

    async def open_logs(self) -> None:
        """Follow the log, too. Raises what the link raises."""
        if self._logs_opened is None or (self._logs_opened.done() and self.topic.logs is None):
            self._logs_opened = asyncio.create_task(self._open_logs())
        await asyncio.shield(self._logs_opened)

    async def _open_logs(self) -> None:
        await self.context.relay.subscribe(self.context.keys.log_live(self.job), self._on_log_hint)
        first_kept, newest = await self.context.history.read_log_edge(self.job)
        now_ms = self.now_ms(Stream.LOGS)
        self.topic.open_logs(newest, first_kept, now_ms)
        self.topic.add_log_hint(newest + 1, self._log_newest, now_ms, None)
        self.release_and_read()

    # Hints

    def _apply_hint(self, payload: bytes) -> None:
        hint = decode_published(payload)
        if hint.type == "progress":
            self.topic.add_progress(ProgressFrame(self.job, hint.seq, hint.status, hint.at, bytes(hint.data)))
        elif self._heard_events.contradict(hint.seq, payload):
            self.resync()
        else:
            self.topic.events.add_hint(
                JobEventFrame(self.job, hint.seq, hint.type, at_ms=hint.at, data=bytes(hint.data), status=hint.status)
            )

    def _on_log_hint(self, payload: bytes | None) -> None:
        if payload is None:
            if self.opened and self.topic.logs is not None:
                self.resync()
            return
        try:
            first, last, at_ms, text = parse_log_hint(payload)
        except ValueError:
            log.warning("a channel of log lines carries something that is no hint")
            return
        self._log_newest = max(self._log_newest, last)
        if not self.opened or self.topic.logs is None:
            return
        if self._heard_lines.contradict(first, payload):
            self.resync()
            return
        self._gathered.append((first, last, at_ms, text))
        if self._gather_timer is None:
            loop = asyncio.get_running_loop()
            wait_s = self._gathered_at_s + GATHER_S - loop.time()
            if wait_s <= 0:
                self._release_gathered()
            else:
                self._gather_timer = loop.call_later(wait_s, self._release_gathered)

    def _release_gathered(self) -> None:
        self._gather_timer = None
        self._gathered_at_s = asyncio.get_running_loop().time()
        gathered, self._gathered = self._gathered, []
        wanted = self.topic.wants_lines
        for first, last, at_ms, entries in join_hints(self.job, gathered, lines=wanted):
            self.topic.add_log_hint(first, last, at_ms, entries or None)
        self.release_and_read()

    # Ends

    def _after_release(self) -> None:
        waits = self.topic.end_waits
        if waits > self._end_looked_at:
            self._end_looked_at = waits
            self._spawn(self._find_log_end(waits))
        self.topic.events.trim_shelf(SHELF_BYTES)
        if self.topic.logs is not None:
            self.topic.logs.trim_shelf(SHELF_BYTES)

    async def _find_log_end(self, end: int) -> None:
        """An end waits for the log: read how long the log is now."""

        async def read() -> None:
            _, newest = await self.context.history.read_log_edge(self.job)
            self.topic.allow_end(end, newest, self.now_ms(Stream.LOGS))

        await self._retry_until_done(read)
        self.release_and_read()

    # Reads

    def _subject(self) -> tuple[str, str]:
        return self.space, self.job

    def _key_of(self, stream: Stream) -> str:
        keys = self.context.keys
        return keys.log(self.job) if stream is Stream.LOGS else keys.space(self.space)

    def _keys(self) -> Sequence[str]:
        return self._key_of(Stream.EVENTS), self._key_of(Stream.LOGS)

    def now_ms(self, stream: Stream) -> int:
        """The clock of the server on which the stream lies, as its entries have their times."""
        return self.context.clock.now_ms(self._key_of(stream))

    async def _read_page(self, need: PageNeed) -> None:
        history = self.context.history
        if need.stream is Stream.EVENTS:
            self.topic.add_event_page(await history.read_events(self.space, self.job, need.after))
        else:
            through = self.topic.log_head if need.after < self.topic.log_head else EVERYTHING
            self.topic.add_line_page(await history.read_lines(self.job, self.topic.status, need.after, through))

    # Resynchronization

    async def _is_in_store(self, stream: Stream, seq: int) -> bool:
        topic, history = self.topic, self.context.history
        if stream is Stream.EVENTS:
            events = (await history.read_events(self.space, self.job, seq - 1)).frames
            return is_same(topic.events.find_frame(seq), next(iter(events), None))
        lines = next(iter((await history.read_lines(self.job, topic.status, seq - 1, seq)).frames), None)
        left = None if topic.logs is None else topic.logs.find_frame_of(seq)
        return left is not None and lines is not None and left.entry(seq) == lines.entry(seq) is not None

    def _drop_hints(self) -> None:
        self.topic.events.drop_hints()
        self._heard_events.drop(self.topic.events.head)
        if self.topic.logs is not None:
            self.topic.logs.drop_hints()
        self._heard_lines.drop(self.topic.log_head)
        self._gathered.clear()
        self._end_looked_at = 0

    async def _compare_with_store(self) -> None:
        topic, history, epoch = self.topic, self.context.history, self.epoch
        start = await history.read_job(self.space, self.job, 0)
        # Seqs that were lost are given out again, to other events and lines: only what is older than the loss is kept.
        seq = min(start.seq, await self._find_survived(Stream.EVENTS, topic.events.head, topic.epoch))
        seq = await self._beyond_doubt(self._heard_events, Stream.EVENTS, seq)
        first_kept, newest = await history.read_log_edge(self.job) if topic.logs else (1, 0)
        log_seq = min(newest, await self._find_survived(Stream.LOGS, topic.log_head, topic.epoch))
        log_seq = await self._beyond_doubt(self._heard_lines, Stream.LOGS, log_seq)
        if epoch != self.epoch:
            # Another epoch began between these reads: part of them may be of the history that it ended.
            await self._compare_with_store()
            return
        self._heard_events.agree(seq)
        self._heard_lines.agree(log_seq)
        if seq < topic.events.head:
            topic.status = start.status
            topic.progress = None
        topic.roll_back(Stream.EVENTS, seq)
        topic.roll_back(Stream.LOGS, log_seq)
        topic.add_event_page(FramePage([], start.first_kept, start.seq))
        topic.add_line_page(FramePage([], first_kept, newest))
        topic.add_log_hint(topic.log_head + 1, newest, self.now_ms(Stream.LOGS), None)
        if start.progress is not None:
            topic.add_progress(start.progress)
        topic.set_clock(self.now_ms(Stream.EVENTS))
        topic.begin_epoch(epoch, self.now_ms(Stream.EVENTS))

    def standing(self) -> Standing:
        """Where the topic stands now, for `apply_standing`."""
        progress = self.topic.progress
        return Standing(self.topic.events.head, progress.at_ms if progress else 0, self.topic.log_head)

    def apply_standing(self, stored: Standing, before: Standing) -> None:
        """Act on where the store stands; `before` is where the topic stood when that read began."""
        topic = self.topic
        if topic.suspended:
            return
        if stored.seq < before.seq or stored.log_seq < before.log_seq:
            self.resync()
            return
        topic.events.newest = max(topic.events.newest, stored.seq)
        topic.add_log_hint(topic.log_head + 1, stored.log_seq, self.now_ms(Stream.LOGS), None)
        if stored.progress_ms > self.standing().progress_ms:
            self._spawn(self._read_progress())
        self.release_and_read()

    async def _read_progress(self) -> None:
        async def read() -> None:
            start = await self.context.history.read_job(self.space, self.job, 0)
            if start.progress is not None:
                self.topic.add_progress(start.progress)

        await self._retry_until_done(read)
        self.release_and_read()

    # Resuming

    async def find_resume_point(self, stream: Stream, position: int, epoch: str | None) -> int:
        """From which seq a position may be continued: its own, or a lower one when what lies between was lost.

        Raises what the link raises.
        """
        sequence = self.topic.events if stream is Stream.EVENTS else self.topic.logs
        assert sequence is not None
        seq = position if epoch is None else await self._find_survived(stream, position, epoch)
        if seq > sequence.head:
            await self._read_page(PageNeed(stream, sequence.head))
            self.release_and_read()
        return min(seq, max(sequence.head, sequence.newest))

    def _unsubscribe(self) -> None:
        self.context.relay.unsubscribe(self.context.keys.live(self.space, self.job), self._on_hint)
        self.context.relay.unsubscribe(self.context.keys.log_live(self.job), self._on_log_hint)
        if self._gather_timer is not None:
            self._gather_timer.cancel()


def parse_log_hint(payload: bytes) -> LogHint:
    """What lua/log_append.lua published. ValueError for anything else."""
    first, last, at_ms, *rest = payload.split(b" ", 3)
    return int(first), int(last), int(at_ms), rest[0] if rest else b""


def join_hints(job: str, gathered: list[LogHint], *, lines: bool) -> list[LogHint]:
    """Hints that follow each other as one; lines as a JSON array, b"" where the hint had none or nobody wants them."""
    joined: list[LogHint] = []
    for first, last, at_ms, text in gathered:
        entries = hinted_entries(job, first, last, at_ms, text) if text and lines else b""
        if joined and entries:
            begun, before, _, lines_before = joined[-1]
            if lines_before and before + 1 == first and len(lines_before) + len(entries) < GATHERED_BYTES:
                joined[-1] = (begun, last, at_ms, b"%b,%b" % (lines_before[:-1], entries[1:]))
                continue
        joined.append((first, last, at_ms, entries))
    return joined
