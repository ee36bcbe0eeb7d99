"""The topic of a job: its events, its log and its progress, on their way to those who watch it. No I/O.

Owns: when a gap is told (app/streams/gap_frames.py has what it says), and that the end comes last.
See app/streams/topic.py for what holds of every topic.
"""

import math
from typing import Any

from app.streams.frames import (
    END_TYPES,
    Audience,
    Frame,
    InitFrame,
    JobEventFrame,
    LogLinesFrame,
    ProgressFrame,
    Stream,
)
from app.streams.gap_frames import GapFrame, rolled_back_gap, trimmed_gap
from app.streams.sequence import FramePage, FrameSequence
from app.streams.topic import PageNeed, Topic, Viewer

END = "end"
"""What stands for positions, in the id of the last event that a narrow viewer is sent."""


class JobTopic(Topic):
    """One job. Its log is followed from `open_logs` on."""

    def __init__(
        self, job: str, epoch: str, status: str, *, seq: int, first_kept: int, progress: ProgressFrame | None = None
    ) -> None:
        super().__init__(epoch)
        self.job = job
        self.status = status
        self.progress = progress
        self.events: FrameSequence[JobEventFrame] = FrameSequence(seq, first_kept)
        self.logs: FrameSequence[LogLinesFrame] | None = None
        self.end_waits = 0
        self._end_allowed = 0
        self._progress_waits: ProgressFrame | None = None
        self._clock_ms = math.inf
        self._last_end: JobEventFrame | None = None
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

    def add_viewer(self, viewer: Viewer) -> PageNeed | None:
        self._line_viewers += viewer.audience is Audience.LINES
        return super().add_viewer(viewer)

    def remove_viewer(self, viewer: Viewer) -> None:
        self._line_viewers -= viewer in self.viewers and viewer.audience is Audience.LINES
        super().remove_viewer(viewer)

    # Hints and pages

    def open_logs(self, head: int, first_kept: int, at_ms: int) -> None:
        """Follow the log from here on. It had come so far at this time, or before."""
        self.logs = FrameSequence(head, first_kept)
        self._logs_ms = at_ms

    def add_progress(self, progress: ProgressFrame) -> None:
        """Progress was reported. It leaves after the event that it follows; if older than the latest, it is dropped."""
        latest = self._progress_waits or self.progress
        if latest is not None:
            is_twin = progress.at_ms == latest.at_ms and progress.data == latest.data
            if is_twin or progress.at_ms < min(latest.at_ms, self._clock_ms):
                return
        self._progress_waits = progress
        self._clock_ms = math.inf

    def set_clock(self, now_ms: int) -> None:
        """The job may have another primary now, with this time: the latest progress is older than what comes next."""
        self._clock_ms = now_ms

    def add_log_hint(self, first: int, last: int, at_ms: int, entries: bytes | None) -> None:
        """Lines were appended, at this time or before. Without entries, those who want to see them need a page."""
        if self.logs is None or last <= self.logs.head:
            return
        self._logs_ms = at_ms
        if entries is not None and self.wants_lines:
            self.logs.add_hint(LogLinesFrame(self.job, self.status, first, last, at_ms=at_ms, entries=entries))
        self.logs.newest = max(self.logs.newest, last)

    def add_event_page(self, page: FramePage[JobEventFrame]) -> None:
        """A page of events was read."""
        self.events.add_page(page)

    def add_line_page(self, page: FramePage[LogLinesFrame]) -> None:
        """A page of the log was read."""
        if self.logs is not None:
            self.logs.add_page(page)

    def allow_end(self, seq: int, newest_line: int, at_ms: int) -> None:
        """Let the end with this seq leave after `newest_line`: the log was read when the end was already written."""
        self._end_allowed = max(self._end_allowed, seq)
        self.add_log_hint(self.log_head + 1, newest_line, at_ms, None)

    # Leaving

    def release_frames(self) -> list[PageNeed]:
        self.end_waits = 0
        if self.suspended:
            return []
        self._skip_trimmed(Stream.EVENTS, self.events)
        if self.logs is not None:
            self._skip_trimmed(Stream.LOGS, self.logs)
        self._release_lines()
        while (event := self.events.next_frame()) is not None:
            if event.ends and not self._end_is_due(event):
                break
            self._release_event(event)
        self._release_progress()
        needs = []
        if self.events.has_hole:
            needs.append(PageNeed(Stream.EVENTS, self.events.head))
        if self.logs is not None and self.logs.has_hole and self.wants_lines:
            needs.append(PageNeed(Stream.LOGS, self.logs.head))
        return needs

    def _skip_trimmed(self, stream: Stream, sequence: FrameSequence[Any]) -> None:
        """Pass over what the store no longer keeps: it will not come."""
        if sequence.has_hole and sequence.first_kept > sequence.head + 1:
            gap = trimmed_gap(self.job, stream, sequence.head + 1, sequence.first_kept - 1)
            sequence.skip_to(gap.last)
            self._broadcast(gap)

    def _end_is_due(self, event: JobEventFrame) -> bool:
        """Whether every line that was appended before this end has left; asks for a look at the log if need be."""
        if self.logs is None:
            return True
        if self._end_allowed < event.first:
            self.end_waits = event.first
            return False
        self._release_lines()
        return self.logs.head >= self.logs.newest

    def _release_lines(self) -> None:
        logs = self.logs
        if logs is None:
            return
        if self.wants_lines:
            while (lines := logs.next_frame()) is not None and lines.entries is not None:
                logs.release_frame(lines)
                self._broadcast(lines)
        elif logs.newest > logs.head:
            notice = LogLinesFrame(self.job, self.status, logs.head + 1, logs.newest, at_ms=self._logs_ms)
            logs.skip_to(logs.newest)
            self._broadcast(notice)

    def _release_event(self, event: JobEventFrame) -> None:
        self.events.release_frame(event)
        self.status = event.status
        if event.ends:
            self._last_end = event
        self._broadcast(event)
        if event.ends:
            for viewer in self._narrow_viewers():
                if self.is_live(viewer):
                    self.end_narrow_viewer(viewer, event.kind)
        if self._progress_waits is not None and self._progress_waits.seq <= event.first:
            self._release_progress()

    def _narrow_viewers(self) -> list[Viewer]:
        return [viewer for viewer in self.viewers if viewer.audience is Audience.NARROW]

    def _release_progress(self) -> None:
        waits = self._progress_waits
        if waits is not None and waits.seq <= self.events.head:
            self._progress_waits = None
            waits.seq = self.events.head
            self.progress = waits
            self._broadcast(waits)

    # Those who are behind

    def _next_for(self, viewer: Viewer) -> Frame | PageNeed | None:
        if viewer.audience is Audience.NARROW:
            if self._last_end is not None and self._last_end.first > viewer.seq:
                return self._last_end
        elif (step := self._next_for_behind(viewer)) is not None:
            return step
        if self.progress is not None and self.progress.at_ms != viewer.progress_ms:
            return self.progress
        return None

    def _next_for_behind(self, viewer: Viewer) -> Frame | PageNeed | None:
        event = None
        if viewer.seq < self.events.head:
            if viewer.seq + 1 < self.events.first_kept:
                return trimmed_gap(self.job, Stream.EVENTS, viewer.seq + 1, self.events.first_kept - 1)
            event = self.events.find_frame(viewer.seq + 1)
            if event is None:
                return PageNeed(Stream.EVENTS, viewer.seq)
            if not event.ends:
                return event
        if self.logs is not None and viewer.log_seq < self.logs.head:
            return self._next_lines_for_behind(viewer, self.logs)
        return event

    def _next_lines_for_behind(self, viewer: Viewer, logs: FrameSequence[LogLinesFrame]) -> Frame | PageNeed:
        first = viewer.log_seq + 1
        if first < logs.first_kept:
            return trimmed_gap(self.job, Stream.LOGS, first, min(logs.first_kept - 1, logs.head))
        if viewer.audience is Audience.FULL:
            return LogLinesFrame(self.job, self.status, first, logs.head, at_ms=self._logs_ms)
        lines = logs.find_frame(first)
        if lines is None or lines.entries is None or lines.last > logs.head:
            return PageNeed(Stream.LOGS, viewer.log_seq)
        return lines

    def _write_frame(self, viewer: Viewer, frame: Frame) -> None:
        super()._write_frame(viewer, frame)
        if viewer.audience is Audience.NARROW and isinstance(frame, JobEventFrame):
            self.end_narrow_viewer(viewer, frame.kind)

    def end_narrow_viewer(self, viewer: Viewer, status: str) -> None:
        """Tell a narrow viewer how the job ended, and let it go. Its last id says that it knows the end."""
        self.remove_viewer(viewer)
        viewer.connection.send_end(status, f"{self.epoch}..{END}")

    def _move_viewer(self, viewer: Viewer, frame: Frame) -> None:
        if isinstance(frame, LogLinesFrame) or (isinstance(frame, GapFrame) and frame.stream is Stream.LOGS):
            viewer.log_seq = frame.last
        elif isinstance(frame, ProgressFrame):
            viewer.progress_ms = frame.at_ms
        elif not isinstance(frame, InitFrame):
            viewer.seq = frame.last

    def _note_position(self, viewer: Viewer) -> None:
        viewer.seq = self.events.head
        viewer.log_seq = self.log_head
        viewer.progress_ms = self.progress.at_ms if self.progress else 0

    # Positions

    def live_position(self, audience: Audience) -> str:
        return self._format_position(audience, self.events.head, self.log_head)

    def viewer_position(self, viewer: Viewer) -> str:
        return self._format_position(viewer.audience, viewer.seq, viewer.log_seq)

    def _format_position(self, audience: Audience, seq: int, log_seq: int) -> str:
        return f"{self.epoch}.." if audience is Audience.NARROW else f"{self.epoch}.{seq}.{log_seq}"

    # After a comparison with the store

    def init_frame(self, seq: int, log_seq: int, at_ms: int) -> InitFrame:
        """The frame after which events and lines follow from these positions on."""
        latest = self._progress_waits or self.progress
        progress = latest.data if latest else b"null"
        return InitFrame(self.job, self.status, progress, seq=seq, log_seq=log_seq, epoch=self.epoch, at_ms=at_ms)

    def begin_epoch(self, epoch: str, at_ms: int) -> None:
        """The topic agrees with the store: from here on positions are of this epoch, and every viewer is told."""
        if epoch == self.epoch:
            return
        self.epoch = epoch
        behind = [viewer for viewer in self.viewers if not self.is_live(viewer)]
        self._broadcast(self.init_frame(self.events.head, self.log_head, at_ms))
        for viewer in behind:
            self._write_frame(viewer, self.init_frame(viewer.seq, viewer.log_seq, at_ms))
        if self.status in END_TYPES:
            for viewer in self._narrow_viewers():
                self.end_narrow_viewer(viewer, self.status)

    def roll_back(self, stream: Stream, to: int) -> None:
        """The store has lost what came after `to`: whoever has seen it is told, and goes on from there.

        The ids of these gaps are still of the epoch before: who breaks off between them is told the rest later.
        """
        sequence = self.events if stream is Stream.EVENTS else self.logs
        if sequence is None or sequence.head <= to:
            return
        lost = sequence.head
        behind = [viewer for viewer in self.viewers if not self.is_live(viewer)]
        sequence.roll_back(to)
        self._end_allowed = min(self._end_allowed, self.events.head)
        if stream is Stream.EVENTS:
            self._last_end = None
        self._broadcast(rolled_back_gap(self.job, stream, to, lost))
        for viewer in behind:
            self._set_back(viewer, stream, to)

    def _set_back(self, viewer: Viewer, stream: Stream, to: int) -> None:
        """One viewer that was behind. A gap is small: it is written to a full connection, too."""
        stands = viewer.seq if stream is Stream.EVENTS else viewer.log_seq
        if stands > to:
            self._write_frame(viewer, rolled_back_gap(self.job, stream, to, stands))
