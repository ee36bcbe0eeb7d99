"""The log of a job on Redis: append, page, follow, download, delete.

Owns: the order of a batch's seqs (given by one script call for a whole batch, so that it is contiguous and without
holes), Idempotency-Keys of batches, and the bounds of every read. Never: splits a batch over two calls, sends one
twice, or holds up small calls: large ones take the second link.

A job's log lives in the slot of the job, its status in that of the space: an append asks for both in one trip, and
begins a log only for a job whose status has been seen.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, NamedTuple

from app.entries import Batch
from app.error import job_not_found
from app.headroom import Headroom
from app.job import ENDED, KIB, MIB, is_ulid
from app.keys import Keys
from app.lines import Filter, Row, Stored, array, ndjson, rows_of
from app.link import Link, ScriptUnknown, Word
from app.scripts import SCRIPTS, Scripts
from app.settings import Settings

Mode = Literal["after", "before", "tail"]

SMALL_BYTES = 64 * KIB
"""Batches up to this size share the link of small calls."""

PAGE_BYTES = 8 * MIB
"""Stored bytes of lines that one page answers; a page of longer lines has fewer of them."""

SCAN_LINES = 50_000
SCAN_BYTES = 16 * MIB
"""Lines and stored bytes that one page looks at when it filters; its cursor goes on from there."""

READ_BYTES = 512 * KIB
"""Stored bytes of one call: what Redis copies, and what the event loop decodes, in one turn."""


BACKSTOP_MS = 86_400_000
"""How much longer than its job an ended log lives, should nobody delete it."""


class Key(NamedTuple):
    """An Idempotency-Key and the body that came with it, as digests."""

    digest: bytes
    body: bytes

    @property
    def bucket(self) -> str:
        """Where lua/include/log_keys.lua looks for it."""
        return self.digest.hex()[:3]

    def record(self, batch: Batch) -> bytes:
        """The first 30 bytes of its record."""
        return self.digest + self.body + batch.lines.to_bytes(2) + batch.truncated.to_bytes(2)


def key_of(text: str, body: bytes) -> Key:
    """The Key of a header's text and the body, which is compared after it was inflated."""
    return Key(hashlib.sha256(text.encode()).digest()[:10], hashlib.sha256(body).digest()[:16])


class Appended(NamedTuple):
    """What an append did: the job's status, the seqs (None for an empty batch), the cuts, and whether it was before."""

    status: str
    inserted: int
    first: int | None
    last: int | None
    truncated: int
    replayed: bool


class PageQuery(NamedTuple):
    """What a page is asked for: up to `limit` lines after or before the seq `position`, or the newest (tail, 0)."""

    mode: Mode
    position: int
    limit: int
    wanted: Filter


class Cursor(NamedTuple):
    """Which range a page examined, and whether there is more in its direction."""

    mode: Mode
    oldest: int | None
    newest: int | None
    more: bool
    first_kept: int | None


class Page(NamedTuple):
    """Lines in ascending order."""

    rows: list[Row]
    cursor: Cursor


class Chunk(NamedTuple):
    """A run of lines as a JSON array, for a stream's frame."""

    first: int
    last: int
    entries: bytes


class Reading(NamedTuple):
    """What one call read: record batches in the order of travel, and the range that is kept."""

    first_kept: int
    newest: int
    batches: list[Stored]


