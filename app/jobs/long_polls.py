"""Long polls: who waits for a job of which space and names, and who is woken.

Owns: waking one waiter for each job that became pending, the one who has waited longest of those that want its name;
handing the wake on when its waiter did not ask after it; how many polls a key may have parked.
Never: decides who gets a job; a woken caller asks Redis. Nobody asks while nothing that it wants has become pending.
A hint that was lost is made good by looks at the queues once a second; where there is more than was hinted, at once. A
look asks which of the names that are waited for have pending jobs, many names at once, whoever waits for them.
"""

import asyncio
import contextlib
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from app.loop.background import Background
from app.metrics import catalog
from app.model.errors import Outage, Refusal
from app.model.redis_keys import Keys
from app.redis_links.link import Link, RedisFault
from app.redis_links.pubsub import Relay
from app.redis_links.shards import split_by_shard

CHECK_S = 1.0
LINGER_CHECKS = 10

CHECK_NAMES = 500
CHECK_COMMANDS = 10
"""Names of one command, and commands of a look: where more names are waited for, the next looks go on with them."""

PARKED_MOST = 2000
"""Polls of one key that wait in one process."""

ANY_NAME = b""
"""What waits for a job of any name is kept under; no name is empty."""


class Waiter:
    """One caller, waiting for a job of some names, or of any.

    `woken` is set when it is to look around: a job came (then `hint` is the job's name), or it is to wait no more.
    """

    __slots__ = ("arrival", "hint", "names", "woken")

    def __init__(self, names: Sequence[str]) -> None:
        self.names = [name.encode() for name in dict.fromkeys(names)] or [ANY_NAME]
        self.woken = asyncio.Event()
        self.hint: bytes | None = None
        self.arrival = 0


