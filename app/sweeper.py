"""What time does to jobs: leases that end, schedules that come, logs that rest, jobs whose retention is over.

Owns: finding what is due, a space at a time, and having one script act on at most 200 jobs. Several sweepers may run;
one works, under a lease of its own, and when it is killed another takes over within three seconds. Two at once would do
no harm: every script checks for itself what it acts on.

`jw:due` holds a space by its earliest due moment, so that idle spaces cost nothing. It is a hint: a space is taken out
before it is looked at, whoever makes something due afterwards puts it in again, and every 30 s all spaces are looked
at.
Expired lease keys only make a look come earlier; see docs/operations.md for what happens without them.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.deletion import Deletion
from app.error import Refusal
from app.expiry import LeaseExpiry
from app.keys import Keys
from app.link import Link, RedisFault
from app.logs import Logs
from app.redis_clock import RedisClock
from app.scripts import Scripts
from app.settings import Settings
from app.spaces import Spaces
from app.store import Store

log = logging.getLogger("jobwire.sweeper")

T = TypeVar("T")

STEP_JOBS = 200
"""Jobs that one script call acts on at most."""

HOLD_MS = 2000
TICK_S = 0.1
REBUILD_S = 30.0
REST_MS = 60_000
"""How long an ended job's log rests before it is sealed: late lines still come."""


class Sweeper:
    """One sweeper: it works while it holds the lease, and waits otherwise."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        clock: RedisClock,
        settings: Settings,
        *,
        store: Store,
        spaces: Spaces,
        logs: Logs,
        deletion: Deletion,
        expiry: LeaseExpiry,
    ) -> None:
        self._link = link
        self._scripts = Scripts(link)
        self._keys = keys
        self._clock = clock
        self._retention_ms = settings.retention_s * 1000
        self._store = store
        self._spaces = spaces
        self._logs = logs
        self._deletion = deletion
        self._expiry = expiry
        self._name = secrets.token_hex(8)
        self.working = False

    async def run(self) -> None:
        """Sweep until cancelled; a Redis that is away is waited for."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hold_forever(), name="sweeper-hold")
            group.create_task(self._rebuild_forever(), name="sweeper-rebuild")
            await self._sweep_forever()

    async def _hold_forever(self) -> None:
        while True:
            held = await self._calmly(self._hold, False)
            if held and not self.working:
                log.info("this sweeper works now")
                await self._calmly(self._rebuild, None)
            self.working = held
            await asyncio.sleep(HOLD_MS / 4000)

    async def _hold(self) -> bool:
        (held,) = await self._scripts.run("sweeper_hold", [self._keys.sweeper], [self._name, HOLD_MS])
        return bool(held)

    async def _rebuild_forever(self) -> None:
        while True:
            await asyncio.sleep(REBUILD_S)
            if self.working:
                await self._calmly(self._rebuild, None)

    async def _rebuild(self) -> None:
        """Look at every space, for hints that were lost; go on with removals that were cut off."""
        await self._spaces.resume()
        for space in await self._link.call("HVALS", self._keys.spaces):
            await self._note_due(space.decode())

    async def _sweep_forever(self) -> None:
        while True:
            if not self.working or not await self._calmly(self._sweep_one, False):
                await self._expiry.wait(TICK_S)

    async def _sweep_one(self) -> bool:
        """Look at the space that is due first; whether there was one."""
        space = self._expiry.next_space()
        if space is None:
            head = await self._link.call("ZRANGE", self._keys.due, 0, 0, "WITHSCORES")
            if not head or float(head[1]) > self._clock.now_ms():
                return False
            space = head[0].decode()
        await self._link.call("ZREM", self._keys.due, space)
        try:
            await self.sweep(space)
        finally:
            await self._note_due(space)
        return True

    async def sweep(self, space: str) -> None:
        """Do all that is due in one space."""
        for step in (self._store.expire, self._store.promote):
            while await step(space, STEP_JOBS) == STEP_JOBS:
                pass
        await self._seal(space)
        await self._retire(space)

    async def _seal(self, space: str) -> None:
        """Logs that have rested: sealed, and given a time to live that stands behind their removal."""
        index = self._keys.log_work(space)
        rested = self._clock.now_ms() - REST_MS
        while ids := await self._link.call("ZRANGEBYSCORE", index, "-inf", rested, "LIMIT", 0, STEP_JOBS):
            for id_ in ids:
                await self._logs.rest(id_.decode(), self._retention_ms)
                await self._link.call("ZREM", index, id_)

    async def _retire(self, space: str) -> None:
        """Jobs whose retention is over."""
        over = self._clock.now_ms() - self._retention_ms
        command = ("ZRANGEBYSCORE", self._keys.ended(space), "-inf", over, "LIMIT", 0, STEP_JOBS)
        while ids := await self._link.call(*command):
            await asyncio.gather(*(self._deletion.whatever(space, id_.decode()) for id_ in ids))

    async def _note_due(self, space: str) -> None:
        args = [self._retention_ms, REST_MS]
        (due,) = await self._scripts.run("space_due", [self._keys.space(space)], args)
        if due is not None:
            await self._link.call("ZADD", self._keys.due, "LT", due, space)

    @staticmethod
    async def _calmly(call: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """What the call returns; `otherwise`, after a pause, while Redis is away."""
        try:
            return await call()
        except Refusal as refusal:
            log.warning("the sweeper waits: %s", refusal.text)
        except RedisFault:
            log.exception("the sweeper met an error reply")
        await asyncio.sleep(TICK_S)
        return otherwise
