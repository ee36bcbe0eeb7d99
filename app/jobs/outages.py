"""Outages of ours: when nobody could act on a lease, or nobody could renew it, for no sweeper worked or Redis was away.

Owns: the mark that the sweeper at work sets again and again (lua/outage_mark.lua), and what its gaps tell. A Redis that
stalls, is killed or loses its power leaves a gap as a sweeper does; one that is started anew within a moment is known
by its run. Always: what is known here holds for AWAY_MS only, on Redis's clock. Whoever acts on a lease hands it to the
script, which looks at the time itself: the call may have stood in a queue while Redis was away.
"""

import contextlib
import time
from typing import NamedTuple

from app.model.errors import Outage
from app.model.redis_keys import Keys
from app.redis_links.link import Link, ServerLink, Word
from app.redis_links.scripts import Scripts

AWAY_MS = 1500
"""Without a mark for longer than this somebody was away: marks are set twice a second."""

FOLLOW_MS = 3000
"""So long may it take until another sweeper follows one that was killed; it is no outage."""


MOVED_S = 5.0
"""So long after slots have moved may a server have no mark of its own."""


class Downtime(NamedTuple):
    """The latest outage, ms on Redis's clock; and until when, and of which run of the server, this may be believed."""

    believed_till_ms: int
    run: str
    began_ms: int
    ended_ms: int
    ahead_ms: int = 0
    """How far the clock is ahead of that of the run before, of a cluster: leases that it granted end so much later."""

    def words(self) -> tuple[Word, ...]:
        """As lua/job_end_leases.lua takes it."""
        return tuple(self)


UNKNOWN = Downtime(0, "", 0, 0)
"""Before the first mark; it is not believed."""


class Outages:
    """What one sweeper knows of them, of one server."""

    def __init__(self, link: Link, keys: Keys, sweeper: str, tag: str = "", *, is_new: bool = False) -> None:
        """Of a cluster, of the server with that tag. It `is_new` if other servers had other tags a moment ago."""
        self._scripts = Scripts(link)
        self._key = keys.outage_of(tag)
        self._sweeper = sweeper
        self._is_shard = bool(tag)
        self._here: ServerLink | None = None
        self._servers: set[ServerLink] = set()
        self._moved_till_s = time.monotonic() + MOVED_S if is_new else float("-inf")
        self.latest = UNKNOWN

    def look(self) -> None:
        """Notice that the tag has come to lie on a server that had another one: that is no failover, and no outage."""
        if self._is_shard:
            with contextlib.suppress(Outage):
                before, self._here = self._here, self._scripts.link.server_of(self._key)
                if before is not None and self._here is not before and self._here in self._servers:
                    self._moved_till_s = time.monotonic() + MOVED_S
                self._servers = set(self._scripts.link.servers())

    async def mark(self) -> None:
        """The sweeper works, and so does Redis; learn of the latest outage. Raises what the link raises."""
        host_ms: Word = int(time.time() * 1000) if self._is_shard else ""
        has_moved = int(time.monotonic() < self._moved_till_s)
        args: list[Word] = [self._sweeper, AWAY_MS, FOLLOW_MS, host_ms, has_moved]
        now, run, *latest = await self._scripts.run("outage_mark", [self._key], args)
        self.latest = Downtime(now + AWAY_MS, run.decode(), *latest)
