"""Where a request of ours may go: the guard of everything that is sent to an address which a user gave.

Owns: whose turn it is to look a name up, for names that nobody answers hold a thread each; a resolver that hands out
checked addresses only, so that the connection is made to what was checked and not to what a second look-up says. Each
socket is checked once more as it is made: an address that came by another way, as one that stands in the URL, meets the
same guard.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from app.webhooks.fair_shares import FairShares
from app.webhooks.forbidden_addresses import Forbidden, Network, forbidden_kind

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult

LOOKUPS_MOST = 64
"""Names that are looked up at once: each look-up holds a thread, a dead name server holds it long."""

WAITING_LOOKUPS_MOST = 256
"""Look-ups of one space that may wait for their turn."""

LOOKUP_SPACE: ContextVar[str] = ContextVar("LOOKUP_SPACE", default="")
"""The space for which a name is looked up."""


class LookupQueue:
    """Who may look a name up: spaces share the places."""

    def __init__(self, most: int) -> None:
        self._shares = FairShares(most)
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def place_of(self, space: str) -> AsyncIterator[None]:
        """A place of the space, as soon as it has its turn. Raises OSError when too many wait for theirs."""
        await self._wait_for_place(space)
        try:
            yield
        finally:
            self._free_place(space)

    async def _wait_for_place(self, space: str) -> None:
        if space not in self._waiting and self._shares.has_room(space):
            self._shares.hold_place(space)
            return
        waiting = self._waiting.setdefault(space, deque())
        if len(waiting) >= WAITING_LOOKUPS_MOST:
            raise OSError("too many names wait to be looked up")
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._free_place(space)
            raise

    def _free_place(self, space: str) -> None:
        """A place is free: the spaces that wait have their turns one after the other."""
        self._shares.free_place(space)
        for other in tuple(self._waiting):
            waiting = self._waiting.pop(other)
            while waiting and self._shares.has_room(other):
                turn = waiting.popleft()
                if not turn.done():
                    self._shares.hold_place(other)
                    turn.set_result(None)
                    break
            if waiting:
                self._waiting[other] = waiting


class Guard:
    """A resolver and a maker of sockets for aiohttp's connector; `allowed` are networks beside the public ones."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed
        self._threads = ThreadPoolExecutor(LOOKUPS_MOST, thread_name_prefix="resolve")
        self._lookups = LookupQueue(LOOKUPS_MOST)

    @staticmethod
    @contextlib.contextmanager
    def resolving_for(space: str) -> Iterator[None]:
        """Names that the block looks up are looked up for this space."""
        token = LOOKUP_SPACE.set(space)
        try:
            yield
        finally:
            LOOKUP_SPACE.reset(token)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> "list[ResolveResult]":
        """The addresses of a name, if every one of them may be called. Raises Forbidden, OSError."""
        loop = asyncio.get_running_loop()
        async with self._lookups.place_of(LOOKUP_SPACE.get()):
            addresses = await loop.run_in_executor(self._threads, self.resolve_blocking, host, port, family)
        for _, address in addresses:
            self.check_address(address)
        numeric = socket.AI_NUMERICHOST
        return [
            {"hostname": host, "host": address, "port": port, "family": kind, "proto": 0, "flags": numeric}
            for kind, address in addresses
        ]

    def resolve_blocking(self, host: str, port: int, family: int) -> list[tuple[int, str]]:
        """What the system's resolver says: address family and address, each once. Blocks."""
        infos = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        return list(dict.fromkeys((int(kind), str(place[0])) for kind, _, _, _, place in infos))

    def make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one address that is about to be connected to. Raises Forbidden."""
        family, kind, proto, _, place = info
        self.check_address(str(place[0]))
        return socket.socket(family, kind, proto)

    def check_address(self, address: str) -> None:
        """Raise Forbidden unless the address is public or allowed."""
        kind = forbidden_kind(address, self._allowed)
        if kind:
            raise Forbidden(f"The address {address} is {kind}; JOBWIRE_CALLBACK_ALLOW can allow its network.")

    async def close(self) -> None:
        """Look up no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
