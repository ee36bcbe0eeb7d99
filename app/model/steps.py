"""Long work in steps: a generator, which yields wherever it may be interrupted.

The event loop does such work a few steps at a time: app/loop/turns.py. No I/O.
"""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work in steps of a few milliseconds at most; what it returns is its result."""


def exhaust(steps: Steps[T]) -> T:
    """The result of work, done at once."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
