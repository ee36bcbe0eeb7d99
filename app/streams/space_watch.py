"""A space that somebody watches: see app/streams/watch.py."""

from collections.abc import Callable

from app.streams.frames import SpaceEvent, Stream, read_message
from app.streams.job_topic import SpaceTopic
from app.streams.sequence import Page
from app.streams.topic import Need
from app.streams.watch import SHELF_BYTES, Surroundings, Watch


class SpaceWatch(Watch):
    """One space. `open` before use."""

    topic: SpaceTopic
    kind = "space"

    def __init__(self, around: Surroundings, on_gone: Callable[[Watch], None], space: str) -> None:
        super().__init__(around, on_gone)
        self.space = space

    async def open(self) -> None:
        """Subscribe, then read where the space stands. Raises NotFound, Unavailable."""
        await self.around.relay.subscribe(self.around.keys.live(self.space), self._hear)
        epoch = self.around.epoch.name
        start = await self.around.history.space(self.space, -1)
        page = start.page
        self.topic = SpaceTopic(start.instance, epoch, page.newest, page.first_kept, start.counts)
        self.topic.take_events(page)
        self._open(epoch)

    async def place(self, since: int | None, instance_id: str | None) -> tuple[int | None, bool]:
        """Where a viewer may go on (None: from now on), and whether it missed something."""
        if since is None:
            return None, False
        topic = self.topic
        if instance_id is not None and instance_id != topic.instance_id:
            instance, _, epoch = instance_id.rpartition("-")
            if instance != topic.instance or await self._survived(Stream.FEED, since, epoch) != since:
                return None, True
        if since > topic.events.head:
            await self._page(Need(Stream.FEED, topic.events.head))
            self.pump()
        if since > topic.events.head:
            return None, True
        if since + 1 < topic.events.first_kept:
            await self._page(Need(Stream.FEED, since))
        return (None, True) if since + 1 < topic.events.first_kept else (since, False)

    def _take(self, payload: bytes) -> None:
        said = read_message(payload)
        if said.type == "progress":
            self.topic.hear_progress(SpaceEvent(said))
        else:
            self.topic.events.hear(SpaceEvent(said))

    def _subject(self) -> tuple[str, str]:
        return self.space, ""

    async def _page(self, need: Need) -> None:
        self.topic.take_events((await self.around.history.space(self.space, need.after)).page)

    async def _compare(self) -> None:
        topic, epoch = self.topic, self.around.epoch.name
        start = await self.around.history.space(self.space, topic.events.head)
        seq = min(start.page.newest, await self._survived(Stream.FEED, topic.events.head, topic.epoch))
        if epoch != self.around.epoch.name:
            await self._compare()
            return
        topic.begin(epoch, seq, start.counts)
        topic.take_events(Page([], start.page.first_kept, start.page.newest))

    def compare_with(self, seq: int, head: int) -> None:
        """What a look at the store found: its newest seq. `head` is ours before it."""
        if self.topic.suspended:
            return
        if seq < head:
            self.doubt()
            return
        self.topic.events.newest = max(self.topic.events.newest, seq)
        self.pump()

    def _forget(self) -> None:
        self.topic.events.forget()

    def _unsubscribe(self) -> None:
        self.around.relay.unsubscribe(self.around.keys.live(self.space), self._hear)

    def _advanced(self) -> None:
        self.topic.events.trim(SHELF_BYTES)
