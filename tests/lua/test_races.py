"""Each script with many callers at once: what may happen once happens once, and nothing is lost or doubled."""

import time
from collections import Counter
from typing import Any

import pytest

from app.model.ids import new_job_ids
from app.model.limits import MIB
from tests.lua.room import CALLERS, KEEP_MS, LATE, Room

ONCE: dict[str, tuple[str, list[Any], bytes, str]] = {
    "job_ack": ("delivered", [], b"state", "started"),
    "job_complete": ("running", ["RESULT", KEEP_MS], b"state", "completed"),
    "job_fail": ("running", ['"e"', 1, "0.5", KEEP_MS, "", ""], b"state", "retried"),
    "job_kill": ("running", ["null", KEEP_MS], b"state", "killed"),
    "job_retry": ("dead", [], b"state", "requeued"),
}


def words(replies: list[list[Any]]) -> Counter[bytes]:
    return Counter(reply[0] for reply in replies)


@pytest.mark.parametrize("script", ONCE)
def test_of_many_who_change_a_status_at_once_one_does(room: Room, script: str) -> None:
    status, args, otherwise, event = ONCE[script]
    job = room.job_in(status)
    before = len(room.events(job))

    def call(number: int) -> list[Any]:
        return room.on(script, job, *[f'"{number}"' if arg == "RESULT" else arg for arg in args])

    assert words(room.race(call)) == {b"ok": 1, otherwise: CALLERS - 1}
    assert room.events(job)[before:] == [event]


def test_of_many_claims_one_gets_the_job(room: Room) -> None:
    job = room.create()
    replies = room.race(lambda n: room.run("job_claim", [room.hash], [job, LATE, f"token{n}", ""]))
    assert words(replies) == {b"ok": 1, b"state": CALLERS - 1}
    winner = next(reply[1][1] for reply in replies if reply[0] == b"ok")
    assert room.field(job, "leaseToken") == winner
    assert room.redis.get(room.keys.lease(room.space, job)) == winner


def test_of_many_who_fail_an_attempt_and_claim_the_retry_with_its_token_all_hold_the_one_retry(room: Room) -> None:
    job = room.job_in("running", retries=2)
    before = len(room.events(job))
    args = ['"e"', 1, "0.5", KEEP_MS, ""]
    replies = room.race(lambda n: room.on("job_fail", job, *args, f"fresh{n}", token="lease"))
    assert words(replies) == {b"ok": CALLERS}
    (token,) = {reply[6] for reply in replies}
    assert {(reply[1], reply[2], reply[3]) for reply in replies} == {(b"delivered", 1, 1)}
    assert room.events(job)[before:] == ["retried", "delivered"]
    assert room.field(job, "leaseToken") == room.redis.get(room.keys.lease(room.space, job)) == token


def test_of_many_creates_under_one_key_one_creates(room: Room) -> None:
    idem = room.keys.idem(room.space, "key")

    def call(_: int) -> list[Any]:
        ids = new_job_ids(room.space, 1_700_000_000_000, 3)
        jobs = [word for id_ in ids for word in (id_, "n", "null", 3, 300, "", "", "", "", "", "")]
        return room.run("job_create", [room.hash, idem], [3, "digest", 60_000, 0, *jobs])

    replies = room.race(call)
    assert words(replies) == {b"ok": 1, b"replay": CALLERS - 1}
    assert len({reply[2] for reply in replies if reply[0] == b"replay"}) == 1
    assert room.redis.zcard(room.keys.jobs(room.space)) == 3
    assert room.redis.zcard(room.keys.pending(room.space)) == 3


def test_many_creates_leave_one_counter_without_holes(room: Room) -> None:
    ids = room.race(lambda _: room.create())
    listed: Any = room.redis.zrange(room.keys.jobs(room.space), 0, -1, withscores=True)
    scores = [score for _, score in listed]
    assert len(set(ids)) == CALLERS
    assert scores == [float(i) for i in range(1, CALLERS + 1)]


