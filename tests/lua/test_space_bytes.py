"""What the jobs and events of a space take: counted as they come, change and go, which a recount agrees with."""

import random
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.model.ids import new_job_ids
from app.model.limits import JOB_BYTES, MIB
from tests.any_redis import AnyRedis
from tests.lua.room import KEEP_MS, LATE, Room

HELD = (b"name", b"payload", b"callbackUrl", b"callbackHeaders", b"result", b"checkpoint")
SIZES = (0, 5, 300, 5000)


def counted(room: Room) -> int:
    """What the space says that it holds."""
    return int(room.redis.hget(room.hash, "bytes") or 0)


def recounted(room: Room) -> int:
    """What its jobs hold, looked at one by one."""
    jobs: Any = room.redis.zrange(room.keys.jobs(room.space), 0, -1)
    return sum(held(room, job.decode()) for job in jobs)


def held(room: Room, job: str) -> int:
    fields: Any = room.redis.hgetall(room.keys.job(room.space, job))
    events: Any = room.redis.lrange(room.keys.events(room.space, job), 0, -1)
    if b"bytes" not in fields:
        return 0
    own = JOB_BYTES + sum(len(fields.get(name, b"")) for name in HELD) + int(fields.get(b"progressBytes", 0))
    assert int(fields[b"bytes"]) == own
    return own + sum(map(len, events))


def text(size: int) -> str:
    """JSON of about so many bytes."""
    return f'"{"x" * size}"'


def create(room: Room, size: int, *, count: int = 1, token: str = "", due: Any = "", bound: int = 0) -> list[Any]:
    """The reply of a create of jobs with payload, callback and headers of a size."""
    ids = new_job_ids(room.space, 1_700_000_000_000, count)
    jobs = [
        word
        for id_ in ids
        for word in (id_, "n", text(size), 1, 300, due, "http://x/" + "y" * (size % 50), text(size % 70), "", token, "")
    ]
    key = room.keys.idem(room.space, secrets.token_hex(4)) if size else room.hash
    return room.run("job_create", [room.hash, key], [count, "digest" if size else "", 60_000, bound, *jobs])


def some_job(room: Room, chance: random.Random) -> str:
    jobs: Any = room.redis.zrange(room.keys.jobs(room.space), 0, -1)
    return str(chance.choice(jobs).decode()) if jobs else "none"


def on_job(script: str, *args: Any) -> Callable[[Room, random.Random, int], None]:
    """A call of a worker or a producer on any job; SIZE stands for JSON of the step's size."""

    def act(room: Room, chance: random.Random, size: int) -> None:
        room.on(script, some_job(room, chance), *[text(size) if arg == "SIZE" else arg for arg in args])

    return act


def on_space(script: str, *args: Any) -> Callable[[Room, random.Random, int], None]:
    return lambda room, chance, size: (room.run(script, [room.hash], list(args)), None)[1]


def lapse(room: Room, chance: random.Random, size: int) -> None:
    """A lease ends, and is acted on."""
    job = some_job(room, chance)
    room.redis.delete(room.keys.lease(room.space, job))
    room.redis.zadd(room.keys.deadlines(room.space), {job: 1}, xx=True)
    room.run("job_end_leases", [room.hash], [10, 1, KEEP_MS])


def call_back(room: Room, chance: random.Random, size: int) -> None:
    """A callback is tried and fails."""
    _, lease_end, _, *taken = room.run("callback_take", [room.hash], [1, 10_000])
    for id_, _ in taken:
        reply = room.run("callback_begin", [room.hash], [id_, lease_end, "try", 10_000, 5])
        if reply[0] == b"ok":
            room.run("callback_note_try", [room.hash], [id_, "try", "callback_failed", f'{{"error":{text(size)}', ""])


def call_several(room: Room, chance: random.Random, size: int) -> None:
    """Calls in one script, some for the same job."""
    words: list[Any] = []
    for verb, *args in (("ack",), ("checkpoint", text(size)), ("complete", text(size), KEEP_MS), ("event", text(5), 0)):
        words += [verb, 2 + len(args), some_job(room, chance), "", *args]
    room.run("job_calls", [room.hash], words)


ACTS: dict[str, Callable[[Room, random.Random, int], object]] = {
    "create": lambda room, chance, size: create(room, size, count=chance.choice((1, 3))),
    "claim": lambda room, chance, size: create(room, size, count=2, token="lease"),
    "schedule": lambda room, chance, size: create(room, size, due=LATE),
    "poll": on_space("job_poll", LATE, MIB, 0, 2, "a", "b"),
    "poll and ack": on_space("job_poll", LATE, MIB, 1, 2, "a", "b"),
    "release": on_job("job_release", "SIZE", 0),
    "put off": on_job("job_release", "null", 1000),
    "call": call_several,
    "ack": on_job("job_ack"),
    "progress": on_job("job_progress", "SIZE"),
    "checkpoint": on_job("job_checkpoint", "SIZE"),
    "event": on_job("job_event", "SIZE", 0),
    "complete": on_job("job_complete", "SIZE", KEEP_MS),
    "fail": on_job("job_fail", "SIZE", 1, "0.5", KEEP_MS, "", ""),
    "kill": on_job("job_kill", "SIZE", KEEP_MS),
    "retry": on_job("job_retry"),
    "retry many": on_space("job_bulk_retry", "killed", 0, 10, 10, "", 0, LATE),
    "lapse": lapse,
    "call back": call_back,
    "delete": lambda room, chance, size: room.run("job_delete", [room.hash], [some_job(room, chance)]),
    "retire": on_space("job_retire", 2, -KEEP_MS),
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.sampled_from(sorted(ACTS)), st.sampled_from(SIZES)), min_size=5, max_size=60),
    seed=st.integers(0, 2**16),
)
def test_what_is_counted_is_what_a_recount_finds_whatever_happens_to_the_jobs(
    lua_redis: AnyRedis, steps: Sequence[tuple[str, int]], seed: int
) -> None:
    room, chance = Room(lua_redis), random.Random(seed)
    try:
        for name, size in (("create", 300), ("claim", 5), *steps):
            ACTS[name](room, chance, size)
            assert counted(room) == recounted(room), name
        room.run("job_retire", [room.hash], [1000, ""])
        assert room.redis.hget(room.hash, "bytes") is None
    finally:
        room.close()


