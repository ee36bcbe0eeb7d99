"""The table of section 3: from, by, to, the event and its data, and what each change does besides."""

import json
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.factories import ENDED, STATUSES, Space, at, in_future, refused
from tests.valkey import until

VERBS: dict[str, Any] = {
    "claim": None,
    "ack": None,
    "complete": {"x": 1},
    "fail": {"error": "e"},
    "kill": {"reason": "r"},
    "retry": None,
    "progress": {"percent": 1, "message": "m"},
    "checkpoint": {"c": 1},
    "event": {"e": 1},
    "keepalive": None,
    "release": {"reason": "r"},
}
since_0_2 = pytest.mark.since_release("0.2.0")
ALIVE = {"scheduled", "pending", "delivered", "running"}
LEASED = {"delivered", "running"}
ALLOWED = {
    "claim": {"pending"},
    "ack": {"delivered"},
    "complete": LEASED,
    "fail": LEASED,
    "kill": ALIVE,
    "retry": {"dead", "killed"},
    "progress": LEASED,
    "checkpoint": LEASED,
    "event": ALIVE,
    "keepalive": LEASED,
    "release": LEASED,
}


def each_of(*cases: str) -> list[Any]:
    """Cases to run a test with; those of releases are for servers that know them."""
    return [pytest.param(case, marks=since_0_2 if case in ("release", "put off") else ()) for case in cases]


def last(space: Space, job: Any) -> tuple[str, Any]:
    event = space.get(job)["events"][-1]
    return event["type"], event["data"]


@pytest.mark.parametrize("verb", each_of(*VERBS))
@pytest.mark.parametrize("status", STATUSES)
def test_a_call_is_allowed_in_these_statuses_and_else_409_with_the_status_and_without_effect(
    space: Space, status: str, verb: str
) -> None:
    job = space.job_in(status)
    before = space.get(job)
    answer = space.call(job, verb, VERBS[verb])
    if status in ALLOWED[verb]:
        assert answer.status_code == 200, answer.text
        return
    assert refused(answer, 409, "invalid_state")["status"] == status
    assert space.get(job) == before


def test_a_scheduled_job_becomes_pending_when_its_time_comes_and_goes_to_the_back(space: Space) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    job = space.create(scheduledFor=soon.isoformat())
    other = space.create()
    assert job["status"] == "scheduled"
    assert [taken["id"] for taken in space.poll(count=5)] == [other["id"]]
    last_one = space.create()
    until(lambda: space.status(job) == "pending", within_s=3)
    assert abs(datetime.now(UTC) - soon) < timedelta(seconds=1)
    assert last(space, job) == ("pending", None)
    assert [taken["id"] for taken in space.poll(count=5)] == [last_one["id"], job["id"]]
    assert space.events(job) == ["created", "pending", "delivered"]


@pytest.mark.parametrize("by", ["poll", "claim"])
def test_a_delivery_sets_its_time_and_gives_what_a_worker_needs(space: Space, by: str) -> None:
    job = space.create(payload={"x": 1}, timeoutSeconds=60, maxRetries=2)
    taken = space.poll()[0] if by == "poll" else space.do(job, "claim")
    fixed = {name: value for name, value in taken.items() if name not in ("leaseToken", "timeoutAt")}
    assert fixed == {
        "id": job["id"], "name": "work", "payload": {"x": 1}, "timeoutSeconds": 60, "maxRetries": 2, "attemptNumber": 0,
        "createdAt": job["createdAt"], "checkpoint": None,
    }  # fmt: skip
    assert isinstance(taken["leaseToken"], str)
    found = space.get(job)
    assert found["status"] == "delivered"
    assert at(found["deliveredAt"]) >= at(found["createdAt"])
    assert found["startedAt"] is None
    assert last(space, job) == ("delivered", None)


@since_0_2
@pytest.mark.parametrize("by", ["poll", "claim"])
def test_a_delivery_tells_when_the_lease_ends(space: Space, by: str) -> None:
    job = space.create(timeoutSeconds=60)
    taken = space.poll()[0] if by == "poll" else space.do(job, "claim")
    assert at(taken["timeoutAt"]) - at(space.get(job)["deliveredAt"]) == timedelta(seconds=60)