def test_many_polls_hand_each_job_out_once(room: Room) -> None:
    jobs = [room.create() for _ in range(100)]

    def call(number: int) -> list[str]:
        names = [["n0"], ["n1", "n2"], []][number % 3]
        reply = room.run("job_poll", [room.hash], [LATE, MIB, 0, 4, *(f"t{number}.{i}" for i in range(4)), *names])
        assert reply[0] == b"ok"
        return [item[0].decode() for item in reply[1:]]

    taken = [id_ for one in room.race(call) for id_ in one]
    taken += [item[0].decode() for item in room.run("job_poll", [room.hash], [LATE, MIB, 0, 100, *range(100)])[1:]]
    assert sorted(taken) == sorted(jobs)
    assert room.redis.zcard(room.keys.pending(room.space)) == 0
    assert room.redis.zcard(room.keys.deadlines(room.space)) == 100


@pytest.mark.parametrize("script", ["job_progress", "job_checkpoint", "job_event", "job_keepalive"])
def test_many_calls_of_a_worker_all_count(room: Room, script: str) -> None:
    job = room.job_in("running")
    before = len(room.events(job))

    def arguments(number: int) -> list[Any]:
        return {"job_keepalive": [], "job_event": [f'{{"n":{number}}}', 0]}.get(script, [f'{{"n":{number}}}'])

    replies = room.race(lambda n: room.on(script, job, *arguments(n)))
    assert words(replies) == {b"ok": CALLERS}
    kept = {"job_checkpoint": "checkpoint", "job_event": "event"}.get(script)
    assert room.events(job)[before:] == ([kept] * CALLERS if kept else [])
    assert int(room.field(job, "eventSeq")) == len(room.events(job))
    end = room.redis.zscore(room.keys.deadlines(room.space), job)
    assert end == max(reply[2] for reply in replies)
    if script in ("job_progress", "job_checkpoint"):
        assert room.field(job, script[4:]) in {f'{{"n":{n}}}'.encode() for n in range(CALLERS)}


def test_many_sweepers_act_on_each_ended_lease_once(room: Room) -> None:
    jobs = [room.job_in("running" if i % 2 else "delivered", retries=1) for i in range(60)]
    for job in jobs:
        room.redis.delete(room.keys.lease(room.space, job))
        room.redis.zadd(room.keys.deadlines(room.space), {job: 1})
    replies = room.race(lambda n: room.run("job_end_leases", [room.hash], [7, n, KEEP_MS]))
    replies += [room.run("job_end_leases", [room.hash], [100, 1, KEEP_MS])]
    assert sum(reply[1] for reply in replies) == 60
    for i, job in enumerate(jobs):
        assert room.events(job)[-1] == ("retried" if i % 2 else "delivery_timeout")
        assert room.events(job).count("retried") + room.events(job).count("delivery_timeout") == 1
    assert room.redis.zcard(room.keys.pending(room.space)) == 60


def test_a_hundred_deliveries_in_a_row_without_an_ack_are_the_last(room: Room) -> None:
    job = room.create()
    for count in range(100):
        assert room.field(job, "status") == b"pending", count
        room.run("job_claim", [room.hash], [job, LATE, f"t{count}", ""])
        room.redis.delete(room.keys.lease(room.space, job))
        room.redis.zadd(room.keys.deadlines(room.space), {job: 1})
        room.run("job_end_leases", [room.hash], [10, 1, KEEP_MS])
    assert room.field(job, "status") == b"dead"
    assert room.field(job, "attemptNumber") == b"0"
    assert room.events(job)[-1] == "dead"


def test_an_ack_begins_the_count_of_deliveries_anew(room: Room) -> None:
    job = room.create()
    for count in range(3):
        room.run("job_claim", [room.hash], [job, LATE, f"t{count}", ""])
        room.redis.delete(room.keys.lease(room.space, job))
        room.redis.zadd(room.keys.deadlines(room.space), {job: 1})
        room.run("job_end_leases", [room.hash], [10, 1, KEEP_MS])
    assert room.field(job, "deliveries") == b"3"
    room.run("job_claim", [room.hash], [job, LATE, "t", ""])
    room.on("job_ack", job)
    assert room.field(job, "deliveries") == b"0"


def test_a_renewal_that_comes_after_the_lease_lapsed_and_before_the_sweeper_saves_the_job(room: Room) -> None:
    job = room.job_in("running")
    room.redis.delete(room.keys.lease(room.space, job))
    assert room.on("job_keepalive", job, token="lease")[0] == b"ok"
    room.redis.zadd(room.keys.deadlines(room.space), {job: 1})
    room.run("job_end_leases", [room.hash], [10, 1, KEEP_MS])
    assert room.field(job, "status") == b"running"
    assert room.redis.get(room.keys.lease(room.space, job)) == b"lease"


