"""POST /spaces/:spaceId/jobs: every field, its default and its bounds; one and many; the answer."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from tests.factories import NO_JOB, Space, at, in_future, refused
from tests.server import Server

OBJECT = {
    "id", "spaceId", "name", "payload", "status", "maxRetries", "attemptNumber", "timeoutSeconds", "scheduledFor",
    "deliveredAt", "startedAt", "completedAt", "result", "createdAt", "updatedAt", "limitSeconds",
}  # fmt: skip
MIB = 1024 * 1024


@pytest.mark.since_release("0.2.0")
def test_a_job_has_these_fields_and_defaults(space: Space) -> None:
    answer = space.all.post(space.jobs, json={"name": "work"})
    assert answer.status_code == 201
    job = answer.json()
    assert job.keys() == OBJECT | {"realtimeUrl"}
    fixed = {name: job[name] for name in OBJECT - {"id", "createdAt", "updatedAt"}}
    assert fixed == {
        "spaceId": space.id, "name": "work", "payload": None, "status": "pending", "maxRetries": 3, "attemptNumber": 0,
        "timeoutSeconds": 300, "scheduledFor": None, "deliveredAt": None, "startedAt": None, "completedAt": None,
        "result": None, "limitSeconds": None,
    }  # fmt: skip
    assert job["createdAt"] == job["updatedAt"]
    assert abs(at(job["createdAt"]) - datetime.now(UTC)) < timedelta(seconds=5)
    assert len(job["createdAt"]) == len("2026-03-01T09:21:01.120Z")
    assert job["createdAt"].endswith("Z")
    stored = space.get(job)
    assert {name: stored[name] for name in OBJECT} == {name: job[name] for name in OBJECT}
    assert [event["type"] for event in stored["events"]] == ["created"]
    assert stored["events"][0]["data"] is None


def test_ids_are_ulids_that_do_not_tell_their_neighbours(space: Space) -> None:
    jobs = space.all.post(space.jobs, json=[{"name": "x"}] * 200).json()
    ids = [job["id"] for job in jobs]
    assert len(set(ids)) == 200
    assert all(len(id_) == 26 and set(id_) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ") for id_ in ids)
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    tails = sorted(sum(alphabet.index(char) * 32 ** (9 - i) for i, char in enumerate(id_[16:])) for id_ in ids)
    assert min(b - a for a, b in pairwise(tails)) > 2**20


GOOD: list[dict[str, Any]] = [
    {"name": "x"},
    {"name": "ü" * 200},
    {"name": "😀" * 200},
    {"name": 'with blanks : {braces} *?[] \u0000 \n "quotes"'},
    {"payload": {"a": [1, {"b": None}], "ü": "😀"}},
    {"payload": "x" * (MIB - 2)},
    {"payload": False},
    {"maxRetries": 0},
    {"maxRetries": 25},
    {"timeoutSeconds": 1},
    {"timeoutSeconds": 86400},
    {"scheduledFor": None},
    {"callbackUrl": None, "callbackHeaders": None},
    {"callbackUrl": "https://example.com/" + "x" * 2028},
    {"callbackUrl": "http://8.8.8.8:8080/hook?x=1#y"},
    {"callbackUrl": "https://example.com", "callbackHeaders": {f"x-{i}": "v" for i in range(32)}},
    {"callbackHeaders": {"authorization": "x" * (8192 - 13)}},
    {"callbackHeaders": {}},
    {"retryDelaySeconds": 0},
    {"retryDelaySeconds": 86400},
    {"retryDelaySeconds": 0.5},
    {"retryDelaySeconds": {"base": 1, "factor": 2, "max": 60}},
    {"claim": False},
]


@pytest.mark.parametrize("fields", GOOD, ids=range(len(GOOD)))
def test_a_value_within_bounds_is_kept(space: Space, fields: dict[str, Any]) -> None:
    job = space.create(**fields)
    stored = space.get(job)
    for name in ("name", "payload", "maxRetries", "timeoutSeconds", "callbackUrl", "callbackHeaders"):
        if name in fields:
            assert stored[name] == fields[name]
    assert space.poll(names=[job["name"]])[0]["id"] == job["id"]


@pytest.mark.since_release("0.2.0")
@pytest.mark.parametrize("limit_s", [None, 1, 604_800])
def test_a_limit_within_bounds_is_kept(space: Space, limit_s: int | None) -> None:
    job = space.create(limitSeconds=limit_s)
    assert job["limitSeconds"] == space.get(job)["limitSeconds"] == limit_s


@pytest.mark.since_release("0.2.0")
@pytest.mark.parametrize("limit_s", [0, -1, 604_801, 0.5, "300", False, 10**30, {}])
def test_a_limit_out_of_bounds_is_refused(space: Space, limit_s: object) -> None:
    refused(space.all.post(space.jobs, json={"name": "x", "limitSeconds": limit_s}), 400, "invalid_request")


@pytest.mark.since_release("0.2.0")
def test_a_limit_bounds_the_lease_of_a_claimed_job_and_of_its_renewals(space: Space) -> None:
    job = space.create(claim=True, limitSeconds=60, timeoutSeconds=300)
    begun = at(job["deliveredAt"])
    assert at(job["timeoutAt"]) - begun == timedelta(seconds=60)
    renewed = space.all.post(f"/jobs/{job['id']}/keepalive").json()
    assert at(renewed["timeoutAt"]) - begun == timedelta(seconds=60)


def bad() -> Iterator[tuple[dict[str, Any], int]]:
    value: Any
    name: Any
    for name in (None, 1, "", "x" * 201, ["x"], {}, True):
        yield {"name": name}, 400
    for value in (-1, 26, 1.5, "3", True, 10**30, [], 1e400):
        yield {"maxRetries": value}, 400
    for value in (0, -1, 86401, 0.5, "300", False, 10**30):
        yield {"timeoutSeconds": value}, 400
    times = ["2099-01-01T00:00:00", "2099-01-01", "tomorrow", "", "2001-01-01T00:00:00Z", "2099-13-01T00:00:00Z"]
    for value in (*times, "2099-02-30T00:00:00Z", "2099-01-01T25:00:00Z", "2099-01-01T00:00:00+25:00", 4e9, True, {}):
        yield {"scheduledFor": value}, 400
    urls = [
        "",
        "x",
        "ftp://example.com",
        "//example.com",
        "https://",
        "https:///x",
        "javascript:alert(1)",
        "http://[::1",
    ]
    for value in (
        *urls,
        "https://example.com/\n",
        "https://a b/",
        "https://example.com/" + "x" * 2029,
        7,
        {},
        "http://x:99999",
    ):
        yield {"callbackUrl": value}, 400
    headers: list[Any] = [{f"x-{i}": "v" for i in range(33)}, {"x": 1}, {"x": None}, [], "x", {"": "v"}, {"a b": "v"}]
    headers += [{"x": "a\nb"}, {"x": "a\r"}, {"x": "\0"}, {"x\r\n": "v"}, {"x": "\x7f"}, {"x:": "v"}]
    for value in headers:
        yield {"callbackHeaders": value}, 400
    yield {"callbackHeaders": {"x": "y" * 8192}}, 413
    yield {"callbackHeaders": {"x": "ü" * 4096}}, 413
    for value in (
        -1,
        86401,
        "1",
        {},
        {"base": 1},
        {"base": -1, "factor": 2, "max": 5},
        {"base": 1, "factor": 2, "max": 86401},
    ):
        yield {"retryDelaySeconds": value}, 400
    for value in (1, "true", {}):
        yield {"claim": value}, 400
    yield {"claim": True, "scheduledFor": in_future()}, 400
    yield {"payload": "x" * (MIB - 1)}, 413


@pytest.mark.valkey_only("it is refused before Redis is asked")
@pytest.mark.parametrize(
    ("fields", "status"), [pytest.param(f, s, id=f"{i}-{next(iter(f))}") for i, (f, s) in enumerate(bad())]
)
def test_a_value_out_of_bounds_is_refused_alone_and_in_a_batch_with_its_index(
    space: Space, fields: dict[str, Any], status: int
) -> None:
    code = {400: "invalid_request", 413: "too_large"}[status]
    wrong = {"name": "x", **fields}
    # As in JavaScript, whose JSON knows no infinity and spells 1e400 as it was typed.
    text = json.dumps(wrong).replace("Infinity", "1e400")
    refused(space.all.post(space.jobs, content=text), status, code)
    batch = f'[{{"name":"a"}},{{"name":"b"}},{text},{{"name":"c"}}]'
    assert refused(space.all.post(space.jobs, content=batch), status, code)["index"] == 2
    assert space.all.get(space.jobs).json() == []
    assert space.server.root.get(f"/spaces/{space.id}").json()["counts"]["pending"] == 0


@pytest.mark.parametrize("body", [[], 7, "x", True, [7], [[]], [None]])
def test_what_is_no_job_and_no_array_of_jobs_is_400(space: Space, body: Any) -> None:
    refused(space.all.post(space.jobs, json=body), 400, "invalid_request")
    refused(space.all.post(space.jobs, content=b"null"), 400, "invalid_request")


def test_an_array_is_answered_by_an_array_in_the_same_order(space: Space) -> None:
    jobs = space.all.post(space.jobs, json=[{"name": f"n{i}", "payload": i} for i in range(1000)]).json()
    assert [job["payload"] for job in jobs] == list(range(1000))
    assert [job["payload"] for job in space.poll(count=50)] == list(range(50))
    one = space.all.post(space.jobs, json=[{"name": "x"}])
    assert isinstance(one.json(), list)


def test_1001_jobs_or_more_than_8_mib_are_too_many(space: Space) -> None:
    body = refused(space.all.post(space.jobs, json=[{"name": "x"}] * 1001), 413, "too_large")
    assert body["index"] == 1000
    assert 1000 in body["limit"].values()
    nine = [{"name": "x", "payload": "y" * 1_000_000}] * 9
    body = refused(space.all.post(space.jobs, json=nine), 413, "too_large")
    assert 8 * MIB in body["limit"].values()
    assert space.all.get(space.jobs).json() == []


def test_a_time_is_read_with_any_offset_and_cut_to_milliseconds(space: Space) -> None:
    for sent, answered in {
        "2099-03-01T09:21:01.1209999Z": "2099-03-01T09:21:01.120Z",
        "2099-03-01T09:21:01+05:30": "2099-03-01T03:51:01.000Z",
        "2099-03-01t09:21:01.5-00:30": "2099-03-01T09:51:01.500Z",
        "2099-12-31T23:59:59.999-12:00": "2100-01-01T11:59:59.999Z",
    }.items():
        job = space.create(scheduledFor=sent)
        assert job["status"] == "scheduled"
        assert job["scheduledFor"] == answered
        assert space.get(job)["scheduledFor"] == answered


@pytest.mark.parametrize("ago_s", [0, 1, 40])
def test_a_time_up_to_a_minute_ago_is_now(space: Space, ago_s: int) -> None:
    sent = in_future(seconds=-ago_s)
    first = space.create(scheduledFor=sent)
    second = space.all.post(space.jobs, json=[{"name": "b", "scheduledFor": sent}, {"name": "c"}]).json()[0]
    for job in (first, second):
        assert job["status"] == "pending"
        assert at(job["scheduledFor"]) == at(sent).replace(microsecond=at(sent).microsecond // 1000 * 1000)
        stored = space.get(job)
        assert {name: stored[name] for name in OBJECT} == {name: job[name] for name in OBJECT}
        assert space.events(job) == ["created"]
    assert [job["id"] for job in space.poll(count=2)] == [first["id"], second["id"]]
    assert space.server.root.get(f"/spaces/{space.id}").json()["counts"]["scheduled"] == 0


def test_a_time_more_than_a_minute_ago_is_400(space: Space) -> None:
    wrong = {"name": "x", "scheduledFor": in_future(seconds=-61)}
    refused(space.all.post(space.jobs, json=wrong), 400, "invalid_request")
    body = refused(space.all.post(space.jobs, json=[{"name": "a"}, wrong]), 400, "invalid_request")
    assert body["index"] == 1
    assert space.all.get(space.jobs).json() == []


def test_claimed_and_other_jobs_of_a_batch_are_what_they_would_be_alone(space: Space) -> None:
    batch = [{"name": "a", "claim": True}, {"name": "b"}, {"name": "c", "scheduledFor": in_future()}]
    made = space.all.post(space.jobs, json=[*batch, {"name": "d", "claim": True, "timeoutSeconds": 60}]).json()
    assert [job["status"] for job in made] == ["delivered", "pending", "scheduled", "delivered"]
    for job in made:
        stored = space.get(job)
        assert {name: stored[name] for name in OBJECT} == {name: job[name] for name in OBJECT}
        assert space.events(job) == ["created", *(["delivered"] if "leaseToken" in job else [])]
    counts = space.server.root.get(f"/spaces/{space.id}").json()["counts"]
    assert {status: count for status, count in counts.items() if count} == {
        "delivered": 2, "pending": 1, "scheduled": 1
    }  # fmt: skip
    assert space.poll(count=5)[0]["id"] == made[1]["id"]
    for job in (made[0], made[3]):
        space.do(job, "complete", token=job["leaseToken"])


def test_a_claimed_job_is_born_delivered_with_a_lease(space: Space) -> None:
    job = space.create(claim=True)
    assert job["status"] == "delivered"
    assert job["deliveredAt"] == job["createdAt"]
    assert len(job["leaseToken"]) >= 16
    assert space.poll() == []
    assert space.events(job) == ["created", "delivered"]
    assert space.do(job, "ack", token=job["leaseToken"])["status"] == "running"


def test_the_realtime_url_is_absolute_from_the_host_header(space: Space) -> None:
    job = space.all.post(space.jobs, json={"name": "x"}, headers={"host": "jobs.example:8443"}).json()
    assert job["realtimeUrl"].endswith(f"://jobs.example:8443/api/v1/realtime/{job['id']}")


def test_the_realtime_url_comes_from_the_public_url_where_there_is_one(redis_url: str) -> None:
    with Server(redis_url, JOBWIRE_PUBLIC_URL="https://jobs.example/") as server:
        space = Space(server)
        job = space.create()
        assert job["realtimeUrl"] in {
            f"{scheme}://jobs.example/api/v1/realtime/{job['id']}" for scheme in ("wss", "https")
        }


def test_a_space_that_is_not_there_makes_no_job(space: Space) -> None:
    refused(space.server.root.post(f"/spaces/{NO_JOB}/jobs", json={"name": "x"}), 404, "space_not_found")