@since_0_2
def test_a_poll_with_ack_hands_out_jobs_that_run(space: Space) -> None:
    job = space.create(timeoutSeconds=60)
    (taken,) = space.poll(ack=True)
    found = space.get(job)
    assert (found["status"], found["startedAt"]) == ("running", found["deliveredAt"])
    assert at(taken["timeoutAt"]) - at(found["startedAt"]) == timedelta(seconds=60)
    assert space.events(job) == ["created", "started"]
    assert space.do(job, "ack", token=taken["leaseToken"])["timeoutAt"] == taken["timeoutAt"]
    assert space.do(job, "complete", token=taken["leaseToken"])["status"] == "completed"
    space.create()
    assert space.poll(ack=None)[0]["id"]
    refused(space.all.post(f"{space.jobs}/poll", json={"ack": 1}), 400, "invalid_request")


@since_0_2
def test_a_poll_with_ack_needs_the_scope_of_an_ack(space: Space) -> None:
    job = space.create()
    caller = space.caller("jobs:poll")
    for body in ({"ack": True}, {"ack": True, "waitSeconds": 5}):
        refused(caller.post(f"{space.jobs}/poll", json=body), 403, "missing_scope")
    assert space.status(job) == "pending"
    assert caller.post(f"{space.jobs}/poll", json={"ack": False}).json()["jobs"][0]["id"] == job["id"]
    space.create()
    both = space.caller("jobs:poll", "jobs:ack")
    assert len(both.post(f"{space.jobs}/poll", json={"ack": True}).json()["jobs"]) == 1


@since_0_2
def test_who_is_born_claimed_is_told_when_the_lease_ends(space: Space) -> None:
    job = space.create(claim=True, timeoutSeconds=60)
    assert at(job["timeoutAt"]) - at(job["deliveredAt"]) == timedelta(seconds=60)
    assert "timeoutAt" not in space.create()


@since_0_2
def test_a_job_that_is_given_back_goes_to_the_back_with_its_attempt_and_its_checkpoint(space: Space) -> None:
    job = space.create(maxRetries=0)
    (taken,) = space.poll()
    space.do(taken, "ack")
    space.do(taken, "checkpoint", {"c": 1})
    other = space.create()
    wanted = {"success": True, "status": "pending", "attemptNumber": 0}
    for _ in range(2):
        assert space.do(job, "release", {"reason": "ü"}, token=taken["leaseToken"]) == wanted
    assert last(space, job) == ("released", {"reason": "ü"})
    assert space.events(job).count("released") == 1
    found = space.get(job)
    assert (found["deliveredAt"], found["startedAt"], found["attemptNumber"]) == (None, None, 0)
    assert [one["id"] for one in space.poll()] == [other["id"]]
    (again,) = space.poll()
    assert (again["id"], again["checkpoint"], again["attemptNumber"]) == (job["id"], {"c": 1}, 0)
    refused(space.call(job, "release", token=taken["leaseToken"]), 409, "lease_lost")
    assert space.do(job, "release") == wanted
    assert last(space, job) == ("released", {"reason": None})
    refused(space.call(job, "release"), 409, "invalid_state")


@since_0_2
def test_a_job_that_is_put_off_is_scheduled_until_its_time_comes(space: Space) -> None:
    job = space.job_in("running")
    put_off = space.do(job, "release", {"delaySeconds": 1.2, "reason": None}, token=job["leaseToken"])
    assert put_off == {"success": True, "status": "scheduled", "attemptNumber": 0}
    assert space.do(job, "release", {"delaySeconds": 1.2}, token=job["leaseToken"]) == put_off
    found = space.get(job)
    assert at(found["scheduledFor"]) - at(found["updatedAt"]) == timedelta(seconds=1.2)
    assert space.poll() == []
    until(lambda: space.status(job) == "pending", within_s=4)
    assert datetime.now(UTC) >= at(found["scheduledFor"])
    assert space.events(job) == ["created", "delivered", "started", "released", "pending"]


