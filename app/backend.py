"""Everything below the routes, in the order in which it is built. Nothing is decided here."""

from functools import partial
from typing import Any

from app.jobs.bulk_retry import BulkRetries
from app.jobs.deletion_and_retention import Deletion
from app.jobs.job_store import JobStore
from app.jobs.keys_and_scopes import Keyring
from app.jobs.list_cursors import Cursors
from app.jobs.long_polls import LongPolls
from app.jobs.service_gauges import ServiceGauges
from app.jobs.space_stats import EndsReader
from app.jobs.spaces import Spaces
from app.logs.log_store import LogStore
from app.loop.lag import LoopLag
from app.model.redis_keys import Keys
from app.redis_links.clock import RedisClock
from app.redis_links.cluster import ClusterLink
from app.redis_links.cluster_epoch import ClusterEpoch
from app.redis_links.cluster_pubsub import ClusterRelay
from app.redis_links.dialling import ByCluster, connector
from app.redis_links.epoch import Epoch, ServerEpoch
from app.redis_links.link import Link, ServerLink
from app.redis_links.memory_headroom import Headroom
from app.redis_links.pubsub import Relay, ServerRelay
from app.redis_links.scripts import load_commands
from app.redis_links.shard_health import ShardHealth
from app.redis_links.topology import Topology
from app.settings import Settings
from app.streams.history import History
from app.streams.viewers import Viewers
from app.streams.watch import WatchContext
from app.sweeper.lease_notifications import LeaseNotifications
from app.sweeper.sweeper_per_server import Sweeper


class Backend:
    """Everything below the routes, in the order in which it is built. One for each process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connector = connector(settings.redis_url, settings.redis_timeout_s)
        self.topology = Topology(self.connector) if isinstance(self.connector, ByCluster) else None
        self.keys = Keys(settings.prefix)
        marker = None if self.topology is None else self._link("epoch")
        self.epoch: Epoch = ServerEpoch(self.keys) if marker is None else ClusterEpoch(self.keys, marker)
        sharded = settings.sharded_pubsub or self.topology is not None
        link = partial(self._link, on_connect=self.epoch.identify, sharded=sharded)
        self.control = link("control", setup=load_commands(sharded=sharded))
        self.bulk = link("bulk")
        self.links = [self.control, self.bulk, *([marker] if marker else [])]
        self.clock = RedisClock(self.control)
        self.relay = self._relay()
        headroom = Headroom(self.control)
        self.store = JobStore(self.control, self.bulk, self.keys, self.clock, settings, headroom=headroom)
        self.logs = LogStore(self.control, self.bulk, self.keys, settings, headroom=headroom)
        self.cursors = Cursors(self.control, self.keys, self.epoch)
        self.deletion = Deletion(self.control, self.keys, self.clock, settings, store=self.store, logs=self.logs)
        self.spaces = Spaces(self.control, self.keys, self.clock, self.store, self.deletion.clear_space)
        self.keyring = Keyring(self.control, self.keys, self.clock, settings)
        history = History(self.bulk, self.keys, self.store, self.logs)
        context = WatchContext(self.relay, history, self.keys, self.epoch, self.clock)
        self.viewers = Viewers(context, self.keyring, settings.viewer_timeout_s, settings.anonymous_viewers)
        self.bulk_retries = BulkRetries(self.control, self.keys)
        self.long_polls = LongPolls(self.relay, self.control, self.keys)
        self.ends = EndsReader(self.bulk, self.keys, self.clock)
        self.shards = None if self.topology is None else ShardHealth(self.control, self.topology, self.relay, self.keys)
        self.service_gauges = ServiceGauges(
            self.bulk, self.keys, self.clock, self.ends, list_ids=self.spaces.list_ids, shards=self.shards
        )
        self.lag = LoopLag()

    def _link(self, name: str, **more: Any) -> Link:
        """A link to the server or to the cluster."""
        if self.topology is not None:
            return ClusterLink(self.topology, name=name, timeout_s=self.settings.redis_timeout_s, **more)
        return ServerLink(self.connector, name=name, timeout_s=self.settings.redis_timeout_s, **more)

    def _relay(self) -> Relay:
        """What hears the server's messages, or the cluster's."""
        more: Any = {"timeout_s": self.settings.redis_timeout_s, "on_connect": self.epoch.identify}
        if self.topology is not None:
            return ClusterRelay(self.topology, self.control, probe_of=self.keys.probe_of, **more)
        return ServerRelay(self.connector, self.control, probe=self.keys.probe, **more)

    async def start(self) -> None:
        """Connect. A Redis that is away is waited for by calls, not by the start."""
        if self.topology is not None:
            self.topology.start()
        for link in self.links:
            link.start()
        for part in (self.clock, self.relay, self.long_polls, self.viewers, self.lag):
            part.start()

    def why_away(self) -> list[str]:
        """Why Redis cannot be reached, as far as that is known: a sentence for each reason; none while it can be."""
        if self.topology is not None and not self.topology.primaries:
            return self.topology.problems
        away = [server for server in self.control.servers() if server.why]
        return [f"{server.place}: {server.why}" if server.place else server.why for server in away]

    async def drain(self) -> None:
        """Send everybody away who waits or watches, and return when they have gone, or were given time enough."""
        self.long_polls.release()
        await self.viewers.drain()

    async def close(self) -> None:
        """Disconnect."""
        await self.viewers.close()
        await self.logs.close()
        for part in (self.lag, self.service_gauges, self.long_polls, self.relay, self.clock):
            await part.close()
        await self.epoch.close()
        for link in reversed(self.links):
            await link.close()
        if self.topology is not None:
            await self.topology.close()

    def sweeper(self) -> tuple[Sweeper, LeaseNotifications]:
        """A sweeper on this process's links, and what wakes it; the caller starts and closes the latter."""
        notifications = LeaseNotifications(self.control, self.keys, self.topology)
        sweeper = Sweeper(
            self.control,
            self.keys,
            self.clock,
            self.settings,
            store=self.store,
            spaces=self.spaces,
            deletion=self.deletion,
            notifications=notifications,
        )
        return sweeper, notifications
