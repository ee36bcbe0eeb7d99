"""What time does to jobs: leases that end, schedules that come, logs that rest, jobs whose retention is over.

Owns: finding what is due, and having one script act on a bounded number of jobs. Several sweepers may run; one works,
under a lease of its own, and when it is killed another takes over within three seconds. Two at once would do no harm:
every script checks for itself what it acts on.

Spaces have turns: a few steps each, then those who wait. So a space with very much to do is late itself, and no other
is. Leases and schedules are urgent: they have a loop of their own, which nothing else holds up. Logs and retention are
patient. A space that fails is put off and never stands in the way of another.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from app.jobs.deletion import Deletion
from app.jobs.outages import Outages
from app.jobs.spaces import Spaces
from app.jobs.store import JobStore
from app.model.errors import Outage
from app.model.redis_keys import Keys
from app.redis_links.link import Link, RedisFault
from app.redis_links.scripts import Scripts
from app.sweeper.due_spaces import Agenda
from app.sweeper.lease_notifications import LeaseExpiry

log = logging.getLogger("jobwire.sweeper")

T = TypeVar("T")

STEP_JOBS = 6
"""Jobs that one script call acts on: about a millisecond, which other calls hardly notice."""

BREATH_S = 0.001
"""A pause between two such calls, in which other calls have their turn."""

STALE_TRIES = 3
"""How often a step is tried whose mark was too old when Redis came to it."""

TURN_STEPS = 10
"""Steps that a space has in one turn, of each kind of work."""

SPACES_AT_ONCE = 16
TIDY_AT_ONCE = 4
HOLD_MS = 2000
TICK_S = 0.1
WALK_S = 30.0
PUT_OFF_S = 5.0
"""How long a space rests in which something failed that is not Redis's absence."""


