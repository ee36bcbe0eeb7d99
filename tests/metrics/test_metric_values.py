"""Numbers that several processes add up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.metrics.metric_values import VALUE_SLOTS, MetricValues, Series

SEEN = Series("seen", ("a",))
OPEN = Series("open", ())

OTHER = """
import sys
from pathlib import Path
from app.metrics.metric_values import MetricValues, Series
values = MetricValues()
values.cells[values.allot_slots(Series("seen", ("a",)), 2) + 1] += 5
values.share(Path(sys.argv[1]))
values.cells[values.allot_slots(Series("seen", ("a",)), 2)] += 2
values.cells[values.allot_slots(Series("open", ()), 1, live_only=True)] += 1
print("ready", flush=True)
sys.stdin.read()
"""


class Other:
    """Another process that counts in the folder, until it is killed."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", OTHER, str(folder)]
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def test_a_process_alone_sees_its_own_numbers() -> None:
    values = MetricValues()
    values.cells[values.allot_slots(SEEN, 2)] += 3
    assert values.sum_all() == {SEEN: [3, 0]}
    assert values.allot_slots(SEEN, 2) == values.allot_slots(SEEN, 2)


def test_the_slots_are_bounded() -> None:
    values = MetricValues()
    values.allot_slots(SEEN, VALUE_SLOTS)
    with pytest.raises(MemoryError):
        values.allot_slots(OPEN, 1)


def test_processes_add_up_what_they_counted_before_and_after_they_met(tmp_path: Path) -> None:
    values = MetricValues()
    values.cells[values.allot_slots(OPEN, 1, live_only=True)] += 1
    values.cells[values.allot_slots(SEEN, 2)] += 10
    values.share(tmp_path / "folder")
    values.cells[values.allot_slots(SEEN, 2)] += 1
    first, second = Other(tmp_path / "folder"), Other(tmp_path / "folder")
    try:
        assert values.sum_all() == {SEEN: [15, 10], OPEN: [3]}
    finally:
        first.kill()
        second.kill()


def test_counts_of_the_dead_stay_and_what_passes_goes_with_them(tmp_path: Path) -> None:
    values = MetricValues()
    values.share(tmp_path)
    other = Other(tmp_path)
    assert values.sum_all() == {SEEN: [2, 5], OPEN: [1]}
    other.kill()
    assert values.sum_all() == {SEEN: [2, 5]}


def test_who_comes_later_takes_over_what_the_dead_left_and_their_files_go(tmp_path: Path) -> None:
    for _ in range(5):
        Other(tmp_path).kill()
    values = MetricValues()
    values.share(tmp_path)
    assert values.sum_all() == {SEEN: [10, 25]}
    assert len(list(tmp_path.glob("*.names"))) == len(list(tmp_path.glob("*.cells"))) == 1


def test_a_name_that_is_just_being_written_is_left_out(tmp_path: Path) -> None:
    other = Other(tmp_path)
    try:
        (names,) = tmp_path.glob("*.names")
        with names.open("ab") as file:
            file.write(b'[["half",[')
        values = MetricValues()
        values.share(tmp_path)
        assert values.sum_all() == {SEEN: [2, 5], OPEN: [1]}
    finally:
        other.kill()
