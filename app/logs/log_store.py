"""The log of a job on Redis: append, page, follow, download, delete.

Owns: the order of a batch's seqs (given by one script call for a whole batch, so that it is contiguous and without
holes), Idempotency-Keys of batches, and the bounds of every read. Never: splits a batch over two calls, sends one
twice, or holds up small calls: large ones take the second link.

A job's log lives in the slot of the job, its status in that of the space: an append asks for both in one trip, and
begins a log only for a job whose status has been seen.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from app.logs.blocks import Block, level_bits
from app.logs.intake import Batch
from app.logs.lines import Row, Run, Stored, encode_arrays, encode_ndjson
from app.logs.page_scan import LinePage, LogReading, PageQuery, PageScan
from app.logs.sealing import Sealer
from app.logs.search import LineFilter
from app.logs.space_budget import SpaceBudget
from app.logs.unreadable_logs import Unreadable, UnreadableLogs
from app.loop.turns import in_turns
from app.metrics import catalog
from app.model.errors import job_not_found
from app.model.ids import is_ulid
from app.model.job import ENDED
from app.model.limits import KIB
from app.model.redis_keys import Keys
from app.model.steps import Steps
from app.model.times import parse_ms
from app.redis_links.link import Link, Word
from app.redis_links.memory_headroom import Headroom
from app.redis_links.scripts import Scripts
from app.settings import Settings
from app.wire.bytes_in_flight import Hold, hold_without_bound

SMALL_BATCH_BYTES = 64 * KIB
"""Batches up to this size share the link of small calls."""

READ_BYTES = 512 * KIB
READ_LINES = 20_000
"""What one call reads: what Redis copies, and what the event loop decodes, in one turn."""

CHUNK_BYTES = 256 * KIB
"""Of lines in one frame of a stream. A line that is longer, all escapes, has one of its own, of at most 412 KB."""

LOG_BACKSTOP_MS = 86_400_000
"""How much longer than its job an ended log lives, should nobody delete it."""


class BatchKey(NamedTuple):
    """An Idempotency-Key and the body that came with it, as digests."""

    digest: bytes
    body: bytes

    @property
    def bucket(self) -> str:
        """Where lua/include/log_batch_keys.lua looks for it."""
        return self.digest.hex()[:3]

    def record(self, batch: Batch) -> bytes:
        """The first 30 bytes of its record."""
        return self.digest + self.body + batch.lines.to_bytes(2) + batch.truncated.to_bytes(2)


def batch_key(text: str, body: bytes) -> BatchKey:
    """The Key of a header's text and the body, which is compared after it was inflated."""
    return BatchKey(hashlib.sha256(text.encode()).digest()[:10], hashlib.sha256(body).digest()[:16])


class Appended(NamedTuple):
    """What an append did: the job's status, the seqs (None for an empty batch), the cuts, and whether it was before."""

    status: str
    inserted: int
    first: int | None
    last: int | None
    truncated: int
    replayed: bool


class Chunk(NamedTuple):
    """A run of lines as a JSON array, for a stream's frame, and when the last of them was accepted."""

    first: int
    last: int
    at_ms: int
    entries: bytes


class Followed(NamedTuple):
    """Lines for a stream, and the range that is kept: what is missing before the first was trimmed."""

    chunks: list[Chunk]
    first_kept: int
    newest: int