@since_0_2
@pytest.mark.parametrize(
    "body",
    [
        {"delaySeconds": -1},
        {"delaySeconds": 86401},
        {"delaySeconds": "1"},
        {"reason": 1},
        [],
        1,
        {"delaySeconds": True},
    ],
)
def test_a_release_out_of_range_is_400_and_changes_nothing(space: Space, body: Any) -> None:
    job = space.job_in("running")
    refused(space.call(job, "release", body), 400, "invalid_request")
    assert space.status(job) == "running"


@since_0_2
def test_a_reason_of_a_release_is_64_kib_long_at_most(space: Space) -> None:
    job = space.job_in("running")
    answer = space.call(job, "release", {"reason": "x" * 65_537})
    assert refused(answer, 413, "too_large")["limit"] == {"reasonBytes": 65_536}
    assert space.do(job, "release", {"reason": "x" * 65_536})["status"] == "pending"


@since_0_2
def test_a_release_needs_the_scope_of_a_fail(space: Space) -> None:
    job = space.job_in("running")
    refused(space.caller("jobs:complete").post(f"/jobs/{job['id']}/release"), 403, "missing_scope")
    assert space.caller("jobs:worker").post(f"/jobs/{job['id']}/release").status_code == 200


def test_an_ack_starts_the_job_and_the_lease_anew(space: Space) -> None:
    job = space.create(claim=True, timeoutSeconds=30)
    answer = space.do(job, "ack")
    found = space.get(job)
    assert (answer["success"], answer["status"], found["status"]) == (True, "running", "running")
    assert at(answer["timeoutAt"]) - at(found["startedAt"]) == timedelta(seconds=30)
    assert at(found["startedAt"]) >= at(found["deliveredAt"])
    assert last(space, job) == ("started", None)


def test_a_delivery_that_is_not_acknowledged_in_time_goes_back_and_uses_no_retry(space: Space) -> None:
    job = space.create(timeoutSeconds=1, maxRetries=0)
    (taken,) = space.poll()
    until(lambda: space.status(job) == "pending", within_s=4)
    found = space.get(job)
    assert (found["attemptNumber"], found["deliveredAt"], found["startedAt"]) == (0, None, None)
    assert last(space, job) == ("delivery_timeout", None)
    (again,) = space.poll()
    assert again["id"] == job["id"]
    assert again["leaseToken"] != taken["leaseToken"]
    refused(space.call(job, "ack", token=taken["leaseToken"]), 409, "lease_lost")


def test_an_execution_that_times_out_is_a_failed_attempt(space: Space) -> None:
    job = space.create(claim=True, timeoutSeconds=1, maxRetries=1)
    space.do(job, "ack")
    until(lambda: space.status(job) == "pending", within_s=4)
    kind, data = last(space, job)
    assert kind == "retried"
    assert (data["attemptNumber"], data["reason"]) == (1, "timeout")
    assert "timed out after 1 s" in data["error"]
    assert space.get(job)["attemptNumber"] == 1
    space.do(space.poll()[0], "ack")
    until(lambda: space.status(job) == "dead", within_s=4)
    kind, data = last(space, job)
    assert kind == "dead"
    assert data["reason"] == "timeout"
    assert space.get(job)["result"] == {"error": data["error"]}
    assert space.get(job)["completedAt"] is not None


def test_complete_sets_the_result_which_is_any_json(space: Space) -> None:
    for result in ({"a": 1}, [1], "x", 0, False, None):
        job = space.job_in("running")
        assert space.call(job, "complete", content=_json(result)).json() == {"success": True, "status": "completed"}
        found = space.get(job)
        assert found["result"] == result
        assert last(space, job) == ("completed", result)
        assert found["completedAt"] is not None
    job = space.job_in("running")
    space.do(job, "complete")
    assert space.get(job)["result"] is None


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_complete_without_an_ack_sets_started_at_too(space: Space) -> None:
    job = space.create(claim=True)
    space.do(job, "complete")
    found = space.get(job)
    assert found["startedAt"] == found["completedAt"]