def test_many_sweepers_promote_each_scheduled_job_once(room: Room) -> None:
    jobs = [room.job_in("scheduled") for _ in range(60)]
    room.redis.zadd(room.keys.scheduled(room.space), dict.fromkeys(jobs, 1))
    replies = room.race(lambda _: room.run("job_promote", [room.hash], [7]))
    assert sum(reply[1] for reply in replies) == 60
    assert {tuple(room.events(job)) for job in jobs} == {("created", "pending")}


def test_many_who_let_many_jobs_run_again_do_it_once_each(room: Room) -> None:
    jobs = [room.job_in("dead") for _ in range(30)]
    replies = room.race(lambda _: room.run("job_bulk_retry", [room.hash], ["dead", 0, 100, 7, "", 0, LATE]))
    assert sum(reply[1] for reply in replies) == 30
    assert {room.events(job).count("requeued") for job in jobs} == {1}


def test_of_many_deletes_one_deletes_and_nothing_is_left(room: Room) -> None:
    empty = set(room.snapshot())
    job = room.job_in("completed")
    assert words(room.race(lambda _: room.run("job_delete", [room.hash], [job]))) == {b"ok": 1, b"no_job": CALLERS - 1}
    room.redis.delete(room.keys.log_work(room.space), room.keys.feed(room.space))
    assert {key for key in room.snapshot() if b":ends:" not in key} == empty


def test_deleting_a_job_spares_an_idempotency_key_that_was_used_again_since(room: Room) -> None:
    idem = room.keys.idem(room.space, "key")
    for digest in ("first", "second"):
        room.redis.delete(idem)
        (id_,) = new_job_ids(room.space, 1_700_000_000_000, 1)
        job = [id_, "n", "null", 3, 300, "", "", "", "", "", ""]
        assert room.run("job_create", [room.hash, idem], [1, digest, 60_000, 0, *job])[0] == b"ok"
    listed: Any = room.redis.zrange(room.keys.jobs(room.space), 0, -1)
    first, second = (id_.decode() for id_ in listed)
    for job_id, left in ((first, 1), (second, 0)):
        room.on("job_kill", job_id, "null", KEEP_MS)
        assert room.run("job_delete", [room.hash], [job_id]) == [b"ok"]
        assert room.redis.exists(idem) == left


def test_many_retire_each_job_once(room: Room) -> None:
    jobs = [room.job_in(status) for status in ("completed", "dead", "killed") for _ in range(20)]
    alive = room.create()
    room.redis.zadd(room.keys.ended(room.space), dict.fromkeys(jobs, 1))
    retired = [
        id_.decode()
        for reply in room.race(lambda _: room.run("job_retire", [room.hash], [7, 1000]))
        for id_ in reply[1:]
    ]
    assert sorted(retired) == sorted(jobs)
    assert room.field(alive, "status") == b"pending"


def test_readers_see_a_job_as_it_is_at_one_moment(room: Room) -> None:
    job = room.job_in("running")

    def call(number: int) -> None:
        if number % 2:
            room.on("job_event", job, f"{number}", 0)
            return
        reply = room.run("job_read", [room.hash], [job, 1000, 2**22])
        fields = dict(zip(reply[1][::2], reply[1][1::2], strict=True))
        assert int(fields[b"eventSeq"]) == reply[2] + len(reply[3]) - 1 == reply[4]
        page = room.run("job_events", [room.hash], [job, 1, 10, 2**22])
        assert page[1] == 2
        assert len(page[2]) == min(10, page[4] - 1)

    room.race(call)


def test_counts_of_a_space_add_up_at_every_moment(room: Room) -> None:
    jobs = [room.create() for _ in range(CALLERS)]

    def call(number: int) -> None:
        room.run("job_claim", [room.hash], [jobs[number], LATE, "t", ""])
        fields, counts = room.run("space_read", [room.hash])[1:]
        assert sum(int(part.split(b":")[1]) for part in counts.strip(b"{}").split(b",")) == CALLERS
        assert b"createdAt" in fields
        due = room.run("space_due", [room.hash], [KEEP_MS])
        assert due[1] is not None

    room.race(call)


