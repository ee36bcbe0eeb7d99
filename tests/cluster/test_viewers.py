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
from tests.cluster.cluster import Cluster, Node
from tests.live.followers import Copy, Follower, JobFollower, SpaceFollower
from tests.live.test_faults import Stage
from tests.valkey import until

pytestmark = pytest.mark.alone("it measures how soon viewers are live again")

VIEWERS = 50
LIVE_S = 3.0


class ClusterStage(Stage):
    """Two servers on a cluster, fifty viewers by both transports, two jobs; the log of one lies with the space."""

    def __init__(self, cluster: Cluster, stack: contextlib.ExitStack) -> None:
        super().__init__(cast(Any, cluster), stack, viewers=VIEWERS, jobs=0)
        self.cluster = cluster
        self.keys = Keys(self.first.prefix)
        self.space_slot = slot_of(self.keys.space(self.space.id))
        self.jobs = [self.job_with_log(is_here=True), self.job_with_log(is_here=False)]
        self.log_slots = {job: slot_of(self.keys.log(job)) for job in self.jobs}

    def job_with_log(self, *, is_here: bool) -> str:
        """A job whose log lies on the primary of the space, or one on a primary that has nothing of the other."""
        while True:
            job = str(self.space.create(claim=True, timeoutSeconds=3600)["id"])
            owner = self.cluster.owner(slot_of(self.keys.log(job)))
            if (owner is self.cluster.owner(self.space_slot)) == is_here:
                self.space.do({"id": job}, "ack")
                return job

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


ATOMIC = pytest.param("migrate_slot", marks=pytest.mark.since("CLUSTER MIGRATESLOTS", redis=None, valkey=(9,)))


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
    elsewhere = stage.jobs[1]
    stage.kill(stage.cluster.owner(stage.log_slots[elsewhere]))
    followers = stage.crowd.followers
    concerned = {
        n for n, follower in enumerate(followers) if isinstance(follower, JobFollower) and follower.job == elsewhere
    }
    until(lambda: {n for n, epoch in stage.epochs().items() if epoch != before[n]} >= concerned, 10)
    unmoved = [n for n, epoch in stage.epochs().items() if epoch == before[n]]
    assert sorted(unmoved) == sorted(before.keys() - concerned)
    stage.end()
    assert all(followers[n].connections == 1 and not gaps_of(followers[n]) for n in unmoved)


def gaps_of(follower: Follower) -> list[tuple[int, int, str]]:
    """What a viewer was told to be missing."""
    return [gap for copy in vars(follower).values() if isinstance(copy, Copy) for gap in copy.gaps]


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
