"""Long work on the event loop, in short turns: all of it takes SLICE_S of a turn, and then others go on.

Owns: whose turn it is. Work that is slow because of its size is a generator, which yields wherever it may be
interrupted; one at a time goes on for a slice, the one that has waited longest. A thread would not help: what is slow
here holds the GIL.

Never: makes work wait that is done within its first slice while nobody else has any.
"""

import asyncio
from time import perf_counter
from typing import TypeVar
from weakref import WeakKeyDictionary

from app.model.steps import Steps

SLICE_S = 0.004
"""How long the steps of one work go on after each other: what others wait once more in each turn."""

SHORT_S = 0.001
"""What is done within this is a call like any other, and nobody else's slice waits for the next turn."""

T = TypeVar("T")
_queues: "WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]" = WeakKeyDictionary()


async def in_turns(steps: Steps[T]) -> T:
    """The result of work, done a slice at a time. What it raises is raised; cancelled, it stops between two slices."""
    loop = asyncio.get_running_loop()
    queue = _queues.get(loop) or _queues.setdefault(loop, asyncio.Lock())
    while True:
        async with queue:
            begun_s = perf_counter()
            try:
                while True:
                    next(steps)
                    if perf_counter() - begun_s > SLICE_S:
                        break
            except StopIteration as done:
                result: T = done.value
                return result
            finally:
                # Inside of the lock: whoever comes next has its slice in the next turn, and not in this one.
                if perf_counter() - begun_s > SHORT_S:
                    await asyncio.sleep(0)
