"""What time does to the jobs of one server: leases that end, schedules that come, logs that rest, retention.

Owns: finding what is due, and having one script act on a bounded number of jobs. Several sweepers may run; one works,
under a lease of its own, and when it is killed another takes over within three seconds. Two at once would do no harm:
every script checks for itself what it acts on.

Spaces have turns: a few steps each, then those who wait. So a space with very much to do is late itself, and no other
is. Leases and schedules are urgent: they have a loop of their own, which nothing else holds up. Logs and retention are
patient. A space that fails is put off and never stands in the way of another.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from app.jobs.deletion_and_retention import Deletion
from app.jobs.job_store import JobStore
from app.jobs.outages import Outages
from app.jobs.spaces import Spaces
from app.loop.attempts import Attempts, Log
from app.loop.background import Background
from app.model.errors import Outage
from app.model.redis_keys import Keys
from app.redis_links.election import RENEW_S, Election
from app.redis_links.link import Link, RedisFault
from app.redis_links.shards import ShardLog
from app.sweeper.due_spaces import DueSpaces
from app.sweeper.lease_notifications import LeaseNotifications
from app.sweeper.mending import LOOK_PAUSE_S, Mender

log = logging.getLogger("jobwire.sweeper")

STEP_JOBS = 6
"""Jobs that one script call acts on: about a millisecond, which other calls hardly notice."""

STEP_PAUSE_S = 0.001
"""A pause between two such calls, in which other calls have their turn."""

STALE_TRIES = 3
"""How often a step is tried whose mark was too old when Redis came to it."""

TURN_STEPS = 10
"""Steps that a space has in one turn, of each kind of work."""

SPACES_AT_ONCE = 16
TIDY_AT_ONCE = 4
TURN_S = 0.1
"""How long others wait for a turn that takes long, for the slot of its space is half moved, say."""

SLOW_AT_ONCE = 16
"""Turns that go on beside those of others; when there are more, others wait for one of them."""

SLOW_S = 1.0
"""How long such a space rests when its turn has failed."""

IDLE_PAUSE_S = 0.1
"""How long a loop that has nothing to do rests, and one whose work failed."""

WALK_S = 30.0
PUT_OFF_S = 5.0
"""How long a space rests in which something failed that is not Redis's absence."""


def attempts_of(who: str, of: Log = log) -> Attempts:
    """What the log says of an outage."""
    return Attempts(
        of,
        waits=f"{who} waits: %s",
        goes_on=f"{who} goes on",
        failed="the sweeper failed, and goes on",
        pause_s=IDLE_PAUSE_S,
    )


