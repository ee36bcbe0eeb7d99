"""A kill reaches the worker: by every call that it makes, the log append included."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.service import Service

PROGRESS = {"percent": 1, "message": "on"}
CALLS = {
    "ack": None,
    "progress": PROGRESS,
    "checkpoint": {"at": 1},
    "event": {"any": "thing"},
    "keepalive": None,
    "complete": {"done": True},
    "fail": {"error": "no"},
}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as running:
        yield running


@pytest.mark.parametrize("verb", CALLS)
@pytest.mark.parametrize("acked", [False, True], ids=["delivered", "running"])
def test_every_call_of_a_worker_learns_of_the_kill_and_changes_nothing(
    service: Service, verb: str, acked: bool
) -> None:
    job = service.create(claim=True)
    if acked:
        service.call("POST", f"/jobs/{job['id']}/ack", x_lease_token=job["leaseToken"])
    assert service.call("POST", f"/jobs/{job['id']}/kill", {"reason": "enough"}).status == 200
    before = service.job(job["id"])
    reply = service.call("POST", f"/jobs/{job['id']}/{verb}", CALLS[verb], x_lease_token=job["leaseToken"])
    assert (reply.status, reply.code, reply.body["status"]) == (409, "invalid_state", "killed")
    assert service.job(job["id"]) == before
    assert before["result"] == {"reason": "enough"}


def test_a_worker_that_only_logs_learns_of_the_kill(service: Service) -> None:
    job = service.create(claim=True)
    assert service.call("POST", f"/jobs/{job['id']}/logs", ["before"]).body["status"] == "delivered"
    service.call("POST", f"/jobs/{job['id']}/kill")
    reply = service.call("POST", f"/jobs/{job['id']}/logs", ["after"], x_lease_token=job["leaseToken"])
    assert (reply.status, reply.body["status"], reply.body["inserted"]) == (200, "killed", 1)
