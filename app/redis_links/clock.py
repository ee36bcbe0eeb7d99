"""What the clocks of Redis show, as far as this process can tell: hosts may disagree, leases must not.

Always: each server of a cluster has a clock of its own, and a moment is compared with the clock of the server on which
it stands, and with no other.
"""

import asyncio
import contextlib
import time
from collections import deque

from app.loop.background import Background
from app.metrics import catalog
from app.model.errors import Unavailable
from app.redis_links.link import CONNECT_GRACE_S, Link, ServerLink

MEASURE_EVERY_S = 1.0
DRIFT_MS = 1.0
SAMPLES = 8
"""The shortest round trip of so many tells the time best, as in NTP's clock filter (RFC 5905, section 10)."""


class ServerClock:
    """How far one server's clock is ahead of this process's."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self.ahead_ms = 0.0

    def learn(self, round_trip_s: float, ahead_ms: float) -> None:
        """Take a sample in. One that the best so far cannot explain comes from another clock: after a failover, say."""
        if self._samples and abs(ahead_ms - self.ahead_ms) > (round_trip_s + min(self._samples)[0]) * 500 + DRIFT_MS:
            self._samples.clear()
        self._samples.append((round_trip_s, ahead_ms))
        self.ahead_ms = min(self._samples)[1]


class RedisClock:
    """Follows TIME of each server. Before the first answer of one it is another's clock, or the host's."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._host_ahead_ms = time.time() * 1000 - time.monotonic() * 1000
        self._clocks: dict[ServerLink, ServerClock] = {}
        self._met: set[ServerLink] = set()
        self._background = Background()

    def now_ms(self, key: str = "") -> int:
        """Milliseconds since 1970 on the clock of the server that has the key, right to half a round trip."""
        try:
            ahead_ms = self._clocks[self._link.server_of(key)].ahead_ms
        except (Unavailable, KeyError):
            ahead_ms = self._guess(key)
        return int(time.monotonic() * 1000 + ahead_ms)

    def _guess(self, key: str) -> float:
        """How far the clock of a server is ahead that has not been asked; it is asked now."""
        with contextlib.suppress(Unavailable):
            if (server := self._link.server_of(key)) not in self._met:
                self._met.add(server)
                self._background.start(self._measure(server), "redis-clock-met")
        return next((clock.ahead_ms for clock in self._clocks.values()), self._host_ahead_ms)

    def start(self) -> None:
        """Measure now and then from here on."""
        self._background.repeat(self.measure, MEASURE_EVERY_S, "redis-clock")

    async def close(self) -> None:
        """Stop measuring."""
        await self._background.close()

    async def measure(self) -> None:
        """Ask each server once. Raises what the link to one raises, after all others have been asked."""
        servers = self._link.servers()
        self._clocks = {server: self._clocks[server] for server in servers if server in self._clocks}
        self._met &= set(servers)
        for outcome in await asyncio.gather(*map(self._measure, servers), return_exceptions=True):
            if outcome is not None:
                raise outcome

    async def _measure(self, server: ServerLink) -> None:
        await server.ready(CONNECT_GRACE_S)  # to connect is no part of the round trip
        begun = time.monotonic()
        seconds, micros = await server.call("TIME")
        ended = time.monotonic()
        catalog.REDIS_ROUND_TRIP_SECONDS.observe(ended - begun)
        ahead_ms = int(seconds) * 1000 + int(micros) / 1000 - (begun + ended) * 500
        self._clocks.setdefault(server, ServerClock()).learn(ended - begun, ahead_ms)