class Logs:
    """Logs of all jobs. `control` carries small calls, `bulk` large ones."""

    def __init__(self, control: Link, bulk: Link, keys: Keys, settings: Settings) -> None:
        self._control = control
        self._bulk = bulk
        self._keys = keys
        self._scripts = Scripts(control)
        self._bulk_scripts = Scripts(bulk)
        self._headroom = Headroom(control)
        self._bounds: tuple[int, int] = (settings.log_lines, settings.log_bytes)

    # Writing

    async def append(self, space: str, job: str, batch: Batch, key: Key | None = None) -> Appended:
        """Append a batch: all of it, contiguous, or nothing. Atomic.

        With a key, the same body again is answered like the first. Refusals: job_not_found, idempotency_mismatch,
        unavailable when Redis is almost full.
        """
        if not is_ulid(job):
            raise job_not_found()
        if not batch.lines and key is None:
            return Appended(await self._status(space, job), 0, None, None, 0, False)
        await self._headroom.take(batch.bytes)
        status, reply = await self._append(space, job, batch, key, known=False)
        if reply[0] == b"new":
            if status is None:
                raise job_not_found()
            status, reply = await self._append(space, job, batch, key, known=True)
        done = appended(status, reply, batch)
        if not done.replayed and reply[4] and done.status not in ENDED:
            await self.expire(job, 0)
        return done

    async def delete(self, job: str) -> None:
        """Remove a job's log. An append that is still under way finds no job. Atomic."""
        await self._scripts.run("log_delete", [*self._all_keys(job), self._keys.log_gone(job)], [])

    async def expire(self, job: str, ttl_ms: int) -> None:
        """Let a job's log live that long, should nobody delete it; 0 for ever, as when the job runs again. Atomic."""
        await self._scripts.run("log_expire", self._all_keys(job), [ttl_ms])

    async def rest(self, job: str, keep_ms: int) -> None:
        """An ended job's log has rested: it is kept that long, and a while more in case nobody deletes it."""
        await self.expire(job, keep_ms + BACKSTOP_MS)

    # Reading

    async def page(self, space: str, job: str, query: PageQuery) -> Page:
        """The lines that a query asks for. Bounded in work: the cursor tells how far it came.

        Refusals: job_not_found.
        """
        if not is_ulid(job):
            raise job_not_found()
        scan = Scan(job, query)
        while not scan.full:
            lines = SCAN_LINES if query.wanted else query.limit - len(scan.rows)
            reading = await self._read(job, scan.way, scan.position, lines, READ_BYTES)
            if not reading.newest:
                await self._status(space, job)
            scan.take(reading)
        return scan.page()

    async def download(self, space: str, job: str, after: int, wanted: Filter) -> AsyncIterator[bytes]:
        """NDJSON of every line after a seq, to what was the newest line when it began; in pieces.

        Refusals, before the first piece: job_not_found.
        """
        if not is_ulid(job):
            raise job_not_found()
        newest = (await self._read(job, "after", after, 1, 1)).newest
        if not newest:
            await self._status(space, job)
        return self._pieces(job, after, newest, wanted)

    async def read_after(self, job: str, after: int, limit_lines: int, limit_bytes: int) -> tuple[list[Chunk], int]:
        """Lines after a seq as JSON arrays, ready for frames, and the oldest seq kept: what is missing was trimmed.

        The limits count whole record batches, of which there is at least one.
        """
        reading = await self._read(job, "after", after, limit_lines, limit_bytes)
        chunks = []
        for batch in reading.batches:
            rows = rows_of(job, batch)
            first = max(batch.first, after + 1)
            chunks.append(Chunk(first, batch.last, array(rows[first - batch.first :])))
        return chunks, reading.first_kept

    # Pieces

    def _all_keys(self, job: str) -> list[str]:
        return [self._keys.log(job), self._keys.log_blocks(job), self._keys.log_meta(job)]

    async def _status(self, space: str, job: str) -> str:
        status = await self._control.call("HGET", self._keys.job(space, job), "status")
        if status is None:
            raise job_not_found()
        return str(status.decode())

    async def _append(
        self, space: str, job: str, batch: Batch, key: Key | None, *, known: bool
    ) -> tuple[bytes | None, list[Any]]:
        """The job's status and the script's answer, in one trip."""
        link = self._control if batch.bytes <= SMALL_BYTES else self._bulk
        script = SCRIPTS["log_append"]
        keys = [self._keys.log(job), self._keys.log_meta(job), self._keys.log_gone(job)]
        args: list[Word] = [int(known), self._keys.log_live(job), *self._bounds]
        args += (b"", "") if key is None else (key.record(batch), key.bucket)
        args.append(len(batch.parts))
        for part in batch.parts:
            args += part
        status_call = ("HGET", self._keys.job(space, job), "status")
        append_call = ("EVALSHA", script.sha, len(keys), *keys, *args)
        try:
            status, reply = await link.pipeline(status_call, append_call)
        except ScriptUnknown:
            await link.call("SCRIPT", "LOAD", script.text)
            status, reply = await link.pipeline(status_call, append_call)
        return status, reply

    async def _read(self, job: str, way: str, position: int, lines: int, most_bytes: int) -> Reading:
        keys = [self._keys.log(job), self._keys.log_meta(job)]
        reply = await self._bulk_scripts.raw("log_read", keys, [way, position, lines, most_bytes])
        if reply[0] == b"none":
            return Reading(1, 0, [])
        first_kept, newest, flat = Scripts.done("log_read", reply)
        return Reading(first_kept, newest, [Stored(*flat[i : i + 4]) for i in range(0, len(flat), 4)])

    async def _pieces(self, job: str, after: int, newest: int, wanted: Filter) -> AsyncIterator[bytes]:
        while after < newest:
            reading = await self._read(job, "after", after, newest - after, READ_BYTES)
            for batch in reading.batches:
                rows = rows_of(job, batch)[max(0, after + 1 - batch.first) : newest + 1 - batch.first]
                chosen = list(wanted.chosen(rows))
                after = batch.last
                if chosen:
                    yield ndjson(chosen)
            if not reading.batches:
                return