def test_many_takers_of_a_rate_get_no_more_than_it_together(room: Room) -> None:
    replies = room.race(lambda _: room.run("rate_take", [room.keys.rate("x")], [100, 10, 1, 1]))
    assert 95 <= sum(reply[1] for reply in replies) <= 110


def test_who_needs_more_of_a_rate_than_is_free_takes_nothing_and_is_told_when_to_come_back(room: Room) -> None:
    key = [room.keys.rate("x")]
    assert room.run("rate_take", key, [100, 60, 60, 60])[:2] == [b"ok", 60]
    _, granted, wait_ms = room.run("rate_take", key, [100, 50, 50, 60])
    assert granted == 0
    assert 1 <= wait_ms <= 2000
    assert room.run("rate_take", key, [100, 40, 40, 40])[1] == 40
    deadline = time.monotonic() + wait_ms / 1000 + 2
    while not (granted := room.run("rate_take", key, [100, 60, 60, 60])[1]):
        assert time.monotonic() < deadline
    assert granted == 60


def test_one_of_many_sweepers_works_and_only_it_can_let_go(room: Room) -> None:
    key = room.keys.sweeper
    replies = room.race(lambda n: room.run("leader_hold", [key], [f"s{n}", 5000]))
    assert sum(reply[1] for reply in replies) == 1
    (winner,) = (n for n, reply in enumerate(replies) if reply[1])
    assert room.run("leader_hold", [key], [f"s{winner + 1}", 0])[1] == 0
    assert room.redis.get(key) == f"s{winner}".encode()
    room.run("leader_hold", [key], [f"s{winner}", 0])
    assert room.redis.get(key) is None


def test_a_token_is_whole_whenever_it_can_be_read(room: Room) -> None:
    key = room.keys.token("digest")

    def call(number: int) -> None:
        if number == 5:
            room.run("token_create", [key], ["", "space", "s", "scopes", "jobs:read"])
        fields = room.run("token_read", [key])[1]
        assert not fields or {b"space", b"scopes", b"createdAt"} <= set(fields[::2])

    room.race(call)
    assert room.run("token_create", [key], [1, "space", "s"]) == [b"past"]


def test_of_many_new_secrets_two_are_left(room: Room) -> None:
    room.race(lambda n: room.run("space_patch", [room.hash], [f"secret{n}", 0]))
    secrets = (room.redis.hget(room.hash, "webhookSecrets") or b"").split()
    assert len(set(secrets)) == 2


def test_the_probe_runs_for_everybody(room: Room) -> None:
    assert words(room.race(lambda _: room.run("ready_probe", [f"{room.keys.probe}:ready"]))) == {b"ok": CALLERS}


def test_lines_of_many_appends_are_contiguous_and_without_holes(room: Room) -> None:
    job = room.create()

    def call(_: int) -> tuple[int, int]:
        reply = room.append(job, '["a","b"]', '["c","d"]', '["e","f"]')
        assert reply[0] == b"ok"
        return reply[1], reply[2]

    assert sorted(room.race(call)) == [(i * 6 + 1, i * 6 + 6) for i in range(CALLERS)]
    read = room.run("log_read", room.log_keys(job)[:3], ["after", 0, 10**6, 10**9, 0])
    assert read[1:3] == [1, CALLERS * 6]


def test_a_log_is_not_begun_for_a_job_that_may_not_exist(room: Room) -> None:
    job = room.create()
    assert {reply[0] for reply in room.race(lambda _: room.append(job, '["a","b"]', known=0))} == {b"new"}
    assert room.redis.exists(*room.log_keys(job)) == 0


def test_a_deleted_log_does_not_grow_back(room: Room) -> None:
    job = room.create()

    def call(number: int) -> Any:
        if number == CALLERS // 2:
            return room.run("log_delete", room.log_keys(job))[0]
        return room.append(job, '["a","b"]')[0]

    assert set(room.race(call)) <= {b"ok", b"no_job"}
    assert room.redis.exists(*room.log_keys(job)[:3]) == 0
    assert 0 < room.redis.pttl(room.log_keys(job)[3]) <= 60_000