class LogStore:
    """Logs of all jobs. `control` carries small calls, `bulk` large ones."""

    def __init__(self, control: Link, bulk: Link, keys: Keys, settings: Settings, *, headroom: Headroom) -> None:
        self._control = control
        self._keys = keys
        self._scripts = Scripts(control)
        self._bulk_scripts = Scripts(bulk)
        self._headroom = headroom
        self.unreadable_logs = UnreadableLogs()
        self._sealer = Sealer(bulk, keys, settings, self.unreadable_logs)
        self._budget = SpaceBudget(control, keys, settings.space_log_bytes)
        self._bounds: tuple[int, int] = (settings.log_lines, settings.log_bytes)

    async def close(self) -> None:
        """Stop sealing, and tell what is kept."""
        await self._sealer.close()
        await self._budget.close()

    # Writing

    async def append(self, space: str, job: str, batch: Batch, key: BatchKey | None = None) -> Appended:
        """Append a batch: all of it, contiguous, or nothing. Atomic.

        With a key, the same body again is answered like the first. Refusals: job_not_found, idempotency_mismatch,
        unavailable when Redis is almost full.
        """
        if not is_ulid(job):
            raise job_not_found()
        if not batch.lines and key is None:
            return Appended(await self._status(space, job), 0, None, None, 0, False)
        await self._headroom.require(batch.bytes, self._keys.log(job))
        with self.unreadable_logs.guard(job):
            status, reply = await self._append(space, job, batch, key, known=False)
            if reply[0] == b"new":
                if status is None:
                    raise job_not_found()
                status, reply = await self._append(space, job, batch, key, known=True)
        done = appended_of(status, reply, batch)
        if done.replayed:
            return done
        catalog.LOG_LINES.inc(by=batch.lines)
        catalog.LOG_BYTES.inc(by=batch.bytes)
        if batch.truncated:
            catalog.LIMITS_HIT.inc("messageBytes", by=batch.truncated)
        *_, mortal, hot_lines, hot_bytes, kept_bytes = reply
        self._budget.note(space, job, kept_bytes)
        if mortal and done.status not in ENDED:
            await self.persist(job)
        await self._sealer.note_append(job, batch.lines, batch.bytes, hot_lines, hot_bytes)
        return done

    async def delete(self, space: str, job: str) -> None:
        """Remove a job's log. An append that is still under way finds no job. Atomic."""
        await self._scripts.run("log_delete", [*self._all_keys(job), self._keys.log_gone(job)], [])
        await self._budget.forget(space, job)

    async def set_ttl(self, job: str, ttl_ms: int) -> None:
        """Let a job's log live that long, should nobody delete it. Atomic."""
        await self._scripts.run("log_set_ttl", self._all_keys(job), [ttl_ms])

    async def persist(self, job: str) -> None:
        """Take a log's time to live away, for its job runs again. Atomic."""
        await self._scripts.run("log_persist", self._all_keys(job), [])

    async def settle(self, job: str, keep_ms: int) -> None:
        """An ended job's log has rested: sealed, it is kept that long, and a while more in case nobody deletes it.

        One that cannot be read stays as it is until then.
        """
        with contextlib.suppress(Unreadable):
            await self._sealer.seal(job, 0, 0)
        await self.set_ttl(job, keep_ms + LOG_BACKSTOP_MS)

    # Reading

    async def read_page(self, space: str, job: str, query: PageQuery, hold: Hold = hold_without_bound) -> LinePage:
        """The lines that a query asks for. Bounded in work: the cursor tells how far it came.

        `hold` is told, as they become more, how many bytes of lines have been found, and may refuse them. Refusals
        besides: job_not_found; internal when what is stored is damaged.
        """
        if not is_ulid(job):
            raise job_not_found()
        with self.unreadable_logs.guard(job):
            return await self._page(space, job, query, hold)

    async def _page(self, space: str, job: str, query: PageQuery, hold: Hold) -> LinePage:
        scan = PageScan(job, query)
        reading = await self._read_for(job, scan, scan.position)
        if not reading.newest:
            await self._status(space, job)
        while True:
            ahead = await self._read_ahead(job, scan, reading)
            await in_turns(scan.examine_steps(reading))
            hold(scan.answered_bytes)
            if scan.full:
                break
            reading = await (ahead or self._read_for(job, scan, scan.position))
        if ahead is not None:
            ahead.cancel()
        return scan.finish()

    async def download(self, space: str, job: str, after: int, wanted: LineFilter) -> AsyncIterator[bytes]:
        """NDJSON of every line after a seq, to what was the newest line when it began; in pieces.

        Refusals, before the first piece: job_not_found; internal when the first lines are damaged. Unreadable when
        others are.
        """
        if not is_ulid(job):
            raise job_not_found()
        with self.unreadable_logs.guard(job):
            newest = (await self._read(job, "after", after, 1, 1)).newest
        if not newest:
            await self._status(space, job)
        pieces = self._pieces(job, after, newest, wanted)
        # A search may look long for its first line; its head is not kept waiting.
        return pieces if wanted else with_first(await anext(pieces, b""), pieces)

    async def read_after(
        self, job: str, after: int, limit_lines: int, limit_bytes: int, through: int = 2**53
    ) -> Followed:
        """Lines after a seq, none after `through`, as JSON arrays of at most CHUNK_BYTES, ready for frames.

        The limits count whole record batches and blocks, bytes before compression; there is at least one.
        """
        with self.unreadable_logs.guard(job):
            return await self._read_after(job, after, limit_lines, limit_bytes, through)

    async def _read_after(self, job: str, after: int, limit_lines: int, limit_bytes: int, through: int) -> Followed:
        reading = await self._read(job, "after", after, limit_lines, limit_bytes)
        chunks: list[Chunk] = []
        size_bytes = 0
        for run in reading.runs:
            size_bytes += run.size_bytes
            if chunks and size_bytes > limit_bytes:
                break
            if seqs := range(max(run.first, after + 1), min(run.last, through) + 1):
                for rows, entries in await in_turns(frame_steps(run, job, seqs)):
                    chunks.append(Chunk(rows[0].seq, rows[-1].seq, parse_ms(rows[-1].createdAt), entries))
        return Followed(chunks, reading.first_kept, reading.newest)

    # Pieces

    def _all_keys(self, job: str) -> list[str]:
        return [self._keys.log(job), self._keys.log_blocks(job), self._keys.log_meta(job)]

    async def _status(self, space: str, job: str) -> str:
        status = await self._control.call("HGET", self._keys.job(space, job), "status")
        if status is None:
            raise job_not_found()
        return str(status.decode())

    async def _append(
        self, space: str, job: str, batch: Batch, key: BatchKey | None, *, known: bool
    ) -> tuple[bytes | None, list[Any]]:
        """The job's status and the script's answer, in one trip."""
        scripts = self._scripts if batch.bytes <= SMALL_BATCH_BYTES else self._bulk_scripts
        keys = [*self._all_keys(job), self._keys.log_gone(job)]
        args: list[Word] = [int(known), self._keys.log_live(job), *self._bounds]
        args += (b"", "") if key is None else (key.record(batch), key.bucket)
        args.append(len(batch.parts))
        for part in batch.parts:
            args += part
        status_call = ("HGET", self._keys.job(space, job), "status")
        return await scripts.raw_after(status_call, "log_append", keys, args)

    async def _read(
        self, job: str, way: str, position: int, lines: int, most_bytes: int = READ_BYTES, *, levels: int = 0
    ) -> LogReading:
        args: list[Word] = [way, position, lines, most_bytes, levels]
        reply = await self._bulk_scripts.raw("log_read", self._all_keys(job), args)
        if reply[0] == b"none":
            return LogReading(1, 0, [])
        first_kept, newest, flat = Scripts.done("log_read", reply)
        runs = [run_of(*flat[i : i + 4]) for i in range(0, len(flat), 4)]
        if not levels and not all(run.size_bytes for run in runs):
            raise ValueError("a sealed block is missing")
        return LogReading(first_kept, newest, runs)

    async def _read_for(self, job: str, scan: PageScan, position: int) -> LogReading:
        lines = READ_LINES if scan.wanted else scan.missing
        return await self._read(job, scan.way, position, lines, levels=level_bits(scan.wanted.levels))

    async def _read_ahead(self, job: str, scan: PageScan, reading: LogReading) -> asyncio.Task[LogReading] | None:
        """What a search reads next, on its way while it examines this reading. The first one may be enough."""
        end = reading.end(scan.way)
        if not scan.examined or not end:
            return None
        ahead = asyncio.create_task(self._read_for(job, scan, end))
        ahead.add_done_callback(note_outcome)
        await asyncio.sleep(0)  # the task has made its call
        await asyncio.sleep(0)  # the link has sent it
        return ahead

    async def _pieces(self, job: str, after: int, newest: int, wanted: LineFilter) -> AsyncIterator[bytes]:
        while after < newest:
            with self.unreadable_logs.guard(job):
                reading = await self._read(job, "after", after, newest - after, levels=level_bits(wanted.levels))
            if not reading.runs:
                return
            while reading.runs:
                run = reading.runs.pop(0)
                seqs = range(max(run.first, after + 1), min(run.last, newest) + 1)
                after = run.last
                with self.unreadable_logs.guard(job):
                    piece = await in_turns(download_steps(run, job, wanted, seqs))
                if piece:
                    yield piece


