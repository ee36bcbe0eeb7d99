"""Whatever a cluster goes through under load: nothing is lost but what no replica had got, nothing doubled, nothing
reordered, no job handed out twice, no half of a change; and everybody is live again soon after the cluster is well.

Workers, writers, three hundred viewers and readers of Redis itself go on meanwhile: see tests/cluster/stage.py. One
stage is hurt by one test after the other. When one fails, the next has a new stage.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, Node
from tests.cluster.stage import LIVE_S, ClusterStage, replicate
from tests.server_binary import is_since
from tests.valkey import until

pytestmark = pytest.mark.alone("it measures how soon everybody is live again")

HALF_MOVED_S = 10.0
STALL_S = 5.0


class Theatre:
    """The stage that the tests of this file share."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._stage: ClusterStage | None = None

    def open(self, cluster: Cluster) -> ClusterStage:
        """The stage; a new one if there is none."""
        if self._stage is None:
            self._stage = ClusterStage(cluster, self._stack)
        return self._stage

    def close(self) -> None:
        """Give up the stage, if there is one."""
        self._stage = None
        self._stack.close()


@pytest.fixture(scope="module")
def theatre() -> Iterator[Theatre]:
    made = Theatre()
    yield made
    made.close()


@pytest.fixture
def stage(cluster: Cluster, theatre: Theatre) -> Iterator[ClusterStage]:
    stage = theatre.open(cluster)
    stage.is_right = False
    yield stage
    if not stage.is_right:
        theatre.close()


MOVES_AT_ONCE: Any = {"redis": None, "valkey": (9,)}
ATOMIC = pytest.param("migrate_slot", marks=pytest.mark.since("CLUSTER MIGRATESLOTS", **MOVES_AT_ONCE))


@pytest.mark.parametrize("how", [ATOMIC, "move_slot"])
def test_slots_are_moved_forth_and_back(stage: ClusterStage, how: str) -> None:
    before = stage.stand()
    for slot in stage.busy_slots:
        here = stage.cluster.owner(slot)
        for to in (stage.cluster.others(here)[0], here):
            getattr(stage.cluster, how)(slot, to)
            stage.live_soon()
    stage.check()
    assert not stage.noticed_since(before)
    stage.nothing_was_lost_since(before)


def test_slots_stay_half_moved(stage: ClusterStage) -> None:
    before, begun_s = stage.stand(), time.monotonic()
    with contextlib.ExitStack() as moves:
        for slot in (stage.space_slot, stage.log_slots[1]):
            moves.enter_context(half_moved(stage.cluster, slot))
        elsewhere = stage.jobs[2]
        said = stage.call(elsewhere, "logs", ["meanwhile"])
        assert said.status_code == 200, said.text
        seq = int(said.json()["toSeq"])
        viewers = [follower for follower in stage.crowd.job_followers if follower.job == elsewhere]
        until(lambda: all(follower.lines.position >= seq for follower in viewers), LIVE_S)
        time.sleep(max(0.0, begun_s + HALF_MOVED_S - time.monotonic()))
    stage.live_soon()
    stage.check()
    assert not stage.noticed_since(before, silent=True)
    stage.nothing_was_lost_since(before)


@contextlib.contextmanager
def half_moved(cluster: Cluster, slot: int) -> Iterator[None]:
    """While the block runs, half of a slot's keys are on another node; then all of them are."""
    there = cluster.others(cluster.owner(slot))[0]
    source = cluster.open_slot(slot, there)
    try:
        cluster.move_keys(slot, source, there, int(source.cli("CLUSTER", "COUNTKEYSINSLOT", slot)) // 2)
        yield
    finally:
        cluster.close_slot(slot, source, there)


def test_a_node_is_added_and_emptied_and_removed(stage: ClusterStage) -> None:
    before, cluster = stage.stand(), stage.cluster
    move: Any = cluster.migrate_slot if is_since(**MOVES_AT_ONCE) else cluster.move_slot
    slots = stage.busy_slots[:2] + stage.busy_slots[2:][-1:]
    owners = {slot: cluster.owner(slot) for slot in slots}
    new = cluster.add_node()
    for slot in owners:
        move(slot, new)
    stage.live_soon()
    for slot, owner in owners.items():
        move(slot, owner)
    stage.live_soon()
    cluster.remove_node(new)
    stage.live_soon()
    stage.check()
    assert stage.stand().connections == before.connections
    stage.nothing_was_lost_since(before)


def test_primaries_are_replaced_by_hand_and_put_back(stage: ClusterStage) -> None:
    before, replicas = stage.stand(), []
    primaries = [node for node in stage.cluster.nodes if node.is_primary]
    for primary in primaries:
        replicas.append(stage.cluster.fail_over(primary))
        stage.live_soon()
    for primary, replica in zip(primaries, replicas, strict=True):
        assert stage.cluster.fail_over(replica) is primary
        stage.live_soon()
    stage.check()
    stage.nothing_was_lost_since(before)


def test_each_primary_is_killed_and_a_replica_takes_its_place(stage: ClusterStage) -> None:
    for primary in [node for node in stage.cluster.nodes if node.is_primary]:
        before, concerned = stage.stand(), stage.concerned(primary)
        stage.kill(primary)
        noticed = stage.noticed_since(before, silent=True)
        assert not {n: what for n, what in noticed.items() if n not in concerned}, "others notice nothing"
    stage.check()


def test_a_primary_stands_still_and_is_replaced(stage: ClusterStage) -> None:
    primary = stage.cluster.owner(stage.space_slot)
    with stage.losing() as before:
        replicate(primary)
        primary.stall()
        time.sleep(STALL_S)
        primary.resume()
    stage.live_soon()
    stage.check()
    stage.only_later_things_were_lost(before)


def test_a_cluster_that_was_down_is_back(stage: ClusterStage) -> None:
    before, cluster = stage.stand(), stage.cluster
    primary = cluster.owner(stage.space_slot)
    replica, other = cluster.replica_of(primary), cluster.others(primary)[0]
    full_coverage(cluster, "yes")
    replica.kill()
    primary.kill()
    until(lambda: other.info()["cluster_state"] == "fail", 20)
    time.sleep(1)
    primary.start()
    replica.start()
    stage.live_soon()
    full_coverage(cluster, "no")
    stage.check()
    stage.nothing_was_lost_since(before)


def full_coverage(cluster: Cluster, wanted: str) -> None:
    """Whether a cluster serves nothing as soon as one slot is not served."""
    for node in cluster.nodes:
        node.cli("CONFIG", "SET", "cluster-require-full-coverage", wanted)


def test_all_nodes_are_restarted(stage: ClusterStage) -> None:
    nodes: list[Node] = stage.cluster.nodes
    with stage.losing() as before:
        for node in nodes:
            if node.is_primary:
                replicate(node)
        for node in nodes:
            node.kill()
    for node in nodes:
        node.start()
    stage.live_soon()
    stage.check()
    stage.only_later_things_were_lost(before)


def test_in_the_end_everybody_is_told_of_the_end(stage: ClusterStage) -> None:
    stage.workers.rest()
    stage.end()
