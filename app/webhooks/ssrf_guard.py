"""Where a request of ours may go: the door for everything that is sent to an address which a user gave.

Owns: whose turn it is to look a name up, for names that nobody answers hold a thread each; a resolver that hands out
checked addresses only, so that the connection is made to what was checked and not to what a second look-up says. Each
socket is checked once more as it is made: an address that came by another way, as one that stands in the URL, finds the
same door.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from app.webhooks.address_rules import Forbidden, Network, forbidden
from app.webhooks.fair_shares import Shares

LOOK_UPS = 64
"""Names that are looked up at once: each look-up holds a thread, a dead name server holds it long."""

WAITING_MOST = 256
"""Look-ups of one space that may wait for their turn."""

ASKS: ContextVar[str] = ContextVar("ASKS", default="")
"""The space for which a name is looked up."""


class Turns:
    """Who may look a name up: spaces share the places."""

    def __init__(self, most: int) -> None:
        self._shares = Shares(most)
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def of(self, space: str) -> AsyncIterator[None]:
        """A place of the space, as soon as it has its turn. Raises OSError when too many wait for theirs."""
        await self._take(space)
        try:
            yield
        finally:
            self._give(space)

    async def _take(self, space: str) -> None:
        if space not in self._waiting and self._shares.has_room(space):
            self._shares.take(space)
            return
        waiting = self._waiting.setdefault(space, deque())
        if len(waiting) >= WAITING_MOST:
            raise OSError("too many names wait to be looked up")
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._give(space)
            raise

    def _give(self, space: str) -> None:
        """A place is free: the spaces that wait have their turns one after the other."""
        self._shares.give(space)
        for other in tuple(self._waiting):
            waiting = self._waiting.pop(other)
            while waiting and self._shares.has_room(other):
                turn = waiting.popleft()
                if not turn.done():
                    self._shares.take(other)
                    turn.set_result(None)
                    break
            if waiting:
                self._waiting[other] = waiting


class Guard(AbstractResolver):
    """A resolver and a maker of sockets for aiohttp's connector; `allowed` are networks beside the public ones."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed
        self._threads = ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="resolve")
        self._turns = Turns(LOOK_UPS)

    @staticmethod
    @contextlib.contextmanager
    def asking(space: str) -> Iterator[None]:
        """Names that the block looks up are looked up for this space."""
        token = ASKS.set(space)
        try:
            yield
        finally:
            ASKS.reset(token)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name, if every one of them may be called. Raises Forbidden, OSError."""
        loop = asyncio.get_running_loop()
        async with self._turns.of(ASKS.get()):
            found = await loop.run_in_executor(self._threads, self.look_up, host, port, family)
        for _, address in found:
            self.check(address)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
            for kind, address in found
        ]

    def look_up(self, host: str, port: int, family: int) -> list[tuple[int, str]]:
        """What the system's resolver says: address family and address, each once. Blocks."""
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        return list(dict.fromkeys((int(kind), str(place[0])) for kind, _, _, _, place in found))

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one address that is about to be connected to. Raises Forbidden."""
        family, kind, proto, _, place = info
        self.check(str(place[0]))
        return socket.socket(family, kind, proto)

    def check(self, address: str) -> None:
        """Raise Forbidden unless the address is public or allowed."""
        kind = forbidden(address, self._allowed)
        if kind:
            raise Forbidden(f"The address {address} is {kind}; JOBWIRE_CALLBACK_ALLOW can allow its network.")

    async def close(self) -> None:
        """Look up no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
