"""Fan-out inside a process: who watches what, and what each of them is sent next. No I/O.

Owns: the join of replay and live. A viewer that is up to date is live: it is written every frame as it leaves. A viewer
that is behind, because it resumes or reads slowly, is fed from the shelf, or asks for a page, at its own pace, until
it is up to date. Both moves happen between two frames, so that nothing is lost and nothing comes twice.
What becomes of a viewer that reads too slowly is decided in slow_viewers.py.
Never: waits for a viewer, or keeps more for one than its connection's buffer holds.
Always: the end of a job leaves after every line that was appended before it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol

from app.metrics import catalog
from app.streams.frames import Audience, Frame, Stream

Wrap = Callable[[bytes, str], bytes]


class Sink(Protocol):
    """A viewer's connection, as a topic sees it."""

    full: bool

    @property
    def write(self) -> Callable[[bytes], None]:
        """Send bytes that were wrapped before."""

    @property
    def wrap(self) -> Wrap:
        """Put a JSON text and a position into what the transport wants; the same function for all of a kind."""

    def close(self, code: int, reason: str) -> None:
        """Send what was written, then end."""

    def send_end(self, status: str, position: str) -> None:
        """The job has ended like this, and nothing more will come: say so, then end."""


class Viewer:
    """One connection and, while it is not live, where it stands."""

    __slots__ = ("audience", "connection", "log_seq", "progress_ms", "seq")

    connection: Sink

    def __init__(self, audience: Audience) -> None:
        self.audience = audience
        self.seq = 0
        self.log_seq = 0
        self.progress_ms = 0


class PageNeed(NamedTuple):
    """A read: the frames of a sequence after a seq."""

    stream: Stream
    after: int


class LiveGroup:
    """Live viewers that are written the same bytes."""

    __slots__ = ("audience", "members", "wrap")

    def __init__(self, audience: Audience, wrap: Wrap) -> None:
        self.audience = audience
        self.wrap = wrap
        self.members: dict[Viewer, Callable[[bytes], None]] = {}


class Topic(ABC):
    """What viewers watch together: a job (job_topic.py) or a space (space_topic.py). `epoch` marks positions.

    While it is suspended, no frame leaves: the topic has to be compared with the store first.
    """

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.viewers: set[Viewer] = set()
        self.suspended = False
        self._groups: dict[tuple[Audience, Wrap], LiveGroup] = {}
        self._filled: list[Viewer] = []
        self._sending = False

    # Viewers

    def add_viewer(self, viewer: Viewer) -> PageNeed | None:
        """Feed a viewer from its position on; it is live as soon as it is up to date. Returns the page it needs."""
        self.viewers.add(viewer)
        return self.feed_viewer(viewer)

    def remove_viewer(self, viewer: Viewer) -> None:
        """The viewer has gone."""
        self.viewers.discard(viewer)
        self._make_behind(viewer)

    def is_live(self, viewer: Viewer) -> bool:
        """Whether it is written every frame as it leaves."""
        group = self._groups.get((viewer.audience, viewer.connection.wrap))
        return group is not None and viewer in group.members

    def note_full(self, viewer: Viewer) -> None:
        """Its connection takes no more: after the frame that is being written it is behind."""
        if self._sending:
            self._filled.append(viewer)
        else:
            self._make_behind(viewer)

    def feed_viewer(self, viewer: Viewer) -> PageNeed | None:
        """Write to a viewer that is behind, until it is full, or live, or needs a page."""
        while viewer in self.viewers and not (viewer.connection.full or self.suspended or self.is_live(viewer)):
            step = self._next_for(viewer)
            if isinstance(step, PageNeed):
                return step
            if step is None:
                self._make_live(viewer)
                return None
            self._write_frame(viewer, step)
        return None

    def _write_frame(self, viewer: Viewer, frame: Frame) -> None:
        """Write one frame to one viewer, which moves on."""
        self._move_viewer(viewer, frame)
        text = frame.text_for(viewer.audience)
        if text is not None:
            catalog.STREAM_FRAMES.inc()
            viewer.connection.write(viewer.connection.wrap(text, self.viewer_position(viewer)))

    def _make_live(self, viewer: Viewer) -> None:
        key = (viewer.audience, viewer.connection.wrap)
        if key not in self._groups:
            self._groups[key] = LiveGroup(*key)
        self._groups[key].members[viewer] = viewer.connection.write

    def _make_behind(self, viewer: Viewer) -> None:
        key = (viewer.audience, viewer.connection.wrap)
        group = self._groups.get(key)
        if group is not None and group.members.pop(viewer, None) is not None:
            self._note_position(viewer)
            if not group.members:
                del self._groups[key]

    # Frames

    def _broadcast(self, frame: Frame) -> None:
        """Write a frame to everybody who is live; whoever became full by it is behind from now on.

        A write that fills a connection calls `note_full` at once, inside the loop over its group. Such viewers are
        taken off after the loop: a group must not change in it, and their position then includes this frame.
        """
        self._sending = True
        for group in self._groups.values():
            text = frame.text_for(group.audience)
            if text is not None:
                data = group.wrap(text, self.live_position(group.audience))
                catalog.STREAM_FRAMES.inc(by=len(group.members))
                for write in group.members.values():
                    write(data)
        self._sending = False
        while self._filled:
            self._make_behind(self._filled.pop())

    # What a job and a space do differently

    @abstractmethod
    def live_position(self, audience: Audience) -> str:
        """Where those who are live stand, as an id to resume from."""

    @abstractmethod
    def viewer_position(self, viewer: Viewer) -> str:
        """Where one viewer stands, likewise."""

    @abstractmethod
    def release_frames(self) -> list[PageNeed]:
        """Send every frame whose turn it is; returns the pages that are missing."""

    @abstractmethod
    def _next_for(self, viewer: Viewer) -> Frame | PageNeed | None:
        """What a viewer that is behind gets next: a frame, or the page to read for it; None when it is up to date."""

    @abstractmethod
    def _move_viewer(self, viewer: Viewer, frame: Frame) -> None:
        """Move the viewer's position behind the frame."""

    @abstractmethod
    def _note_position(self, viewer: Viewer) -> None:
        """Note in the viewer, which is live no more, where it stands."""
