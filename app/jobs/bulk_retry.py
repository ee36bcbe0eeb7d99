"""Bulk retry: many dead or killed jobs run again, in steps, of which each is one script.

Owns: how far a step goes, and when a bulk retry ends. Never: holds Redis up; a step looks at 200 jobs and lets 50 of
them run again, which takes Redis about 3 ms. What a step did is done: a bulk retry that is cut off has let fewer
jobs run again, none by half, and may be begun again.

A step is spent before it is made, as the jobs of a create are: so a bulk retry is no more for a unit of rate than
any other call, also where it finds nothing.
"""

import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from app.metrics import catalog
from app.model.errors import ApiError
from app.model.limits import UNIT_JOBS
from app.model.redis_keys import Keys
from app.redis_links.link import Link, RedisFault, Word
from app.redis_links.scripts import Scripts

JOBS_SEEN_PER_STEP = 200
RETRIES_PER_STEP = 50


class Selection(NamedTuple):
    """Which jobs: dead or killed ones, of a name ("" for any), created at `from_ms` or later and before `till_ms`."""

    status: str
    name: str
    from_ms: int
    till_ms: int


class Retried(NamedTuple):
    """How many jobs run again, and whether there may be more that a further bulk retry would find."""

    jobs: int
    more: bool


Spend = Callable[[int], Awaitable[None]]
"""Spends units of the caller's rate, or raises why it cannot."""


class BulkRetries:
    """The bulk retries of one process."""

    def __init__(self, control: Link, keys: Keys) -> None:
        self._scripts = Scripts(control)
        self._keys = keys

    async def run(self, space: str, chosen: Selection, most: int, spend: Spend) -> Retried:
        """Let up to `most` of the chosen jobs run again, oldest created first.

        Refusals: space_not_found, rate_limited. When Redis goes away on the way, or the rate is spent, what was done
        until then is the answer.
        """
        retried, position, free = 0, 0, 1
        while retried < most:
            try:
                await spend(math.ceil(min(most - retried, RETRIES_PER_STEP) / UNIT_JOBS) - free)
                done, last = await self._step(space, chosen, position, most - retried)
            except (ApiError, RedisFault):
                if retried:
                    return Retried(retried, True)
                raise
            retried += done
            if last is None:
                return Retried(retried, False)
            position, free = int(last), 0
        return Retried(retried, True)

    async def _step(self, space: str, chosen: Selection, position: int, most: int) -> tuple[int, bytes | None]:
        args: list[Word] = [chosen.status, position, JOBS_SEEN_PER_STEP, min(most, RETRIES_PER_STEP)]
        args += (chosen.name, chosen.from_ms, chosen.till_ms)
        done, last = await self._scripts.run("job_bulk_retry", [self._keys.space(space)], args)
        catalog.count_transitions("requeued", done)
        return int(done), last
