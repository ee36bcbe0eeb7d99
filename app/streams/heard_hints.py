"""What was heard of one sequence, so that hints of two histories are told apart. No I/O.

A primary that stood still, and was replaced meanwhile, may run what had been sent to it before it learns that: Redis
passes its messages on to whoever listens at the new primary. What they tell is not in the store, and their seqs are
given out again. Each entry has one hint: two that begin alike and are not alike contradict each other.

Owns: the newest hints, and which seqs are in doubt.
Never: says which of the two is right. The store does, and it is read.
"""

from collections import OrderedDict

REMEMBERED = 256
"""Hints: more than are on their way when a primary stops."""


class HeardHints:
    """The newest hints of one sequence. `doubted` are the seqs of those that others contradict."""

    __slots__ = ("_heard", "_old", "doubted")

    def __init__(self) -> None:
        self._heard: OrderedDict[int, int] = OrderedDict()
        self._old: set[int] = set()
        self.doubted: set[int] = set()

    def contradict(self, first: int, payload: bytes) -> bool:
        """Note the hint of the entry with this seq; whether another one was heard of it before."""
        mark = hash(payload)
        if self._heard.setdefault(first, mark) == mark:
            if len(self._heard) > REMEMBERED:
                self._heard.popitem(last=False)
            return False
        self._heard[first] = mark
        self._old.discard(first)
        self.doubted.add(first)
        return True

    def drop(self, head: int) -> None:
        """The store is about to be read. Hints beyond the head were dropped."""
        for first in [first for first in self._heard if first > head]:
            del self._heard[first]
        self._old = set(self._heard)

    def agree(self, kept: int) -> None:
        """The store has this much of what had been heard by then: the rest is forgotten, and nothing is in doubt."""
        for first in self._old:
            if first > kept:
                self._heard.pop(first, None)
        self._old.clear()
        self.doubted.clear()