def test_a_failed_attempt_goes_back_until_the_retries_are_used_up(space: Space) -> None:
    job = space.create(maxRetries=2)
    for attempt in (1, 2):
        (taken,) = space.poll()
        assert taken["attemptNumber"] == attempt - 1
        space.do(taken, "ack")
        answer = space.do(taken, "fail", {"error": f"e{attempt}"})
        assert answer == {"success": True, "status": "pending", "willRetry": True, "attemptNumber": attempt}
        assert last(space, job) == ("retried", {"error": f"e{attempt}", "attemptNumber": attempt})
        found = space.get(job)
        assert (found["deliveredAt"], found["startedAt"], found["result"], found["completedAt"]) == (None,) * 4
    answer = space.do(space.poll()[0], "fail", {"error": "e3"})
    assert answer == {"success": True, "status": "dead", "willRetry": False, "attemptNumber": 2}
    assert last(space, job) == ("dead", {"error": "e3"})
    assert space.get(job)["result"] == {"error": "e3"}


def test_a_failure_without_retry_goes_straight_to_dead(space: Space) -> None:
    job = space.job_in("running", maxRetries=5)
    answer = space.do(job, "fail", {"error": "hopeless", "retry": False})
    assert (answer["status"], answer["willRetry"], answer["attemptNumber"]) == ("dead", False, 0)
    wrong: list[Any] = [{"error": 1}, {"error": ["x"]}, {"retry": "no"}, {"retry": 0}, [], "x"]
    for body in wrong:
        refused(space.call(space.job_in("running"), "fail", body), 400, "invalid_request")


@since_0_2
def test_who_fails_with_claim_is_told_when_the_lease_ends(space: Space) -> None:
    job = space.create(claim=True, maxRetries=1)
    answer = space.do(job, "fail", {"error": "x", "claim": True}, token=job["leaseToken"])
    wanted = {"success": True, "status": "delivered", "willRetry": True, "attemptNumber": 1}
    assert answer.keys() == {*wanted, "leaseToken", "timeoutAt"}
    assert at(answer["timeoutAt"]) - at(space.get(job)["deliveredAt"]) == timedelta(seconds=300)


def test_who_fails_with_claim_holds_the_retry_before_anybody_else_can_poll_it(space: Space) -> None:
    job = space.create(claim=True, maxRetries=1)
    other = space.create()
    answer = space.do(job, "fail", {"error": "x", "claim": True}, token=job["leaseToken"])
    token = answer.pop("leaseToken")
    assert answer.items() >= {"success": True, "status": "delivered", "willRetry": True, "attemptNumber": 1}.items()
    assert token != job["leaseToken"]
    assert [taken["id"] for taken in space.poll(count=10)] == [other["id"]]
    assert space.events(job) == ["created", "delivered", "retried", "delivered"]
    space.do(job, "ack", token=token)
    last_one = space.do(job, "fail", {"error": "y", "claim": True}, token=token)
    assert last_one == {"success": True, "status": "dead", "willRetry": False, "attemptNumber": 1}


def test_a_fail_with_claim_may_be_repeated_while_the_retry_is_the_callers(space: Space) -> None:
    job = space.create(claim=True, maxRetries=5)
    first = space.do(job, "fail", {"error": "x", "claim": True}, token=job["leaseToken"])
    assert space.do(job, "fail", {"error": "x", "claim": True}, token=job["leaseToken"]) == first
    assert space.get(job)["attemptNumber"] == 1
    refused(space.call(job, "fail", {"error": "x"}, token=job["leaseToken"]), 409, "lease_lost")
    refused(space.call(job, "ack", token=job["leaseToken"]), 409, "lease_lost")
    space.do(job, "ack", token=first["leaseToken"])
    assert space.do(job, "fail", {"claim": True}, token=job["leaseToken"])["leaseToken"] == first["leaseToken"]
    space.do(job, "fail", {"error": "y"}, token=first["leaseToken"])
    space.poll()
    refused(space.call(job, "fail", {"error": "x", "claim": True}, token=job["leaseToken"]), 409, "lease_lost")


def test_a_retry_that_waits_cannot_be_claimed(space: Space) -> None:
    delayed = space.create(claim=True, retryDelaySeconds=5)
    drawn = space.create(claim=True, retryDelaySeconds={"base": 1, "factor": 2, "max": 60})
    for job in (delayed, drawn):
        refused(space.call(job, "fail", {"claim": True}), 400, "invalid_request")
        refused(space.call(job, "fail", {"claim": True, "retryAfterSeconds": 0.5}), 400, "invalid_request")
        assert space.status(job) == "delivered"
        assert space.do(job, "fail", {"claim": True, "retryAfterSeconds": 0})["status"] == "delivered"