class Sweeper:
    """One sweeper: it works while it holds the lease, and waits otherwise."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        agenda: Agenda,
        *,
        store: JobStore,
        spaces: Spaces,
        deletion: Deletion,
        expiry: LeaseExpiry,
    ) -> None:
        self._scripts = Scripts(link)
        self._holder_key = keys.sweeper
        self._agenda = agenda
        self._store = store
        self._spaces = spaces
        self._deletion = deletion
        self._expiry = expiry
        self._name = secrets.token_hex(8)
        self._outages = Outages(link, keys, self._name)
        self._begun = asyncio.Event()
        self._waits = False
        self._tidied: set[str] = set()
        self.working = False

    async def run(self) -> None:
        """Sweep until cancelled; a Redis that is away is waited for. Then another may work at once."""
        loops = (self._hold_forever, self._walk_forever, self._resume_forever, self._look_forever)
        try:
            async with asyncio.TaskGroup() as group:
                for loop in (*loops, *(self._tidy_forever,) * TIDY_AT_ONCE):
                    group.create_task(loop(), name=f"sweeper{loop.__name__}")
        finally:
            if self.working:
                await self._calmly(partial(self._hold, 0), False)

    async def _hold_forever(self) -> None:
        while True:
            held = await self._calmly(partial(self._hold, HOLD_MS), False)
            if held and not self.working:
                log.info("this sweeper works now")
                self._begun.set()
            self.working = held
            await asyncio.sleep(HOLD_MS / 4000)

    async def _hold(self, for_ms: int) -> bool:
        (held,) = await self._scripts.run("sweeper_hold", [self._holder_key], [self._name, for_ms])
        if held:
            await self._outages.mark()
        return bool(held)

    async def _walk_forever(self) -> None:
        """Through all spaces: at once when the work begins, for hints may be lost, then at leisure."""
        while True:
            in_haste = self._begun.is_set()
            self._begun.clear()
            if self.working:
                await self._calmly(partial(self._walk, in_haste), None)
            else:
                await self._begins_within(TICK_S)

    async def _walk(self, in_haste: bool) -> None:
        strides = await self._agenda.strides(all_of_them=in_haste)
        for spaces in strides:
            await self._note(spaces)
            if not in_haste and await self._begins_within(WALK_S / len(strides)):
                return

    async def _note(self, spaces: Sequence[str]) -> None:
        """Note them together; where one fails, each by itself."""
        try:
            await self._agenda.note(spaces)
        except RedisFault:
            for space in spaces:
                await self._in_space(space, nothing)

    async def _begins_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._begun.wait()
        except TimeoutError:
            return False
        return True

    async def _resume_forever(self) -> None:
        """Go on with removals of spaces that were cut off."""
        while True:
            if self.working:
                await self._calmly(self._spaces.resume_deletions, None)
            await asyncio.sleep(WALK_S)

    async def _look_forever(self) -> None:
        while True:
            if not self.working:
                self._expiry.take()
                await asyncio.sleep(TICK_S)
                continue
            pause_s = await self._calmly(self._look, TICK_S)
            if pause_s > 0:
                await self._expiry.wait(min(pause_s, TICK_S))

    async def _look(self) -> float:
        """Give some spaces their turn; seconds until more is due."""
        self._agenda.owed.update(dict.fromkeys(self._expiry.take()))
        spaces, pause_s = await self._agenda.take(SPACES_AT_ONCE)
        if not spaces:
            return max(pause_s, 0.001)
        await asyncio.gather(*(self.sweep(space) for space in spaces))
        return 0.0

    async def sweep(self, space: str) -> None:
        """A turn of a space: some of what is urgent there. If that was all, it is noted when something is due next."""
        await self._in_space(space, self._end_leases_and_promote)

    async def _end_leases_and_promote(self, space: str) -> bool:
        more = False
        for step in (self._end_leases, self._store.promote_jobs):
            more = await self._step_by_step(partial(step, space, STEP_JOBS)) or more
        return more

    async def _step_by_step(self, step: Callable[[], Awaitable[int]]) -> bool:
        """Whether there is more to do than fits into a turn."""
        for _ in range(TURN_STEPS):
            if await step() < STEP_JOBS:
                return False
            await asyncio.sleep(BREATH_S)
        return True

    async def _end_leases(self, space: str, most: int) -> int:
        for _ in range(STALE_TRIES):
            looked_at = await self._store.end_leases(space, most, self._outages.latest)
            if looked_at is not None:
                return looked_at
            await self._outages.mark()
        return most  # Redis is slower than marks last: another turn

    async def _tidy_forever(self) -> None:
        while True:
            space = next((one for one in self._agenda.tidying if one not in self._tidied), None)
            if not self.working or space is None:
                await asyncio.sleep(TICK_S)
                continue
            self._tidied.add(space)
            await self._calmly(partial(self._tidy, space), None)
            self._tidied.discard(space)

    async def _tidy(self, space: str) -> None:
        """Do some of what is patient in one space; what is left makes it due again."""
        del self._agenda.tidying[space]
        self._agenda.owed[space] = None
        await self._in_space(space, self._retire_and_settle)

    async def _retire_and_settle(self, space: str) -> bool:
        await self._deletion.retire_jobs(space)
        await self._deletion.settle_logs(space)
        return False

    async def _in_space(self, space: str, work: Callable[[str], Awaitable[bool]]) -> None:
        """Work, then wait for another turn if it says that there is more, or note when something is due next.

        What fails puts the space off. Raises Outage: Redis is away.
        """
        try:
            if await work(space):
                self._agenda.again(space)
            else:
                await self._agenda.note([space])
        except Outage:
            raise
        except Exception:
            log.exception("space %s waits %g s: the sweeper failed there", space, PUT_OFF_S)
            await self._agenda.put_off(space, PUT_OFF_S)

    async def _calmly(self, call: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """What the call returns; `otherwise`, after a pause, when it failed: the sweeper goes on."""
        try:
            result = await call()
        except Outage as outage:
            if not self._waits:
                log.warning("the sweeper waits: %s", outage.text)
            self._waits = True
        except Exception:
            log.exception("the sweeper failed, and goes on")
        else:
            self._waits = False
            return result
        await asyncio.sleep(TICK_S)
        return otherwise


async def nothing(space: str) -> bool:
    """Do nothing in a space, of which nothing is left."""
    return False
