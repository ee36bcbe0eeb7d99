"""The rate of a key, and browsers of other origins."""

import gzip
import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.contract.test_transitions import since_0_2
from tests.factories import Space, refused
from tests.server import Server
from tests.valkey import client_of

RATE = 200


pytestmark = pytest.mark.valkey_only("what it proves is decided before Redis is asked")


@pytest.mark.alone("it measures a rate")
@pytest.mark.valkey_only("fakeredis is slower than the rate")
def test_the_rate_of_a_key_holds_over_two_processes_within_a_tenth(redis_url: str) -> None:
    with (
        Server(redis_url, JOBWIRE_RATE=str(RATE)) as one,
        Server(redis_url, prefix=one.prefix, root_key=one.root_key, JOBWIRE_RATE=str(RATE)) as two,
    ):
        space = Space(one)
        callers = [one.caller(space.all.key), two.caller(space.all.key)] * 4
        begin = time.monotonic() + 1.2
        end = begin + 3

        def worker(number: int) -> int:
            passed = 0
            while time.monotonic() < end:
                answer = callers[number].get(f"{space.jobs}?limit=1")
                if answer.status_code == 200 and time.monotonic() >= begin:
                    passed += 1
                if answer.status_code == 429:
                    refused(answer, 429, "rate_limited")
                    assert int(answer.headers["retry-after"]) >= 1
                    time.sleep(0.002)
            return passed

        with ThreadPoolExecutor(len(callers)) as threads:
            passed = sum(threads.map(worker, range(len(callers))))
        assert 0.9 * RATE * 3 <= passed <= 1.1 * RATE * 3


def test_the_rate_is_per_key_and_the_root_key_is_exempt(redis_url: str) -> None:
    with Server(redis_url, JOBWIRE_RATE="20") as server:
        space = Space(server)
        other = space.caller("jobs:read")
        statuses = [space.all.get(space.jobs).status_code for _ in range(60)]
        assert statuses.count(200) >= 18
        assert 429 in statuses
        assert other.get(space.jobs).status_code == 200
        assert {server.root.get(space.jobs).status_code for _ in range(60)} == {200}


def test_429_comes_after_403_and_before_the_body(redis_url: str) -> None:
    with Server(redis_url, JOBWIRE_RATE="1") as server:
        space, other = Space(server), Space(server)
        while space.all.get(space.jobs).status_code != 429:
            pass
        refused(space.all.get(other.jobs), 403, "wrong_space")
        refused(space.all.send("PUT", space.jobs), 405, "method_not_allowed")
        refused(space.all.post(space.jobs, content=b"{", headers={"content-type": "x"}), 429, "rate_limited")


KIB = 1024
SLOW = 60
"""A rate so low that a process takes no unit in advance: then Redis has what each call spends."""


@pytest.fixture(scope="module")
def slow(redis_url: str) -> Iterator[Space]:
    """A space whose keys have the rate SLOW."""
    with Server(redis_url, JOBWIRE_RATE=str(SLOW)) as server:
        yield Space(server)


def spent(space: Space, path: str, statuses: tuple[int, ...] = (200, 201), **request: Any) -> int:
    """The units that a call of a rested key spends; it goes through, or is answered with one of the statuses."""
    key = f"{space.server.prefix}:rate:{hashlib.sha256((space.all.key or '').encode()).hexdigest()}"
    with client_of(space.server.redis_url) as client:
        client.delete(key)
        answer = space.all.post(path, **request)
        assert answer.status_code in statuses, answer.text
        counts: Any = client.hmget(key, "count", "before")
        client.delete(key)
    return sum(map(int, counts))


@pytest.mark.parametrize(("jobs", "units"), [(1, 1), (10, 1), (11, 2), (20, 2), (21, 3), (511, 52), (1000, SLOW)])
def test_every_further_ten_jobs_of_a_create_are_a_unit(slow: Space, jobs: int, units: int) -> None:
    assert spent(slow, slow.jobs, json=[{"name": "x"}] * jobs) == units


@since_0_2
@pytest.mark.parametrize(("calls", "units"), [(1, 1), (10, 1), (11, 2), (21, 3), (511, 52)])
def test_every_further_ten_calls_of_a_batch_are_a_unit(slow: Space, calls: int, units: int) -> None:
    assert spent(slow, f"/spaces/{slow.id}/calls", json=[{"verb": "ack", "jobId": "x"}] * calls) == units


