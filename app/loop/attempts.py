"""Work that goes on whatever happens: it waits while Redis is away, and says so once, not every time that it looks.

Owns: what the log says of an outage, and of a bug that is met again and again: when it begins and when it is over.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from app.model.errors import Outage

T = TypeVar("T")

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


class BugNotice:
    """Says a bug that work meets again and again once, with its traceback, and once that the work goes on without it.

    One of another kind, or with another text, is said too.
    """

    def __init__(self, log: Log, failed: str, over: str) -> None:
        self._log = log
        self._texts = failed, over
        self._met: tuple[type[BaseException], str] | None = None

    def failed(self, error: BaseException) -> None:
        """It failed by this now, as it may have before."""
        met = type(error), str(error)
        if met != self._met:
            self._log.error(self._texts[0], exc_info=error)
        self._met = met

    def over(self) -> None:
        """It did not fail now, as it may not have before."""
        if self._met is not None:
            self._log.info(self._texts[1])
        self._met = None


class OutageNotice:
    """Says once that something is away, and once that it is back."""

    def __init__(self, log: Log, away: str, back: str) -> None:
        """`away` has a place, %s, for the reason."""
        self._log = log
        self._texts = away, back
        self._said = False

    def away(self, reason: object) -> None:
        """It is away now, as it may have been before. A reason without a text is told by its kind."""
        if not self._said:
            text = reason.why if isinstance(reason, Outage) else str(reason)
            self._log.warning(self._texts[0], text or type(reason).__name__)
        self._said = True

    def back(self) -> None:
        """It is there now, as it may have been before."""
        if self._said:
            self._log.info(self._texts[1])
        self._said = False


class Attempts:
    """Calls of one owner, after each of which it goes on."""

    def __init__(self, log: Log, *, waits: str, goes_on: str, failed: str, pause_s: float) -> None:
        """What the log says of an outage (%s: the reason), of its end, and of a bug; and the pause after either."""
        self.notice = OutageNotice(log, waits, goes_on)
        self._log = log
        self._failed = failed
        self._bugs: dict[str, BugNotice] = {}
        self._pause_s = pause_s

    async def make(self, call: Callable[[], Awaitable[T]], otherwise: T) -> T:
        """What the call returns; `otherwise`, after a pause, where it met an outage or a bug."""
        try:
            result = await call()
        except Outage as outage:
            self.notice.away(outage)
        except Exception as error:
            work = _name_of(call)
            if work not in self._bugs:
                self._bugs[work] = BugNotice(self._log, self._failed, f"{self._failed}: no more ({work})")
            self._bugs[work].failed(error)
        else:
            self.notice.back()
            if self._bugs and (bugs := self._bugs.pop(_name_of(call), None)) is not None:
                bugs.over()
            return result
        await asyncio.sleep(self._pause_s)
        return otherwise


def _name_of(call: Callable[..., Any]) -> str:
    """What the call does, whatever its arguments are: its function's name."""
    return str((call.func if isinstance(call, partial) else call).__qualname__)
