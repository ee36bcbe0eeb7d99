"""How near Redis is to its memory limit: what is new is refused before what would end work that has begun.

New are log lines, jobs and custom events. Of a cluster each server has a memory of its own: the one that gets what is
new is looked at, and a full one refuses nothing for the others.

Never: asks a server more than once a second, unless what was sent since then may have used up what was left.
"""

import asyncio
import time

from app.model.errors import Outage, unavailable
from app.redis_links.info import parse_info
from app.redis_links.link import Link, RedisFault, ServerLink

MEMORY_SHARE = 0.9
"""The part of `maxmemory` that what is new may fill."""

FRESH_S = 1.0
COST = 1.5
"""Redis bytes that a byte of what is new may take, its overhead included."""


class Headroom:
    """What one process knows of the memory that is left."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._servers: dict[ServerLink, ServerHeadroom] = {}

    async def require(self, size_bytes: int, key: str) -> None:
        """Return if that much may be stored on the server of a key. Raises Unavailable when its memory is almost full.

        What cannot be asked refuses by itself.
        """
        try:
            server = self._link.server_of(key)
        except Outage:
            return
        headroom = self._servers.get(server)
        if headroom is None:
            there = set(self._link.servers())
            self._servers = {one: known for one, known in self._servers.items() if one in there}
            headroom = self._servers[server] = ServerHeadroom(server)
        if not headroom.take(size_bytes):
            await headroom.require(size_bytes)


class ServerHeadroom:
    """What is known of one server's memory."""

    def __init__(self, server: ServerLink) -> None:
        self._server = server
        self._asked_s = float("-inf")
        self._left_bytes = float("inf")
        self._asking = asyncio.Lock()

    def take(self, size_bytes: int) -> bool:
        """Whether it is known that so much may be stored; it is counted then."""
        left_bytes = self._left_bytes - size_bytes * COST
        if left_bytes < 0 or time.monotonic() - self._asked_s >= FRESH_S:
            return False
        self._left_bytes = left_bytes
        return True

    async def require(self, size_bytes: int) -> None:
        """Return if that much may be stored. Raises Unavailable when the memory is almost full."""
        async with self._asking:
            if self.take(size_bytes):
                return
            await self._ask()
            self._left_bytes -= size_bytes * COST
        if self._left_bytes < 0:
            raise unavailable("Redis is almost out of memory: only jobs that exist can go on and end.")

    async def _ask(self) -> None:
        try:
            self._left_bytes = await left_bytes(self._server)
        except (Outage, RedisFault):
            self._left_bytes = float("inf")
        self._asked_s = time.monotonic()


async def left_bytes(server: ServerLink) -> float:
    """What new may still take of a server's memory. Raises what the link raises."""
    info = parse_info(await server.call("INFO", "memory"))
    most = int(info.get("maxmemory", 0))
    return most * MEMORY_SHARE - int(info["used_memory"]) if most else float("inf")
