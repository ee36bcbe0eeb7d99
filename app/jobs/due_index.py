"""Which space has something to do when: a space by its earliest due moment, so that idle spaces cost nothing.

It is a hint. Whoever works on a space drops it first, and whoever makes something due afterwards hints it again. A hint
that is lost is made good by a walk through all spaces.
"""

from collections.abc import Iterable

from app.redis_links.link import Link, Word


class DueIndex:
    """The hints for one kind of work. Its calls raise what the link raises."""

    def __init__(self, link: Link, key: str) -> None:
        self._link = link
        self._key = key

    async def first(self, most: int) -> list[tuple[str, float]]:
        """The spaces that are due first, up to `most`, each with its moment in ms on Redis's clock, past or not."""
        flat = await self._link.call("ZRANGE", self._key, 0, most - 1, "WITHSCORES")
        return [(space.decode(), float(at_ms)) for space, at_ms in zip(flat[::2], flat[1::2], strict=True)]

    async def hint(self, moments: Iterable[tuple[str, int]]) -> None:
        """In each space something is due at that moment, if not earlier."""
        words: list[Word] = [word for space, at_ms in moments for word in (at_ms, space)]
        if words:
            await self._link.call("ZADD", self._key, "LT", *words)

    def hint_soon(self, space: str, at_ms: int) -> None:
        """As `hint`, for one space, and nobody waits for it."""
        self._link.cast("ZADD", self._key, "LT", at_ms, space)

    async def drop(self, *spaces: str) -> None:
        """Take the hints of these spaces away."""
        if spaces:
            await self._link.call("ZREM", self._key, *spaces)
