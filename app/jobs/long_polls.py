"""The waiting room of long polls: who waits for a job of which space and names, and who is woken.

Owns: waking one waiter for each job that became pending, the one who has waited longest of those that want its name;
handing the wake on when its waiter did not ask after it; how many polls a key may have parked.
Never: decides who gets a job; a woken caller asks Redis. Nobody asks while nothing that it wants has become pending.
A hint that was lost is made good by looks at the queues once a second: which of the names that are waited for have
pending jobs is asked for many names at once, whoever waits for them.
"""

import asyncio
import contextlib
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Iterator, Sequence

from app.metrics import catalog
from app.model.errors import Outage, Refusal
from app.model.redis_keys import Keys
from app.redis_links.link import Link, RedisFault
from app.redis_links.pubsub import Relay

LOOK_S = 1.0
LINGER_LOOKS = 10

LOOK_NAMES = 500
LOOK_COMMANDS = 10
"""Names of one command, and commands of a look: where more names are waited for, the next looks go on with them."""

PARKED_MOST = 2000
"""Polls of one key that wait in one process."""

ANY = b""
"""What waits for a job of any name is kept under; no name is empty."""


class Waiter:
    """One caller, waiting for a job of some names, or of any.

    `woken` is set when it is to look around: a job came (then `hint` is the job's name), or it is to wait no more.
    """

    __slots__ = ("arrival", "hint", "names", "woken")

    def __init__(self, names: Sequence[str]) -> None:
        self.names = [name.encode() for name in dict.fromkeys(names)] or [ANY]
        self.woken = asyncio.Event()
        self.hint: bytes | None = None
        self.arrival = 0


class Room:
    """Those who wait in one space.

    `_idle` has, by name, the arrivals of those who wait for it and have not been woken, ascending: so a wake costs
    little however many wait, and whoever found nothing has its old place again.
    """

    def __init__(self) -> None:
        self.hears = asyncio.Event()
        self.stale = False
        self.empty_looks = 0
        self._arrivals = 0
        self._waiters: dict[int, Waiter] = {}
        self._idle: dict[bytes, list[int]] = {}
        self._to_look_at: list[bytes] = []

    def __len__(self) -> int:
        return len(self._waiters)

    def hear(self, name: bytes | None) -> None:
        """A job of this name became pending: wake the first who wants it. None: hints were lost; the next look is at
        all queues.
        """
        if name is None:
            self.stale = True
            return
        firsts = [queue[0] for queue in (self._idle.get(name), self._idle.get(ANY)) if queue]
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

    def asks(self, waiter: Waiter) -> None:
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
            self.hear(waiter.hint)

    def release(self) -> None:
        """Wake everybody: nobody is to wait here any more."""
        for waiter in self._waiters.values():
            waiter.woken.set()

    def names(self, *, every: bool) -> Iterator[list[bytes]]:
        """Names that are waited for, LOOK_NAMES at a time: every one, or as many as one look has room for."""
        if every or not self._to_look_at:
            self._to_look_at = list(self._idle)
        commands = 0
        while self._to_look_at and (every or commands < LOOK_COMMANDS):
            commands += 1
            yield self._to_look_at[-LOOK_NAMES:]
            del self._to_look_at[-LOOK_NAMES:]

    def found(self, name: bytes, jobs: int) -> None:
        """So many jobs of this name are pending: wake as many of those who wait for it."""
        for _ in range(min(jobs, len(self._idle.get(name, ())))):
            self.hear(name)

    def _rest(self, waiter: Waiter) -> None:
        for name in waiter.names:
            insort(self._idle.setdefault(name, []), waiter.arrival)

    def _stir(self, waiter: Waiter) -> None:
        for name in waiter.names:
            queue = self._idle[name]
            del queue[bisect_left(queue, waiter.arrival)]
            if not queue:
                del self._idle[name]


class WaitingRooms:
    """The rooms of all spaces; a space has one while somebody waits there, and a little longer."""

    def __init__(self, relay: Relay, link: Link, keys: Keys) -> None:
        self._relay = relay
        self._link = link
        self._keys = keys
        self._rooms: dict[str, Room] = {}
        self._parked: dict[str, int] = {}
        self._looker: asyncio.Task[None] | None = None
        self.released = False

    def start(self) -> None:
        """Look at the queues once a second from now on."""
        self._looker = asyncio.create_task(self._look_forever(), name="waiting-rooms")

    async def close(self) -> None:
        """Release everybody, and look no more."""
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.gather(self._looker, return_exceptions=True)
        self.release()

    def release(self) -> None:
        """Let nobody wait any more: the process ends."""
        self.released = True
        for room in self._rooms.values():
            room.release()

    @contextlib.asynccontextmanager
    async def waiting(self, space: str, names: Sequence[str], digest: str) -> AsyncIterator[tuple[Room, Waiter]]:
        """Wait in the space's room meanwhile, for the key with this digest.

        Begins when hints are sure to come, so that a poll in it misses nothing. Refusal `rate_limited` when the key
        has too many polls parked.
        """
        waiter = Waiter(names)
        with self._place(digest):
            room = self._rooms.get(space)
            is_new = room is None
            if room is None:
                room = self._rooms[space] = Room()
            room.enter(waiter)
            try:
                await self._hears(space, room, is_new=is_new)
                yield room, waiter
            finally:
                room.leave(waiter)

    @contextlib.contextmanager
    def _place(self, digest: str) -> Iterator[None]:
        """One of the key's places for parked polls."""
        parked = self._parked.get(digest, 0)
        if parked >= PARKED_MOST:
            text = f"The key has {PARKED_MOST} polls waiting."
            raise Refusal("rate_limited", text, headers={"retry-after": "1"}, limit={"parkedPolls": PARKED_MOST})
        self._parked[digest] = parked + 1
        catalog.PARKED.add(1)
        try:
            yield
        finally:
            catalog.PARKED.add(-1)
            self._parked[digest] -= 1
            if not self._parked[digest]:
                del self._parked[digest]

    async def _hears(self, space: str, room: Room, *, is_new: bool) -> None:
        if not is_new:
            await room.hears.wait()
            return
        try:
            await self._relay.subscribe(self._keys.wake(space), room.hear)
        finally:
            room.hears.set()

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for space, room in tuple(self._rooms.items()):
                if not room:
                    self._leave_empty(space, room)
                    continue
                try:
                    await self._look(space, room)
                except (Outage, RedisFault):
                    room.stale = True
                    break

    def _leave_empty(self, space: str, room: Room) -> None:
        room.empty_looks += 1
        if room.empty_looks >= LINGER_LOOKS:
            del self._rooms[space]
            self._relay.unsubscribe(self._keys.wake(space), room.hear)

    async def _look(self, space: str, room: Room) -> None:
        """Wake who waits for jobs that are there. Of a job that nobody wants, one number is read."""
        room.empty_looks, every, room.stale = 0, room.stale, False
        if not await self._link.call("ZCARD", self._keys.pending(space)):
            return
        for names in room.names(every=every):
            keys = [self._keys.pending(space, name.decode()) for name in names]
            if await self._link.call("EXISTS", *keys):
                counts = await self._link.pipeline(*(("ZCARD", key) for key in keys))
                for name, jobs in zip(names, counts, strict=True):
                    room.found(name, jobs)