def test_a_failure_may_say_how_long_its_retry_waits(space: Space) -> None:
    for own, said_s in ((0, 7), (30, 1.5), (30, 86400)):
        job = space.create(claim=True, retryDelaySeconds=own)
        assert space.do(job, "fail", {"retryAfterSeconds": said_s})["status"] == "scheduled"
        found = space.get(job)
        assert at(found["scheduledFor"]) - at(found["updatedAt"]) == timedelta(seconds=said_s)
    assert (
        space.do(space.create(claim=True, retryDelaySeconds=9), "fail", {"retryAfterSeconds": 0})["status"] == "pending"
    )
    for wrong in (-1, 86401, "1", True):
        refused(space.call(space.job_in("running"), "fail", {"retryAfterSeconds": wrong}), 400, "invalid_request")


def test_who_claims_a_retry_needs_the_scope_of_a_poll(space: Space) -> None:
    job = space.job_in("running")
    caller = space.caller("jobs:fail")
    refused(caller.post(f"/jobs/{job['id']}/fail", json={"claim": True}), 403, "missing_scope")
    assert caller.post(f"/jobs/{job['id']}/fail", json={"claim": False}).status_code == 200


def test_a_failure_needs_no_error(space: Space) -> None:
    job = space.job_in("running", maxRetries=0)
    assert space.do(job, "fail")["status"] == "dead"
    assert space.get(job)["result"] == {"error": None}


def test_a_retry_delay_shows_in_scheduled_for_while_it_lasts(space: Space) -> None:
    job = space.create(claim=True, retryDelaySeconds=1.2)
    answer = space.do(job, "fail", {"error": "x"})
    assert (answer["status"], answer["willRetry"]) == ("scheduled", True)
    found = space.get(job)
    assert (found["status"], found["attemptNumber"], found["deliveredAt"]) == ("scheduled", 1, None)
    assert at(found["scheduledFor"]) - at(found["updatedAt"]) == timedelta(seconds=1.2)
    assert last(space, job)[0] == "retried"
    assert space.poll() == []
    until(lambda: space.status(job) == "pending", within_s=4)
    assert datetime.now(UTC) >= at(found["scheduledFor"])
    assert space.get(job)["scheduledFor"] is None
    assert last(space, job) == ("pending", None)


def test_an_exponential_retry_delay_is_at_most_its_maximum(space: Space) -> None:
    job = space.create(claim=True, retryDelaySeconds={"base": 3600, "factor": 10, "max": 7200})
    space.do(job, "fail")
    found = space.get(job)
    if found["status"] == "scheduled":
        assert timedelta(0) < at(found["scheduledFor"]) - at(found["updatedAt"]) <= timedelta(seconds=7200)


@pytest.mark.parametrize("status", sorted(ALIVE))
def test_kill_ends_any_job_that_has_not_ended(space: Space, status: str) -> None:
    job = space.job_in(status)
    assert space.do(job, "kill", {"reason": "ü"}) == {"success": True, "status": "killed"}
    found = space.get(job)
    assert (found["status"], found["result"]) == ("killed", {"reason": "ü"})
    assert found["completedAt"] is not None
    assert last(space, job) == ("killed", {"reason": "ü"})
    assert space.poll(count=50) == []
    refused(space.call(job, "kill", {"reason": 1}), 400, "invalid_request")


@pytest.mark.parametrize("verb", each_of(*(verb for verb in VERBS if verb not in ("claim", "ack", "kill", "retry"))))
def test_a_worker_learns_from_409_that_its_job_was_killed(space: Space, verb: str) -> None:
    job = space.job_in("running")
    space.do(job, "kill")
    answer = space.call(job, verb, VERBS[verb], token=job["leaseToken"])
    assert refused(answer, 409, "invalid_state")["status"] == "killed"


