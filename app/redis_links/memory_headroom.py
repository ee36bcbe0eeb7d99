"""How near Redis is to its memory limit: what is new is refused before what would end work that has begun.

New are log lines, jobs and custom events.

A Redis that does not tell how full it is refuses by itself.
Never: asks more than once a second, unless what was sent since then may have used up what was left.
"""

import asyncio

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
        self._asked_s = float("-inf")
        self._left_bytes = float("inf")
        self._asking = asyncio.Lock()

    async def require(self, size_bytes: int) -> None:
        """Return if that much may be stored; raises Unavailable when Redis is almost full."""
        if not self._knows(size_bytes):
            async with self._asking:
                if not self._knows(size_bytes):
                    await self._ask()
        self._left_bytes -= size_bytes * COST
        if self._left_bytes < 0:
            raise unavailable("Redis is almost out of memory: only jobs that exist can go on and end.")

    def _knows(self, size_bytes: int) -> bool:
        fresh = asyncio.get_running_loop().time() - self._asked_s < FRESH_S
        return fresh and self._left_bytes >= size_bytes * COST

    async def _ask(self) -> None:
        try:
            self._left_bytes = min([await left_bytes(server) for server in self._link.servers()], default=float("inf"))
        except (Outage, RedisFault):  # what cannot be asked refuses by itself
            self._left_bytes = float("inf")
        self._asked_s = asyncio.get_running_loop().time()


async def left_bytes(server: ServerLink) -> float:
    """What new may still take of a server's memory. Raises what the link raises."""
    info = parse_info(await server.call("INFO", "memory"))
    most = int(info.get("maxmemory", 0))
    return most * MEMORY_SHARE - int(info["used_memory"]) if most else float("inf")
