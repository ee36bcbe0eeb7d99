"""Sealing: older lines of a job's log become blocks, so that memory holds a sixth of them.

Owns: when a log is sealed, by whom, and how far. The process whose append took the unsealed lines over a step seals
them; the sweeper seals what is left of a job that has ended and rested.

Never: changes what readers see; takes lines that a consumer group has still to read, up to a bound; loses a line to a
crash or a race, for one script puts the block in and takes the lines out, and only if they are still the oldest.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence

from app.logs.blocks import BLOCK_BYTES, BLOCK_LINES, SealedBlock, seal_block
from app.logs.lines import Stored
from app.logs.unreadable_logs import Unreadable, UnreadableLogs
from app.loop.background import Background
from app.loop.turns import in_turns
from app.metrics import catalog
from app.model.errors import Outage
from app.model.limits import MIB
from app.model.redis_keys import Keys
from app.model.steps import Steps
from app.redis_links.link import Link, Word
from app.redis_links.scripts import Scripts
from app.settings import Settings

log = logging.getLogger("jobwire.logs")

SEAL_STEP_LINES = 2 * BLOCK_LINES
HOT_BYTES = 16 * MIB
SEAL_STEP_BYTES = 2 * MIB
"""Unsealed bytes that a log keeps, and by how many lines or bytes it goes over before somebody seals."""

SEAL_LINES = 8 * BLOCK_LINES
SEAL_BYTES = MIB
"""What is sealed in one go."""

BEHIND = 4
"""At so many times the lines or bytes that stay unsealed, appends wait for the sealing."""

SPARED = 10
SPARED_BYTES = 4 * HOT_BYTES
"""So many times the lines that stay unsealed, or so many bytes, are left to consumer groups that have still to read."""

AT_ONCE = 4
"""Logs that a process seals at the same time."""


class Sealer:
    """Seals logs of this process."""

    def __init__(self, link: Link, keys: Keys, settings: Settings, unreadable_logs: UnreadableLogs) -> None:
        self._scripts = Scripts(link)
        self._unreadable_logs = unreadable_logs
        self._keys = keys
        self._hot_lines = settings.log_hot_lines
        self._spared: tuple[int, int] = (SPARED * settings.log_hot_lines, SPARED_BYTES)
        self._background = Background()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def note_append(self, job: str, lines: int, size_bytes: int, hot_lines: int, hot_bytes: int) -> None:
        """An append of so many lines and bytes made so many unsealed: have them sealed if that is this append's task.

        Returns at once, unless sealing lags far behind.
        """
        if crosses_step(hot_lines - self._hot_lines, lines, SEAL_STEP_LINES) or crosses_step(
            hot_bytes - HOT_BYTES, size_bytes, SEAL_STEP_BYTES
        ):
            self._begin(job)
        task = self._tasks.get(job)
        if task is not None and (hot_lines > BEHIND * self._hot_lines or hot_bytes > BEHIND * HOT_BYTES):
            await asyncio.wait([task])

    async def seal(self, job: str, keep_lines: int, keep_bytes: int) -> None:
        """Seal the oldest lines in whole blocks until at most so many are left; with 0, all. Safe to repeat and race.

        Ends early where consumer groups have still to read. Raises Unreadable.
        """
        async with self._turn:
            with self._unreadable_logs.guard(job):
                while await self._step(job, keep_lines, keep_bytes):
                    pass

    async def close(self) -> None:
        """Stop; what is not sealed yet is sealed after a later append, or when the job has rested."""
        await self._background.close()

    def _begin(self, job: str) -> None:
        if job not in self._tasks:
            self._tasks[job] = self._background.start(self._calmly(job), "seal")

    async def _calmly(self, job: str) -> None:
        try:
            await self.seal(job, self._hot_lines, HOT_BYTES)
        except Unreadable:
            pass  # it has been told
        except Outage as outage:
            log.info("a log is sealed later: %s", outage.why)
        finally:
            del self._tasks[job]

    async def _step(self, job: str, keep_lines: int, keep_bytes: int) -> bool:
        """Seal up to SEAL_LINES; whether there is more."""
        keys = [self._keys.log(job), self._keys.log_meta(job)]
        args = [keep_lines, keep_bytes, *self._spared, SEAL_LINES, SEAL_BYTES]
        reply = await self._scripts.raw("log_oldest", keys, args)
        if reply[0] != b"ok":
            return False
        flat, complete = reply[1:]
        batches = [Stored(*flat[i : i + 4]) for i in range(0, len(flat), 4)]
        sealed = 0
        for group in group_batches(batches, whole=keep_lines > 0):
            if not await self._put(job, await in_turns(seal_steps(group))):
                return False
            sealed += 1
        return sealed > 0 and not complete

    async def _put(self, job: str, block: SealedBlock) -> bool:
        """Whether the block took the place of its lines, or spared them, or came late."""
        keys = [self._keys.log(job), self._keys.log_blocks(job), self._keys.log_meta(job)]
        args: list[Word] = [block.first, block.last, block.stored_bytes, block.record, block.text, *self._spared]
        reply = await self._scripts.raw("log_seal", keys, args)
        taken = bool(reply[0] == b"ok" and reply[1])
        if taken:
            catalog.SEALED_LINES.inc(by=block.last + 1 - block.first)
            catalog.SEALED_BYTES.inc("stored", by=block.stored_bytes)
            catalog.SEALED_BYTES.inc("packed", by=len(block.text))
        return taken


def crosses_step(over: int, grown: int, step: int) -> bool:
    """Whether growing by `grown` to `over` passed a multiple of `step`, from the first one on."""
    return over >= step and over // step > max(0, over - grown) // step


def group_batches(batches: Sequence[Stored], whole: bool) -> Iterator[list[Stored]]:
    """Batches for a block each. With `whole`, those at the end that make no whole block are left."""
    group: list[Stored] = []
    for batch in batches:
        group.append(batch)
        if batch.last + 1 - group[0].first >= BLOCK_LINES or sum(each.size_bytes for each in group) >= BLOCK_BYTES:
            yield group
            group = []
    if group and not whole:
        yield group


def seal_steps(batches: Sequence[Stored]) -> Steps[SealedBlock]:
    """The block of record batches that follow each other."""
    for batch in batches:
        _ = batch.stored
        yield
    return seal_block(batches)
