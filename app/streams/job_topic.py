"""The two kinds of topics: a job, with its events, its log and its progress, and a space with its feed. No I/O.

See app/streams/topic.py for what holds of both.
"""

from typing import Any

from app.streams.frames import (
    ENDS,
    Audience,
    Frame,
    Gap,
    JobEvent,
    LogLines,
    Opening,
    Progress,
    SpaceEvent,
    Stream,
    connected_text,
)
from app.streams.sequence import Page, Track
from app.streams.topic import Need, Topic, Viewer

END = "end"
"""What stands for positions, in the id of the last event that a narrow viewer is sent."""

PROGRESS_WAITS = 1000
"""Progress of a space's jobs that waits for the events before it; more is dropped, for it is a state."""


class JobTopic(Topic):
    """One job. Its log is followed from `open_logs` on."""

    def __init__(
        self, job: str, epoch: str, status: str, *, seq: int, first_kept: int, progress: Progress | None = None
    ) -> None:
        super().__init__(epoch)
        self.job = job
        self.status = status
        self.progress = progress
        self.events: Track[JobEvent] = Track(seq, first_kept)
        self.logs: Track[LogLines] | None = None
        self.end_waits = 0
        self._end_passed = 0
        self._progress_waits: Progress | None = None
        self._last_end: JobEvent | None = None
        self._logs_ms = 0
        self._line_viewers = 0

    @property
    def log_head(self) -> int:
        """The seq of the last line that left, 0 while the log is not followed."""
        return self.logs.head if self.logs else 0

    @property
    def wants_lines(self) -> bool:
        """Whether anybody wants to see the lines themselves."""
        return self._line_viewers > 0

    def join(self, viewer: Viewer) -> Need | None:
        self._line_viewers += viewer.audience is Audience.LINES
        return super().join(viewer)

    def leave(self, viewer: Viewer) -> None:
        self._line_viewers -= viewer in self.viewers and viewer.audience is Audience.LINES
        super().leave(viewer)

    # Hints and pages

    def open_logs(self, head: int, first_kept: int) -> None:
        """Follow the log from here on."""
        self.logs = Track(head, first_kept)

    def hear_progress(self, progress: Progress) -> None:
        """Progress was reported. It leaves after the event that it follows; older than the latest, it is dropped."""
        latest = self._progress_waits or self.progress
        if (
            latest is None
            or progress.at_ms > latest.at_ms
            or (progress.at_ms == latest.at_ms and progress.data != latest.data)
        ):
            self._progress_waits = progress

    def hear_logs(self, first: int, last: int, at_ms: int, entries: bytes | None) -> None:
        """Lines were appended. Without entries, those who want to see them need a page."""
        if self.logs is None or last <= self.logs.head:
            return
        self._logs_ms = at_ms
        if entries is not None and self.wants_lines:
            self.logs.hear(LogLines(self.job, self.status, first, last, at_ms=at_ms, entries=entries))
        self.logs.newest = max(self.logs.newest, last)

    def take_events(self, page: Page[JobEvent]) -> None:
        """A page of events was read."""
        self.events.take_page(page)

    def take_lines(self, page: Page[LogLines]) -> None:
        """A page of the log was read."""
        if self.logs is not None:
            self.logs.take_page(page)

    def pass_end(self, seq: int, newest_line: int) -> None:
        """The end with this seq may leave after the line that was the newest when the log was looked at."""
        self._end_passed = max(self._end_passed, seq)
        if self.logs is not None:
            self.logs.newest = max(self.logs.newest, newest_line)

    # Leaving

    def advance(self) -> list[Need]:
        self.end_waits = 0
        if self.suspended:
            return []
        self._pass_trimmed(Stream.EVENTS, self.events)
        if self.logs is not None:
            self._pass_trimmed(Stream.LOGS, self.logs)
        self._let_lines_leave()
        while (event := self.events.next()) is not None:
            if event.ends and not self._may_end(event):
                break
            self._let_leave(event)
        self._let_progress_leave()
        needs = []
        if self.events.hole:
            needs.append(Need(Stream.EVENTS, self.events.head))
        if self.logs is not None and self.logs.hole and self.wants_lines:
            needs.append(Need(Stream.LOGS, self.logs.head))
        return needs

    def _pass_trimmed(self, stream: Stream, track: Track[Any]) -> None:
        """What the store no longer keeps will not come."""
        if track.hole and track.first_kept > track.head + 1:
            gap = Gap(self.job, stream, track.head + 1, track.first_kept - 1, reason="trimmed")
            track.skip(gap.last)
            self._send(gap)

    def _may_end(self, event: JobEvent) -> bool:
        if self.logs is None:
            return True
        if self._end_passed < event.first:
            self.end_waits = event.first
            return False
        self._let_lines_leave()
        return self.logs.head >= self.logs.newest

    def _let_lines_leave(self) -> None:
        logs = self.logs
        if logs is None:
            return
        if self.wants_lines:
            while (lines := logs.next()) is not None and lines.entries is not None:
                logs.leave(lines)
                self._send(lines)
        elif logs.newest > logs.head:
            told = LogLines(self.job, self.status, logs.head + 1, logs.newest, at_ms=self._logs_ms)
            logs.skip(logs.newest)
            self._send(told)

    def _let_leave(self, event: JobEvent) -> None:
        self.events.leave(event)
        self.status = event.status
        if event.ends:
            self._last_end = event
        self._send(event)
        if event.ends:
            for viewer in self._narrow():
                if self.is_live(viewer):
                    self.tell_end(viewer, event.kind)
        if self._progress_waits is not None and self._progress_waits.seq <= event.first:
            self._let_progress_leave()

    def _narrow(self) -> list[Viewer]:
        return [viewer for viewer in self.viewers if viewer.audience is Audience.NARROW]

    def _let_progress_leave(self) -> None:
        waits = self._progress_waits
        if waits is not None and waits.seq <= self.events.head:
            self._progress_waits = None
            waits.seq = self.events.head
            self.progress = waits
            self._send(waits)

    # Those who are behind

    def _step(self, viewer: Viewer) -> Frame | Need | None:
        if viewer.audience is Audience.NARROW:
            if self._last_end is not None and self._last_end.first > viewer.seq:
                return self._last_end
        elif (step := self._behind(viewer)) is not None:
            return step
        if self.progress is not None and self.progress.at_ms > viewer.progress_ms:
            return self.progress
        return None

    def _behind(self, viewer: Viewer) -> Frame | Need | None:
        event = None
        if viewer.seq < self.events.head:
            if viewer.seq + 1 < self.events.first_kept:
                return Gap(self.job, Stream.EVENTS, viewer.seq + 1, self.events.first_kept - 1, reason="trimmed")
            event = self.events.find(viewer.seq + 1)
            if event is None:
                return Need(Stream.EVENTS, viewer.seq)
            if not event.ends:
                return event
        if self.logs is not None and viewer.log_seq < self.logs.head:
            return self._behind_in_logs(viewer, self.logs)
        return event

    def _behind_in_logs(self, viewer: Viewer, logs: Track[LogLines]) -> Frame | Need:
        first = viewer.log_seq + 1
        if first < logs.first_kept:
            return Gap(self.job, Stream.LOGS, first, min(logs.first_kept - 1, logs.head), reason="trimmed")
        if viewer.audience is Audience.FULL:
            return LogLines(self.job, self.status, first, logs.head, at_ms=self._logs_ms)
        lines = logs.find(first)
        if lines is None or lines.entries is None or lines.last > logs.head:
            return Need(Stream.LOGS, viewer.log_seq)
        return lines

    def _give(self, viewer: Viewer, frame: Frame) -> None:
        super()._give(viewer, frame)
        if viewer.audience is Audience.NARROW and isinstance(frame, JobEvent):
            self.tell_end(viewer, frame.kind)

    def tell_end(self, viewer: Viewer, status: str) -> None:
        """A narrow viewer is told how the job ended, and leaves. Who comes back with this id has heard it."""
        self.leave(viewer)
        viewer.connection.send_end(status, f"{self.epoch}..{END}")

    def _move(self, viewer: Viewer, frame: Frame) -> None:
        if isinstance(frame, LogLines) or (isinstance(frame, Gap) and frame.stream is Stream.LOGS):
            viewer.log_seq = frame.last
        elif isinstance(frame, Progress):
            viewer.progress_ms = frame.at_ms
        elif not isinstance(frame, Opening):
            viewer.seq = frame.last

    def _note(self, viewer: Viewer) -> None:
        viewer.seq = self.events.head
        viewer.log_seq = self.log_head
        viewer.progress_ms = self.progress.at_ms if self.progress else 0

    # Positions

    def position(self, audience: Audience) -> str:
        return self._spell(audience, self.events.head, self.log_head)

    def position_of(self, viewer: Viewer) -> str:
        return self._spell(viewer.audience, viewer.seq, viewer.log_seq)

    def _spell(self, audience: Audience, seq: int, log_seq: int) -> str:
        return f"{self.epoch}.." if audience is Audience.NARROW else f"{self.epoch}.{seq}.{log_seq}"

    # A store that may have lost something

    def opening(self, seq: int, log_seq: int, at_ms: int) -> Opening:
        """The frame after which events and lines follow from these positions on."""
        latest = self._progress_waits or self.progress
        progress = latest.data if latest else b"null"
        return Opening(self.job, self.status, progress, seq=seq, log_seq=log_seq, epoch=self.epoch, at_ms=at_ms)

    def begin(self, epoch: str, at_ms: int) -> None:
        """The store was compared with: from here on positions are those of this epoch, and everybody is told."""
        if epoch == self.epoch:
            return
        self.epoch = epoch
        behind = [viewer for viewer in self.viewers if not self.is_live(viewer)]
        self._send(self.opening(self.events.head, self.log_head, at_ms))
        for viewer in behind:
            self._give(viewer, self.opening(viewer.seq, viewer.log_seq, at_ms))
        if self.status in ENDS:
            for viewer in self._narrow():
                self.tell_end(viewer, self.status)

    def roll_back(self, stream: Stream, to: int) -> None:
        """The store has lost what came after `to`: whoever has seen it is told, and goes on from there.

        The ids of these gaps are still of the epoch before: who breaks off between them is told the rest later.
        """
        track = self.events if stream is Stream.EVENTS else self.logs
        if track is None or track.head <= to:
            return
        lost = track.head
        behind = [viewer for viewer in self.viewers if not self.is_live(viewer)]
        track.roll_back(to)
        self._end_passed = min(self._end_passed, self.events.head)
        if stream is Stream.EVENTS:
            self._last_end = None
        self._send(Gap(self.job, stream, to + 1, lost, reason="rolled_back"))
        for viewer in behind:
            self._set_back(viewer, stream, to)

    def _set_back(self, viewer: Viewer, stream: Stream, to: int) -> None:
        """One viewer that was behind. A gap is small: it is written to a full connection, too."""
        stands = viewer.seq if stream is Stream.EVENTS else viewer.log_seq
        if stands > to:
            gap = Gap(self.job, stream, to + 1, stands, reason="rolled_back")
            gap.last = to
            self._give(viewer, gap)


