"""Each script while Redis is full: what says that it works there does, the rest is refused and has written nothing.

And each script on a server that does not know it: it is sent, and runs once.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis

from app.model.limits import MIB
from app.redis_links.scripts import SCRIPTS, Scripts
from tests.lua.room import KEEP_MS, LATE, Room
from tests.room import new_room

Call = tuple[list[str], list[Any]]

READS = {
    "feed_read",
    "job_events",
    "job_read",
    "job_watch",
    "job_list",
    "log_oldest",
    "log_read",
    "space_due",
    "space_read",
    "space_stats",
}


def on(status: str, *args: Any, **more: Any) -> Callable[[Room], Call]:
    """A call on a job in a status."""
    return lambda room: ([room.hash], [room.job_in(status, **more), "", *args])


def lapsed(room: Room) -> Call:
    for status in ("running", "delivered"):
        job = room.job_in(status, retries=0)
        room.redis.delete(room.keys.lease(room.space, job))
        room.redis.zadd(room.keys.deadlines(room.space), {job: 1})
    return [room.hash], [10, 1, KEEP_MS]


def too_early(room: Room) -> Call:
    """A deadline that has come before its lease has ended."""
    room.redis.zadd(room.keys.deadlines(room.space), {room.job_in("running"): 1})
    return [room.hash], [10, 1, KEEP_MS]


def scheduled(room: Room) -> Call:
    room.redis.zadd(room.keys.scheduled(room.space), {room.job_in("scheduled"): 1})
    return [room.hash], [10]


def pending(*args: Any) -> Callable[[Room], Call]:
    def prepare(room: Room) -> Call:
        job = room.create()
        return [room.hash], [job if arg == "JOB" else arg for arg in args]

    return prepare


def ended(*args: Any) -> Callable[[Room], Call]:
    def prepare(room: Room) -> Call:
        room.redis.zadd(room.keys.ended(room.space), {room.job_in("dead"): 1})
        return [room.hash], list(args)

    return prepare


def dead_ones(room: Room) -> Call:
    for _ in range(3):
        room.job_in("dead")
    return [room.hash], ["dead", 0, 10, 10, "", 0, LATE]


def owned(room: Room) -> Call:
    room.run("leader_hold", [room.keys.sweeper], ["me", 10_000])
    return [room.keys.sweeper], ["me", 10_000]


def candidate(room: Room) -> Call:
    key = room.keys.sweeper_of("tag")
    room.run("leader_share", [key], ["me", 10_000, 0])
    return [key], ["me", 10_000, 0]


def marked(room: Room) -> Call:
    args = ["me", 1500, 3000, 5]
    room.run("outage_mark", [room.keys.outage], args)
    return [room.keys.outage], args


def token(room: Room) -> Call:
    room.run("token_create", [room.keys.token("x")], ["", "space", room.space])
    return [room.keys.token("x")], []


def log(keys: int, *args: Any) -> Callable[[Room], Call]:
    def prepare(room: Room) -> Call:
        job = room.create()
        for _ in range(5):
            assert room.append(job, '["a","b"]')[0] == b"ok"
        return room.log_keys(job)[:keys], [room.keys.log_live(job) if arg == "CHANNEL" else arg for arg in args]

    return prepare


def oldest(room: Room) -> Call:
    names, _ = log(3)(room)
    return [names[0], names[2]], [0, 0, 10, 10, 10, 1000]


def seal(room: Room) -> Call:
    names, _ = log(3)(room)
    return names, [1, 4, 18, "r" * 24, "block", 0, 0]


def settled(room: Room) -> Call:
    job = room.job_in("dead")
    key = room.keys.log_work(room.space)
    return [key], [job, str(int(room.redis.zscore(key, job) or 0))]


def several(room: Room) -> Call:
    """Calls of two jobs, one of which is refused."""
    acked, done = room.job_in("delivered"), room.job_in("running")
    words = ["ack", 2, acked, "", "complete", 4, done, "", '"r"', KEEP_MS, "ack", 2, done, ""]
    return [room.hash], words


def callback(script: str) -> Callable[[Room], Call]:
    def prepare(room: Room) -> Call:
        job = room.job_in("completed", url="https://example.com")
        if script in ("callback_take", "callback_retry"):
            return [room.hash], [10, 1000] if script == "callback_take" else [job]
        _, lease_end, *_rest = room.run("callback_take", [room.hash], [10, 60_000])
        if script == "callback_postpone":
            return [room.hash], [job, lease_end, 1000]
        begin = [job, lease_end, "try", 60_000, 10]
        if script == "callback_begin":
            return [room.hash], begin
        room.run("callback_begin", [room.hash], begin)
        return [room.hash], [job, "try", "callback_sent", '{"url":"x"', ""]

    return prepare


NEW_JOB = ["01M7ZVSKVK636VRC8ATN82Y7N7", "n", "null", 3, 300, "", "", "", "", "", ""]

CASES: dict[str, Callable[[Room], Call]] = {
    "job_ack": on("delivered"),
    "job_calls": several,
    "job_checkpoint": on("running", '{"c":1}'),
    "job_claim": pending("JOB", LATE, "t", ""),
    "job_complete": on("running", '"r"', KEEP_MS),
    "job_create": lambda room: ([room.hash, room.hash], [1, "", 1000, 0, *NEW_JOB]),
    "job_delete": lambda room: ([room.hash], [room.job_in("dead")]),
    "job_event": on("running", '{"e":1}', 0),
    "job_events": lambda room: ([room.hash], [room.create(), 0, 10, 1000]),
    "job_end_leases": lapsed,
    "job_fail": on("running", '"e"', 1, "0.5", KEEP_MS, "", ""),
    "job_keepalive": on("running"),
    "job_kill": on("pending", "null", KEEP_MS),
    "job_poll": pending(LATE, MIB, 0, 1, "t"),
    "job_progress": on("running", '{"percent":1}'),
    "job_promote": scheduled,
    "job_read": lambda room: ([room.hash], [room.create(), 10, 1000]),
    "job_release": on("running", "null", 0),
    "job_retire": ended(10, 1000),
    "job_retry": on("dead"),
    "job_bulk_retry": dead_ones,
    "job_list": lambda room: ([room.hash], [0, 1, 10, room.create() and "pending"]),
    "job_watch": lambda room: ([room.hash], [room.create(), 10, 1000]),
    "feed_read": lambda room: ([room.hash], [0, 10]),
    "epoch_mark": lambda room: ([room.keys.epoch], ["run", 0]),
    "epoch_meet": lambda room: ([room.keys.epoch], ["node", "run.replication", 0, "0-99", 1, 7, "6 0-99"]),
    "outage_mark": marked,
    "rate_take": lambda room: ([room.keys.rate("x")], [100, 10, 1, 1]),
    "ready_probe": lambda room: ([room.keys.probe], []),
    "space_create": lambda room: ([f"{room.keys.prefix}:{{other}}:space"], ["n", "i"]),
    "secret_keep": lambda room: ([room.keys.secret], ["s"]),
    "space_due": lambda room: ([room.hash], [KEEP_MS]),
    "space_patch": lambda room: ([room.hash], ["secret", 0]),
    "space_read": lambda room: ([room.hash], []),
    "space_stats": lambda room: ([room.hash], []),
    "leader_hold": owned,
    "leader_share": candidate,
    "token_create": lambda room: ([room.keys.token("x")], ["", "space", "s"]),
    "token_read": token,
    "log_append": log(4, 1, "CHANNEL", 10**6, 10**9, "", "000", 1, 1, '["x"]'),
    "log_read": log(3, "after", 0, 10, 10_000, 0),
    "log_delete": log(4),
    "log_persist": log(3),
    "log_set_ttl": log(3, 60_000),
    "log_cut": log(3, 5, 10),
    "log_report_bytes": lambda room: (
        [room.keys.logs(room.space), room.keys.log_bytes(room.space)],
        [10, 1, 1, "J", 5],
    ),
    "log_oldest": oldest,
    "log_seal": seal,
    "log_unlist_work": settled,
    **{name: callback(name) for name in SCRIPTS if name.startswith("callback_")},
}


def test_every_script_has_a_case() -> None:
    assert sorted(CASES) == sorted(SCRIPTS)


def works_at_maxmemory(script: str) -> bool:
    header = SCRIPTS[script].text.partition("\nlocal ")[0].partition("\n-- include")[0]
    return "works at maxmemory" in header.replace("\n-- ", " ")


@pytest.mark.parametrize("script", sorted(CASES))
def test_when_redis_is_full_a_script_works_or_has_written_nothing(room: Room, script: str) -> None:
    keys, args = CASES[script](room)
    before = room.snapshot()
    with room.at_maxmemory():
        try:
            reply = room.run(script, keys, args)
        except redis.exceptions.OutOfMemoryError:
            reply = []
    if works_at_maxmemory(script) or script in READS:
        assert reply
        assert reply[0] == b"ok", reply
    elif not reply:
        assert room.snapshot() == before
    room.run(script, *CASES[script](room))


def test_a_log_is_taken_from_its_spaces_account_when_redis_is_full(room: Room) -> None:
    names = [room.keys.logs(room.space), room.keys.log_bytes(room.space)]
    assert room.run("log_report_bytes", names, [100, 1, 1, "J", 5, "K", 6])[1] == 11
    with room.at_maxmemory():
        assert room.run("log_report_bytes", names, [100, 1, 0, "J", 0, "unknown", 0])[1] == 6
        assert room.run("log_report_bytes", names, [100, 1, 0, "K", 0])[1] == 0
    assert room.redis.exists(*names) == 0


def test_a_deadline_that_comes_early_holds_no_sweep_up_when_redis_is_full(room: Room) -> None:
    keys, args = too_early(room)
    with room.at_maxmemory():
        assert room.run("job_end_leases", keys, args)[:2] == [b"ok", 1]


def test_a_lease_has_its_grace_after_an_outage_when_redis_is_full(room: Room) -> None:
    keys, args = lapsed(room)
    _, now, run, *_ = room.run("outage_mark", [room.keys.outage_of(room.space)], ["me", 1500, 3000, ""])
    with room.at_maxmemory():
        assert room.run("job_end_leases", keys, [*args, now + 60_000, run, 0, now, 500])[:2] == [b"ok", 2]
    assert room.redis.zcount(room.keys.deadlines(room.space), f"({now}", now + 10_000) == 2


@pytest.mark.parametrize("script", sorted(set(CASES) - READS))
def test_a_script_that_the_server_has_forgotten_is_sent_and_runs_once(room: Room, script: str) -> None:
    keys, args = CASES[script](room)

    async def call() -> list[list[Any]]:
        async with new_room(room.server) as linked:
            room.server.cli("SCRIPT", "FLUSH")
            scripts = Scripts(linked.backend.control)
            first = await scripts.raw(script, keys, args)
            return [first, *await asyncio.gather(*(scripts.raw(script, keys, args) for _ in range(3)))]

    replies = asyncio.run(call())
    assert replies[0][0] == b"ok"
    if script.startswith("job_") and args and isinstance(args[0], str) and len(args[0]) == 26:
        events = room.events(args[0])
        once = {"ack": "started", "complete": "completed", "kill": "killed", "retry": "requeued", "fail": "retried"}
        kind = once.get(script.removeprefix("job_"))
        assert kind is None or events.count(kind) == 1
