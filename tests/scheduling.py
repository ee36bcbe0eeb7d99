"""How the tests are spread over processes: a file at a time, and the tests that measure time after all others.

Most tests wait, for leases and clocks and processes that start, so there are more workers than cores. A test marked
`alone(why)` measures time or fills the machine. These come last, one after the other, in the worker that is left when
every other has ended. A bound that they hold is then a bound of what they test, and not of their neighbours.

Those of them which hold their bounds on a machine that does much else come just before: two of these run at once. A
turnstile lets none of them begin while a test of another kind is running.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

MOST_WORKERS = 8
ALONE = "alone"
AT_ONCE = 2
IN_PAIRS = (
    "cluster/test_faults.py",
    "cluster/test_time.py::test_a_failover_to_a_clock_two_seconds_off_ends_no_lease_early_and_hands_no_job_out_twice",
    "cluster/test_time.py::test_a_dead_shard_keeps_no_lease_and_no_schedule_of_the_others_waiting",
    "cluster/test_time.py",
    "faults/test_takeover.py",
)
"""Files, and tests of files, whose tests that run alone take less than half a core and have held their bounds while ten
others were at work on two cores, as was measured; the longest first. The tests of one line may share what they start:
they run in one process, one after the other."""

LONGEST = (
    "local/test_cluster.py",
    "live/test_faults.py",
    "client/commands/test_commands.py",
    "deploy/test_side_by_side.py",
    "browser/test_accessible.py",
    "browser/test_behind_proxy.py",
    "faults/test_outages.py",
    "browser/test_job_page.py",
    "browser/test_dashboard.py",
    "browser/test_lines.py",
    "test_processes.py",
    "local/test_start.py",
    "live/test_bytes_in_flight.py",
    "browser/test_log_view.py",
    "browser/test_space_page.py",
    "logs/test_log_store.py",
    "client/run/test_run_fate.py",
    "client/log_shipping/test_multiprocessing_exit.py",
    "webhooks/test_faults.py",
    "faults/test_bad_days.py",
    "live/test_workers.py",
    "client/run/test_run.py",
    "live/test_slow_readers.py",
    "faults/test_sentinel_login.py",
    "cluster/test_links.py",
    "faults/test_crash.py",
    "client/api/test_admin.py",
    "local/test_demo.py",
    "jobs/test_model.py",
    "docs/test_cluster_page.py",
    "browser/test_event_source.py",
    "cluster/test_dead_shard.py",
    "live/test_slow_heads.py",
    "client/test_real_server.py",
    "sweeper/test_retention.py",
    "live/test_listening_socket.py",
    "client/reading/test_log_following.py",
    "live/test_event_sources.py",
    "browser/test_node.py",
    "live/test_failover.py",
)
"""Files that take long, as they were measured: they begin first, so that none of them is left for the end."""


def workers_for(config: pytest.Config) -> int:
    """The number of workers for the whole suite; none for what is named, which begins sooner without them."""
    if config.option.file_or_dir:
        return 0
    return min(MOST_WORKERS, 1 + len(os.sched_getaffinity(0)))


def tell_alone(item: pytest.Item) -> None:
    """Let a worker tell the scheduler that a test is to run alone, by the end of its id: an id is all that it tells.

    xdist would do so for a mark of its own. It sets a member that pytest reads no more since 9.2, and nobody notices.
    """
    if item.get_closest_marker("alone"):
        rename(item, f"{item.nodeid}@{ALONE}")


def tell_apart(items: Sequence[pytest.Item]) -> None:
    """Let no two tests have the same id: the scheduler takes them for one, and runs one of them.

    Those that schemathesis makes of one function have no other ids since pytest 9.2.
    """
    of_id: dict[str, list[pytest.Item]] = {}
    for item in items:
        of_id.setdefault(item.nodeid, []).append(item)
    for nodeid, same in of_id.items():
        if len(same) > 1:
            for number, item in enumerate(same):
                rename(item, f"{nodeid}[{number}]")


def rename(item: pytest.Item, nodeid: str) -> None:
    """Give a test another id."""
    if hasattr(item, "_id"):
        item._id = type(item._id).parse(nodeid)
    else:
        item._nodeid = nodeid  # type: ignore[attr-defined]  # of pytest before 9.2
    assert item.nodeid == nodeid


def is_in_pairs(nodeid: str) -> bool:
    """Whether a test that runs alone may have another one of its kind beside it."""
    return line_of(nodeid) is not None


def line_of(nodeid: str) -> str | None:
    """The line of IN_PAIRS that a test belongs to, if it is marked as one that runs alone."""
    name, at, alone = nodeid.removeprefix("tests/").rpartition("@")
    if at and alone == ALONE:
        name = name.partition("[")[0]
        return next((line for line in (name, name.partition("::")[0]) if line in IN_PAIRS), None)
    return None


class Turnstile:
    """A file that each test of a run holds while it runs. One in pairs first lets all end that hold it."""

    def __init__(self, run: int) -> None:
        """A run is called by the process that started its workers."""
        self._file = Path(tempfile.gettempdir()) / f"jobwire-tests-{run}"

    @contextlib.contextmanager
    def passed(self, nodeid: str) -> Iterator[None]:
        """The block is the run of a test."""
        with self._file.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX if is_in_pairs(nodeid) else fcntl.LOCK_SH)
            if is_in_pairs(nodeid):
                fcntl.flock(file, fcntl.LOCK_UN)
            yield

    def remove(self) -> None:
        """The run is over."""
        self._file.unlink(missing_ok=True)


class AloneLast(LoadGroupScheduling):  # type: ignore[misc]  # xdist has no types
    """A unit of work is what one file has for one kind of Redis. Those of tests in pairs come after all others, a line
    of IN_PAIRS each; the unit of those that run alone comes last."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, name = nodeid.partition("::")
        if line := line_of(nodeid):
            return f"{ALONE}-{line}"
        if nodeid.endswith(f"@{ALONE}"):
            return ALONE
        parameters = name.partition("[")[2].rstrip("]").split("-")
        return f"{file}-fake" if "fake" in parameters else file

    def _assign_work_unit(self, node: WorkerController) -> None:
        for unit in (*(f"{ALONE}-{line}" for line in IN_PAIRS), ALONE):
            if unit in self.workqueue:
                self.workqueue.move_to_end(unit)
        if long := next((name for file in LONGEST if (name := f"tests/{file}") in self.workqueue), None):
            self.workqueue.move_to_end(long, last=False)
        if self._may_work(node):
            super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        if self._may_work(node):
            super()._reschedule(node)

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        super().mark_test_complete(node, item_index, duration)
        if self._most_nodes() == AT_ONCE:
            for other in self.nodes:
                self._reschedule(other)

    def remove_node(self, node: WorkerController) -> str | None:
        crashed: str | None = super().remove_node(node)
        for left in self.nodes:
            self._reschedule(left)
        return crashed

    def _may_work(self, node: WorkerController) -> bool:
        """Whether a node may have what is next. Where it is too much for so many nodes, some end, and those that are
        left wait for that; before tests in pairs, they also wait for each other.

        A worker keeps its newest test until it knows what follows it, or that nothing does: so those that end are told.
        """
        most = self._most_nodes()
        if len(self.nodes) > most:
            if sum(not other.shutting_down for other in self.nodes if other is not node) >= most:
                node.shutdown()
            return False
        return most != AT_ONCE or all(self._others_of(each) <= 1 for each in self.nodes)

    def _most_nodes(self) -> float:
        """How many nodes there may be for what is left."""
        if not self.workqueue or not all(unit.startswith(ALONE) for unit in self.workqueue):
            return float("inf")
        return 1 if list(self.workqueue) == [ALONE] else AT_ONCE

    def _others_of(self, node: WorkerController) -> int:
        """How many tests a node has before it that are none of those in pairs."""
        work = self.assigned_work[node].items()
        return sum(self._pending_of({unit: tests}) for unit, tests in work if not unit.startswith(ALONE))
