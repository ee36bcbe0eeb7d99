"""One gapless sequence on its way to viewers: hints come in any order, often or never; frames leave once, in order.

Owns: `head`, up to where frames have left; what was heard beyond it; a shelf of recent frames for those who come back.
Never: reads anything. It says what is missing (`has_hole`), and whoever owns it brings a page.
Always: a frame leaves only when all before it have left, or have been declared missing.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from app.streams.frames import Frame

F = TypeVar("F", bound=Frame)

AHEAD_FRAMES = 1000
"""Frames kept that came before their turn; more are read again."""


class FramePage(NamedTuple, Generic[F]):
    """What one read found: frames in order, without holes among them, and the range that the store keeps."""

    frames: Sequence[F]
    first_kept: int
    newest: int


class FrameSequence(Generic[F]):
    """One sequence. `newest` is the highest seq that a hint or a page has named."""

    def __init__(self, head: int, first_kept: int = 1) -> None:
        self.head = head
        self.newest = head
        self.first_kept = first_kept
        self.shelf_bytes = 0
        self._ahead: dict[int, F] = {}
        self._shelf: OrderedDict[int, F] = OrderedDict()

    @property
    def has_hole(self) -> bool:
        """Whether the next frame is known to exist, and is not here."""
        return self.newest > self.head and self.next_frame() is None

    def add_hint(self, frame: F) -> None:
        """Keep the frame of a hint. A twin of what has left is dropped."""
        self.newest = max(self.newest, frame.last)
        if frame.first > self.head and len(self._ahead) < AHEAD_FRAMES:
            self._ahead[frame.first] = frame

    def add_page(self, page: FramePage[F]) -> None:
        """Keep what was read, on the shelf: for its turn, and for whoever is behind."""
        self.first_kept = max(self.first_kept, page.first_kept)
        self.newest = max(self.newest, page.newest)
        for frame in page.frames:
            self._ahead.pop(frame.first, None)
            self.shelve_frame(frame)
        self._ahead = {first: frame for first, frame in self._ahead.items() if first > self.head}

    def next_frame(self) -> F | None:
        """The frame whose turn it is, if it is there; it has not left until `release_frame`."""
        return self._ahead.get(self.head + 1) or self._shelf.get(self.head + 1)

    def release_frame(self, frame: F) -> None:
        """The frame leaves now."""
        self.head = frame.last
        self._ahead.pop(frame.first, None)
        self.shelve_frame(frame)

    def skip_to(self, to: int) -> None:
        """What lies up to `to` is missing for good."""
        self.head = to
        self.newest = max(self.newest, to)
        self._ahead = {first: frame for first, frame in self._ahead.items() if first > to}

    def drop_hints(self) -> None:
        """Drop what was heard beyond the head: it may not be what the store holds any more."""
        self._ahead.clear()
        self.newest = self.head
        for first in [first for first in self._shelf if first > self.head]:
            self.shelf_bytes -= self._shelf.pop(first).size_bytes

    def roll_back(self, to: int) -> None:
        """The store has lost everything beyond `to`."""
        self._ahead.clear()
        for first in [first for first, kept in self._shelf.items() if kept.last > to]:
            self.shelf_bytes -= self._shelf.pop(first).size_bytes
        self.head = self.newest = min(self.head, to)
        self.first_kept = min(self.first_kept, self.head + 1)

    # The shelf

    def shelve_frame(self, frame: F) -> None:
        """Keep a frame for those who are behind."""
        before = self._shelf.pop(frame.first, None)
        if before is not None:
            self.shelf_bytes -= before.size_bytes
        self._shelf[frame.first] = frame
        self.shelf_bytes += frame.size_bytes

    def trim_shelf(self, most_bytes: int) -> None:
        """Keep at most that much, what came last, but always one."""
        while self.shelf_bytes > most_bytes and len(self._shelf) > 1:
            _, frame = self._shelf.popitem(last=False)
            self.shelf_bytes -= frame.size_bytes

    def find_frame(self, first: int) -> F | None:
        """The frame that begins with this seq, if it is at hand."""
        return self._shelf.get(first)

    def find_frame_of(self, seq: int) -> F | None:
        """The frame that has this seq in it, if it is at hand."""
        return next((frame for frame in self._shelf.values() if frame.first <= seq <= frame.last), None)
