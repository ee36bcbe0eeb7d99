"""How much the logs of a space may hold together: the oldest lines of those that rested longest go first.

Owns: the account of each space, kept in the space's slot while the logs lie in slots of their own. Each process tells
once a second what the logs hold to which it appended: the whole amount, never a difference, so that a message lost in
a crash is made good by the next append. Without a bound, nothing is counted.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from app.loop.background import Background
from app.model.errors import Outage
from app.model.redis_keys import Keys
from app.redis_links.link import Link, RedisFault, Word
from app.redis_links.scripts import Scripts

log = logging.getLogger("jobwire.logs")

TELL_PAUSE_S = 1.0
CUT_RUNS = 100
"""Blocks and batches that one call drops."""

CUT_LOGS = 20
"""Logs that are cut before the account is looked at again."""


class SpaceBudget:
    """The account of this process."""

    def __init__(self, link: Link, keys: Keys, most_bytes: int) -> None:
        self._scripts = Scripts(link)
        self._keys = keys
        self._most_bytes = most_bytes
        self._noted: dict[str, dict[str, int]] = defaultdict(dict)
        self._background = Background()
        self._task: asyncio.Task[None] | None = None

    def note(self, space: str, job: str, size_bytes: int) -> None:
        """A log holds so many bytes after an append; told to the space soon."""
        if not self._most_bytes:
            return
        self._noted[space][job] = size_bytes
        if self._task is None or self._task.done():
            self._task = self._background.start(self._tell_soon(), "space-budget")

    async def forget(self, space: str, job: str) -> None:
        """A log is gone."""
        if self._most_bytes:
            self._noted[space].pop(job, None)
            await self._report_bytes(space, {job: 0}, fresh=False)

    async def close(self) -> None:
        """Tell what is not told yet."""
        if self._task is not None:
            await self._background.close()
            await self._tell_all()

    async def _tell_soon(self) -> None:
        while self._noted:
            await asyncio.sleep(TELL_PAUSE_S)
            await self._tell_all()

    async def _tell_all(self) -> None:
        noted, self._noted = self._noted, defaultdict(dict)
        for space, logs in noted.items():
            try:
                if logs:
                    await self._settle(space, logs)
            except Outage as outage:
                log.info("the logs of a space are counted later: %s", outage.why)
            except RedisFault:
                log.exception("counting the logs of a space failed")

    async def _settle(self, space: str, logs: Mapping[str, int]) -> None:
        """Tell what these logs hold, and cut until the space keeps its bound, or nothing is left to cut."""
        over_bytes, oldest = await self._report_bytes(space, logs, fresh=True)
        while over_bytes > 0:
            cut = await self._cut(oldest, over_bytes)
            if not cut:
                return
            over_bytes, oldest = await self._report_bytes(space, cut, fresh=False)

    async def _report_bytes(self, space: str, logs: Mapping[str, int], *, fresh: bool) -> tuple[int, Sequence[str]]:
        """By how much the space is over its bound, and which logs have rested longest."""
        args: list[Word] = [self._most_bytes, CUT_LOGS, int(fresh)]
        for job, size_bytes in logs.items():
            args += (job, size_bytes)
        keys = [self._keys.logs(space), self._keys.log_bytes(space)]
        total, oldest = await self._scripts.run("log_report_bytes", keys, args)
        return total - self._most_bytes, [job.decode() for job in oldest]

    async def _cut(self, jobs: Sequence[str], over_bytes: int) -> dict[str, int]:
        """What the logs hold that were cut, one after the other until enough is gone."""
        held = {}
        for job in jobs:
            keys = [self._keys.log(job), self._keys.log_blocks(job), self._keys.log_meta(job)]
            gone, held[job] = await self._scripts.run("log_cut", keys, [over_bytes, CUT_RUNS])
            over_bytes -= gone
            if over_bytes <= 0 or held[job]:
                break
        return held
