"""The end of a child of `multiprocessing`, which runs no exit handlers of the program.

Such a child leaves by `os._exit` after its own finalizers, and a worker of a Pool by SIGTERM. Whoever has something
left to send is told of either. What is used of `multiprocessing.util` (`Finalize`) is not
documented; the library's own queues are made of it, and a test runs it on every Python that is installed.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from multiprocessing import parent_process, util
from types import FrameType
from typing import Any, TypeVar

_Leaver = TypeVar("_Leaver")

_LAST = -100
"""The priority of our finalizer: after those that may still say something."""

_prepared_in: list[int] = []
"""The process that listens for its own end: a child of a fork inherits these lines, and listens anew."""

_leavers: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def at_the_childs_end(leaver: _Leaver, leave: Callable[[_Leaver], None]) -> None:
    """Call `leave(leaver)` when this process ends, if it is a child of `multiprocessing`. To be asked in the child."""
    if parent_process() is None:
        return
    if _prepared_in != [os.getpid()]:
        _prepared_in[:] = [os.getpid()]
        _leavers.clear()
        _prepare()
    _leavers[leaver] = leave


def _prepare() -> None:
    util.Finalize(None, _leave_all, exitpriority=_LAST)
    on_main_thread = threading.current_thread() is threading.main_thread()
    if on_main_thread and sys.platform != "win32" and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _leave_and_die)


def _leave_all() -> None:
    for leaver, leave in list(_leavers.items()):
        leave(leaver)


def _leave_and_die(number: int, _: FrameType | None) -> None:
    """A Pool ends its workers so, and waits for them: send what is left, then end as if nobody had listened."""
    _leave_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
