"""The waiting room of long polls: who waits for a job of which space and names, and who is woken.

Owns: waking one waiter for each job that became pending, and handing the wake on when its waiter has gone.
Never: decides who gets a job; a woken caller asks Redis. A hint that was lost is made good by a look at the queues once
a second, one command for each space in which somebody waits.
"""

import asyncio
from collections.abc import Sequence

from app import metrics
from app.error import Refusal
from app.keys import Keys
from app.link import Link, RedisFault
from app.relay import Relay

LOOK_S = 1.0
LINGER_LOOKS = 10


class Waiter:
    """One caller, waiting for a job of some names, or of any."""

    __slots__ = ("names", "woken")

    def __init__(self, names: Sequence[str]) -> None:
        self.names = frozenset(name.encode() for name in names)
        self.woken = asyncio.Event()

    def wants(self, name: bytes | None) -> bool:
        """Whether a job of this name may be one for the waiter; None is a name that nobody knows."""
        return name is None or not self.names or name in self.names


class Room:
    """Those who wait in one space, in order of arrival."""

    def __init__(self) -> None:
        self.waiters: dict[Waiter, None] = {}
        self.hears = asyncio.Event()
        self.empty_looks = 0

    def hear(self, name: bytes | None) -> None:
        """A job of this name became pending: wake the first who may want it. None: hints were lost, wake them all."""
        for waiter in self.waiters:
            if not waiter.woken.is_set() and waiter.wants(name):
                waiter.woken.set()
                if name is not None:
                    return


class WaitingRooms:
    """The rooms of all spaces; a space has one while somebody waits there, and a little longer."""

    def __init__(self, relay: Relay, link: Link, keys: Keys) -> None:
        self._relay = relay
        self._link = link
        self._keys = keys
        self._rooms: dict[str, Room] = {}
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
            room.hear(None)

    async def enter(self, space: str, names: Sequence[str]) -> Waiter:
        """Wait here from now on; returns when hints are sure to come, so that a poll after this misses nothing."""
        room = self._rooms.get(space)
        waiter = Waiter(names)
        if room is None:
            room = self._rooms[space] = Room()
            room.waiters[waiter] = None
            try:
                await self._relay.subscribe(self._keys.wake(space), room.hear)
            finally:
                room.hears.set()
        else:
            room.waiters[waiter] = None
            await room.hears.wait()
        metrics.PARKED.add(1)
        return waiter

    def leave(self, space: str, waiter: Waiter, *, satisfied: bool) -> None:
        """Wait no more. A wake that did not end in a job goes to the next one."""
        metrics.PARKED.add(-1)
        room = self._rooms[space]
        room.waiters.pop(waiter, None)
        if waiter.woken.is_set() and not satisfied:
            self._pass_on(room, waiter)

    @staticmethod
    def _pass_on(room: Room, gone: Waiter) -> None:
        for name in gone.names or (None,):
            for waiter in room.waiters:
                if not waiter.woken.is_set() and waiter.wants(name):
                    waiter.woken.set()
                    break

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for space, room in tuple(self._rooms.items()):
                try:
                    await self._look(space, room)
                except (Refusal, RedisFault):
                    break

    async def _look(self, space: str, room: Room) -> None:
        if not room.waiters:
            room.empty_looks += 1
            if room.empty_looks >= LINGER_LOOKS:
                del self._rooms[space]
                self._relay.unsubscribe(self._keys.wake(space), room.hear)
            return
        room.empty_looks = 0
        if await self._link.call("ZCARD", self._keys.pending(space)):
            self._wake_kinds(room)

    @staticmethod
    def _wake_kinds(room: Room) -> None:
        """One of each kind of waiter: enough to find whatever waits in the queue, without a stampede."""
        kinds = set()
        for waiter in room.waiters:
            if waiter.names not in kinds:
                kinds.add(waiter.names)
                waiter.woken.set()
