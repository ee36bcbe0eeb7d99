"""Calls in one script do what they do one by one: to the jobs, to their space, and in their answers."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.model.limits import MIB
from tests.any_redis import AnyRedis
from tests.lua.room import KEEP_MS, LATE, Room

ARGS: dict[str, list[Any]] = {
    "ack": [],
    "progress": ['{"percent":40}'],
    "long progress": ["x" * 400],
    "checkpoint": ['{"next":1}'],
    "event": ['{"e":1}', 0],
    "keepalive": [],
    "complete": ['"r"', KEEP_MS],
    "fail": ['"e"', 1, "0.5", KEEP_MS, "", ""],
    "fail and claim": ['"e"', 1, "0.5", KEEP_MS, 0, "fresh"],
    "fail for good": ['"e"', 0, "0.5", KEEP_MS, "", ""],
    "release": ["null", 0],
    "put off": ['"later"', 60_000],
}
SCRIPT = {"long progress": "progress", "fail and claim": "fail", "fail for good": "fail", "put off": "release"}
STATUSES = ("scheduled", "pending", "delivered", "running", "running", "completed", "dead", "killed")
Step = tuple[str, int, str]


def prepared(room: Room, seed: int) -> list[str]:
    """Jobs in all statuses, some with a callback."""
    chance = random.Random(seed)
    return [room.job_in(status, url=chance.choice(("", "https://example.com")), retries=1) for status in STATUSES]


def one_by_one(room: Room, jobs: Sequence[str], steps: Sequence[Step]) -> list[Any]:
    return [
        room.on(f"job_{SCRIPT.get(verb, verb)}", jobs[place], *ARGS[verb], token=token) for verb, place, token in steps
    ]


def together(room: Room, jobs: Sequence[str], steps: Sequence[Step]) -> list[Any]:
    words: list[Any] = []
    for verb, place, token in steps:
        words += [SCRIPT.get(verb, verb), 2 + len(ARGS[verb]), jobs[place], token, *ARGS[verb]]
    return room.run("job_calls", [room.hash], words)[1:]


def seen(room: Room, jobs: Sequence[str]) -> dict[str, Any]:
    """All that the room has, without moments, and with places for ids."""

    def plain(text: bytes) -> str:
        said = text.decode()
        for place, job in enumerate(jobs):
            said = said.replace(job, f"J{place}")
        return re.sub(r"1[6-9]\d{11}(\.\d+)?", "MOMENT", said.replace(room.space, "S").replace(room.keys.prefix, "P"))

    found: dict[str, Any] = {}
    ends: Counter[str] = Counter()
    for name in room.redis.scan_iter(f"{room.keys.prefix}:*", count=1000):
        kind = room.redis.type(name)
        if b":ends:" in name:
            # How long a job ran is of its moment as well.
            ends.update(
                {re.sub(rb"\d+:", b"N:", field).decode(): int(n) for field, n in room.redis.hgetall(name).items()}
            )
            continue
        if kind == b"hash":
            value: Any = sorted((plain(k), plain(v)) for k, v in room.redis.hgetall(name).items())
        elif kind == b"zset":
            value = [
                (plain(id_), plain(b"%d" % score)) for id_, score in room.redis.zrange(name, 0, -1, withscores=True)
            ]
            # Of the same moment are those that were written in it: their order is that of ids.
            value = sorted(value) if any(score == "MOMENT" for _, score in value) else value
        elif kind == b"list":
            value = [plain(item) for item in room.redis.lrange(name, 0, -1)]
        elif kind == b"stream":
            value = [(id_, plain(fields[b"event"])) for id_, fields in room.redis.xrange(name)]
        else:
            value = plain(room.redis.get(name))
        found[plain(name)] = value
    return {**found, "ends": ends}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(sorted(ARGS)),
        st.integers(0, len(STATUSES) - 1),
        st.sampled_from(("", "lease", "fresh", "wrong")),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, seed=st.integers(0, 2**16))
def test_calls_in_one_script_do_what_they_do_one_by_one(lua_redis: AnyRedis, steps: Sequence[Step], seed: int) -> None:
    alone, batch = Room(lua_redis), Room(lua_redis)
    try:
        jobs, others = prepared(alone, seed), prepared(batch, seed)
        told, heard = one_by_one(alone, jobs, steps), together(batch, others, steps)
        moments = re.compile(r"1[6-9]\d{11}")
        assert moments.sub("MOMENT", str(heard)) == moments.sub("MOMENT", str(told))
        assert seen(batch, others) == seen(alone, jobs)
    finally:
        alone.close()
        batch.close()


def test_what_is_polled_and_acked_in_one_step_runs_and_has_one_event(room: Room) -> None:
    job = room.create()
    reply = room.run("job_poll", [room.hash], [LATE, MIB, 1, 1, "token"])
    assert [reply[1][0], reply[1][1]] == [job.encode(), b"token"]
    assert room.field(job, "status") == b"running"
    assert room.field(job, "startedAt") == room.field(job, "deliveredAt") == room.field(job, "updatedAt")
    assert room.events(job) == ["created", "started"]
    assert room.redis.zscore(room.keys.deadlines(room.space), job) == reply[1][10]
    assert room.on("job_ack", job, token="token") == [b"ok", b"running", reply[1][10]]


@pytest.mark.parametrize("names", [[], ["n0"]], ids=["any name", "of a name"])
def test_what_is_in_a_queue_and_not_pending_does_not_stand_in_the_way(room: Room, names: list[str]) -> None:
    jobs = [room.create() for _ in range(7)]
    for other in set(jobs) - set(jobs[::3]):
        room.on("job_kill", other, "null", KEEP_MS)
    running, gone, last = jobs[::3]
    room.redis.hset(room.keys.job(room.space, running), "status", "running")
    room.redis.delete(room.keys.job(room.space, gone))
    replies = [room.run("job_poll", [room.hash], [LATE, MIB, 0, 1, "token", *names]) for _ in range(3)]
    assert [[job[0] for job in reply[1:]] for reply in replies] == [[], [], [last.encode()]]


def test_a_call_that_breaks_harms_none_beside_it(room: Room) -> None:
    first, broken, last = (room.job_in("running") for _ in range(3))
    events = room.keys.events(room.space, broken)
    room.redis.delete(events)
    room.redis.set(events, "no list")
    words = [word for job in (first, broken, last) for word in ("complete", 4, job, "", "null", KEEP_MS)]
    replies = room.run("job_calls", [room.hash], words)
    assert [reply[0] for reply in replies[1:]] == [b"ok", b"fault", b"ok"]
    assert [room.field(job, "status") for job in (first, last)] == [b"completed", b"completed"]
    feed: Any = room.redis.xrange(room.keys.feed(room.space))
    told = [json.loads(fields[b"event"]) for _, fields in feed]
    assert [event["jobId"] for event in told if event["type"] == "completed"] == [first, last]
    assert room.on("job_complete", room.job_in("running"), "null", KEEP_MS)[0] == b"ok"


def test_a_queue_that_takes_no_entries_keeps_nothing_else_from_being_written(room: Room) -> None:
    jobs = [room.job_in("running") for _ in range(3)]
    room.redis.set(room.keys.pending(room.space, room.field(jobs[1], "name").decode()), "no queue")
    words = [word for job in jobs for word in ("release", 4, job, "", "null", 0)]
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        room.run("job_calls", [room.hash], words)
    assert [room.field(job, "status") for job in jobs] == [b"pending"] * 3
    for index in (room.keys.pending(room.space), room.keys.jobs(room.space, "pending")):
        assert sorted(room.redis.zrange(index, 0, -1)) == sorted(job.encode() for job in jobs)
    feed: Any = room.redis.xrange(room.keys.feed(room.space))
    assert feed[-1][0] == room.redis.hget(room.hash, "seq") + b"-0"
    assert room.on("job_keepalive", room.job_in("running"))[0] == b"ok"


@pytest.mark.parametrize("token", ["", "lease"])
def test_a_job_that_was_released_is_pending_again_with_its_attempt_and_its_checkpoint(room: Room, token: str) -> None:
    job, other = room.job_in("running"), room.create()
    room.on("job_checkpoint", job, '{"next":7}')
    assert room.on("job_release", job, '"deploy"', 0, token=token) == [b"ok", b"pending", 0, None]
    assert room.field(job, "checkpoint") == b'{"next":7}'
    assert room.field(job, "attemptNumber") == b"0"
    assert room.field(job, "startedAt") is None
    assert room.redis.zrange(room.keys.pending(room.space), 0, -1) == [other.encode(), job.encode()]
    assert room.redis.exists(room.keys.lease(room.space, job)) == 0
    again = room.on("job_release", job, '"deploy"', 0, token="lease")
    assert again == [b"ok", b"pending", 0, None]
    assert room.events(job).count("released") == 1
    assert room.on("job_release", job, "null", 0) == [b"state", b"pending"]
    room.run("job_poll", [room.hash], [LATE, MIB, 0, 2, "t1", "t2"])
    assert room.on("job_release", job, "null", 0, token="lease") == [b"lease_lost", b"delivered"]


def test_a_job_that_is_put_off_is_scheduled_and_comes_back(room: Room) -> None:
    job = room.job_in("delivered")
    status, attempt, due = room.on("job_release", job, "null", 60_000, token="lease")[1:]
    assert [status, attempt] == [b"scheduled", 0]
    assert room.field(job, "scheduledFor") == due
    room.redis.zadd(room.keys.scheduled(room.space), {job: 1})
    assert room.run("job_promote", [room.hash], [10]) == [b"ok", 1]
    assert room.field(job, "status") == b"pending"
    assert room.field(job, "scheduledFor") is None
