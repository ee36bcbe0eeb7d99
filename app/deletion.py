"""Removing a job with everything of it: its log in one slot first, then its keys in the space's.

The log leaves a tombstone, so that a late append cannot make it grow back; what a crash in between leaves is a job
without a log, which the next attempt removes.
"""

from app.error import Refusal
from app.job import ENDED
from app.logs import Logs
from app.scripts import invalid_state
from app.store import Store


class Deletion:
    """Removes ended jobs."""

    def __init__(self, store: Store, logs: Logs) -> None:
        self._store = store
        self._logs = logs

    async def job(self, space: str, job: str) -> None:
        """Remove one ended job. Refusals: job_not_found, invalid_state."""
        (status,) = await self._store.fields(space, job, "status")
        if status is not None and status.decode() not in ENDED:
            raise invalid_state(status.decode())
        await self._logs.delete(job)
        await self._store.delete(space, job)

    async def whatever(self, space: str, job: str) -> None:
        """Remove a job of a space that goes as a whole; a job that is gone already is fine."""
        await self._logs.delete(job)
        try:
            await self._store.delete(space, job, forced=True)
        except Refusal as refusal:
            if refusal.code != "job_not_found":
                raise
