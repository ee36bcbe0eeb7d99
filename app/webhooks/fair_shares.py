"""Places that spaces share, so that none takes what others need. Pure.

Always: a space gets a place as long as it holds no more than are left. Alone it comes to half of them; of two that
want all, each has a third, and so on: whoever comes later finds a place, however much the others want.
"""

from collections import Counter


class FairShares:
    """Places of one kind, `most` in all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[str] = Counter()
        self.held = 0

    def has_room(self, space: str) -> bool:
        """Whether the space may have one more."""
        left = self._most - self.held
        return left > 0 and self._held[space] <= left

    def hold_place(self, space: str) -> None:
        """It has one more."""
        self._held[space] += 1
        self.held += 1

    def free_place(self, space: str) -> None:
        """It has one less."""
        self.held -= 1
        self._held[space] -= 1
        if not self._held[space]:
            del self._held[space]