@since_0_2
def test_every_64_kib_of_a_batch_of_calls_are_a_unit(slow: Space) -> None:
    call = {"verb": "complete", "jobId": "x", "body": "y" * 64 * KIB}
    assert spent(slow, f"/spaces/{slow.id}/calls", json=[call] * 3) == 1 + 3


@pytest.mark.parametrize(("size", "units"), [(64 * KIB - 1, 1), (64 * KIB, 2), (1000 * KIB, 16)])
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_every_64_kib_of_a_body_are_a_unit_however_it_was_packed(
    slow: Space, size: int, units: int, encoding: str
) -> None:
    body = b'{"name":"x","payload":"%s"}' % (b"y" * (size - 25))
    if encoding:
        assert spent(slow, slow.jobs, content=gzip.compress(body), headers={"content-encoding": encoding}) == units
    else:
        assert spent(slow, slow.jobs, content=body) == units


@pytest.mark.parametrize(("size", "status"), [(8 * KIB * KIB + 1, 413), (64 * 40 * KIB, 400)])
def test_what_is_refused_once_it_is_unpacked_is_spent(slow: Space, size: int, status: int) -> None:
    packed: Any = {"content": gzip.compress(b" " * size), "headers": {"content-encoding": "gzip"}}
    assert spent(slow, slow.jobs, (status,), **packed) == min(SLOW, 1 + size // (64 * KIB))


def test_what_is_over_the_rate_once_it_is_unpacked_takes_what_is_left_of_it(slow: Space) -> None:
    job = {"name": "x", "payload": "y" * 64 * 6 * KIB}
    packed: Any = {"content": gzip.compress(json.dumps([job] * 6).encode()), "headers": {"content-encoding": "gzip"}}
    key = f"{slow.server.prefix}:rate:{hashlib.sha256((slow.all.key or '').encode()).hexdigest()}"
    assert SLOW / 2 < spent(slow, slow.jobs, **packed) < SLOW
    assert slow.all.post(slow.jobs, **packed).status_code == 201
    refused(slow.all.post(slow.jobs, **packed), 429, "rate_limited")
    with client_of(slow.server.redis_url) as client:
        counts: Any = client.hmget(key, "count", "before")
        client.delete(key)
    assert sum(map(int, counts)) >= SLOW


def test_other_calls_are_spent_by_their_bodies_too(slow: Space) -> None:
    job = {"id": slow.server.root.post(slow.jobs, json={"name": "x", "claim": True}).json()["id"]}
    assert spent(slow, f"/jobs/{job['id']}/logs", json=["y" * 1000] * 200) == 4
    assert spent(slow, f"/jobs/{job['id']}/checkpoint", json={"x": "y" * 100 * KIB}) == 2
    assert spent(slow, f"/jobs/{job['id']}/keepalive") == 1
    assert spent(slow, f"/jobs/{job['id']}/complete", json="y" * 200 * KIB) == 4


def test_a_retry_of_many_is_spent_by_the_jobs_that_it_may_let_run_again(slow: Space) -> None:
    root = slow.server.root
    dead = root.post(slow.jobs, json=[{"name": "dead"}] * 30).json()
    for job in dead:
        assert root.post(f"/jobs/{job['id']}/kill").status_code == 200
    assert spent(slow, f"{slow.jobs}/retry", json={"status": "killed", "limit": 10}) == 1
    assert spent(slow, f"{slow.jobs}/retry", json={"status": "killed", "limit": 20}) == 2
    assert spent(slow, f"{slow.jobs}/retry", json={"status": "killed"}) == 5


def test_a_rested_key_gets_any_single_call_through(redis_url: str) -> None:
    with Server(redis_url, JOBWIRE_RATE="3") as server:
        space = Space(server)
        whole = [{"name": "x", "payload": "y" * 8000}] * 1000
        assert space.all.post(space.jobs, json=whole).status_code == 201


def test_a_key_that_is_over_once_its_work_is_known_stores_nothing_and_is_told_when_to_come_back(redis_url: str) -> None:
    with Server(redis_url, JOBWIRE_RATE="20") as server:
        space = Space(server)
        many = [{"name": "x"}] * 200
        assert space.all.post(space.jobs, json=many).status_code == 201
        for request in ({"content": b"[" + b" " * 20 * 64 * KIB}, {"json": many}):
            answer = space.all.post(space.jobs, **request)
            refused(answer, 429, "rate_limited")
        assert server.root.get(space.jobs).headers["x-total-count"] == "200"
        for _ in range(3):
            # The first time it may be the first unit that was refused, and the rest not known.
            time.sleep(int(answer.headers["retry-after"]))
            answer = space.all.post(space.jobs, json=many)
            if answer.status_code == 201:
                break
        assert answer.status_code == 201


def test_the_first_unit_is_taken_before_the_body_is_looked_at_and_the_rest_before_the_json(redis_url: str) -> None:
    with Server(redis_url, JOBWIRE_RATE="20") as server:
        space = Space(server)
        refused(space.all.post(space.jobs, content=b"{", headers={"content-type": "x"}), 415, "unsupported_media_type")
        refused(space.all.post(space.jobs, content=b"{" * 9 * KIB * KIB), 413, "too_large")
        answers = [space.all.post(space.jobs, content=b"{" * 64 * 12 * KIB).json()["code"] for _ in range(20)]
        assert answers[0] == "invalid_json"
        assert set(answers) == {"invalid_json", "rate_limited"}


@pytest.mark.alone("it measures a rate")
def test_work_is_held_to_the_rate_over_two_processes_within_a_tenth(redis_url: str) -> None:
    with (
        Server(redis_url, JOBWIRE_RATE=str(RATE)) as one,
        Server(redis_url, prefix=one.prefix, root_key=one.root_key, JOBWIRE_RATE=str(RATE)) as two,
    ):
        space = Space(one)
        callers = [one.caller(space.all.key), two.caller(space.all.key)] * 2
        begin = time.monotonic() + 1.2
        end = begin + 3
        body = [{"name": "x"}] * 50

        def worker(number: int) -> int:
            passed = 0
            while time.monotonic() < end:
                status = callers[number].post(space.jobs, json=body).status_code
                passed += status == 201 and time.monotonic() >= begin
            return passed

        with ThreadPoolExecutor(len(callers)) as threads:
            passed = sum(threads.map(worker, range(len(callers))))
        assert passed * 5 <= 1.1 * RATE * 3


def test_a_create_claims_at_most_a_hundred_jobs(space: Space) -> None:
    claimed, plain = {"name": "x", "claim": True}, {"name": "x"}
    batch = [plain, *[claimed] * 101, plain]
    body = refused(space.all.post(space.jobs, json=batch), 413, "too_large")
    assert body["limit"] == {"claims": 100}
    assert body["index"] == 101
    assert space.all.get(space.jobs).json() == []
    made = space.all.post(space.jobs, json=[plain, *[claimed] * 100, plain])
    assert [job["status"] for job in made.json()] == ["pending", *["delivered"] * 100, "pending"]


PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key, x-lease-token"}


def test_any_origin_may_call_by_default(space: Space) -> None:
    url = f"{space.server.url}/api/v1{space.jobs}"
    answer = httpx.options(url, headers={"origin": "https://a.example", **PREFLIGHT})
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "x-lease-token" in answer.headers["access-control-allow-headers"]
    for caller in (space.all, space.server.caller(None)):
        seen = caller.get(space.jobs, headers={"origin": "https://a.example"})
        assert seen.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in seen.headers
        exposed = seen.headers["access-control-expose-headers"].lower()
        assert {"x-total-count", "x-next-cursor", "idempotency-replayed", "retry-after"} <= set(exposed.split(", "))
    made = space.all.post(space.jobs, json={"name": "x"}, headers={"origin": "https://a.example"})
    assert made.headers["access-control-allow-origin"] == "*"
    refusal = space.all.post("/nothing", headers={"origin": "https://a.example"})
    assert refusal.headers["access-control-allow-origin"] == "*"


def test_only_listed_origins_may_call_where_they_are_listed(redis_url: str) -> None:
    with Server(redis_url, JOBWIRE_ORIGINS="https://a.example, https://b.example") as server:
        for origin, allowed in (("https://b.example", True), ("https://c.example", False), ("null", False)):
            answer = httpx.options(f"{server.url}/api/v1/spaces", headers={"origin": origin, **PREFLIGHT})
            assert (answer.headers.get("access-control-allow-origin") == origin) == allowed
            if not allowed:
                refused(answer, 400, "invalid_request")
            seen = server.root.get("/spaces", headers={"origin": origin})
            assert seen.headers.get("access-control-allow-origin") == (origin if allowed else None)
            assert "origin" in seen.headers["vary"].lower()
