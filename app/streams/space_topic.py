"""The topic of a space: its feed, and its jobs' progress, on their way to those who watch it. No I/O.

See app/streams/topic.py for what holds of every topic.
"""

from app.streams.frames import Audience, Frame, SpaceEventFrame, Stream, connected_text
from app.streams.sequence import FramePage, FrameSequence
from app.streams.topic import PageNeed, Topic, Viewer

PROGRESS_WAITS = 1000
"""Progress of a space's jobs that waits for the events before it; more is dropped, for it is a state."""


class SpaceTopic(Topic):
    """One space. `instance` is the id of its feed; `counts` (JSON) are as of its head."""

    def __init__(self, instance: str, epoch: str, seq: int, first_kept: int, counts: bytes) -> None:
        super().__init__(epoch)
        self.instance = instance
        self.counts = counts
        self.events: FrameSequence[SpaceEventFrame] = FrameSequence(seq, first_kept)
        self._progress_waits: list[SpaceEventFrame] = []

    @property
    def instance_id(self) -> str:
        """What clients know this feed by: it changes when the store may have lost something."""
        return f"{self.instance}-{self.epoch}"

    def add_progress(self, progress: SpaceEventFrame) -> None:
        """Progress of some job. It leaves after the event that it follows."""
        if progress.after <= self.events.head:
            if not self.suspended:
                self._broadcast(progress)
        elif len(self._progress_waits) < PROGRESS_WAITS:
            self._progress_waits.append(progress)

    def add_event_page(self, page: FramePage[SpaceEventFrame]) -> None:
        """A page of the feed was read."""
        self.events.add_page(page)

    def release_frames(self) -> list[PageNeed]:
        if self.suspended:
            return []
        sequence = self.events
        if sequence.has_hole and sequence.first_kept > sequence.head + 1:
            sequence.skip_to(sequence.first_kept - 1)
            self._broadcast(ConnectedFrame(self, sequence.head))
        while (event := sequence.next_frame()) is not None:
            sequence.release_frame(event)
            self.counts = event.counts or self.counts
            self._broadcast(event)
            if self._progress_waits:
                self._release_progress()
        return [PageNeed(Stream.FEED, sequence.head)] if sequence.has_hole else []

    def _release_progress(self) -> None:
        waits, self._progress_waits = self._progress_waits, []
        for progress in waits:
            self.add_progress(progress)

    def _next_for(self, viewer: Viewer) -> Frame | PageNeed | None:
        sequence = self.events
        if viewer.seq >= sequence.head:
            return None
        if viewer.seq + 1 < sequence.first_kept:
            return ConnectedFrame(self, sequence.first_kept - 1)
        return sequence.find_frame(viewer.seq + 1) or PageNeed(Stream.FEED, viewer.seq)

    def _move_viewer(self, viewer: Viewer, frame: Frame) -> None:
        viewer.seq = frame.last

    def _note_position(self, viewer: Viewer) -> None:
        viewer.seq = self.events.head

    def live_position(self, audience: Audience) -> str:
        return f"{self.instance_id}.{self.events.head}"

    def viewer_position(self, viewer: Viewer) -> str:
        return f"{self.instance_id}.{viewer.seq}"

    def begin_epoch(self, epoch: str, kept: int, counts: bytes) -> None:
        """The topic agrees with the store: the feed is what it was up to `kept`, and had `counts` when it was read.

        Whoever has seen more begins anew from there; if the epoch is another one, everybody is told.
        """
        behind = [viewer for viewer in self.viewers if not self.is_live(viewer)]
        is_new, has_lost = epoch != self.epoch, self.events.head > kept
        self.epoch = epoch
        if has_lost:
            self.counts = counts
            self.events.roll_back(kept)
            self._progress_waits.clear()
        if has_lost or is_new:
            self._broadcast(ConnectedFrame(self, self.events.head, missed=has_lost))
        for viewer in behind:
            if viewer.seq > kept:
                self._write_frame(viewer, ConnectedFrame(self, kept))
            elif is_new:
                self._write_frame(viewer, ConnectedFrame(self, viewer.seq, missed=False))


class ConnectedFrame:
    """The first frame of a space stream, and the same again when what came between was lost, or an epoch begins."""

    def __init__(self, topic: SpaceTopic, seq: int, *, missed: bool = True) -> None:
        self.first = seq + 1
        self.last = seq
        self._text = connected_text(seq, topic.instance_id, topic.counts, missed=missed)

    @property
    def size_bytes(self) -> int:
        return len(self._text)

    def text_for(self, audience: Audience) -> bytes | None:
        return self._text
