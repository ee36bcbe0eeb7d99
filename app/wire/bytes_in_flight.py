"""Bytes of bodies and answers that this process holds: how many in all, and how many for each key.

Owns: the two bounds, and who may hold how much of what is free. A key holds at most its own bound, and never more than
it leaves free for all others: however many keys take what they can, there is room for one more.
Never: holds any bytes itself, or counts what a connection holds anyway (what is read at once, what a buffer takes).
Always: whoever holds says when it no longer does; with nothing in flight all counts are 0.
"""

from collections.abc import Callable

from app.metrics import catalog
from app.model.errors import Unavailable, unavailable

ROOM_RETRY_S = 2

Hold = Callable[[int], object]
"""What is told how many bytes are held for a call by now, and refuses them where there is no room."""


def hold_without_bound(size_bytes: int) -> None:
    """Room for everything."""


class BytesInFlight:
    """The counts of one process."""

    def __init__(self, most_bytes: int, key_most_bytes: int) -> None:
        self.total_bytes = 0
        self._most_bytes = most_bytes
        self._key_most_bytes = key_most_bytes
        self._of_key: dict[str, int] = {}

    def resize(self, key: str, before_bytes: int, after_bytes: int) -> None:
        """Of this key something is now as large as `after_bytes`, which was counted as `before_bytes`.

        Raises Unavailable where that is more than there is room for; then it stays counted as it was.
        """
        more = after_bytes - before_bytes
        if more > 0:
            self.require_room(key, more)
        held = self._of_key.get(key, 0) + more
        if held:
            self._of_key[key] = held
        else:
            self._of_key.pop(key, None)
        self.total_bytes += more
        catalog.INFLIGHT_BYTES.add(more)

    def require_room(self, key: str, more_bytes: int) -> None:
        """Raises Unavailable unless the key may hold so much more now."""
        held = self._of_key.get(key, 0) + more_bytes
        if held > self._key_most_bytes:
            raise _full("this key", "keyInflightBytes", self._key_most_bytes)
        if held > self._most_bytes - self.total_bytes - more_bytes:
            raise _full("all keys together", "inflightBytes", self._most_bytes)


def _full(whose: str, limit: str, most: int) -> Unavailable:
    text = f"Too many bytes of unfinished bodies and unread answers for {whose}."
    return unavailable(text, retry_after_s=ROOM_RETRY_S, limit={limit: most})