class SpaceWaiters:
    """Those who wait in one space.

    `_idle` has, by name, the arrivals of those who wait for it and have not been woken, ascending: so a wake costs
    little however many wait, and whoever found nothing has its old place again.
    """

    def __init__(self, look_now: Callable[[], None] = lambda: None) -> None:
        self._look_now = look_now
        self.hears = asyncio.Event()
        self.stale = False
        self.empty_checks = 0
        self._arrivals = 0
        self._waiters: dict[int, Waiter] = {}
        self._idle: dict[bytes, list[int]] = {}
        self._to_check: list[bytes] = []

    def __len__(self) -> int:
        return len(self._waiters)

    def hear(self, hint: bytes | None) -> None:
        """A job of this name became pending: wake the first who wants it.

        None: hints were lost; the next look is at all queues. An empty name: there are more jobs than hints, look now.
        """
        if hint:
            self.wake_one(hint)
            return
        self.stale = True
        if hint is not None:
            self._look_now()

    def wake_one(self, name: bytes) -> None:
        """A job of this name is pending, or of whatever name if it is ANY_NAME: wake the first who wants it."""
        firsts = [queue[0] for queue in (self._idle.get(name), self._idle.get(ANY_NAME)) if queue]
        if firsts:
            waiter = self._waiters[min(firsts)]
            self._stir(waiter)
            waiter.hint = name
            waiter.woken.set()

    def enter(self, waiter: Waiter) -> None:
        """Wait from now on, behind all who are there."""
        self._arrivals += 1
        waiter.arrival = self._arrivals
        self._waiters[waiter.arrival] = waiter
        self._rest(waiter)

    def note_ask(self, waiter: Waiter) -> None:
        """The waiter is about to ask for jobs: those that come from now on are news for it."""
        waiter.woken.clear()
        if waiter.hint is not None:
            waiter.hint = None
            self._rest(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Wait no more. A wake that came after the waiter last asked goes to the next one."""
        del self._waiters[waiter.arrival]
        if waiter.hint is None:
            self._stir(waiter)
        else:
            self.wake_one(waiter.hint)

    def release(self) -> None:
        """Wake everybody: nobody is to wait here any more."""
        for waiter in self._waiters.values():
            waiter.woken.set()

    def next_names(self, *, every: bool) -> Iterator[list[bytes]]:
        """Names that are waited for, CHECK_NAMES at a time: every one, or as many as one check has room for."""
        if every or not self._to_check:
            self._to_check = list(self._idle)
        commands = 0
        while self._to_check and (every or commands < CHECK_COMMANDS):
            commands += 1
            yield self._to_check[-CHECK_NAMES:]
            del self._to_check[-CHECK_NAMES:]

    def wake_some(self, name: bytes, jobs: int) -> None:
        """So many jobs of this name are pending: wake as many of those who wait for it."""
        for _ in range(min(jobs, len(self._idle.get(name, ())))):
            self.wake_one(name)

    def _rest(self, waiter: Waiter) -> None:
        for name in waiter.names:
            insort(self._idle.setdefault(name, []), waiter.arrival)

    def _stir(self, waiter: Waiter) -> None:
        for name in waiter.names:
            queue = self._idle[name]
            del queue[bisect_left(queue, waiter.arrival)]
            if not queue:
                del self._idle[name]


class LongPolls:
    """Those who wait in all spaces; a space has its own while somebody waits there, and a little longer."""

    def __init__(self, relay: Relay, link: Link, keys: Keys) -> None:
        self._relay = relay
        self._link = link
        self._keys = keys
        self._waiters_of: dict[str, SpaceWaiters] = {}
        self._parked: dict[str, int] = {}
        self._looking_at: set[str] = set()
        self._background = Background()
        self.released = False

    def start(self) -> None:
        """Look at the queues once a second from now on."""
        self._background.start(self._check_forever(), "long-polls")

    async def close(self) -> None:
        """Release everybody, and look no more."""
        await self._background.close()
        self.release()

    def release(self) -> None:
        """Let nobody wait any more: the process ends."""
        self.released = True
        for waiters in self._waiters_of.values():
            waiters.release()

    @contextlib.asynccontextmanager
    async def waiting(
        self, space: str, names: Sequence[str], digest: str
    ) -> AsyncIterator[tuple[SpaceWaiters, Waiter]]:
        """Wait in the space's room meanwhile, for the key with this digest.

        Begins when hints are sure to come, so that a poll in it misses nothing. Refusal `rate_limited` when the key
        has too many polls parked.
        """
        waiter = Waiter(names)
        with self._place(digest):
            waiters = self._waiters_of.get(space)
            is_new = waiters is None
            if waiters is None:
                waiters = self._waiters_of[space] = SpaceWaiters(lambda: self._look_soon(space))
            waiters.enter(waiter)
            try:
                await self._hears(space, waiters, is_new=is_new)
                yield waiters, waiter
            finally:
                waiters.leave(waiter)

    @contextlib.contextmanager
    def _place(self, digest: str) -> Iterator[None]:
        """One of the key's places for parked polls."""
        parked = self._parked.get(digest, 0)
        if parked >= PARKED_MOST:
            text = f"The key has {PARKED_MOST} polls waiting."
            raise Refusal("rate_limited", text, headers={"retry-after": "1"}, limit={"parkedPolls": PARKED_MOST})
        self._parked[digest] = parked + 1
        catalog.PARKED_POLLS.add(1)
        try:
            yield
        finally:
            catalog.PARKED_POLLS.add(-1)
            self._parked[digest] -= 1
            if not self._parked[digest]:
                del self._parked[digest]

    async def _hears(self, space: str, waiters: SpaceWaiters, *, is_new: bool) -> None:
        if not is_new:
            await waiters.hears.wait()
            return
        try:
            await self._relay.subscribe(self._keys.wake(space), waiters.hear)
        finally:
            waiters.hears.set()

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            shards = split_by_shard(self._link, self._waiters_of.items(), lambda pair: self._keys.space(pair[0]))
            await asyncio.gather(*map(self._check_shard, shards.values()))

    def _look_soon(self, space: str) -> None:
        """Look at the queues of a space now; whoever asks for it meanwhile is served by the same look."""
        if space not in self._looking_at:
            self._looking_at.add(space)
            self._background.start(self._look_now(space), "long-polls-look")

    async def _look_now(self, space: str) -> None:
        await asyncio.sleep(0)
        self._looking_at.discard(space)
        if waiters := self._waiters_of.get(space):
            await self._check_shard([(space, waiters)])

    async def _check_shard(self, waiters_of: list[tuple[str, SpaceWaiters]]) -> None:
        """Look at the queues of spaces of one server; when it is away, at none of those that come after."""
        for space, waiters in waiters_of:
            if not waiters:
                self._leave_empty(space, waiters)
                continue
            try:
                await self._check_queues(space, waiters)
            except (Outage, RedisFault):
                waiters.stale = True
                return

    def _leave_empty(self, space: str, waiters: SpaceWaiters) -> None:
        waiters.empty_checks += 1
        if waiters.empty_checks >= LINGER_CHECKS:
            del self._waiters_of[space]
            self._relay.unsubscribe(self._keys.wake(space), waiters.hear)

    async def _check_queues(self, space: str, waiters: SpaceWaiters) -> None:
        """Wake who waits for jobs that are there. Of a job that nobody wants, one number is read."""
        waiters.empty_checks, every, waiters.stale = 0, waiters.stale, False
        if not await self._link.call("ZCARD", self._keys.pending(space)):
            return
        for names in waiters.next_names(every=every):
            keys = [self._keys.pending(space, name.decode()) for name in names]
            if await self._link.call("EXISTS", *keys):
                counts = await self._link.pipeline(*(("ZCARD", key) for key in keys))
                for name, jobs in zip(names, counts, strict=True):
                    waiters.wake_some(name, jobs)
