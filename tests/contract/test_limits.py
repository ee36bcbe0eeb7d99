"""The rate of a key, and browsers of other origins."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.factories import Space, refused
from tests.server import Server

RATE = 200


pytestmark = pytest.mark.valkey_only("what it proves is decided before Redis is asked")


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
        assert {"x-total-count", "idempotency-replayed", "retry-after"} <= set(exposed.split(", "))
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
