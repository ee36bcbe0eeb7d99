"""How the tests are spread over processes: a file at a time, and the tests that measure time after all others.

Most tests wait, for leases and clocks and processes that start, so there are more workers than cores. A test marked
`alone(why)` measures time or fills the machine: all of these run one after the other in the worker that is left when
every other has ended. A bound that they hold is then a bound of what they test, and not of their neighbours.
"""

import os

import pytest
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

MOST_WORKERS = 8
ALONE = "alone"
LONGEST = (
    "client/log_shipping/test_multiprocessing_exit.py",
    "live/test_workers.py",
    "cluster/test_time.py",
    "live/test_faults.py",
    "live/test_turns.py",
    "webhooks/test_faults.py",
    "browser/test_node.py",
    "faults/test_outages.py",
    "client/reading/test_log_following.py",
    "browser/test_behind_proxy.py",
    "client/commands/test_commands.py",
    "client/api/test_admin.py",
    "client/run/test_run_fate.py",
    "browser/test_jobwire_js.py",
    "live/test_bytes_in_flight.py",
    "live/test_event_sources.py",
    "live/test_shutdown.py",
    "live/test_listening_socket.py",
    "faults/test_bad_days.py",
    "client/test_real_server.py",
    "browser/test_accessible.py",
    "test_processes.py",
    "faults/test_crash.py",
    "faults/test_sentinel_login.py",
    "browser/test_event_source.py",
)
"""Files that take long, as they were measured: they begin first, so that none of them is left for the end."""


def workers_for(config: pytest.Config) -> int:
    """The number of workers for the whole suite; none for what is named, which begins sooner without them."""
    if config.option.file_or_dir:
        return 0
    return min(MOST_WORKERS, 1 + len(os.sched_getaffinity(0)))


def group_alone(item: pytest.Item) -> None:
    """Let a worker tell the scheduler that a test is to run alone, by the group at the end of its id."""
    if item.get_closest_marker("alone"):
        item.add_marker(pytest.mark.xdist_group(ALONE))


class AloneLast(LoadGroupScheduling):  # type: ignore[misc]  # xdist has no types
    """A unit of work is what one file has for one kind of Redis; the unit of those that run alone comes last."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.endswith(f"@{ALONE}"):
            return ALONE
        file, _, name = nodeid.partition("::")
        parameters = name.partition("[")[2].rstrip("]").split("-")
        return f"{file}-fake" if "fake" in parameters else file

    def _assign_work_unit(self, node: WorkerController) -> None:
        if ALONE in self.workqueue:
            self.workqueue.move_to_end(ALONE)
        if long := next((name for file in LONGEST if (name := f"tests/{file}") in self.workqueue), None):
            self.workqueue.move_to_end(long, last=False)
        if self._may_work(node):
            super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        if self._may_work(node):
            super()._reschedule(node)

    def remove_node(self, node: WorkerController) -> str | None:
        crashed: str | None = super().remove_node(node)
        for left in self.nodes:
            self._reschedule(left)
        return crashed

    def _may_work(self, node: WorkerController) -> bool:
        """Whether a node may have what is next; where only ALONE is left, all nodes end but one, which waits for them.

        A worker keeps its newest test until it knows what follows it, or that nothing does: so those that end are told.
        """
        if list(self.workqueue) != [ALONE] or len(self.nodes) == 1:
            return True
        if any(not other.shutting_down for other in self.nodes if other is not node):
            node.shutdown()
        return False
