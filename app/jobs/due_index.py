"""Which space has something to do when: a space by its earliest due moment, so that idle spaces cost nothing.

It is a hint. Whoever works on a space drops it first, and whoever makes something due afterwards hints it again. A hint
that is lost is made good by a walk through all spaces.

Each server of a cluster has the hints of its own spaces, so that they are moments of one clock, and are there whenever
the spaces are.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from app.model.errors import Outage
from app.model.redis_keys import Keys
from app.redis_links.link import Link, Word
from app.redis_links.shards import split_by_shard


class DueIndex:
    """The hints for one kind of work. Its calls raise what the link raises."""

    def __init__(self, link: Link, keys: Keys, key_of: Callable[[str], str]) -> None:
        """`key_of` is the key of the hints on the server with a tag, `Keys.due_of` say."""
        self._link = link
        self._keys = keys
        self.key_of = key_of

    async def first(self, tag: str, most: int) -> list[tuple[str, float]]:
        """The spaces of a server that are due first, up to `most` (0: all), each with its moment in ms, past or not."""
        flat = await self._link.call("ZRANGE", self.key_of(tag), 0, most - 1, "WITHSCORES")
        return [(space.decode(), float(at_ms)) for space, at_ms in zip(flat[::2], flat[1::2], strict=True)]

    async def hint(self, moments: Iterable[tuple[str, int]]) -> None:
        """In each space something is due at that moment, if not earlier. No server waits for another."""
        shards = split_by_shard(self._link, moments, lambda moment: self._keys.space(moment[0]))
        calls = (self._hint_on(tag, some) for tag, some in shards.items())
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _hint_on(self, tag: str, moments: Iterable[tuple[str, int]]) -> None:
        words: list[Word] = [word for space, at_ms in moments for word in (at_ms, space)]
        await self._link.call("ZADD", self.key_of(tag), "LT", *words)

    def hint_soon(self, space: str, at_ms: int) -> None:
        """As `hint`, for one space, and nobody waits for it."""
        self._link.cast("ZADD", self.key_of(self._link.tag_of(self._keys.space(space))), "LT", at_ms, space)

    async def drop(self, tag: str, spaces: Sequence[str]) -> None:
        """Take the hints of these spaces away from a server's."""
        if spaces:
            await self._link.call("ZREM", self.key_of(tag), *spaces)

    async def disband(self, tag: str) -> None:
        """Give all hints of a tag under which no server is known any more to where the spaces are now.

        They are dropped first: what a process that has not heard of it hints there meanwhile stays for the next time.
        """
        found = [(space, int(at_ms)) for space, at_ms in await self.first(tag, 0)]
        await self.drop(tag, [space for space, _ in found])
        try:
            await self.hint((space, 0) for space, _ in found)
        except Outage:
            await self._hint_on(tag, found)
            raise
