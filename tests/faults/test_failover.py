"""A failover to a replica: writes to the old primary are refused, the new one is found, nothing of ours restarts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.sentinels import Failover, failover
from tests.faults.service import Parked, Service, hammering, works_again_within
from tests.valkey import until

BACK_S = 3.0


@pytest.fixture(scope="module")
def trio() -> Iterator[Failover]:
    with failover() as running:
        yield running


def test_after_a_failover_by_sentinel_everything_works_again_and_leases_go_on(trio: Failover) -> None:
    with Service(trio.url) as service:
        leased = service.create(timeoutSeconds=2)
        assert [job["id"] for job in service.poll()] == [leased["id"]]
        parked = Parked(service, names=["after"])
        with hammering(service) as replies:
            trio.fail_over()
            works_again_within(service, BACK_S)
            until(lambda: replies[-1].status == 201, BACK_S)
        assert {reply.code for reply in replies} <= {"", "unavailable", "outcome_unknown"}
        until(lambda: service.job(leased["id"])["status"] == "pending", BACK_S)
        made = service.create(name="after")
        assert [job["id"] for job in parked.result(3)] == [made["id"]]


def test_a_redis_that_has_become_read_only_is_answered_503_and_works_when_it_is_not(trio: Failover) -> None:
    port = trio.primary()
    with Service(f"redis://127.0.0.1:{port}") as service:
        made = service.create()
        trio.ask(port, "CONFIG", "SET", "min-replicas-to-write", "5")
        refused = service.call("POST", f"/spaces/{service.space}/jobs", {"name": "refused"})
        assert (refused.status, refused.code) == (503, "unavailable")
        trio.ask(port, "CONFIG", "SET", "min-replicas-to-write", "0")
        works_again_within(service, BACK_S)
        assert service.job(made["id"])["status"] == "pending"


def test_a_plain_url_whose_server_became_a_replica_is_read_only_until_it_is_a_primary_again(trio: Failover) -> None:
    port = trio.primary()
    with Service(f"redis://127.0.0.1:{port}") as service:
        made = service.create()
        trio.fail_over()
        until(lambda: service.call("POST", f"/jobs/{made['id']}/kill").status == 503, BACK_S)
        until(lambda: is_read_only(service), BACK_S)
        assert service.probe("/readyz").status == 503
        until(lambda: service.call("GET", f"/jobs/{made['id']}").status == 200, BACK_S)
        trio.fail_over()
        works_again_within(service, BACK_S)
        assert service.job(made["id"])["status"] == "pending"


def is_read_only(service: Service) -> bool:
    reply = service.call("POST", f"/spaces/{service.space}/jobs", {"name": "refused"})
    return reply.code == "unavailable" and "read-only" in reply.body["error"]
