"""x-lease-token: compared before the state is, on every call of a worker but the log append."""

import pytest

from tests.contract.test_transitions import VERBS, each_of
from tests.factories import STATUSES, Space, refused


@pytest.mark.parametrize("verb", each_of(*VERBS))
def test_another_token_is_lease_lost_whatever_the_state(space: Space, verb: str) -> None:
    for status in STATUSES:
        job = space.job_in(status)
        before = space.get(job)
        refused(space.call(job, verb, VERBS[verb], token="not-its"), 409, "lease_lost")
        assert space.get(job) == before


@pytest.mark.parametrize(
    "verb", each_of("ack", "complete", "fail", "kill", "progress", "checkpoint", "event", "keepalive", "release")
)
def test_the_latest_token_passes(space: Space, verb: str) -> None:
    job = space.create(claim=True)
    assert space.call(job, verb, VERBS[verb], token=job["leaseToken"]).status_code == 200


def test_each_delivery_has_a_token_of_its_own_and_the_former_is_void(space: Space) -> None:
    job, tokens = space.create(maxRetries=25), []
    for _ in range(5):
        (taken,) = space.poll()
        tokens.append(taken["leaseToken"])
        space.do(job, "fail", token=tokens[-1])
    assert len(set(tokens)) == 5
    (taken,) = space.poll()
    for token in tokens:
        refused(space.call(job, "complete", {}, token=token), 409, "lease_lost")
    assert space.status(job) == "delivered"
    assert space.do(job, "complete", {}, token=taken["leaseToken"])["status"] == "completed"


def test_a_token_stays_the_latest_after_the_job_went_back(space: Space) -> None:
    job = space.create(claim=True)
    space.do(job, "fail", token=job["leaseToken"])
    refused(space.call(job, "complete", {}, token=job["leaseToken"]), 409, "invalid_state")
    refused(space.call(job, "claim", token="not-its"), 409, "lease_lost")


def test_a_call_without_a_token_is_not_fenced(space: Space) -> None:
    job = space.create(claim=True)
    assert space.do(job, "ack")["status"] == "running"


def test_the_log_append_ignores_it(space: Space) -> None:
    job = space.create()
    assert space.call(job, "logs", ["x"], token="not-its").status_code == 200


@pytest.mark.parametrize("token", ["x" * 10_000, "\x01", "{}", "ÿ"])
def test_an_odd_token_is_just_another(space: Space, token: str) -> None:
    job = space.create(claim=True)
    headers = {b"x-lease-token": token.encode("latin-1")}
    answer = space.all.send("POST", f"/jobs/{job['id']}/ack", headers=headers)  # type: ignore[arg-type]  # as bytes
    assert answer.status_code in (400, 409)
    assert space.status(job) == "delivered"