class ShardSweeper:
    """One sweeper's part on one server: it works while it holds the lease, and waits otherwise."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        due: DueSpaces,
        *,
        sweeper: str,
        tag: str,
        store: JobStore,
        spaces: Spaces,
        deletion: Deletion,
        notifications: LeaseNotifications,
        mender: Mender,
        is_new: bool,
    ) -> None:
        """The part of the sweeper of that name on the server with that tag; it `is_new` if slots have just moved."""
        self._tag = tag
        self._election = Election(link, keys.sweeper_of(tag), sweeper, tag)
        self._due = due
        self._store = store
        self._spaces = spaces
        self._deletion = deletion
        self._notifications = notifications
        self._mender = mender
        self._outages = Outages(link, keys, sweeper, tag, is_new=is_new)
        self._log = ShardLog(log, link, tag)
        self._attempts = attempts_of("the sweeper", self._log)
        self._wide_attempts = attempts_of("the sweeper, for another server,", self._log) if tag else self._attempts
        self._begun = asyncio.Event()
        self._tidied: set[str] = set()
        self._slow: dict[str, asyncio.Task[None]] = {}
        self._background = Background()
        self.working = False

    async def run(self) -> None:
        """Sweep until cancelled; a Redis that is away is waited for. Then another may work at once."""
        loops = [self._lead_forever, self._walk_forever, self._resume_forever, self._sweep_forever]
        if self._tag:  # the only server has one order of writes, in which no half is lost
            loops.append(self._mend_forever)
        try:
            async with asyncio.TaskGroup() as group:
                for loop in (*loops, *(self._tidy_forever,) * TIDY_AT_ONCE):
                    group.create_task(loop(), name=f"sweeper{loop.__name__}")
        finally:
            await self._background.close()
            if self.working:
                self.working = False
                await self._attempts.make(self._election.resign, None)

    async def _lead_forever(self) -> None:
        while True:
            leads = await self._attempts.make(self._lead, False)
            if leads and not self.working:
                self._log.info("this sweeper works now")
                self._begun.set()
            self.working = leads
            await asyncio.sleep(RENEW_S)

    async def _lead(self) -> bool:
        leads = await self._election.lead()
        self._outages.look()
        if leads:
            await self._outages.mark()
        return leads

    async def _walk_forever(self) -> None:
        """Through all spaces: at once when the work begins, for hints may be lost, then at leisure."""
        while True:
            in_haste = self._begun.is_set()
            self._begun.clear()
            if self.working:
                await self._wide_attempts.make(partial(self._walk, in_haste), None)
            else:
                await self._begins_within(IDLE_PAUSE_S)

    async def _walk(self, in_haste: bool) -> None:
        portions = self._due.walk_portions(await self._spaces.list_ids(), all_of_them=in_haste)
        for spaces in portions:
            await self._hint_next(spaces)
            if not in_haste and await self._begins_within(WALK_S / len(portions)):
                return

    async def _hint_next(self, spaces: Sequence[str]) -> None:
        """Hint them together; where one fails, each by itself. Raises Outage if all of them do."""
        try:
            await self._due.hint_next(spaces)
        except (RedisFault, Outage):
            works = [self._in_space(space, do_nothing) for space in spaces]
            failures = [one for one in await asyncio.gather(*works, return_exceptions=True) if one is not None]
            for failure in failures:
                if len(failures) == len(spaces) or not isinstance(failure, Outage):
                    raise failure from None

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
                await self._wide_attempts.make(partial(self._spaces.resume_deletions, self._tag), None)
            await asyncio.sleep(WALK_S)

    async def _mend_forever(self) -> None:
        while True:
            pause_s = await self._attempts.make(self._mender.look, LOOK_PAUSE_S) if self.working else LOOK_PAUSE_S
            await asyncio.sleep(pause_s)

    async def _sweep_forever(self) -> None:
        while True:
            if not self.working:
                self._notifications.pop_spaces(self._tag)
                await asyncio.sleep(IDLE_PAUSE_S)
                continue
            pause_s = await self._attempts.make(self._give_turns, IDLE_PAUSE_S)
            if pause_s > 0:
                await self._notifications.wait_for_one(self._tag, min(pause_s, IDLE_PAUSE_S))

    async def _give_turns(self) -> float:
        """Give some spaces their turn; seconds until more is due."""
        self._due.owed.update(dict.fromkeys(self._notifications.pop_spaces(self._tag)))
        if len(self._slow) >= SLOW_AT_ONCE:
            await self._until_one_is_over(IDLE_PAUSE_S)
            return 0.0
        spaces, pause_s = await self._due.next_turns(SPACES_AT_ONCE, self._slow)
        if not spaces and self._slow:
            await self._until_one_is_over(min(pause_s, IDLE_PAUSE_S))
            return 0.0
        if not spaces:
            return max(pause_s, 0.001)
        turns = {self._background.start(self._turn(space), "sweeper-turn"): space for space in spaces}
        ended, slow = await asyncio.wait(turns, timeout=TURN_S)
        self._slow |= {turns[turn]: turn for turn in slow}
        for turn in ended:
            turn.result()
        return 0.0

    async def _until_one_is_over(self, most_s: float) -> None:
        """Wait for one of the slow turns."""
        await asyncio.wait(self._slow.values(), timeout=most_s, return_when=asyncio.FIRST_COMPLETED)

    async def _turn(self, space: str) -> None:
        try:
            await self.sweep(space)
        except Outage:
            if space not in self._slow:
                raise
            with contextlib.suppress(Outage):
                await self._due.put_off(space, SLOW_S)
        finally:
            self._slow.pop(space, None)

    async def sweep(self, space: str) -> None:
        """A turn of a space: some of what is urgent there. If that was all, it is hinted when something is due next."""
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
            await asyncio.sleep(STEP_PAUSE_S)
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
            space = next((one for one in self._due.tidying if one not in self._tidied), None)
            if not self.working or space is None:
                await asyncio.sleep(IDLE_PAUSE_S)
                continue
            self._tidied.add(space)
            await self._wide_attempts.make(partial(self._tidy, space), None)
            self._tidied.discard(space)

    async def _tidy(self, space: str) -> None:
        """Do some of what is patient in one space; what is left makes it due again."""
        del self._due.tidying[space]
        self._due.owed[space] = None
        await self._in_space(space, self._retire_and_settle)

    async def _retire_and_settle(self, space: str) -> bool:
        await self._deletion.retire_jobs(space)
        await self._deletion.settle_logs(space)
        return False

    async def _in_space(self, space: str, work: Callable[[str], Awaitable[bool]]) -> None:
        """Work, then wait for another turn if it says that there is more, or hint when something is due next.

        What fails puts the space off. Raises Outage: Redis is away.
        """
        try:
            if await work(space):
                self._due.queue_again(space)
            else:
                await self._due.hint_next([space])
        except Outage:
            raise
        except Exception:
            self._log.exception("space %s waits %g s: the sweeper failed there", space, PUT_OFF_S)
            await self._due.put_off(space, PUT_OFF_S)


async def do_nothing(space: str) -> bool:
    """Do nothing in a space, of which nothing is left."""
    return False
