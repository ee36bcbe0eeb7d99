"""A limit bounds an attempt, however often its lease is renewed."""

import time

import pytest

from app.model.limits import MIB
from tests.lua.room import KEEP_MS, LATE, Room


def lease_left_ms(room: Room, job: str) -> int:
    """What is left of a job's lease, which ends at its deadline."""
    left: int = room.redis.pttl(room.keys.lease(room.space, job))
    deadline = room.redis.zscore(room.keys.deadlines(room.space), job)
    assert abs(deadline - room.redis.pexpiretime(room.keys.lease(room.space, job))) < 50
    return left


def begun_ago(room: Room, job: str, field: str, ago_s: float) -> None:
    room.redis.hset(room.keys.job(room.space, job), field, round((time.time() - ago_s) * 1000))


def end_lease(room: Room, job: str) -> None:
    """The lease runs out, and the sweeper comes."""
    room.redis.delete(room.keys.lease(room.space, job))
    room.redis.zadd(room.keys.deadlines(room.space), {job: 1})
    assert room.run("job_end_leases", [room.hash], [10, 1, KEEP_MS])[:2] == [b"ok", 1]


def test_a_lease_is_as_long_as_the_timeout_or_as_what_the_limit_leaves(room: Room) -> None:
    short, long = room.create(limit_s=60), room.create(limit_s=3600)
    room.run("job_poll", [room.hash], [LATE, MIB, 0, 2, "a", "b"])
    assert 59_000 < lease_left_ms(room, short) <= 60_000
    assert 299_000 < lease_left_ms(room, long) <= 300_000


@pytest.mark.parametrize(
    "verb", [["job_keepalive"], ["job_progress", "{}"], ["job_checkpoint", "{}"], ["job_event", "1", 0]]
)
def test_no_call_renews_a_lease_beyond_the_limit(room: Room, verb: list[object]) -> None:
    job = room.job_in("running", limit_s=100)
    begun_ago(room, job, "startedAt", 80)
    assert room.on(str(verb[0]), job, *verb[1:])[0] == b"ok"
    assert 19_000 < lease_left_ms(room, job) <= 20_100


def test_the_limit_counts_from_the_ack_on(room: Room) -> None:
    job = room.create(token="lease", limit_s=100)
    begun_ago(room, job, "deliveredAt", 90)
    assert room.on("job_keepalive", job)[0] == b"ok"
    assert lease_left_ms(room, job) <= 10_100
    assert room.on("job_ack", job)[0] == b"ok"
    assert 99_000 < lease_left_ms(room, job) <= 100_000


@pytest.mark.parametrize(("status", "since"), [("delivered", "deliveredAt"), ("running", "startedAt")])
def test_past_its_limit_the_attempt_has_failed_and_a_retry_begins_anew(room: Room, status: str, since: str) -> None:
    job = room.job_in(status, limit_s=100, retries=1)
    begun_ago(room, job, since, 101)
    end_lease(room, job)
    assert room.field(job, "status") == b"pending"
    assert room.field(job, "attemptNumber") == b"1"
    last = room.redis.lrange(room.keys.events(room.space, job), -1, -1)[0]
    assert b'"reason":"limit"' in last
    assert b"its limit of 100 s" in last
    room.run("job_poll", [room.hash], [LATE, MIB, 1, 1, "again"])
    assert 99_000 < lease_left_ms(room, job) <= 100_000
    begun_ago(room, job, "startedAt", 101)
    end_lease(room, job)
    assert room.field(job, "status") == b"dead"


def test_a_lease_that_ends_within_the_limit_timed_out_as_ever(room: Room) -> None:
    job = room.job_in("running", limit_s=100)
    end_lease(room, job)
    assert b'"reason":"timeout"' in room.redis.lrange(room.keys.events(room.space, job), -1, -1)[0]


def test_a_claimed_retry_has_the_limit_anew(room: Room) -> None:
    job = room.job_in("running", limit_s=100)
    begun_ago(room, job, "startedAt", 80)
    assert room.on("job_fail", job, '"e"', 1, "0.5", KEEP_MS, "", "fresh")[0] == b"ok"
    assert 99_000 < lease_left_ms(room, job) <= 100_000
