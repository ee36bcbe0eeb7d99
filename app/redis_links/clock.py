"""What Redis's clock shows, as far as this process can tell: hosts may disagree, leases must not."""

import time
from collections import deque

from app.loop.background import Background
from app.metrics import catalog
from app.redis_links.link import Link

MEASURE_EVERY_S = 1.0
DRIFT_MS = 1.0
SAMPLES = 8
"""The shortest round trip of so many tells the time best, as in NTP's clock filter (RFC 5905, section 10)."""


class RedisClock:
    """Follows TIME over one link. Before the first answer it is the host's clock."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._ahead_ms = time.time() * 1000 - time.monotonic() * 1000
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)
        self._background = Background()

    def now_ms(self) -> int:
        """Milliseconds since 1970 on Redis's clock, right to half a round trip."""
        return int(time.monotonic() * 1000 + self._ahead_ms)

    def start(self) -> None:
        """Measure now and then from here on."""
        self._background.repeat(self.measure, MEASURE_EVERY_S, "redis-clock")

    async def close(self) -> None:
        """Stop measuring."""
        await self._background.close()

    async def measure(self) -> None:
        """Ask once. Raises what the link raises."""
        if not (servers := self._link.servers()):
            return
        begun = time.monotonic()
        seconds, micros = await servers[0].call("TIME")
        ended = time.monotonic()
        catalog.REDIS_ROUND_TRIP_SECONDS.observe(ended - begun)
        self._learn(ended - begun, int(seconds) * 1000 + int(micros) / 1000 - (begun + ended) * 500)

    def _learn(self, round_trip_s: float, ahead_ms: float) -> None:
        """Take a sample in. One that the best so far cannot explain comes from another clock: after a failover, say."""
        if self._samples and abs(ahead_ms - self._ahead_ms) > (round_trip_s + min(self._samples)[0]) * 500 + DRIFT_MS:
            self._samples.clear()
        self._samples.append((round_trip_s, ahead_ms))
        self._ahead_ms = min(self._samples)[1]