class Scan:
    """A page in the making: fed with readings until it is full, or has looked at enough."""

    def __init__(self, job: str, query: PageQuery) -> None:
        self.rows: list[Row] = []
        self.way: Literal["after", "before"] = "after" if query.mode == "after" else "before"
        self.position = query.position
        self.full = False
        self._job = job
        self._query = query
        self._examined: list[int] = []
        self._lines = 0
        self._bytes = 0
        self._kept = (0, 0)

    def take(self, reading: Reading) -> None:
        """Examine what was read, in the order of travel."""
        self._kept = (reading.first_kept, reading.newest)
        for batch in reading.batches:
            self._examine(batch)
            if self.full:
                return
        first, last = self._kept
        if not reading.batches or (self.position >= last if self.way == "after" else self.position <= first):
            self.full = True

    def page(self) -> Page:
        """What was found, ascending, and the cursor that goes on from there."""
        (first, last), mode, asked = self._kept, self._query.mode, self._query.position
        oldest, newest = (min(self._examined), max(self._examined)) if self._examined else (None, None)
        if self.way == "after":
            newest = asked if newest is None else newest
            more = newest < last
        else:
            self.rows.reverse()
            oldest = asked if oldest is None and mode == "before" else oldest
            more = oldest is not None and last > 0 and oldest > first
        return Page(self.rows, Cursor(mode, oldest, newest, more, first if last else None))

    def _examine(self, batch: Stored) -> None:
        rows = rows_of(self._job, batch)
        if self.way == "after":
            rows = rows[max(0, self.position + 1 - batch.first) :]
        else:
            if self.position:
                rows = rows[: max(0, self.position - batch.first)]
            rows.reverse()
        for row in self._query.wanted.chosen(rows):
            self.rows.append(row)
            if len(self.rows) == self._query.limit:
                rows = rows[: abs(row.seq - rows[0].seq) + 1]
                self.full = True
                break
        self._count(rows, len(batch.text))

    def _count(self, rows: Sequence[Row], size_bytes: int) -> None:
        if rows:
            self._examined += (rows[0].seq, rows[-1].seq)
            self.position = rows[-1].seq
        self._lines += len(rows)
        self._bytes += size_bytes
        most_bytes = SCAN_BYTES if self._query.wanted else PAGE_BYTES
        if self._lines >= SCAN_LINES or self._bytes >= most_bytes:
            self.full = True


def appended(status: bytes | None, reply: list[Any], batch: Batch) -> Appended:
    """What an append answers; raises the Refusal that the script's word stands for."""
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
