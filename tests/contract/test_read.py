"""Lists, one job, its events in pages, its progress."""

import json
from itertools import pairwise
from typing import Any

import pytest

from tests.factories import STATUSES, Space, at, refused
from tests.server import Server

OBJECT = {
    "id", "spaceId", "name", "payload", "status", "maxRetries", "attemptNumber", "timeoutSeconds", "scheduledFor",
    "deliveredAt", "startedAt", "completedAt", "result", "createdAt", "updatedAt", "limitSeconds",
}  # fmt: skip


def listed(space: Space, query: str = "") -> list[Any]:
    answer = space.all.get(f"{space.jobs}{query}")
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()
    return found


def test_an_empty_space_lists_an_empty_array(space: Space) -> None:
    answer = space.all.get(space.jobs)
    assert (answer.status_code, answer.json(), answer.headers["x-total-count"]) == (200, [], "0")


@pytest.mark.since_release("0.2.0")
def test_the_list_is_newest_created_first_whatever_the_jobs_did_since(space: Space) -> None:
    jobs = [space.create(payload=i) for i in range(5)]
    space.do(jobs[2], "kill")
    space.do(jobs[2], "retry")
    space.poll()
    assert [job["payload"] for job in listed(space)] == [4, 3, 2, 1, 0]
    assert all(job.keys() == OBJECT for job in listed(space))
    assert listed(space)[0] == {name: value for name, value in space.get(jobs[4]).items() if name in OBJECT}


def test_limit_and_offset_cut_the_list_and_the_total_does_not_change(space: Space) -> None:
    space.all.post(space.jobs, json=[{"name": "x", "payload": i} for i in range(120)])
    assert len(listed(space)) == 50
    assert [job["payload"] for job in listed(space, "?limit=3&offset=2")] == [117, 116, 115]
    assert len(listed(space, "?limit=100&offset=100")) == 20
    assert listed(space, "?offset=120") == []
    assert listed(space, "?offset=9007199254740992") == []
    assert space.all.get(f"{space.jobs}?limit=1&offset=7").headers["x-total-count"] == "120"


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_selects_its_jobs(space: Space, status: str) -> None:
    jobs = {one: [space.job_in(one)["id"] for _ in range(2)] for one in STATUSES}
    answer = space.all.get(f"{space.jobs}?status={status}")
    assert [job["id"] for job in answer.json()] == jobs[status][::-1]
    assert {job["status"] for job in answer.json()} == {status}
    assert answer.headers["x-total-count"] == "2"


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=-1", "limit=x", "limit=", "limit=1.5", "limit=1e1", "limit=%2B1", "limit=%D9%A1",
     "offset=-1", "offset=x", "offset=99999999999999999999999", "status=nothing", "status=", "status=PENDING",
     "status=pending,", "status=pending,,dead", "status=pending, dead", "cursor=", "cursor=x",
     "limit=%ff", "status=%00"],
)  # fmt: skip
def test_a_parameter_out_of_range_is_400_and_not_clamped(space: Space, query: str) -> None:
    refused(space.all.get(f"{space.jobs}?{query}"), 400, "invalid_request")


def test_a_parameter_that_is_unknown_is_ignored_and_of_a_doubled_one_the_last_counts(space: Space) -> None:
    space.create()
    space.create()
    assert len(listed(space, "?nothing=1&limit=2&limit=1")) == 1


@pytest.mark.parametrize("status", STATUSES)
def test_a_job_shows_its_times_and_result_as_its_status_has_them(space: Space, status: str) -> None:
    job = space.get(space.job_in(status))
    assert job["status"] == status
    assert (job["scheduledFor"] is not None) == (status == "scheduled")
    assert (job["deliveredAt"] is not None) == (status not in ("scheduled", "pending"))
    assert (job["startedAt"] is not None) == (status in ("running", "completed"))
    assert (job["completedAt"] is not None) == (status in ("completed", "dead", "killed"))
    results = {"completed": {"ok": True}, "dead": {"error": "broken"}, "killed": {"reason": "enough"}}
    assert job["result"] == results.get(status)


@pytest.mark.since_release("0.2.0")
def test_a_job_shows_its_callback_and_no_lease(space: Space) -> None:
    headers = {"b": "2", "Authorization": "Bearer x", "a": "ü"}
    made = space.create(callbackUrl="https://example.com/x", callbackHeaders=headers, claim=True)
    job = space.get(made)
    assert job.keys() == OBJECT | {"callbackUrl", "callbackHeaders", "checkpoint", "events"}
    assert job["callbackUrl"] == "https://example.com/x"
    assert list(job["callbackHeaders"].items()) == list(headers.items())
    assert made["leaseToken"] not in json.dumps(job)
    assert space.get(space.create())["callbackHeaders"] is None


def test_callback_headers_can_be_masked_for_keys_that_create_no_jobs(redis_url: str) -> None:
    with Server(redis_url, JOBWIRE_MASK_CALLBACK_HEADERS="1") as server:
        space = Space(server)
        job = space.create(callbackHeaders={"authorization": "secret"}, callbackUrl="https://example.com")
        assert space.get(job)["callbackHeaders"] == {"authorization": "secret"}
        seen = space.caller("jobs:read").get(f"/jobs/{job['id']}")
        assert seen.json()["callbackHeaders"].keys() == {"authorization"}
        assert "secret" not in seen.text


