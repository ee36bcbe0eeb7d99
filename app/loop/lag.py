"""How late the event loop is: whatever keeps it from turning shows here first."""

import asyncio

from app.loop.background import Background
from app.metrics import catalog

EVERY_S = 0.25


class LoopLag:
    """Measures four times a second while it runs."""

    def __init__(self) -> None:
        self._background = Background()

    def start(self) -> None:
        """Measure from now on."""
        self._background.start(self._measure(), "loop-lag")

    async def close(self) -> None:
        """Measure no more."""
        await self._background.close()

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + EVERY_S
            await asyncio.sleep(EVERY_S)
            catalog.EVENT_LOOP_LAG_SECONDS.observe(max(0.0, loop.time() - due_s))
