"""Scanning a log for a page: which lines are asked for, and how far one looks for them. No I/O.

Owns: what a cursor says, and the bounds of one page. Always: a page that found little has still examined a range, and
the next one goes on behind it. Never: reads. LogStore.page does, by lua/log_read.lua.
"""

from typing import Literal, NamedTuple

from app.logs.lines import Row, Run, encode_array
from app.logs.search import LineFilter
from app.model.limits import MIB, PAGE_BYTES
from app.model.steps import Steps

Mode = Literal["after", "before", "tail"]

SCAN_LINES = 100_000
SCAN_BYTES = 32 * MIB
"""Lines and stored bytes that one page looks at when it filters; its cursor goes on from there."""


class PageQuery(NamedTuple):
    """What a page is asked for: up to `limit` lines after or before the seq `position`, or the newest (tail, 0)."""

    mode: Mode
    position: int
    limit: int
    wanted: LineFilter


class PageCursor(NamedTuple):
    """Which range a page examined, and whether there is more in its direction."""

    mode: Mode
    oldest: int | None
    newest: int | None
    more: bool
    first_kept: int | None


class LinePage(NamedTuple):
    """Lines in ascending order."""

    rows: list[Row]
    cursor: PageCursor


class LogReading(NamedTuple):
    """What one call read: runs of lines in the order of travel, and the range that is kept; all 0 without a log."""

    first_kept: int
    newest: int
    runs: list[Run]

    def end(self, way: str) -> int:
        """The position from which reading goes on that way; 0 when there is nothing more."""
        if not self.runs:
            return 0
        last = self.runs[-1]
        if way == "after":
            return last.last if last.last < self.newest else 0
        return last.first if last.first > self.first_kept else 0


class PageScan:
    """A page in the making: fed with readings until it is full, or has looked at enough."""

    def __init__(self, job: str, query: PageQuery) -> None:
        self.rows: list[Row] = []
        self.way: Literal["after", "before"] = "after" if query.mode == "after" else "before"
        self.position = query.position
        self.full = False
        self._job = job
        self._query = query
        self.wanted = query.wanted
        self._examined: list[int] = []
        self._lines = 0
        self._bytes = 0
        self.answered_bytes = 0
        """Of the lines that were found, as JSON."""

        self._kept = (0, 0)

    @property
    def missing(self) -> int:
        """How many more lines the page may have."""
        return self._query.limit - len(self.rows)

    @property
    def examined(self) -> bool:
        """Whether it has looked at anything."""
        return bool(self._examined)

    def examine_steps(self, reading: LogReading) -> Steps[None]:
        """Examine what was read, in the order of travel."""
        first, last = self._kept = (reading.first_kept, reading.newest)
        for run in reading.runs:
            yield from self._examine_run_steps(run)
            if self.full:
                return
        if not reading.runs or (self.position >= last if self.way == "after" else self.position <= first):
            self.full = True

    def finish(self) -> LinePage:
        """What was found, ascending, and the cursor that goes on from there."""
        (first, last), mode, asked = self._kept, self._query.mode, self._query.position
        oldest, newest = (min(self._examined), max(self._examined)) if self._examined else (None, None)
        if self.way == "after":
            newest = asked if newest is None else newest
            more = bool(self._examined) and newest < last
        else:
            oldest = asked if oldest is None and mode == "before" else oldest
            more = oldest is not None and last > 0 and oldest > first
        return LinePage(self.rows, PageCursor(mode, oldest, newest, more, first if last else None))

    def _examine_run_steps(self, run: Run) -> Steps[None]:
        forward = self.way == "after"
        if forward:
            seqs = range(max(run.first, self.position + 1), run.last + 1)
        else:
            seqs = range(run.first, min(run.last + 1, self.position or run.last + 1))
        if not seqs:
            return
        matching_seqs = yield from run.match_steps(self.wanted, seqs)
        yield
        if len(matching_seqs) >= self.missing:
            matching_seqs = matching_seqs[: self.missing] if forward else matching_seqs[-self.missing :]
            seqs = range(seqs.start, matching_seqs[-1] + 1) if forward else range(matching_seqs[0], seqs.stop)
            self.full = True
        if matching_seqs:
            rows = run.build_rows(self._job, matching_seqs)
            fitting = self._fitting(rows if forward else rows[::-1])
            if fitting < len(rows):
                seqs = (
                    range(seqs.start, matching_seqs[fitting])
                    if forward
                    else range(matching_seqs[-1 - fitting] + 1, seqs.stop)
                )
                self.full = True
            kept = rows[:fitting] if forward else rows[len(rows) - fitting :]
            self.rows = self.rows + kept if forward else kept + self.rows
        if seqs:
            self._count(seqs, run.size_bytes)

    def _fitting(self, rows: list[Row]) -> int:
        """How many of these lines, in the order of travel, the page has room for: 8 MiB of them, but one."""
        for count, row in enumerate(rows):
            self.answered_bytes += len(encode_array([row]))
            if self.answered_bytes > PAGE_BYTES and (count or self.rows):
                return count
        return len(rows)

    def _count(self, seqs: range, size_bytes: int) -> None:
        self._examined += (seqs[0], seqs[-1])
        self.position = seqs[-1] if self.way == "after" else seqs[0]
        self._lines += len(seqs) if size_bytes else 0
        self._bytes += size_bytes
        most_bytes = SCAN_BYTES if self.wanted else PAGE_BYTES
        if self._lines >= SCAN_LINES or self._bytes >= most_bytes:
            self.full = True
