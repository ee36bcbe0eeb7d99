"""A failover to a replica: writes to the old primary are refused, the new one is found, nothing of ours restarts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.sentinels import Failover, failover
from tests.faults.service import Parked, Reply, Service, hammering, works_again_within
from tests.valkey import until

BACK_S = 3.0


@pytest.fixture(scope="module")
def trio() -> Iterator[Failover]:
    with failover() as running:
        yield running


def test_after_a_failover_by_sentinel_the_new_primary_is_found_and_leases_go_on(trio: Failover) -> None:
    with Service(trio.url) as service:
        leased = service.create(timeoutSeconds=1)
        assert [job["id"] for job in service.poll()] == [leased["id"]]
        parked = Parked(service, names=["after"])
        with hammering(service) as replies:
            old = trio.primary()
            trio.fail_over()
            new = trio.primary()
            assert trio.info(old)["role"] == "master", "it still takes writes, which would be lost"
            until(lambda: kept(trio, new, service, replies[-1]), BACK_S)
            works_again_within(service, BACK_S)
        assert {reply.code for reply in replies} <= {"", "unavailable", "outcome_unknown"}
        until(lambda: service.job(leased["id"])["status"] == "pending", BACK_S)
        made = service.create(name="after")
        assert [job["id"] for job in parked.result(3)] == [made["id"]]


def kept(trio: Failover, port: int, service: Service, reply: Reply) -> bool:
    """Whether the newest answer is a job that this server has."""
    return reply.status == 201 and trio.ask(port, "EXISTS", f"jw:{{{service.space}}}:job:{reply.body['id']}") == 1


def test_too_few_replicas_are_answered_503(trio: Failover) -> None:
    port = trio.primary()
    with Service(f"redis://127.0.0.1:{port}") as service:
        made = service.create()
        trio.ask(port, "CONFIG", "SET", "min-replicas-to-write", "5")
        refused = service.call("POST", f"/spaces/{service.space}/jobs", {"name": "refused"})
        assert (refused.status, refused.code) == (503, "unavailable")
        trio.ask(port, "CONFIG", "SET", "min-replicas-to-write", "0")
        works_again_within(service, BACK_S)
        assert service.job(made["id"])["status"] == "pending"
