"""One topic of this process, kept in step with the store: hints in, reads where they are missing, viewers fed.

Owns: the topic's subscriptions, its reads (one at a time for each page, however many wait for it), and the comparison
with the store after a broken link or a new epoch. Never: lets anything leave that may belong to a history
which the store has lost.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from msgspec import MsgspecError

from app.logs.unreadable_logs import Unreadable
from app.loop.attempts import BugNotice
from app.loop.background import Background
from app.metrics import catalog
from app.model.errors import NotFound, Outage, unavailable
from app.model.redis_keys import Keys
from app.redis_links.clock import RedisClock
from app.redis_links.epoch import Epoch
from app.redis_links.pubsub import Relay
from app.streams.frames import Audience, Frame, Stream
from app.streams.heard_hints import HeardHints
from app.streams.history import History
from app.streams.topic import PageNeed, Topic, Viewer

log = logging.getLogger("jobwire.live")

SETTLE_TIMEOUT_S = 4.0
"""How long a new viewer waits for a topic that is being compared with the store."""

LOOK_RETRY_S = 0.2
FAILURE_PAUSE_S = 2.0
"""Pauses before a look is tried again: while Redis is away, and after a failure that nobody expects."""

EARLY_HINTS = 1000
"""Hints that are kept while a topic is being opened; when there are more, the store is asked."""

SHELF_BYTES = 1024 * 1024
"""Frames that one sequence keeps at hand for those who are behind."""


T = TypeVar("T")


class WatchContext(NamedTuple):
    """What a watch works with."""

    relay: Relay
    history: History
    keys: Keys
    epoch: Epoch
    clock: RedisClock


class Watch(ABC):
    """What is common to jobs and spaces. `on_gone` is called when the subject has been deleted."""

    topic: Topic
    kind: str
    """What is watched, in one word."""

    def __init__(self, context: WatchContext, on_gone: Callable[["Watch"], None]) -> None:
        self.context = context
        self.idle_since_s: float | None = None
        self.opened = False
        self.comparisons = 0
        """How often the topic was compared with the store: positions from before may be wrong."""
        self._early_hints: list[bytes] = []
        self._on_gone = on_gone
        self._reads: dict[PageNeed, set[Viewer]] = {}
        self._background = Background()
        self._reconciling: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()

    @property
    def epoch(self) -> str:
        """The current epoch of what is watched."""
        return self.context.epoch.name_of(*self._keys())

    def _finish_open(self, epoch: str) -> None:
        """The topic was made, as the store was in this epoch: act on the hints that came meanwhile."""
        self.opened = True
        self._settled.set()
        early, self._early_hints = self._early_hints, []
        for payload in early:
            self._on_hint(payload)
        if self.epoch != epoch or len(early) == EARLY_HINTS:
            self.resync()
        self.release_and_read()

    def _on_hint(self, payload: bytes | None) -> None:
        if payload is None:
            self.resync()
        elif self.opened:
            try:
                self._apply_hint(payload)
            except (ValueError, MsgspecError):
                log.warning("a channel of events carries something that is no event")
            else:
                self.release_and_read()
        elif len(self._early_hints) < EARLY_HINTS:
            self._early_hints.append(payload)

    def close(self) -> None:
        """Watch no more."""
        self._unsubscribe()
        self._background.cancel()

    async def wait_settled(self) -> None:
        """Return when the topic is in step with the store; raises Unavailable when that takes too long."""
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                await self._settled.wait()
        except TimeoutError:
            raise unavailable("Redis cannot be reached.") from None

    async def read_in_step(self, look: Callable[[], Awaitable[T]]) -> T:
        """The result of a look at the store, during which the topic was in step with it. Raises Unavailable."""
        while True:
            await self.wait_settled()
            before = self.comparisons
            result = await look()
            if self.comparisons == before and not self.topic.suspended:
                return result

    def add_viewer(self, viewer: Viewer) -> None:
        """Feed a viewer from where it stands."""
        self.idle_since_s = None
        self._read_if_needed(self.topic.add_viewer(viewer), viewer)

    def feed_viewer(self, viewer: Viewer) -> None:
        """A viewer that is behind takes more again."""
        self._read_if_needed(self.topic.feed_viewer(viewer), viewer)

    def release_and_read(self) -> None:
        """Send what can be sent, and read what is missing."""
        for need in self.topic.release_frames():
            self._begin_read(need, None)
        self._after_release()

    # Reads

    def _read_if_needed(self, need: PageNeed | None, viewer: Viewer) -> None:
        if need is not None:
            self._begin_read(need, viewer)

    def _begin_read(self, need: PageNeed, viewer: Viewer | None) -> None:
        waiting = self._reads.get(need)
        if waiting is None:
            waiting = self._reads[need] = set()
            if viewer is None:
                catalog.HOLES_REPAIRED.inc()
            self._spawn(self._fetch(need, waiting))
        if viewer is not None:
            waiting.add(viewer)

    async def _fetch(self, need: PageNeed, waiting: set[Viewer]) -> None:
        await self._retry_until_done(lambda: self._read_page(need))
        del self._reads[need]
        for missing in self.topic.release_frames():
            self._begin_read(missing, None)
        for viewer in waiting:
            again = self.topic.feed_viewer(viewer)
            if again == need:
                self.resync()
            else:
                self._read_if_needed(again, viewer)
        self._after_release()

    async def _retry_until_done(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work, again while Redis is away. A subject that was deleted ends the watch."""
        bugs = BugNotice(log, "reading from Redis failed; it is tried again", "reading from Redis works again")
        while True:
            try:
                await work()
                return bugs.over()
            except NotFound:
                self._on_gone(self)
                raise asyncio.CancelledError from None
            except Outage:
                pass
            except Unreadable:
                await asyncio.sleep(FAILURE_PAUSE_S)  # it has been told
            except Exception as error:
                bugs.failed(error)
                await asyncio.sleep(FAILURE_PAUSE_S)
            await asyncio.sleep(LOOK_RETRY_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._background.start(work, f"watch-{self.kind}")

    # Resynchronization

    def resync(self) -> None:
        """Compare the topic with the store before anything more leaves: hints or stored entries may have been lost."""
        if not self.opened:
            return
        self.topic.suspended = True
        self._settled.clear()
        self._drop_hints()
        if self._reconciling is not None:
            self._reconciling.cancel()
        self._reconciling = self._spawn(self._reconcile())

    async def _reconcile(self) -> None:
        await self._retry_until_done(self._compare_with_store)
        self.comparisons += 1
        self.topic.suspended = False
        self._settled.set()
        self.release_and_read()
        for viewer in tuple(self.topic.viewers):
            if not self.topic.is_live(viewer):
                self.feed_viewer(viewer)

    def follow_epoch(self) -> None:
        """An epoch has begun: compare the topic with the store if it is one of what is watched."""
        if self.opened and self.topic.epoch != self.epoch:
            self.resync()

    async def _find_survived(self, stream: Stream, position: int, epoch: str) -> int:
        """How much of a position that was given out in an epoch is still what it was. Raises what the link raises."""
        moment = await self.context.epoch.lost_after(epoch, self._key_of(stream))
        if moment is None:
            return position
        return await self.context.history.find_survived(stream, *self._subject(), position, moment)

    async def _beyond_doubt(self, heard: HeardHints, stream: Stream, position: int) -> int:
        """How much of a position is what the store has, where hints contradict each other. Raises as the link does."""
        for seq in sorted(heard.doubted):
            if seq <= position and not await self._is_in_store(stream, seq):
                return seq - 1
        return position

    # What a job and a space do differently

    @abstractmethod
    async def _is_in_store(self, stream: Stream, seq: int) -> bool:
        """Whether what has left with this seq is at hand, and is what the store has. Raises what the link raises."""

    @abstractmethod
    async def open(self) -> None:
        """Subscribe, and begin the topic. Raises what the link raises."""

    @abstractmethod
    def _apply_hint(self, payload: bytes) -> None:
        """Give a hint to the topic."""

    @abstractmethod
    def _subject(self) -> tuple[str, str]:
        """The space, and the job or ""."""

    @abstractmethod
    def _key_of(self, stream: Stream) -> str:
        """A key that lies where the stream does."""

    @abstractmethod
    def _keys(self) -> Sequence[str]:
        """Those of all streams."""

    @abstractmethod
    async def _read_page(self, need: PageNeed) -> None:
        """Read a page, and give it to the topic."""

    @abstractmethod
    async def _compare_with_store(self) -> None:
        """Bring the topic in step with the store. Raises what the link raises."""

    @abstractmethod
    def _drop_hints(self) -> None:
        """Drop hints that were not acted upon."""

    @abstractmethod
    def _unsubscribe(self) -> None:
        """Hear no more."""

    @abstractmethod
    def _after_release(self) -> None:
        """Frames may have left."""


def is_same(left: Frame | None, stored: Frame | None) -> bool:
    """Whether what has left is at hand, and is what is stored."""
    if left is None or stored is None:
        return False
    return left.first == stored.first and left.text_for(Audience.LINES) == stored.text_for(Audience.LINES)