def test_events_that_go_because_a_job_has_too_many_are_counted_off(room: Room) -> None:
    job = room.job_in("running")
    for _ in range(80):
        room.on("job_event", job, text(256 * 1024), 0)
    assert len(room.events(job)) < 70
    assert counted(room) == recounted(room)


def test_a_job_from_before_the_count_is_never_counted(room: Room) -> None:
    old, other = room.job_in("running"), room.create()
    room.redis.hdel(room.keys.job(room.space, old), "bytes")
    room.redis.hset(room.hash, "bytes", held(room, other))
    for script, *args in (("job_checkpoint", "{}"), ("job_event", "1", 0), ("job_progress", text(1000))):
        assert room.on(str(script), old, *args)[0] == b"ok"
    for script, *args in (("job_kill", '"why"', KEEP_MS), ("job_retry",), ("job_kill", "null", KEEP_MS)):
        assert room.on(str(script), old, *args)[0] == b"ok"
    assert counted(room) == held(room, other)
    assert room.run("job_delete", [room.hash], [old])[0] == b"ok"
    assert counted(room) == held(room, other)


def test_a_create_or_event_that_would_go_over_the_bound_is_refused_and_writes_nothing(room: Room) -> None:
    job = room.job_in("running")
    before = room.snapshot()
    bound = counted(room) + 3 * (JOB_BYTES + 30)
    assert create(room, 0, count=4, bound=bound) == [b"space_full", bound]
    assert room.on("job_event", job, text(5000), bound) == [b"space_full", bound]
    assert room.snapshot() == before
    assert create(room, 0, count=2, bound=bound)[0] == b"ok"
    assert room.on("job_event", job, text(5), bound)[0] == b"ok"


def test_events_in_one_script_stop_at_the_bound_as_they_do_one_by_one(room: Room) -> None:
    jobs = [room.create() for _ in range(4)]
    bound = counted(room) + 2 * (len(text(5000)) + 50)
    words = [word for job in jobs for word in ("event", 4, job, "", text(5000), bound)]
    replies = room.run("job_calls", [room.hash], words)[1:]
    assert [reply[0] for reply in replies] == [b"ok", b"ok", b"space_full", b"space_full"]
    assert counted(room) == recounted(room) <= bound


ORDERS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]


def batch(room: Room, key: str, count: int = 3, idem_ms: int = 60_000) -> list[str]:
    """The jobs of a create under an Idempotency-Key, in their order; they have ended."""
    ids = new_job_ids(room.space, 1_700_000_000_000, count)
    jobs = [word for id_ in ids for word in (id_, "n", "null", 1, 300, "", "", "", "", "", "")]
    assert room.run("job_create", [room.hash, key], [count, "digest", idem_ms, 0, *jobs])[0] == b"ok"
    for id_ in ids:
        assert room.on("job_kill", id_, "null", KEEP_MS)[0] == b"ok"
    return ids


def remove_by_hand(room: Room, job: str) -> None:
    assert room.run("job_delete", [room.hash], [job]) == [b"ok"]


def remove_by_retention(room: Room, job: str) -> None:
    room.redis.zadd(room.keys.ended(room.space), {job: 1})
    assert room.run("job_retire", [room.hash], [10, KEEP_MS]) == [b"ok", job.encode()]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("remove", [remove_by_hand, remove_by_retention], ids=lambda act: act.__name__)
def test_the_key_of_a_batch_goes_with_its_last_job(
    room: Room, order: Sequence[int], remove: Callable[[Room, str], None]
) -> None:
    key = room.keys.idem(room.space, "key")
    ids = batch(room, key)
    for place in order:
        assert room.redis.exists(key)
        remove(room, ids[place])
    assert not room.redis.exists(key)
    assert not list(room.redis.scan_iter(room.keys.batch(room.space, "*").replace("{", "\\{")))


def test_the_key_of_a_batch_and_what_counts_its_jobs_end_at_the_same_moment(room: Room) -> None:
    key = room.keys.idem(room.space, "key")
    ids = batch(room, key)
    place = str(int(room.field(ids[0], "created")))
    counting = room.keys.batch(room.space, place)
    assert {room.field(job, "batch") for job in ids} == {place.encode()}
    assert room.redis.hgetall(counting) == {b"key": key.encode(), b"left": b"3"}
    assert room.redis.pexpiretime(key) == room.redis.pexpiretime(counting) > 0
    room.redis.delete(key, counting)
    again = batch(room, key)
    for job in ids:
        remove_by_hand(room, job)
    assert room.redis.exists(key), "it stands for other jobs now"
    assert not room.redis.exists(counting)
    for job in again:
        remove_by_hand(room, job)
    assert not room.redis.exists(key)


def test_a_batch_of_which_a_job_was_lost_keeps_its_key_until_its_time_is_up(room: Room) -> None:
    key = room.keys.idem(room.space, "key")
    ids = batch(room, key)
    room.redis.delete(room.keys.job(room.space, ids[1]))
    room.run("job_retire", [room.hash], [10, ""])
    assert 0 < room.redis.pttl(key) <= 60_000
