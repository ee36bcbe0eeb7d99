"""503: what Redis cannot do now is not done, and is said so with the time after which to try again."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.any_redis import AnyRedis
from tests.contract.test_transitions import since_0_2
from tests.factories import Json, Space, refused
from tests.server import Server
from tests.valkey import until


@pytest.fixture(scope="module")
def frail(valkey: AnyRedis) -> Iterator[Space]:
    """A space on a Redis of its own."""
    with Server(valkey.url, JOBWIRE_REDIS_TIMEOUT="0.5") as server:
        yield Space(server)


def works(space: Space) -> bool:
    return space.all.post(space.jobs, json={"name": "x"}).status_code == 201


@pytest.mark.one_server("a node of a cluster refuses REPLICAOF; failovers are tested in tests/cluster")
def test_a_read_only_redis_is_unavailable_and_nothing_was_done(valkey: AnyRedis, frail: Space) -> None:
    job = frail.create(claim=True)
    valkey.cli("REPLICAOF", "127.0.0.1", "1")
    try:
        answers = [
            frail.all.post(frail.jobs, json={"name": "x"}),
            frail.call(job, "ack"),
            frail.call(job, "complete", {}),
        ]
        for answer in answers:
            refused(answer, 503, "unavailable")
            assert int(answer.headers["retry-after"]) >= 1
    finally:
        valkey.cli("REPLICAOF", "NO", "ONE")
    until(lambda: works(frail))
    assert frail.status(job) == "delivered"


def test_a_full_redis_is_unavailable_for_what_is_new(valkey: AnyRedis, frail: Space) -> None:
    before = frail.all.get(frail.jobs).headers["x-total-count"]
    valkey.cli("CONFIG", "SET", "maxmemory", "1")
    try:
        answer = frail.all.post(frail.jobs, json={"name": "x"})
        refused(answer, 503, "unavailable")
        assert "retry-after" in answer.headers
        assert frail.all.get(frail.jobs).headers["x-total-count"] == before
    finally:
        valkey.cli("CONFIG", "SET", "maxmemory", "0")
    until(lambda: works(frail))


def test_a_redis_that_stalls_leaves_the_outcome_unknown_and_the_key_makes_repeating_safe(
    valkey: AnyRedis, frail: Space
) -> None:
    total = int(frail.all.get(frail.jobs).headers["x-total-count"])
    headers = {"idempotency-key": "k"}
    valkey.stall()
    try:
        answer = frail.all.post(frail.jobs, json={"name": "x"}, headers=headers)
        refused(answer, 503, "outcome_unknown")
        assert int(answer.headers["retry-after"]) >= 1
    finally:
        valkey.resume()
    until(lambda: frail.all.get(frail.jobs).status_code == 200)
    assert frail.all.post(frail.jobs, json={"name": "x"}, headers=headers).status_code == 201
    assert int(frail.all.get(frail.jobs).headers["x-total-count"]) == total + 1


def calls_of(space: Space, jobs: list[Json], verb: str, **more: Any) -> list[tuple[int, str]]:
    """A batch with one call about each job: the statuses and the codes of its answers."""
    calls = [{"verb": verb, "jobId": job["id"], "leaseToken": job["leaseToken"], **more} for job in jobs]
    answer = space.all.post(f"/spaces/{space.id}/calls", json=calls)
    assert answer.status_code == 200, answer.text
    return [(one["status"], one["body"].get("code", "")) for one in answer.json()]


def taken(space: Space, count: int) -> list[Json]:
    """Jobs that run."""
    assert space.all.post(space.jobs, json=[{"name": "many"}] * count).status_code == 201
    jobs: list[Json] = []
    while len(jobs) < count:
        jobs += space.poll(count=50, ack=True, name="many")
    return jobs


@since_0_2
def test_of_a_batch_whose_redis_stalls_the_outcome_is_unknown_and_the_lease_tokens_make_repeating_safe(
    valkey: AnyRedis, frail: Space
) -> None:
    jobs = taken(frail, 150)
    valkey.stall()
    try:
        answers = calls_of(frail, jobs, "complete", body=1)
    finally:
        valkey.resume()
    # Two scripts: the first was sent when the link broke, and then there was none for a while.
    assert answers[:100] == [(503, "outcome_unknown")] * 100
    assert len(set(answers[100:])) == 1
    assert answers[100] in ((503, "outcome_unknown"), (503, "unavailable"))
    until(lambda: works(frail))
    assert calls_of(frail, jobs, "complete", body=1) == [(200, "")] * 150
    assert {tuple(frail.events(job)) for job in jobs[::30]} == {("created", "started", "completed")}


@since_0_2
@pytest.mark.one_server("a node of a cluster refuses REPLICAOF; failovers are tested in tests/cluster")
def test_a_batch_on_a_read_only_redis_is_unavailable_call_by_call(valkey: AnyRedis, frail: Space) -> None:
    jobs = taken(frail, 101)
    valkey.cli("REPLICAOF", "127.0.0.1", "1")
    try:
        assert calls_of(frail, jobs, "complete") == [(503, "unavailable")] * 101
    finally:
        valkey.cli("REPLICAOF", "NO", "ONE")
    until(lambda: works(frail))
    assert calls_of(frail, jobs, "complete") == [(200, "")] * 101


@since_0_2
def test_of_a_batch_on_a_full_redis_events_are_refused_and_what_goes_on_or_ends_is_not(
    valkey: AnyRedis, frail: Space
) -> None:
    jobs = taken(frail, 3)
    valkey.cli("CONFIG", "SET", "maxmemory", "1")
    try:
        # A process asks once a second how much memory is left.
        until(lambda: calls_of(frail, jobs, "event", body=1) == [(503, "unavailable")] * 3)
        assert calls_of(frail, jobs, "checkpoint", body={}) == [(200, "")] * 3
        assert calls_of(frail, jobs, "complete", body=1) == [(200, "")] * 3
    finally:
        valkey.cli("CONFIG", "SET", "maxmemory", "0")
    until(lambda: works(frail))


def test_a_redis_that_is_away_is_unavailable_until_it_is_back_with_its_data(valkey: AnyRedis, frail: Space) -> None:
    job = frail.create()
    until(lambda: valkey.owner(f"{{{frail.id}}}").cli("INFO", "persistence")["aof_buffer_length"] == 0)
    valkey.kill()
    until(lambda: frail.all.get(frail.jobs).status_code == 503)
    answer = frail.all.get(frail.jobs)
    assert refused(answer, 503, "unavailable")["error"]
    valkey.restart()
    until(lambda: works(frail))
    assert frail.status(job) == "pending"