def download_steps(run: Run, job: str, wanted: LineFilter, seqs: range) -> Steps[bytes]:
    """NDJSON of those of `seqs`, lines of this run, that a reader wants."""
    matching_seqs = yield from run.match_steps(wanted, seqs)
    yield
    return encode_ndjson(run.build_rows(job, matching_seqs)) if matching_seqs else b""


def frame_steps(run: Run, job: str, seqs: range) -> Steps[list[tuple[list[Row], bytes]]]:
    """Lines of this run, with their JSON arrays of at most CHUNK_BYTES."""
    rows = run.build_rows(job, seqs)
    yield
    return list(encode_arrays(rows, CHUNK_BYTES))


async def with_first(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces, with one before them."""
    yield first
    async for piece in rest:
        yield piece


def note_outcome(task: asyncio.Task[LogReading]) -> None:
    """Take note of how a task ended: what nobody waits for any more may fail in silence."""
    if not task.cancelled():
        task.exception()


def run_of(first: int, last: int, at_ms: int, text: bytes) -> Run:
    """What lua/log_read.lua answers of one run."""
    return Stored(first, last, at_ms, text) if at_ms else Block(first, last, text)


def appended_of(status: bytes | None, reply: list[Any], batch: Batch) -> Appended:
    """What an append answers; raises what the script's word stands for."""
    if status is None:
        raise job_not_found()
    if reply[0] == b"again":
        record = reply[1]
        lines, truncated = int.from_bytes(record[26:28]), int.from_bytes(record[28:30])
        first, replayed = int.from_bytes(record[30:36]), True
    else:
        first = Scripts.done("log_append", reply)[0]
        lines, truncated, replayed = batch.lines, batch.truncated, False
    if not lines:
        return Appended(status.decode(), 0, None, None, 0, replayed)
    return Appended(status.decode(), lines, first, first + lines - 1, truncated, replayed)
