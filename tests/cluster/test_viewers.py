"""Viewers of jobs and of their space on a cluster that is hurt, compared with what it holds: nothing lost but what no
replica had got, nothing doubled, nothing reordered, and all of it live again soon after the cluster is well."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from app.model.redis_keys import Keys
from app.redis_links.topology import slot_of
from tests.cluster.cluster import IS_VALKEY, Cluster, Node
from tests.live.followers import JobFollower, SpaceFollower
from tests.live.test_faults import Stage
from tests.valkey import until

pytestmark = pytest.mark.alone("it measures how soon viewers are live again")

VIEWERS = 50
JOBS = 2
LIVE_S = 3.0


class ClusterStage(Stage):
    """Two servers on a cluster, two jobs, and fifty viewers by both transports."""

    def __init__(self, cluster: Cluster, stack: contextlib.ExitStack) -> None:
        super().__init__(cast(Any, cluster), stack, viewers=VIEWERS, jobs=JOBS)
        self.cluster = cluster
        keys = Keys(self.first.prefix)
        self.space_slot = slot_of(keys.space(self.space.id))
        self.log_slots = {job: slot_of(keys.log(job)) for job in self.jobs}

    def live_soon(self) -> None:
        """Every viewer of a job gets a new line soon after the cluster is well."""
        self.cluster.wait_until_well()
        begun_s = time.monotonic()
        self.go_on(1)
        assert time.monotonic() - begun_s < LIVE_S

    def epochs(self) -> dict[int, str]:
        """What each viewer calls the epoch of its positions."""
        return {
            number: follower.epoch if isinstance(follower, JobFollower) else follower.instance
            for number, follower in enumerate(self.crowd.followers)
            if isinstance(follower, JobFollower | SpaceFollower)
        }

    def kill(self, primary: Node) -> None:
        """Kill a primary, and let its replica take its place; then it comes back."""
        replica = self.cluster.replica_of(primary)
        primary.kill()
        until(lambda: replica.is_primary, 30)
        self.live_soon()
        primary.start()
        self.live_soon()


@pytest.fixture
def stage(cluster: Cluster) -> Iterator[ClusterStage]:
    with contextlib.ExitStack() as stack:
        yield ClusterStage(cluster, stack)


ATOMIC = pytest.param("migrate_slot", marks=pytest.mark.skipif(not IS_VALKEY, reason="it moves slots key by key only"))


@pytest.mark.parametrize("how", [ATOMIC, "move_slot"])
def test_slots_are_moved_forth_and_back(stage: ClusterStage, how: str) -> None:
    stage.begin()
    before = stage.epochs()
    for slot in (stage.space_slot, *stage.log_slots.values()):
        here = stage.cluster.owner(slot)
        for to in (stage.cluster.others(here)[0], here):
            getattr(stage.cluster, how)(slot, to)
            stage.live_soon()
    stage.end()
    assert not stage.gaps, "what moves is not lost"
    assert stage.epochs() == before, "nothing began anew"
    assert all(follower.connections == 1 for follower in stage.crowd.followers), "nobody noticed"


def test_each_primary_is_killed_and_a_replica_takes_its_place(stage: ClusterStage) -> None:
    stage.begin()
    for slot in (stage.space_slot, *stage.log_slots.values()):
        stage.kill(stage.cluster.owner(slot))
    stage.end()
    assert {reason for _, _, reason in stage.gaps} <= {"rolled_back", "missed"}


def test_whom_a_primary_that_is_killed_does_not_concern_notices_nothing(stage: ClusterStage) -> None:
    stage.begin()
    before = stage.epochs()
    mine = {stage.cluster.owner(slot) for slot in (stage.space_slot, *stage.log_slots.values())}
    for victim in set(stage.cluster.others(stage.cluster.owner(0))) | {stage.cluster.owner(0)}:
        if victim not in mine:
            stage.kill(victim)
            assert stage.epochs() == before
    job, log_slot = next(iter(stage.log_slots.items()))
    if stage.cluster.owner(log_slot) is not stage.cluster.owner(stage.space_slot):
        stage.kill(stage.cluster.owner(log_slot))
        until(lambda: _changed(stage, before) >= {n for n, f in _jobs(stage) if f.job == job}, 10)
        concerned = {n for n, f in _jobs(stage) if stage.cluster.owner(stage.log_slots[f.job]).port}
        assert _changed(stage, before) <= concerned
    stage.end()


def _jobs(stage: ClusterStage) -> list[tuple[int, JobFollower]]:
    return [(n, f) for n, f in enumerate(stage.crowd.followers) if isinstance(f, JobFollower)]


def _changed(stage: ClusterStage, before: dict[int, str]) -> set[int]:
    return {number for number, epoch in stage.epochs().items() if epoch != before[number]}


def test_a_primary_is_replaced_by_hand_and_put_back(stage: ClusterStage) -> None:
    stage.begin()
    for slot in (stage.space_slot, *stage.log_slots.values()):
        for _ in range(2):
            stage.cluster.fail_over(stage.cluster.owner(slot))
            stage.live_soon()
    stage.end()
    assert not stage.gaps, "the replica had got everything"


def test_a_primary_stands_still_and_is_replaced(stage: ClusterStage) -> None:
    stage.begin()
    for slot in (stage.space_slot, next(iter(stage.log_slots.values()))):
        primary = stage.cluster.owner(slot)
        primary.stall()
        time.sleep(5)
        primary.resume()
        stage.live_soon()
    stage.end()


def test_all_nodes_are_restarted(stage: ClusterStage) -> None:
    stage.begin()
    for node in stage.cluster.nodes:
        node.kill()
    for node in stage.cluster.nodes:
        node.start()
    stage.live_soon()
    stage.end()
