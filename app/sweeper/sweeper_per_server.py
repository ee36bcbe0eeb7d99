"""The sweeper of a process: its part on each server of a cluster.

Always: the servers have leaders of their own, spread over the sweepers that run, so that time for very many spaces is
not one process's work; and a server that is away holds up no work on the others.
"""

from functools import partial

from app.jobs.deletion_and_retention import Deletion
from app.jobs.due_index import DueIndex
from app.jobs.job_store import JobStore
from app.jobs.spaces import Spaces
from app.model.redis_keys import Keys
from app.redis_links.clock import RedisClock
from app.redis_links.election import new_candidate
from app.redis_links.link import Link
from app.redis_links.shards import run_on_each
from app.settings import Settings
from app.sweeper.due_spaces import DueSpaces
from app.sweeper.lease_notifications import LeaseNotifications
from app.sweeper.mending import Mender
from app.sweeper.sweeper import ShardSweeper, attempts_of


class Sweeper:
    """One sweeper."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        clock: RedisClock,
        settings: Settings,
        *,
        store: JobStore,
        spaces: Spaces,
        deletion: Deletion,
        notifications: LeaseNotifications,
    ) -> None:
        self._link = link
        self._keys = keys
        self._clock = clock
        self._settings = settings
        self._store = store
        self._spaces = spaces
        self._deletion = deletion
        self._notifications = notifications
        self._name = new_candidate()
        self._index = DueIndex(link, keys, keys.due_of)
        self._attempts = attempts_of("the sweeper, which hands hints on,")
        self._shards: dict[str, ShardSweeper] = {}
        self._first_tags: set[str] | None = None

    @property
    def working(self) -> bool:
        """Whether it works on any server."""
        return bool(self.works_on)

    @property
    def works_on(self) -> set[str]:
        """The tags of the servers on which it works."""
        return {tag for tag, shard in self._shards.items() if shard.working}

    async def run(self) -> None:
        """Sweep until cancelled."""
        await run_on_each(self._link, self._run_shard, self._leave)

    async def sweep(self, space: str) -> None:
        """A turn of a space, see ShardSweeper."""
        await self._shard(self._link.tag_of(self._keys.space(space))).sweep(space)

    async def _run_shard(self, tag: str) -> None:
        try:
            await self._shard(tag).run()
        finally:
            del self._shards[tag]

    async def _leave(self, tag: str) -> None:
        """Give the hints under a tag that is no server's any more to those that have its spaces."""
        await self._attempts.make(partial(self._index.disband, tag), None)

    def _shard(self, tag: str) -> ShardSweeper:
        if tag not in self._shards:
            if self._first_tags is None:
                self._first_tags = set(self._link.tags().values())
            is_new = bool(tag) and tag not in self._first_tags
            self._first_tags.discard(tag)
            self._shards[tag] = ShardSweeper(
                self._link,
                self._keys,
                DueSpaces(self._link, self._keys, self._clock, self._settings, tag),
                sweeper=self._name,
                tag=tag,
                store=self._store,
                spaces=self._spaces,
                deletion=self._deletion,
                notifications=self._notifications,
                mender=Mender(self._link, self._keys, self._clock, tag=tag, store=self._store, deletion=self._deletion),
                is_new=is_new,
            )
        return self._shards[tag]
