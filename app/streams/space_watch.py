"""A space that somebody watches: see app/streams/watch.py."""

from collections.abc import Callable, Sequence

from app.streams.frames import SpaceEventFrame, Stream, decode_published
from app.streams.heard_hints import HeardHints
from app.streams.sequence import FramePage
from app.streams.space_topic import SpaceTopic
from app.streams.topic import PageNeed
from app.streams.watch import SHELF_BYTES, Watch, WatchContext, is_same


class SpaceWatch(Watch):
    """One space. `open` before use."""

    topic: SpaceTopic
    kind = "space"

    def __init__(self, context: WatchContext, on_gone: Callable[[Watch], None], space: str) -> None:
        super().__init__(context, on_gone)
        self.space = space
        self._heard = HeardHints()

    async def open(self) -> None:
        """Subscribe, then read where the space stands. Raises NotFound, Unavailable."""
        await self.context.relay.subscribe(self.context.keys.live(self.space), self._on_hint)
        epoch = self.epoch
        start = await self.context.history.read_space(self.space, -1)
        page = start.page
        self.topic = SpaceTopic(start.instance, epoch, page.newest, page.first_kept, start.counts)
        self.topic.add_event_page(page)
        self._finish_open(epoch)

    async def find_resume_point(self, since: int | None, instance_id: str | None) -> tuple[int | None, bool]:
        """From which seq a viewer may continue (None: from now on), and whether it missed something."""
        if since is None:
            return None, False
        topic = self.topic
        if instance_id is not None and instance_id != topic.instance_id:
            instance, _, epoch = instance_id.rpartition("-")
            if instance != topic.instance or await self._find_survived(Stream.FEED, since, epoch) != since:
                return None, True
        if since > topic.events.head:
            await self._read_page(PageNeed(Stream.FEED, topic.events.head))
            self.release_and_read()
        if since > topic.events.head:
            return None, True
        if since + 1 < topic.events.first_kept:
            await self._read_page(PageNeed(Stream.FEED, since))
        return (None, True) if since + 1 < topic.events.first_kept else (since, False)

    def _apply_hint(self, payload: bytes) -> None:
        hint = decode_published(payload)
        if hint.type == "progress":
            self.topic.add_progress(SpaceEventFrame(hint))
        elif self._heard.contradict(hint.feed, payload):
            self.resync()
        else:
            self.topic.events.add_hint(SpaceEventFrame(hint))

    def _subject(self) -> tuple[str, str]:
        return self.space, ""

    def _key_of(self, stream: Stream) -> str:
        return self.context.keys.space(self.space)

    def _keys(self) -> Sequence[str]:
        return (self._key_of(Stream.FEED),)

    async def _read_page(self, need: PageNeed) -> None:
        self.topic.add_event_page((await self.context.history.read_space(self.space, need.after)).page)

    async def _compare_with_store(self) -> None:
        topic, epoch = self.topic, self.epoch
        start = await self.context.history.read_space(self.space, topic.events.head)
        seq = min(start.page.newest, await self._find_survived(Stream.FEED, topic.events.head, topic.epoch))
        seq = await self._beyond_doubt(self._heard, Stream.FEED, seq)
        if epoch != self.epoch:
            # Another epoch began between these reads: part of them may be of the history that it ended.
            await self._compare_with_store()
            return
        self._heard.agree(seq)
        topic.begin_epoch(epoch, seq, start.counts)
        topic.add_event_page(FramePage([], start.page.first_kept, start.page.newest))

    def apply_newest(self, seq: int, head: int) -> None:
        """Act on the newest seq in the store; `head` is where the topic stood when that read began."""
        if self.topic.suspended:
            return
        if seq < head:
            self.resync()
            return
        self.topic.events.newest = max(self.topic.events.newest, seq)
        self.release_and_read()

    async def _is_in_store(self, stream: Stream, seq: int) -> bool:
        page = (await self.context.history.read_space(self.space, seq - 1)).page
        return is_same(self.topic.events.find_frame(seq), next(iter(page.frames), None))

    def _drop_hints(self) -> None:
        self.topic.events.drop_hints()
        self._heard.drop(self.topic.events.head)

    def _unsubscribe(self) -> None:
        self.context.relay.unsubscribe(self.context.keys.live(self.space), self._on_hint)

    def _after_release(self) -> None:
        self.topic.events.trim_shelf(SHELF_BYTES)
