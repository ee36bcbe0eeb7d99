"""Which spaces a sweeper works on next: those that are due, in turns.

A space is taken out of the due index before it is worked on, and whoever makes something due afterwards puts it in
again; what a script makes due earlier than before is hinted by its caller. A hint that was lost, with the process that
should have given it, is made good by a walk through the spaces, a few at a time.
"""

from collections.abc import Collection, Sequence
from itertools import islice
from zlib import crc32

from app.jobs.due_index import DueIndex
from app.model.redis_keys import Keys
from app.model.times import MOST_MS
from app.redis_links.clock import RedisClock
from app.redis_links.link import Link, Word
from app.redis_links.scripts import Scripts
from app.settings import Settings

LOOK_SPACES = 64
"""Hints that are looked at in one trip."""

WALK_SPACES = 100
"""Spaces that are hinted in one trip of a walk."""

IDLE_WALKS = 4
"""A space in which there was nothing to do at all is looked at on one walk of these."""


class DueSpaces:
    """The hints, as one sweeper uses them.

    `owed` are spaces that were taken out and not yet hinted again, in the order of their turns: a Redis that went away
    in between loses none of them. `tidying` are spaces whose logs and ended jobs wait to be worked on in this process.
    """

    def __init__(self, link: Link, keys: Keys, clock: RedisClock, settings: Settings, tag: str = "") -> None:
        """Those of the server of a cluster with that tag."""
        self._link = link
        self._tag = tag
        self._index = DueIndex(link, keys, keys.due_of)
        self._scripts = Scripts(link)
        self._keys = keys
        self._clock = clock
        self._keep_ms = settings.retention_s * 1000
        self._idle: set[str] = set()
        self._walks = 0
        self.owed: dict[str, None] = {}
        self.tidying: dict[str, None] = {}

    async def next_turns(self, most: int, busy: Collection[str] = ()) -> tuple[list[str], float]:
        """The `most` spaces whose turn it is, of those owed and due, without busy ones; seconds until the next is due.

        Those that are due are now out of the hints, and have their turn after all that waited before them.
        """
        first = await self._index.first(self._tag, LOOK_SPACES)
        now_ms = self._now_ms()
        due = [space for space, at_ms in first if at_ms <= now_ms]
        self.owed.update(dict.fromkeys(due))
        await self._index.drop(self._tag, due)
        later_ms = [at_ms - now_ms for _, at_ms in first if at_ms > now_ms]
        spaces = list(islice((space for space in self.owed if space not in busy), most))
        return await self._not_moved(spaces), min(later_ms, default=MOST_MS) / 1000

    async def _not_moved(self, spaces: Sequence[str]) -> list[str]:
        """Without those whose slot another server has by now; they are hinted there, and owed here no more."""
        moved = [space for space in spaces if not self._is_here(space)]
        await self._index.hint((space, self._now_ms()) for space in moved)
        for space in moved:
            del self.owed[space]
        return [space for space in spaces if space in self.owed]

    async def hint_next(self, spaces: Sequence[str]) -> None:
        """Look up when something is due next in each of these spaces, and hint it; they are owed no more."""
        calls: list[tuple[list[str], list[Word]]] = [([self._keys.space(space)], [self._keep_ms]) for space in spaces]
        now = self._now_ms()
        hints: list[tuple[str, int]] = []
        for space, (urgent, patient) in zip(spaces, await self._scripts.read_many("space_due", calls), strict=True):
            if patient is not None and patient <= now:
                self.tidying[space] = None
            moments = [at for at in (urgent, None if space in self.tidying else patient) if at is not None]
            if moments:
                hints.append((space, min(moments)))
            (self._idle.add if urgent is None and patient is None else self._idle.discard)(space)
        await self._index.hint(hints)
        for space in spaces:
            self.owed.pop(space, None)

    def queue_again(self, space: str) -> None:
        """There is more to do in a space: it has another turn, after those who wait."""
        self.owed.pop(space, None)
        self.owed[space] = None

    async def put_off(self, space: str, seconds: float) -> None:
        """Look at a space in a while, whatever is due there; it is owed no more."""
        await self._index.hint([(space, self._now_ms() + int(seconds * 1000))])
        self.owed.pop(space, None)

    def walk_portions(self, known: Sequence[str], *, all_of_them: bool) -> list[list[str]]:
        """Which of all spaces to look at on a walk, in portions, at least one: of the idle ones some, or all."""
        every = [space for space in known if self._is_here(space)]
        self._idle.intersection_update(every)
        self._walks += 1
        spaces = [space for space in every if all_of_them or space not in self._idle or self._has_its_turn(space)]
        return [spaces[start : start + WALK_SPACES] for start in range(0, max(1, len(spaces)), WALK_SPACES)]

    def _is_here(self, space: str) -> bool:
        return self._link.tag_of(self._keys.space(space)) == self._tag

    def _now_ms(self) -> int:
        """The clock of the server."""
        return self._clock.now_ms(self._index.key_of(self._tag))

    def _has_its_turn(self, space: str) -> bool:
        return (crc32(space.encode()) + self._walks) % IDLE_WALKS == 0
