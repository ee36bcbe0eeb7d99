"""What the tests of a cluster rely on where a replica takes over by hand: when that is over, and when all is well."""

from __future__ import annotations

from time import monotonic

from tests.cluster.cluster import Cluster

PAUSE_S = 1.0
PROMPT_S = 0.5
KEY = "key"


def test_a_primary_that_lets_writes_wait_is_not_well(cluster: Cluster) -> None:
    begun_s = monotonic()
    cluster.owner(KEY).cli("CLIENT", "PAUSE", round(1000 * PAUSE_S), "WRITE")
    cluster.wait_until_well()
    assert monotonic() - begun_s >= PAUSE_S


def test_who_has_taken_over_has_the_slots_and_writes_go_on_however_soon_the_next_one_does(cluster: Cluster) -> None:
    for _ in range(3):
        replica = cluster.fail_over(cluster.owner(KEY))
        cluster.wait_until_well()
        begun_s = monotonic()
        assert cluster.owner(KEY) is replica
        replica.cli("SET", KEY, 1)
        assert monotonic() - begun_s < PROMPT_S