class SpaceTopic(Topic):
    """One space. `instance` is the id of its feed; `counts` (JSON) are as of its head."""

    def __init__(self, instance: str, epoch: str, seq: int, first_kept: int, counts: bytes) -> None:
        super().__init__(epoch)
        self.instance = instance
        self.counts = counts
        self.events: Track[SpaceEvent] = Track(seq, first_kept)
        self._progress_waits: list[SpaceEvent] = []

    @property
    def instance_id(self) -> str:
        """What clients know this feed by: it changes when the store may have lost something."""
        return f"{self.instance}-{self.epoch}"

    def hear_progress(self, progress: SpaceEvent) -> None:
        """Progress of some job. It leaves after the event that it follows."""
        if progress.after <= self.events.head:
            if not self.suspended:
                self._send(progress)
        elif len(self._progress_waits) < PROGRESS_WAITS:
            self._progress_waits.append(progress)

    def take_events(self, page: Page[SpaceEvent]) -> None:
        """A page of the feed was read."""
        self.events.take_page(page)

    def advance(self) -> list[Need]:
        if self.suspended:
            return []
        track = self.events
        if track.hole and track.first_kept > track.head + 1:
            track.skip(track.first_kept - 1)
            self._send(ConnectedFrame(self, track.head))
        while (event := track.next()) is not None:
            track.leave(event)
            self.counts = event.counts or self.counts
            self._send(event)
            if self._progress_waits:
                self._let_progress_leave()
        return [Need(Stream.FEED, track.head)] if track.hole else []

    def _let_progress_leave(self) -> None:
        waits, self._progress_waits = self._progress_waits, []
        for progress in waits:
            self.hear_progress(progress)

    def _step(self, viewer: Viewer) -> Frame | Need | None:
        track = self.events
        if viewer.seq >= track.head:
            return None
        if viewer.seq + 1 < track.first_kept:
            return ConnectedFrame(self, track.first_kept - 1)
        return track.find(viewer.seq + 1) or Need(Stream.FEED, viewer.seq)

    def _move(self, viewer: Viewer, frame: Frame) -> None:
        viewer.seq = frame.last

    def _note(self, viewer: Viewer) -> None:
        viewer.seq = self.events.head

    def position(self, audience: Audience) -> str:
        return f"{self.instance_id}.{self.events.head}"

    def position_of(self, viewer: Viewer) -> str:
        return f"{self.instance_id}.{viewer.seq}"

    def begin(self, epoch: str, kept: int, counts: bytes) -> None:
        """The store was compared with: its feed is what it was up to `kept`, and had `counts` when it was read.

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
            self._send(ConnectedFrame(self, self.events.head, missed=has_lost))
        for viewer in behind:
            if viewer.seq > kept:
                self._give(viewer, ConnectedFrame(self, kept))
            elif is_new:
                self._give(viewer, ConnectedFrame(self, viewer.seq, missed=False))


class ConnectedFrame:
    """The first frame of a space stream, and the same again when what came between was lost, or an epoch begins."""

    def __init__(self, topic: SpaceTopic, seq: int, *, missed: bool = True) -> None:
        self.first = seq + 1
        self.last = seq
        self._text = connected_text(seq, topic.instance_id, topic.counts, missed=missed)

    @property
    def size_bytes(self) -> int:
        return len(self._text)

    def text(self, audience: Audience) -> bytes | None:
        return self._text
