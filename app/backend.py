"""Everything below the routes, in the order in which it is built. Nothing is decided here."""

from functools import partial

from app.jobs.auth import Keyring
from app.jobs.bulk_retry import BulkRetries
from app.jobs.deletion import Deletion
from app.jobs.list_cursors import Cursors
from app.jobs.long_polls import LongPolls
from app.jobs.service_gauges import ServiceGauges
from app.jobs.space_stats import EndsReader
from app.jobs.spaces import Spaces
from app.jobs.store import JobStore
from app.logs.log_store import LogStore
from app.loop.lag import LoopLag
from app.model.redis_keys import Keys
from app.redis_links.clock import RedisClock
from app.redis_links.dialling import connector
from app.redis_links.epoch import Epoch
from app.redis_links.link import Link
from app.redis_links.memory_headroom import Headroom
from app.redis_links.pubsub import Relay
from app.redis_links.scripts import load_commands
from app.settings import Settings
from app.streams.history import History
from app.streams.viewers import Viewers
from app.streams.watch import WatchContext
from app.sweeper.due_spaces import DueSpaces
from app.sweeper.lease_notifications import LeaseNotifications
from app.sweeper.sweeper import Sweeper


class Backend:
    """Everything below the routes, in the order in which it is built. One for each process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connector = connector(settings.redis_url, settings.redis_timeout_s)
        self.keys = Keys(settings.prefix)
        self.epoch = Epoch(self.keys)
        timeout_s, sharded = settings.redis_timeout_s, settings.sharded_pubsub
        link = partial(Link, self.connector, timeout_s=timeout_s, on_connect=self.epoch.identify, sharded=sharded)
        self.control = link(name="control", setup=load_commands(sharded=sharded))
        self.bulk = link(name="bulk")
        self.clock = RedisClock(self.control)
        self.relay = Relay(
            self.connector, self.control, probe=self.keys.probe, timeout_s=timeout_s, on_connect=self.epoch.identify
        )
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
        self.service_gauges = ServiceGauges(self.bulk, self.keys, self.clock, self.ends)
        self.lag = LoopLag()

    async def start(self) -> None:
        """Connect. A Redis that is away is waited for by calls, not by the start."""
        for part in (self.control, self.bulk, self.clock, self.relay, self.long_polls, self.viewers, self.lag):
            part.start()

    async def drain(self) -> None:
        """Send everybody away who waits or watches, and return when they have gone, or were given time enough."""
        self.long_polls.release()
        await self.viewers.drain()

    async def close(self) -> None:
        """Disconnect."""
        await self.viewers.close()
        await self.logs.close()
        for part in (self.lag, self.service_gauges, self.long_polls, self.relay, self.clock, self.bulk, self.control):
            await part.close()

    def sweeper(self) -> tuple[Sweeper, LeaseNotifications]:
        """A sweeper on this process's links, and what wakes it; the caller starts and closes the latter."""
        timeout_s = self.settings.redis_timeout_s
        notifications = LeaseNotifications(self.connector, self.control, self.keys, timeout_s=timeout_s)
        sweeper = Sweeper(
            self.control,
            self.keys,
            DueSpaces(self.control, self.keys, self.clock, self.settings),
            store=self.store,
            spaces=self.spaces,
            deletion=self.deletion,
            notifications=notifications,
        )
        return sweeper, notifications
