"""Calls that must get through: each is done once, whatever happened to its answers."""

from __future__ import annotations

import pytest

from jobwire import InvalidState, Jobs, LeaseLost, NotDone
from jobwire.run.repeated_calls import Insistence
from tests.client.fake import BREAK, LOSE_ANSWER, UNAVAILABLE, UNKNOWN, FakeService


@pytest.fixture
def insist(jobs: Jobs) -> Insistence:
    return Insistence(jobs, patience_s=20, wait=lambda seconds: True)


def test_a_create_whose_answer_was_lost_makes_one_job(service: FakeService, insist: Insistence) -> None:
    service.faults["create"].extend([UNAVAILABLE, LOSE_ANSWER, BREAK])
    job = insist.create("work", claim=True)
    assert list(service.jobs) == [job.id]
    assert job.lease_token == service.job.token


def test_a_complete_is_repeated_with_the_same_body(service: FakeService, insist: Insistence) -> None:
    job = service.add_job(status="running")
    service.faults["complete"].extend([LOSE_ANSWER, UNKNOWN])
    insist.complete(job.id, {"exitCode": 0}, job.token)
    assert (job.status, job.result) == ("completed", {"exitCode": 0})


@pytest.mark.parametrize("fault", [LOSE_ANSWER, BREAK, UNKNOWN, UNAVAILABLE])
@pytest.mark.parametrize(("max_retries", "status"), [(3, "pending"), (0, "dead")])
def test_a_fail_counts_one_attempt(
    service: FakeService, insist: Insistence, fault: str, max_retries: int, status: str
) -> None:
    job = service.add_job(status="running", max_retries=max_retries)
    service.faults["fail"].extend([fault, fault] if fault != LOSE_ANSWER else [fault])
    failure = insist.fail(job.id, 0, "exit code 1", job.token, retry=True)
    assert (job.status, job.attempt_number) == (status, min(1, max_retries))
    assert failure.will_retry == (max_retries > 0)


def test_a_fail_of_a_job_that_is_gone_is_refused(service: FakeService, insist: Insistence) -> None:
    job = service.add_job(status="killed")
    with pytest.raises(InvalidState):
        insist.fail(job.id, 0, "exit code 1", job.token, retry=True)
    with pytest.raises(LeaseLost):
        insist.fail(job.id, 0, "exit code 1", "another token", retry=True)


def test_a_claim_whose_answer_was_lost_waits_for_its_lease_to_lapse(service: FakeService, jobs: Jobs) -> None:
    job = service.add_job(status="pending")
    service.faults["claim"].append(LOSE_ANSWER)
    waits = 0

    def wait(_: float) -> bool:
        nonlocal waits
        waits += 1
        if waits == 3:
            job.status = "pending"
        return True

    Insistence(jobs, patience_s=20, wait=wait).claim(job.id, 300)
    assert (job.status, waits) == ("delivered", 3)


def test_a_claim_that_another_worker_won_is_refused(service: FakeService, insist: Insistence) -> None:
    job = service.add_job(status="running")
    with pytest.raises(InvalidState):
        insist.claim(job.id, 300)


def test_patience_ends_and_so_does_a_wait_that_is_broken_off(service: FakeService, jobs: Jobs) -> None:
    service.down()
    with pytest.raises(NotDone):
        Insistence(jobs, patience_s=0, wait=lambda seconds: True).ack("x", None)
    with pytest.raises(NotDone):
        Insistence(jobs, patience_s=100, wait=lambda seconds: False).ack("x", None)
