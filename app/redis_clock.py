"""What Redis's clock shows, as far as this process can tell: hosts may disagree, leases must not."""

import asyncio
import time

from app.error import Refusal
from app.link import Link, RedisFault

MEASURE_EVERY_S = 1.0


class RedisClock:
    """Follows TIME over one link. Before the first answer it is the host's clock."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._ahead_ms = time.time() * 1000 - time.monotonic() * 1000
        self._task: asyncio.Task[None] | None = None
        self.round_trip_s = 0.0

    def now_ms(self) -> int:
        """Milliseconds since 1970 on Redis's clock, right to half a round trip."""
        return int(time.monotonic() * 1000 + self._ahead_ms)

    def start(self) -> None:
        """Measure now and then from here on."""
        self._task = asyncio.create_task(self._follow(), name="redis-clock")

    async def close(self) -> None:
        """Stop measuring."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def measure(self) -> None:
        """Ask once. Raises what the link raises."""
        begun = time.monotonic()
        seconds, micros = await self._link.call("TIME")
        ended = time.monotonic()
        self.round_trip_s = ended - begun
        self._ahead_ms = int(seconds) * 1000 + int(micros) / 1000 - (begun + ended) * 500

    async def _follow(self) -> None:
        while True:
            try:
                await self.measure()
            except (Refusal, RedisFault):
                pass
            await asyncio.sleep(MEASURE_EVERY_S)