def test_events_are_oldest_first_and_have_a_seq_without_holes(space: Space) -> None:
    job = space.create()
    (taken,) = space.poll()
    space.do(taken, "ack")
    space.do(taken, "checkpoint", {"step": 1})
    space.do(taken, "progress", {"percent": 1, "message": "not an event"})
    space.do(taken, "event", [1, "x", None])
    space.do(taken, "complete", "done")
    events = space.get(job)["events"]
    assert [event["type"] for event in events] == [
        "created",
        "delivered",
        "started",
        "checkpoint",
        "event",
        "completed",
    ]
    assert [event["data"] for event in events] == [None, None, None, {"step": 1}, [1, "x", None], "done"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
    for event in events:
        assert event.keys() == {"id", "jobId", "spaceId", "type", "data", "createdAt", "seq"}
        assert (event["jobId"], event["spaceId"], len(event["id"])) == (job["id"], space.id, 26)
    assert len({event["id"] for event in events}) == 6
    assert all(at(a["createdAt"]) <= at(b["createdAt"]) for a, b in pairwise(events))
    assert space.get(job)["events"] == events


def test_more_than_1000_events_are_answered_as_the_newest_1000_and_paged_in_full(space: Space) -> None:
    job = space.create()
    for i in range(1004):
        space.do(job, "event", i)
    found = space.get(job)
    assert found["eventsTruncated"] is True
    assert [event["data"] for event in found["events"]] == list(range(4, 1004))
    page = space.all.get(f"/jobs/{job['id']}/events?limit=1000").json()["events"]
    assert [event["seq"] for event in page] == list(range(1, 1001))
    rest = space.all.get(f"/jobs/{job['id']}/events?after=1000&limit=3").json()["events"]
    assert [event["seq"] for event in rest] == [1001, 1002, 1003]
    assert rest[0] == found["events"][-5]
    assert space.all.get(f"/jobs/{job['id']}/events?after=1005").json()["events"] == []
    assert "eventsTruncated" not in space.get(space.create())


def test_more_than_4_mib_of_events_are_answered_as_the_newest_4_mib(space: Space) -> None:
    job = space.create()
    for i in range(20):
        space.do(job, "event", {"i": i, "x": "y" * 250_000})
    answer = space.all.get(f"/jobs/{job['id']}")
    assert answer.json()["eventsTruncated"] is True
    numbers = [event["data"]["i"] for event in answer.json()["events"]]
    assert numbers == list(range(20 - len(numbers), 20))
    assert 15 <= len(numbers) <= 16
    assert len(answer.content) < 4.5 * 1024 * 1024
    seen: list[int] = []
    while page := space.all.get(f"/jobs/{job['id']}/events?after={seen[-1] if seen else 0}").json()["events"]:
        seen += [event["seq"] for event in page]
    assert seen == list(range(1, 22))


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "after=-1", "after=x"])
def test_a_page_of_events_out_of_range_is_400(space: Space, query: str) -> None:
    refused(space.all.get(f"/jobs/{space.create()['id']}/events?{query}"), 400, "invalid_request")


@pytest.mark.valkey_only("70 events of 256 KiB are slow there, and their trimming is the same script")
def test_a_job_keeps_16_mib_of_events_and_its_checkpoint_even_when_its_event_has_gone(space: Space) -> None:
    job = space.create(claim=True)
    space.do(job, "checkpoint", {"step": 7})
    for i in range(70):
        space.do(job, "event", {"i": i, "x": "y" * 260_000})
    first = space.all.get(f"/jobs/{job['id']}/events?limit=1").json()
    assert first["events"][0]["seq"] > 4
    assert first["cursor"]["firstSeq"] == first["events"][0]["seq"]
    assert space.get(job)["checkpoint"] == {"step": 7}
    space.do(job, "fail")
    (again,) = space.poll()
    assert again["checkpoint"] == {"step": 7}


def test_progress_is_null_before_it_was_reported(space: Space) -> None:
    job = space.create()
    answer = space.all.get(f"/jobs/{job['id']}/progress")
    assert answer.json() == {"jobId": job["id"], "progress": None, "timestamp": None}


def test_progress_is_the_latest_and_stays_when_the_job_ends(space: Space) -> None:
    job = space.create(claim=True)
    stages = {"load": {"percent": 100, "message": "done"}, "send": {"percent": 0.5}}
    for percent in (0, 55.5, 100):
        space.do(job, "progress", {"percent": percent, "message": "ü", "subProgress": stages})
    space.do(job, "complete")
    found = space.all.get(f"/jobs/{job['id']}/progress").json()
    assert found["progress"] == {"percent": 100, "message": "ü", "subProgress": stages}
    assert at(found["timestamp"]) >= at(job["createdAt"])
    assert found["jobId"] == job["id"]


def test_updated_at_moves_with_status_progress_and_checkpoint_and_with_nothing_else(space: Space) -> None:
    job = space.create(claim=True)
    seen = [space.get(job)["updatedAt"]]

    def after(verb: str, body: Any = None) -> bool:
        space.do(job, verb, body)
        seen.append(space.get(job)["updatedAt"])
        return bool(seen[-1] > seen[-2])

    assert after("ack")
    assert after("progress", {"percent": 1, "message": "x"})
    assert after("checkpoint", {})
    assert not after("keepalive")
    assert not after("event", {})
    assert not after("logs", ["x"])
    assert after("complete")
