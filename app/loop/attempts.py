"""Work that goes on whatever happens: it waits while Redis is away, and says so once, not every time that it looks.

Owns: what the log says of an outage, when it begins and when it is over.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.model.errors import Outage

T = TypeVar("T")


class OutageNotice:
    """Says once that something is away, and once that it is back."""

    def __init__(self, log: logging.Logger, away: str, back: str) -> None:
        """`away` has a place, %s, for the reason."""
        self._log = log
        self._texts = away, back
        self._said = False

    def away(self, reason: object) -> None:
        """It is away now, as it may have been before."""
        if not self._said:
            self._log.warning(self._texts[0], reason)
        self._said = True

    def back(self) -> None:
        """It is there now, as it may have been before."""
        if self._said:
            self._log.info(self._texts[1])
        self._said = False


class Attempts:
    """Calls of one owner, after each of which it goes on."""

    def __init__(self, log: logging.Logger, *, waits: str, goes_on: str, failed: str, pause_s: float) -> None:
        """What the log says of an outage (%s: the reason), of its end, and of a bug; and the pause after either."""
        self.notice = OutageNotice(log, waits, goes_on)
        self._log = log
        self._failed = failed
        self._pause_s = pause_s

    async def make(self, call: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """What the call returns; `otherwise`, after a pause, where it met an outage or a bug."""
        try:
            result = await call()
        except Outage as outage:
            self.notice.away(outage.text)
        except Exception:
            self._log.exception(self._failed)
        else:
            self.notice.back()
            return result
        await asyncio.sleep(self._pause_s)
        return otherwise
