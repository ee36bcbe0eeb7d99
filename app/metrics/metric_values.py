"""Where numbers are counted: doubles in memory, which several processes of one machine may show each other.

Owns: the slots of a process, which series has which of them, and the folder in which processes that count together keep
theirs: a file of slots and a file of names each, and a lock that is held while the process lives.

Never: locks or calls anything to count; counting is `cells[at] += 1` in the one thread of the event loop. A count
outlives its process in the folder: who comes later takes over what the dead have left, so that no sum ever falls.
"""

import fcntl
import os
import secrets
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from mmap import mmap
from pathlib import Path
from typing import NamedTuple

import msgspec

VALUE_SLOTS = 16_384
SLOT_BYTES = 8


class Series(NamedTuple):
    """One metric with one set of label values."""

    metric: str
    labels: tuple[str, ...]


class SlotRange(NamedTuple):
    """Where a series is: its first slot, and how many it has. What is `live_only` ends with its process."""

    first: int
    size: int
    live_only: bool


class _NamesLine(NamedTuple):
    """A line of a file of names."""

    series: Series
    slots: SlotRange


class MetricValues:
    """The numbers of this process. `cells` may be replaced by `share`: read it anew for each count."""

    def __init__(self) -> None:
        self.cells: memoryview[float] = memoryview(bytearray(VALUE_SLOTS * SLOT_BYTES)).cast("d")
        self._ranges: dict[Series, SlotRange] = {}
        self._used = 0
        self._folder: Path | None = None

    @property
    def is_shared(self) -> bool:
        """Whether other processes may count together with this one."""
        return self._folder is not None

    def allot_slots(self, series: Series, count: int, *, live_only: bool = False) -> int:
        """The first of a series' slots, made if there are none. MemoryError when all slots are taken."""
        slots = self._ranges.get(series)
        if slots is None:
            if self._used + count > VALUE_SLOTS:
                raise MemoryError("more series than any metric of ours should have")
            slots = self._ranges[series] = SlotRange(self._used, count, live_only)
            self._used += count
            self._write_names([_NamesLine(series, slots)])
        return slots.first

    def share(self, folder: Path) -> None:
        """From now on count together with the other processes that share this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        with _locked(folder):
            file = os.open(folder / f"{name}.cells", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)  # let go when the process ends: that is how others know
            os.ftruncate(file, VALUE_SLOTS * SLOT_BYTES)
            shared = memoryview(mmap(file, VALUE_SLOTS * SLOT_BYTES)).cast("d")
            shared[:] = self.cells
            self.cells, self._folder, self._names = shared, folder, folder / f"{name}.names"
            self._write_names([_NamesLine(series, slots) for series, slots in self._ranges.items()])
            for other in _other_processes(folder, name):
                if other.is_dead:
                    self._take_over(other)

    def sum_all(self) -> dict[Series, list[float]]:
        """Each series' numbers, over all processes that count together."""
        sums: defaultdict[Series, list[float]] = defaultdict(list)
        _add_values(sums, self._ranges, self.cells, dead=False)
        if self._folder is not None:
            with _locked(self._folder):
                for other in _other_processes(self._folder, self._names.stem):
                    _add_values(sums, other.ranges, other.cells, dead=other.is_dead)
        return sums

    def _take_over(self, other: "_OtherProcess") -> None:
        for series, slots in other.ranges.items():
            if not slots.live_only:
                first = self.allot_slots(series, slots.size)
                for i in range(slots.size):
                    self.cells[first + i] += other.cells[slots.first + i]
        other.remove()

    def _write_names(self, lines: Sequence[_NamesLine]) -> None:
        if self._folder is not None and lines:
            with self._names.open("ab") as file:
                file.write(msgspec.json.Encoder().encode_lines(lines))


class _OtherProcess:
    """Another process's files."""

    def __init__(self, names: Path) -> None:
        self._names, self._cells = names, names.with_suffix(".cells")
        text = names.read_bytes()
        lines = _LINES.decode_lines(text[: text.rfind(b"\n") + 1])
        self.ranges = {line.series: line.slots for line in lines}
        with self._cells.open("rb") as file:
            self.is_dead = _can_lock(file.fileno())
            self.cells: Sequence[float] = memoryview(file.read()).cast("d")

    def remove(self) -> None:
        """Delete them."""
        self._names.unlink()
        self._cells.unlink()


_LINES = msgspec.json.Decoder(_NamesLine)


def _other_processes(folder: Path, own: str) -> Iterator[_OtherProcess]:
    for names in sorted(folder.glob("*.names")):
        if names.stem != own:
            yield _OtherProcess(names)


def _add_values(
    sums: dict[Series, list[float]], ranges: dict[Series, SlotRange], cells: Sequence[float], *, dead: bool
) -> None:
    for series, slots in ranges.items():
        if not (dead and slots.live_only):
            before = sums[series] or [0.0] * slots.size
            sums[series] = [before[i] + cells[slots.first + i] for i in range(slots.size)]


def _can_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process at a time adds up, or takes over from the dead."""
    with (folder / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


VALUES = MetricValues()
"""The numbers of this process; app/metrics/catalog.py says what they mean."""
