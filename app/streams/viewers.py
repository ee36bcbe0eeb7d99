"""Everybody who watches something in this process: which topics there are, and what time does to connections.

Owns: opening a topic when the first viewer comes and closing it a while after the last has gone; one clock for all
connections (pings, readers that stand still, keys that were revoked, topics that may have missed a hint); sending
everybody away when the process ends. slow_viewers.py has what becomes of those who read slowly, or not at all.
Never: has a task or a timer for a connection.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from app.jobs.keys_and_scopes import Identity, Keyring
from app.loop.attempts import BugNotice
from app.loop.background import Background
from app.metrics import catalog
from app.model.errors import Outage, unavailable
from app.streams.job_watch import JobWatch, Standing
from app.streams.slow_viewers import SlowViewers
from app.streams.space_watch import SpaceWatch
from app.streams.topic import Viewer
from app.streams.watch import Watch, WatchContext
from app.wire.connection import Connection, reconnect_reason

log = logging.getLogger("jobwire.live")

CLOCK_TICK_S = 0.25
PING_TICKS = 80
STORE_LOOK_TICKS = 6
"""Ticks between two pings of a connection, and between two looks at the store for hints that were lost."""

TOPIC_LINGER_S = 10.0
"""How long a topic outlives its last viewer."""

PIPELINED_MOST = 500

WAVE_S = 0.05
WAVES = 20
DRAIN_S = 10.0

ANONYMOUS_RETRY_S = 5
"""When a viewer may come back for whom there was no room."""

W = TypeVar("W", bound=Watch)


class Admission(NamedTuple):
    """Whose connection it is: who views, what, with which key (None without one), and at which tick it is pinged."""

    viewer: Viewer
    watch: Watch
    identity: Identity | None
    ping_slot: int


class Viewers:
    """The viewers of this process. The listener of their connections."""

    def __init__(self, context: WatchContext, keyring: Keyring, viewer_timeout_s: float, anonymous_most: int) -> None:
        self._context = context
        self._keyring = keyring
        self._watches: dict[tuple[str, str], Watch] = {}
        self._opening: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._pings: list[set[Connection]] = [set() for _ in range(PING_TICKS)]
        self._admissions: dict[Connection, Admission] = {}
        self._by_identity: dict[Identity, set[Connection]] = {}
        self._slow_viewers = SlowViewers(viewer_timeout_s)
        self._anonymous = 0
        self._anonymous_most = anonymous_most
        self._background = Background()
        self._leaving: asyncio.Task[None] | None = None
        self._empty = asyncio.Event()
        self.draining = False

    @property
    def viewers(self) -> int:
        """How many connections there are."""
        return len(self._admissions)

    def start(self) -> None:
        """Begin to keep time."""
        self._context.epoch.on_change(self._follow_epochs)
        self._background.start(self._tick_forever(), "viewers")

    async def close(self) -> None:
        """Watch nothing any more."""
        await self._background.close()
        for watch in self._watches.values():
            watch.close()
        for connection in tuple(self._admissions):
            connection.abort()

    # Topics

    async def watch_job(self, space: str, job: str) -> JobWatch:
        """The watch of a job, in step with the store. Raises NotFound, Unavailable."""
        return await self._settled_watch((space, job), lambda: JobWatch(self._context, self._end_watch, space, job))

    async def watch_space(self, space: str) -> SpaceWatch:
        """The watch of a space, in step with the store. Raises NotFound, Unavailable."""
        return await self._settled_watch((space, ""), lambda: SpaceWatch(self._context, self._end_watch, space))

    async def _settled_watch(self, key: tuple[str, str], make: Callable[[], W]) -> W:
        if self.draining:
            raise unavailable("This process is shutting down.")
        if key not in self._watches:
            self._watches[key] = opened = make()
            self._opening[key] = asyncio.create_task(self._open_watch(key, opened.open()))
        watch: W = self._watches[key]  # type: ignore[assignment]  # one kind of watch to each kind of key
        watch.idle_since_s = None
        if key in self._opening:
            await asyncio.shield(self._opening[key])
        await watch.wait_settled()
        return watch

    async def _open_watch(self, key: tuple[str, str], opening: Awaitable[None]) -> None:
        try:
            await opening
        except BaseException:
            self._watches.pop(key).close()
            raise
        finally:
            del self._opening[key]

    def _end_watch(self, watch: Watch) -> None:
        """What was watched has been deleted."""
        for key, known in tuple(self._watches.items()):
            if known is watch:
                del self._watches[key]
        for viewer in tuple(watch.topic.viewers):
            viewer.connection.close(1008, "It has been deleted.")
        watch.close()

    def _follow_epochs(self) -> None:
        for watch in self._watches.values():
            watch.follow_epoch()

    # Connections

    def require_room_for_anonymous(self) -> None:
        """Raises Unavailable when as many viewers without a key are here as this process takes."""
        if self._anonymous >= self._anonymous_most:
            raise unavailable(
                f"{self._anonymous_most} viewers without a key are connected, which is the limit.",
                retry_after_s=ANONYMOUS_RETRY_S,
                limit={"anonymousViewers": self._anonymous_most},
            )

    def admit_viewer(self, viewer: Viewer, connection: Connection, watch: Watch, identity: Identity | None) -> None:
        """A connection is there; its first frame has been written."""
        connection.listener = self
        slot = random.randrange(PING_TICKS)
        self._admissions[connection] = Admission(viewer, watch, identity, slot)
        self._pings[slot].add(connection)
        if identity is not None and not identity.is_root:
            self._by_identity.setdefault(identity, set()).add(connection)
        self._anonymous += identity is None
        catalog.STREAMS_OPEN.add(1, watch.kind)
        watch.add_viewer(viewer)

    def on_full(self, connection: Connection) -> None:
        viewer, watch, *_ = self._admissions[connection]
        self._slow_viewers.set_back(connection, viewer, watch)

    def on_drained(self, connection: Connection) -> None:
        viewer, watch, *_ = self._admissions[connection]
        self._slow_viewers.catch_up(connection, viewer, watch)

    def on_closing(self, connection: Connection) -> None:
        viewer, watch, *_ = self._admissions[connection]
        watch.topic.remove_viewer(viewer)
        self._slow_viewers.note_close(connection)

    def on_lost(self, connection: Connection) -> None:
        viewer, watch, identity, ping_slot = self._admissions.pop(connection)
        self._anonymous -= identity is None
        catalog.STREAMS_OPEN.add(-1, watch.kind)
        watch.topic.remove_viewer(viewer)
        self._pings[ping_slot].discard(connection)
        self._slow_viewers.forget(connection)
        if identity in self._by_identity:
            self._by_identity[identity].discard(connection)
            if not self._by_identity[identity]:
                del self._by_identity[identity]
        connection.listener = None
        if self.draining and not self._admissions:
            self._empty.set()

    # Time

    async def _tick_forever(self) -> None:
        tick = 0
        bugs = BugNotice(log, "a tick of the viewers' clock failed", "the viewers' clock ticks again")
        while True:
            await asyncio.sleep(CLOCK_TICK_S)
            tick += 1
            try:
                await self._tick(tick)
            except Outage:
                continue
            except Exception as error:
                bugs.failed(error)
            else:
                bugs.over()

    async def _tick(self, tick: int) -> None:
        now_s = asyncio.get_running_loop().time()
        for connection in tuple(self._pings[tick % PING_TICKS]):
            if not connection.closing:
                self._slow_viewers.check(connection, now_s)
                if not connection.full:
                    connection.send_ping()
        self._slow_viewers.end_stalled(now_s)
        self._close_idle(now_s)
        if tick % 2 == 0:
            await self._close_revoked()
        if tick % STORE_LOOK_TICKS == 0:
            await self._find_lost_hints()

    def _close_idle(self, now_s: float) -> None:
        for key, watch in tuple(self._watches.items()):
            if key in self._opening or watch.topic.viewers:
                continue
            if watch.idle_since_s is None:
                watch.idle_since_s = now_s
            elif now_s - watch.idle_since_s > TOPIC_LINGER_S:
                del self._watches[key]
                watch.close()

    async def _close_revoked(self) -> None:
        identities = tuple(self._by_identity)
        for some in split_in_parts(identities):
            works = await self._keyring.check_identities(some)
            for identity, still in zip(some, works, strict=True):
                if not still:
                    for connection in tuple(self._by_identity.get(identity, ())):
                        connection.close(1008, "The key was revoked, or it has expired.")

    async def _find_lost_hints(self) -> None:
        history = self._context.history
        open_watches = [watch for watch in self._watches.values() if watch.opened]
        for jobs in split_in_parts([watch for watch in open_watches if isinstance(watch, JobWatch)]):
            before = [watch.standing() for watch in jobs]
            standings = await history.read_standings([(watch.space, watch.job) for watch in jobs])
            logs = [watch for watch in jobs if watch.topic.logs is not None]
            newest = dict(zip(logs, await history.read_newest_lines([watch.job for watch in logs]), strict=True))
            for watch, then, standing in zip(jobs, before, standings, strict=True):
                if standing is None:
                    continue
                seq, at_ms = standing
                if seq < 0:
                    self._end_watch(watch)
                else:
                    watch.apply_standing(Standing(seq, at_ms, newest.get(watch, 0)), then)
        for spaces in split_in_parts([watch for watch in open_watches if isinstance(watch, SpaceWatch)]):
            heads = [watch.topic.events.head for watch in spaces]
            newest_seqs = await history.read_newest_feed_seqs([watch.space for watch in spaces])
            for space, head, newest_seq in zip(spaces, heads, newest_seqs, strict=True):
                if newest_seq is None:
                    continue
                if newest_seq < 0:
                    self._end_watch(space)
                else:
                    space.apply_newest(newest_seq, head)

    # The end

    def on_shutdown(self) -> None:
        self._leaving = self._leaving or self._background.start(self._drain(), "drain")

    async def drain(self) -> None:
        """Send everybody away, in waves, and return when what was sent has been taken, or was not for long."""
        self.on_shutdown()
        assert self._leaving is not None
        await asyncio.shield(self._leaving)

    async def _drain(self) -> None:
        self.draining = True
        connections = list(self._admissions)
        random.shuffle(connections)
        spread_ms = min(3000, 100 + len(connections) // 2)
        size = max(50, -(-len(connections) // WAVES))
        for i in range(0, len(connections), size):
            await asyncio.sleep(WAVE_S)
            for connection in connections[i : i + size]:
                if connection in self._admissions:
                    connection.close(1012, reconnect_reason(random.randint(50, 50 + spread_ms)))
        if not self._admissions:
            self._empty.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._empty.wait()


T = TypeVar("T")


def split_in_parts(items: Sequence[T]) -> list[Sequence[T]]:
    """A sequence in parts that one pipeline carries."""
    return [items[i : i + PIPELINED_MOST] for i in range(0, len(items), PIPELINED_MOST)]
