"""Viewers, each of which rebuilds from its frames alone what it was told, and says how to go on from there.

It shares no code with the server. A viewer stops at the first frame that cannot be: lost, doubled, reordered, or a gap
that does not begin or end where it stands. What connects them is tests/live/crowd.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

Frame = dict[str, Any]


class Wrong(AssertionError):
    """A viewer was told something that cannot be."""


class Run(NamedTuple):
    """Entries `first` to `last` of a sequence, as the frame that brought them has them."""

    first: int
    last: int
    frame: Frame

    def entry(self, seq: int) -> Frame:
        """The event or the line with this seq."""
        if self.frame["type"] != "logs":
            return self.frame
        found: Frame = self.frame["data"]["entries"][seq - self.first]
        return found


class Copy:
    """What one viewer holds of one sequence, without holes but those that were declared."""

    def __init__(self) -> None:
        self.position = 0
        self.runs: list[Run] = []
        self.gaps: list[tuple[int, int, str]] = []
        self.lost: list[tuple[int, Frame]] = []
        """The first entry that was taken back by each rollback, with its seq."""

    def take(self, first: int, last: int, frame: Frame) -> None:
        """The next entries; Wrong if they are others."""
        if first != self.position + 1 or last < first:
            raise Wrong(f"{first} to {last} came after {self.position}")
        self.position = last
        self.runs.append(Run(first, last, frame))

    def lose(self, first: int, last: int, reason: str) -> None:
        """A gap: trimmed ones lie ahead, rolled back ones behind, up to where the viewer stands."""
        self.gaps.append((first, last, reason))
        if reason == "trimmed":
            if first != self.position + 1 or last < first:
                raise Wrong(f"a gap from {first} to {last} came after {self.position}")
            self.position = last
        elif last != self.position or last < first:
            raise Wrong(f"rolled back from {first} to {last}, standing at {self.position}")
        else:
            self.cut(first - 1)

    def cut(self, to: int) -> None:
        """Drop what came after a seq, and note the first of it."""
        while self.runs and self.runs[-1].last > to:
            run = self.runs.pop()
            if run.first <= to + 1:
                self.lost.append((to + 1, run.entry(to + 1)))
            if run.first <= to:
                self.runs.append(run._replace(last=to))
        self.position = to


class Follower(ABC):
    """One viewer. `urls` says where the service is to be found; `by_events` watches by server-sent events."""

    def __init__(self, urls: Callable[[], str], key: str | None, *, by_events: bool = False) -> None:
        self.urls = urls
        self.key = key
        self.by_events = by_events
        self.wrong: BaseException | None = None
        self.connections = 0
        self.recent: deque[tuple[str, str]] = deque(maxlen=12)
        """The last frames, and what was asked for before them: the story of what is wrong."""
        self.has_ended = False

    @abstractmethod
    def path(self) -> str:
        """What to ask for now."""

    @abstractmethod
    def take(self, frame: Frame) -> None:
        """One frame. Raises Wrong."""

    @abstractmethod
    def event_id(self) -> str:
        """What the id of the event must be that brought it here; "" if it must have none."""


class JobFollower(Follower):
    """A viewer of a job, its log included."""

    def __init__(self, urls: Callable[[], str], job: str, key: str, *, by_events: bool = False) -> None:
        super().__init__(urls, key, by_events=by_events)
        self.job = job
        self.events = Copy()
        self.lines = Copy()
        self.epoch = ""
        self.progress: Any = None
        self.lines_at_end: int | None = None
        """How many lines had come when the job ended."""
        self._begins = ("", 0, 0)

    def path(self) -> str:
        query = f"logs=true&after={self.events.position}&logsAfter={self.lines.position}"
        if self.epoch:
            query += f"&epoch={self.epoch}"
        return f"/realtime/{self.job}?{query}"

    def event_id(self) -> str:
        has_begun = self.epoch == self._begins[0]
        return f"{self.epoch}.{self.events.position}.{self.lines.position}" if self.epoch and has_begun else ""

    def take(self, frame: Frame) -> None:
        kind = frame["type"]
        if kind == "init":
            self._begins = frame["epoch"], frame["seq"], frame["logSeq"]
            self.progress = frame["data"]
            self._adopt()
        elif kind == "gap":
            copy = self.events if frame["stream"] == "events" else self.lines
            copy.lose(frame["from"], frame["to"], frame["reason"])
            if self.epoch != self._begins[0]:
                self._adopt()
        elif self.epoch != self._begins[0]:
            raise Wrong(f"no gap came between {self._begins} and {frame}")
        elif kind == "logs":
            self.lines.take(frame["data"]["fromSeq"], frame["data"]["toSeq"], frame)
        elif kind == "progress":
            if frame["seq"] > self.events.position:
                raise Wrong(f"progress of {frame['seq']} came after {self.events.position}")
            self.progress = frame["data"]
        else:
            self.events.take(frame["seq"], frame["seq"], frame)
            self.lines_at_end = self.lines.position if kind == "completed" else None

    def _adopt(self) -> None:
        """An epoch goes with the positions that it begins with: where ours are beyond them, the gaps come first."""
        epoch, seq, log_seq = self._begins
        if seq > self.events.position or log_seq > self.lines.position:
            raise Wrong(f"begins at {seq} and {log_seq}, beyond {self.events.position} and {self.lines.position}")
        if (seq, log_seq) == (self.events.position, self.lines.position):
            self.epoch = epoch


class SpaceFollower(Follower):
    """A viewer of a space."""

    def __init__(self, urls: Callable[[], str], space: str, key: str, *, by_events: bool = False) -> None:
        super().__init__(urls, key, by_events=by_events)
        self.space = space
        self.feed = Copy()
        self.instance = ""
        self.counts: Any = None

    def path(self) -> str:
        query = f"?since={self.feed.position}&streamInstanceId={self.instance}" if self.instance else "?since=0"
        return f"/realtime/spaces/{self.space}{query}"

    def event_id(self) -> str:
        return f"{self.instance}.{self.feed.position}" if self.instance else ""

    def take(self, frame: Frame) -> None:
        if frame["type"] == "connected":
            self._begin(frame)
        elif frame["type"] == "progress":
            if frame["seq"] > self.feed.position:
                raise Wrong(f"progress of {frame['seq']} came after {self.feed.position}")
        else:
            self.feed.take(frame["seq"], frame["seq"], frame)
            self.counts = frame.get("counts") or self.counts

    def _begin(self, frame: Frame) -> None:
        seq, stood = frame["seq"], self.feed.position
        if frame["missed"]:
            self.feed.gaps.append((seq + 1, stood, "missed"))
            self.feed.runs.clear()
            self.feed.position = seq
        elif seq != stood:
            raise Wrong(f"begins at {seq}, not at {stood}, and nothing was missed")
        self.instance, self.counts = frame["streamInstanceId"], frame["counts"]


class ProgressFollower(Follower):
    """A viewer without a key: progress, the end, and nothing else."""

    def __init__(self, urls: Callable[[], str], job: str, *, by_events: bool = False) -> None:
        super().__init__(urls, None, by_events=by_events)
        self.job = job
        self.epoch = ""
        self.progress: Any = None

    def path(self) -> str:
        return f"/realtime/{self.job}"

    def event_id(self) -> str:
        return f"{self.epoch}.." if self.epoch else ""

    def take(self, frame: Frame) -> None:
        kind = frame["type"]
        if kind not in ("init", "progress", "completed") or frame["seq"] is not None or frame.get("logSeq") is not None:
            raise Wrong(f"nobody without a key may see {frame}")
        if kind == "completed" and "data" in frame:
            raise Wrong(f"nobody without a key may see the result: {frame}")
        self.epoch = frame.get("epoch", self.epoch)
        self.progress = frame.get("data", self.progress)
