"""Removing jobs with everything of them, and looking after the logs of those that ended.

A job's keys lie in its space's slot, its log in another. One script removes the keys and lists the log in the space's
`log_work`; then the log is removed, with a tombstone that keeps a late append from beginning it anew; then it leaves
the list. So a crash anywhere leaves a log that is listed, and whoever looks at the list goes on.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Iterable, Sequence

from app.jobs.job_store import JobStore
from app.logs.log_store import LOG_BACKSTOP_MS, LogStore
from app.model.errors import Outage
from app.model.job import ENDED
from app.model.redis_keys import Keys
from app.redis_links.clock import RedisClock
from app.redis_links.link import Link
from app.redis_links.scripts import Scripts
from app.settings import Settings

DELETE_STEP_JOBS = 100
"""Jobs that one script call removes at most."""

SETTLE_STEP_LOGS = 25
"""Logs that are looked at in one turn of a space: each may have very many lines to seal."""


class Deletion:
    """Removes jobs: one that ended, those whose retention is over, all of a space."""

    def __init__(
        self, control: Link, keys: Keys, clock: RedisClock, settings: Settings, *, store: JobStore, logs: LogStore
    ) -> None:
        self._control = control
        self._scripts = Scripts(control)
        self._keys = keys
        self._clock = clock
        self._store = store
        self._logs = logs
        self._retention_ms = settings.retention_s * 1000

    async def delete_job(self, space: str, job: str) -> None:
        """Remove one ended job. Refusals: job_not_found, invalid_state."""
        await self._store.delete_job(space, job)
        await self._remove_logs(space, [job])

    async def retire_jobs(self, space: str) -> None:
        """Remove some of the jobs whose retention is over."""
        with contextlib.suppress(Outage):  # what is left of logs is listed
            await self._remove_logs(space, await self._store.retire_jobs(space, DELETE_STEP_JOBS))

    async def clear_space(self, space: str) -> None:
        """Remove every job of a space that goes, and what earlier removals left of logs."""
        while ids := await self._store.clear_space(space, DELETE_STEP_JOBS):
            await self._remove_logs(space, ids)
        index = self._keys.log_work(space)
        while ids := [id_.decode() for id_ in await self._control.call("ZRANGE", index, 0, DELETE_STEP_JOBS - 1)]:
            await self._remove_logs(space, ids)

    async def settle_logs(self, space: str) -> None:
        """Look at some of the logs whose time has come.

        A log whose job is gone goes, too. One whose job has ended and rested is sealed and given a time to live that
        stands behind its removal; one whose job runs again lives on. One whose server is away stays listed.
        """
        index = self._keys.log_work(space)
        now = self._clock.now_ms(index)
        due = await self._control.call("ZRANGEBYSCORE", index, "-inf", now, "WITHSCORES", "LIMIT", 0, SETTLE_STEP_LOGS)
        listed = list(zip(due[::2], due[1::2], strict=True))
        outages = await outages_of(self._settle(space, id_.decode()) for id_, _ in listed)
        if settled := [word for entry, outage in zip(listed, outages, strict=True) if not outage for word in entry]:
            await self._scripts.run("log_unlist_work", [index], settled)

    async def let_log_lapse(self, job: str) -> None:
        """Let a log live as long as if its job had ended and rested now."""
        await self._logs.set_ttl(job, self._retention_ms + LOG_BACKSTOP_MS)

    async def _settle(self, space: str, job: str) -> None:
        status = await self._control.call("HGET", self._keys.job(space, job), "status")
        if status is None:
            await self._logs.delete(space, job)
        elif status.decode() in ENDED:
            await self._logs.settle(job, self._retention_ms)
        else:
            await self._logs.persist(job)

    async def _remove_logs(self, space: str, jobs: Sequence[str]) -> None:
        """Remove those that can be; one whose server is away stays listed, and its outage is raised in the end."""
        outages = await outages_of(self._logs.delete(space, job) for job in jobs)
        if gone := [job for job, outage in zip(jobs, outages, strict=True) if not outage]:
            await self._control.call("ZREM", self._keys.log_work(space), *gone)
        for outage in filter(None, outages):
            raise outage


async def outages_of(works: Iterable[Awaitable[None]]) -> list[Outage | None]:
    """Do all of the works; of each the outage that it met, or None. Raises the first error of another kind."""
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None and not isinstance(outcome, Outage):
            raise outcome
    return [outcome if isinstance(outcome, Outage) else None for outcome in outcomes]
