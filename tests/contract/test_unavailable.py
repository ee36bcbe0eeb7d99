"""503: what Redis cannot do now is not done, and is said so with the time after which to try again."""

from collections.abc import Iterator

import pytest

from tests.any_redis import AnyRedis
from tests.factories import Space, refused
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
