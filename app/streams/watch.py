"""One topic of this process, kept in step with the store: hints in, reads where they are missing, viewers fed.

Owns: the topic's subscriptions, its reads (one at a time for each page, however many wait for it), and looking the
store in the face again after a broken link or a new epoch. Never: lets anything leave that may belong to a history
which the store has lost.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from msgspec import MsgspecError

from app.logs.unreadable_logs import Unreadable
from app.metrics import catalog
from app.model.errors import NotFound, Outage, unavailable
from app.model.redis_keys import Keys
from app.redis_links.clock import RedisClock
from app.redis_links.epoch import Epoch
from app.redis_links.pubsub import Relay
from app.streams.frames import Stream
from app.streams.history import History
from app.streams.topic import Need, Topic, Viewer

log = logging.getLogger("jobwire.live")

PATIENCE_S = 4.0
"""How long a new viewer waits for a topic that is being compared with the store."""

RETRY_S = 0.2
FAILED_S = 2.0
"""Pauses before a look is tried again: while Redis is away, and after a failure that nobody expects."""

EARLY_HINTS = 1000
"""Hints that are kept while a topic is being opened; when there are more, the store is asked."""

SHELF_BYTES = 1024 * 1024
"""Frames that one sequence keeps at hand for those who are behind."""


T = TypeVar("T")


class Surroundings(NamedTuple):
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

    def __init__(self, around: Surroundings, on_gone: Callable[["Watch"], None]) -> None:
        self.around = around
        self.idle_since_s: float | None = None
        self.opened = False
        self.comparisons = 0
        """How often the topic was compared with the store: positions from before may be wrong."""
        self._early: list[bytes] = []
        self._on_gone = on_gone
        self._reads: dict[Need, set[Viewer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reconciling: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()

    def _open(self, epoch: str) -> None:
        """The topic was made, as the store was in this epoch: act on what was heard meanwhile."""
        self.opened = True
        self._settled.set()
        early, self._early = self._early, []
        for payload in early:
            self._hear(payload)
        if self.around.epoch.name != epoch or len(early) == EARLY_HINTS:
            self.doubt()
        self.pump()

    def _hear(self, payload: bytes | None) -> None:
        if payload is None:
            self.doubt()
        elif self.opened:
            try:
                self._take(payload)
            except (ValueError, MsgspecError):
                log.warning("somebody publishes what is no event on a channel of events")
            else:
                self.pump()
        elif len(self._early) < EARLY_HINTS:
            self._early.append(payload)

    def close(self) -> None:
        """Watch no more."""
        self._unsubscribe()
        for task in self._tasks:
            task.cancel()

    async def settled(self) -> None:
        """Return when the topic is in step with the store; raises Unavailable when that takes too long."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._settled.wait()
        except TimeoutError:
            raise unavailable("Redis cannot be reached.") from None

    async def steadily(self, look: Callable[[], Awaitable[T]]) -> T:
        """The result of a look at the store, during which the topic was in step with it. Raises Unavailable."""
        while True:
            await self.settled()
            before = self.comparisons
            found = await look()
            if self.comparisons == before and not self.topic.suspended:
                return found

    def join(self, viewer: Viewer) -> None:
        """Feed a viewer from where it stands."""
        self.idle_since_s = None
        self._serve(self.topic.join(viewer), viewer)

    def feed(self, viewer: Viewer) -> None:
        """A viewer that is behind takes more again."""
        self._serve(self.topic.feed(viewer), viewer)

    def pump(self) -> None:
        """Let leave what can leave, and read what is missing."""
        for need in self.topic.advance():
            self._read(need, None)
        self._advanced()

    # Reads

    def _serve(self, need: Need | None, viewer: Viewer) -> None:
        if need is not None:
            self._read(need, viewer)

    def _read(self, need: Need, viewer: Viewer | None) -> None:
        waiting = self._reads.get(need)
        if waiting is None:
            waiting = self._reads[need] = set()
            if viewer is None:
                catalog.HOLES.inc()
            self._spawn(self._fetch(need, waiting))
        if viewer is not None:
            waiting.add(viewer)

    async def _fetch(self, need: Need, waiting: set[Viewer]) -> None:
        await self._insist(lambda: self._page(need))
        del self._reads[need]
        for missing in self.topic.advance():
            self._read(missing, None)
        for viewer in waiting:
            again = self.topic.feed(viewer)
            if again == need:
                self.doubt()
            else:
                self._serve(again, viewer)
        self._advanced()

    async def _insist(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work, again and again while Redis is away. What has been deleted ends the watch."""
        while True:
            try:
                return await work()
            except NotFound:
                self._on_gone(self)
                raise asyncio.CancelledError from None
            except Outage:
                pass
            except Unreadable:
                await asyncio.sleep(FAILED_S)  # it has been told
            except Exception:
                log.exception("a look at the store failed; it is tried again")
                await asyncio.sleep(FAILED_S)
            await asyncio.sleep(RETRY_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a watch failed", exc_info=error)

    # Doubt

    def doubt(self) -> None:
        """Hints may have been lost, or the store may have lost something: nothing leaves until it was looked at."""
        if not self.opened:
            return
        self.topic.suspended = True
        self._settled.clear()
        self._forget()
        if self._reconciling is not None:
            self._reconciling.cancel()
        self._reconciling = self._spawn(self._reconcile())

    async def _reconcile(self) -> None:
        await self._insist(self._compare)
        self.comparisons += 1
        self.topic.suspended = False
        self._settled.set()
        self.pump()
        for viewer in tuple(self.topic.viewers):
            if not self.topic.is_live(viewer):
                self.feed(viewer)

    async def _survived(self, stream: Stream, position: int, epoch: str) -> int:
        """How much of a position that was given out in an epoch is still what it was. Raises what the link raises."""
        moment = self.around.epoch.lost_after(epoch)
        if moment is None:
            return position
        return await self.around.history.survived(stream, *self._subject(), position, moment)

    # What a job and a space do differently

    @abstractmethod
    async def open(self) -> None:
        """Subscribe, and begin the topic. Raises what the link raises."""

    @abstractmethod
    def _take(self, payload: bytes) -> None:
        """Give a hint to the topic."""

    @abstractmethod
    def _subject(self) -> tuple[str, str]:
        """The space, and the job or ""."""

    @abstractmethod
    async def _page(self, need: Need) -> None:
        """Read a page, and give it to the topic."""

    @abstractmethod
    async def _compare(self) -> None:
        """Bring the topic in step with the store. Raises what the link raises."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop hints that were not acted upon."""

    @abstractmethod
    def _unsubscribe(self) -> None:
        """Hear no more."""

    @abstractmethod
    def _advanced(self) -> None:
        """Frames may have left."""
