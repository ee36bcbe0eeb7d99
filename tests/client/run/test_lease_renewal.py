"""The lease: renewed over outages, its loss told once."""

from __future__ import annotations

import queue

import pytest

from jobwire import Jobs, exit_codes
from jobwire.run.lease_renewal import Lease, Loss
from tests.client.fake import BREAK, UNAVAILABLE, FakeService


def test_it_renews_with_its_token_at_a_third_of_its_length_and_through_outages(
    service: FakeService, jobs: Jobs
) -> None:
    job = service.add_job(status="running")
    service.faults["keepalive"].extend([None, BREAK, UNAVAILABLE])
    losses: queue.SimpleQueue[Loss] = queue.SimpleQueue()
    lease = Lease(jobs, job.id, job.token, 0.06, losses.put)
    lease.start()
    service.wait_for(lambda: len(service.seen("keepalive")) >= 6)
    lease.stop()
    assert {request.headers["x-lease-token"] for request in service.seen("keepalive")} == {job.token}
    assert losses.empty()


@pytest.mark.parametrize(
    ("changes", "exit_code"),
    [
        ({"status": "killed"}, exit_codes.KILLED),
        ({"token": "another"}, exit_codes.LEASE_LOST),
        ({"status": "pending"}, exit_codes.LEASE_LOST),
        ({"status": "dead"}, exit_codes.LEASE_LOST),
    ],
)
def test_a_refused_renewal_is_a_loss_and_its_code_says_which(
    service: FakeService, jobs: Jobs, changes: dict[str, str], exit_code: int
) -> None:
    job = service.add_job(status="running")
    losses: queue.SimpleQueue[Loss] = queue.SimpleQueue()
    lease = Lease(jobs, job.id, job.token, 300, losses.put)
    for name, value in changes.items():
        setattr(job, name, value)
    lease.start()
    lease.check()
    assert losses.get(timeout=10).exit_code == exit_code


def test_after_stop_nothing_is_renewed_or_told(service: FakeService, jobs: Jobs) -> None:
    job = service.add_job(status="killed")
    losses: queue.SimpleQueue[Loss] = queue.SimpleQueue()
    lease = Lease(jobs, job.id, job.token, 300, losses.put)
    lease.stop()
    lease.start()
    lease.check()
    lease._thread.join(10)
    assert (service.requests, losses.empty()) == ([], True)
