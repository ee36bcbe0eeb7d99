"""Signals as events in a queue, for as long as a command is supervised.

Owns the handlers of the signals by which people and systems ask a program to stop. A signal that was ignored at the
start (`nohup`, a shell's background job) stays ignored. Outside the main thread, where Python delivers no signals, it
does nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

_STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")


@contextmanager
def routed_to(receive: Callable[[int], object], also: Sequence[int] = ()) -> Iterator[None]:
    """Call `receive(number)` for each signal (and `also`) instead of what was set before; put that back afterwards.

    `receive` runs between two steps of the main thread: it must be safe to run anywhere, as `SimpleQueue.put` is.
    """

    def handle(number: int, _frame: FrameType | None) -> None:
        receive(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in _STOPPING if hasattr(signal, name)] + [*also]
        before = {number: signal.getsignal(number) for number in numbers}
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, handle)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