@pytest.mark.parametrize("status", ["dead", "killed"])
def test_retry_lets_an_ended_job_run_again_with_one_more_retry(space: Space, status: str) -> None:
    job = space.create(maxRetries=1)
    space.do(space.poll()[0], "fail")
    taken = space.poll()[0]
    space.do(taken, "progress", {"percent": 5, "message": "x"})
    space.do(taken, "checkpoint", {"c": 1})
    space.do(taken, "fail" if status == "dead" else "kill")
    assert space.status(job) == status
    assert space.do(job, "retry") == {"success": True, "status": "pending"}
    found = space.get(job)
    assert (found["result"], found["completedAt"], found["deliveredAt"], found["startedAt"]) == (None,) * 4
    assert (found["attemptNumber"], found["maxRetries"]) == (1, 2)
    assert last(space, job) == ("requeued", None)
    (again,) = space.poll()
    assert again["checkpoint"] == {"c": 1}
    assert space.all.get(f"/jobs/{job['id']}/progress").json()["progress"]["percent"] == 5
    assert space.do(again, "fail")["status"] == "pending"
    assert space.do(space.poll()[0], "fail")["status"] == "dead"


@pytest.mark.parametrize("verb", each_of(*(verb for verb in VERBS if verb != "retry")))
def test_an_ended_job_stays_as_it_is_and_a_late_complete_is_refused_and_changes_nothing(
    space: Space, verb: str
) -> None:
    for status in ENDED:
        job = space.job_in(status)
        before = space.get(job)
        refused(space.call(job, verb, VERBS[verb]), 409, "invalid_state")
        assert space.get(job) == before


def test_a_repeated_ack_with_the_lease_is_answered_again_and_without_it_is_409(space: Space) -> None:
    job = space.create(claim=True)
    space.do(job, "ack", token=job["leaseToken"])
    before = space.get(job)
    again = space.do(job, "ack", token=job["leaseToken"])
    assert (again["status"], again["success"]) == ("running", True)
    assert space.get(job) == before
    refused(space.call(job, "ack"), 409, "invalid_state")


def test_a_repeated_complete_with_the_same_body_is_answered_again(space: Space) -> None:
    job = space.create(claim=True)
    first = space.do(job, "complete", {"x": 1})
    before = space.get(job)
    assert space.do(job, "complete", {"x": 1}) == first
    assert space.do(job, "complete", {"x": 1}, token=job["leaseToken"]) == first
    refused(space.call(job, "complete", {"x": 2}), 409, "invalid_state")
    assert space.get(job) == before


@pytest.mark.parametrize("verb", ["progress", "checkpoint", "event", "keepalive"])
def test_these_calls_start_the_lease_anew_and_say_until_when(space: Space, verb: str) -> None:
    for status in ("delivered", "running"):
        job = space.job_in(status, timeoutSeconds=2)
        begun = time.monotonic()
        ends: list[datetime] = []
        while not ends or ends[-1] - ends[0] <= timedelta(milliseconds=150):
            assert time.monotonic() - begun < 2
            answer = space.do(job, verb, VERBS[verb])
            assert (answer["success"], answer["status"]) == (True, status)
            ends.append(at(answer["timeoutAt"]))
        assert all(a <= b for a, b in pairwise(ends))
        assert abs(ends[-1] - datetime.now(UTC) - timedelta(seconds=2)) < timedelta(seconds=0.5)


def test_renewals_keep_a_job_alive_beyond_its_timeout_and_a_log_append_does_not(space: Space) -> None:
    kept, lost = (space.job_in("running", timeoutSeconds=1) for _ in range(2))
    begun = time.monotonic()
    while time.monotonic() - begun < 2.2:
        space.do(kept, "keepalive")
        space.call(lost, "logs", ["x"])
    assert space.status(kept) == "running"
    assert space.status(lost) == "pending"


def test_a_custom_event_of_a_job_without_a_lease_has_no_timeout(space: Space) -> None:
    for status in ("scheduled", "pending"):
        answer = space.do(space.job_in(status), "event", {"x": 1})
        assert answer == {"success": True, "status": status, "timeoutAt": None}


def test_what_returns_to_pending_goes_to_the_back(space: Space) -> None:
    a, b, c = (space.create(payload=i) for i in range(3))
    (first,) = space.poll()
    space.do(first, "fail")
    space.do(b, "kill")
    space.do(b, "retry")
    assert [job["id"] for job in space.poll(count=3)] == [c["id"], a["id"], b["id"]]
    assert space.create(scheduledFor=in_future())["status"] == "scheduled"
