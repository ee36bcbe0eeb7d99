"""Where a request of ours may go: the door for everything that is sent to an address which a user gave.

Owns: a resolver that hands out checked addresses only, so that the connection is made to what was checked and not to
what a second look-up says. Each socket is checked once more as it is made: an address that came by another way, as one
that stands in the URL, finds the same door.
"""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from app.address import Forbidden, Network, forbidden

LOOK_UPS = 64
"""Names that are looked up at once: each look-up holds a thread, a dead name server holds it long."""


class Guard(AbstractResolver):
    """A resolver and a maker of sockets for aiohttp's connector; `allowed` are networks beside the public ones."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed
        self._threads = ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name, if every one of them may be called. Raises Forbidden, OSError."""
        loop = asyncio.get_running_loop()
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
