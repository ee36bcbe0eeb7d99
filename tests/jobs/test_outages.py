"""An outage of ours costs nobody an attempt: what the scripts grant, and when."""

import asyncio
from typing import Any

import pytest

from app.jobs.outages import AWAY_MS, FOLLOW_MS, Downtime, Outages
from app.redis_links.info import parse_info
from tests.room import Room
from tests.sweeping import events, fields, is_in, lapse, make, run, take

LATE_MS = 10**15


async def server_run(room: Room) -> str:
    """The run of the server, as it tells."""
    return parse_info(await room.ask("INFO", "server"))["run_id"]


async def ended_ago(room: Room, job: str, ago_ms: int) -> int:
    """Let its lease have ended so long ago; the moment."""
    moment = int(room.backend.clock.now_ms()) - ago_ms
    await lapse(room, job)
    await room.call("ZADD", room.keys.deadlines(room.space), moment, job)
    return moment


async def act(room: Room, began_ms: int, ended_ms: int) -> None:
    """Act on what is due, after such an outage."""
    outage = Downtime(LATE_MS, await server_run(room), began_ms, ended_ms)
    assert await room.backend.store.end_leases(room.space, 100, outage) is not None


async def deadline(room: Room, job: str) -> int:
    """When it is acted on."""
    return int(await room.call("ZSCORE", room.keys.deadlines(room.space), job))


@pytest.mark.parametrize(("timeout_s", "grace_ms"), [(4, 4000), (300, 10_000)])
async def test_a_lease_that_ended_in_an_outage_has_ten_seconds_from_its_end_or_its_own_length(
    timeout_s: int,
    grace_ms: int,
    room: Room,
) -> None:
    job = await run(room, timeout_s=timeout_s)
    ended = await ended_ago(room, job, 1000)
    back = ended + 900
    await act(room, ended - 100, back)
    assert await is_in(room, job, "running")
    assert await deadline(room, job) == back + grace_ms
    await room.backend.store.keepalive(room.space, job, "")
    assert await room.call("PTTL", room.keys.lease(room.space, job)) > timeout_s * 1000 - 500
    assert (await fields(room, job))["attemptNumber"] == b"0"


async def test_a_lease_that_ends_just_after_an_outage_before_its_worker_can_be_back_has_the_same(room: Room) -> None:
    job = await run(room, timeout_s=4)
    ended = await ended_ago(room, job, 500)
    await act(room, ended - 5000, ended - 200)
    assert await is_in(room, job, "running")
    assert await deadline(room, job) == ended - 200 + 4000


async def test_a_lease_that_ended_before_an_outage_or_whose_grace_is_over_is_acted_on(room: Room) -> None:
    before, over = await run(room, timeout_s=300), await run(room, timeout_s=4)
    ended = await ended_ago(room, before, 1000)
    await act(room, ended + 1, ended + 900)
    assert await is_in(room, before, "pending")
    ended = await ended_ago(room, over, 6000)
    await act(room, ended - 100, ended + 1000)
    assert (await events(room, over))[-1][1]["reason"] == "timeout"


async def test_a_delivery_has_its_grace_too(room: Room) -> None:
    job = await make(room, timeout_s=300)
    (taken,) = await take(room)
    ended = await ended_ago(room, job, 1000)
    await act(room, ended, ended + 500)
    assert await is_in(room, job, "delivered")
    await room.backend.store.ack(room.space, job, taken.token)
    assert await is_in(room, job, "running")


async def test_who_knows_nothing_of_late_or_of_this_run_of_the_server_acts_on_nothing(room: Room) -> None:
    job = await run(room)
    await lapse(room, job)
    run_id = await server_run(room)
    for outage in (Downtime(room.backend.clock.now_ms() - 100, run_id, 2, 2), Downtime(LATE_MS, "another", 2, 2)):
        assert await room.backend.store.end_leases(room.space, 10, outage) is None
    assert await is_in(room, job, "running")
    assert await room.backend.store.end_leases(room.space, 10, Downtime(LATE_MS, run_id, 2, 2)) == 1
    assert await is_in(room, job, "pending")


async def marked(room: Room, at_ago_ms: int, **known: Any) -> Outages:
    """What sweeper `me` knows after its next mark, the one before having been so long ago."""
    outages = Outages(room.backend.control, room.keys, "me", room.tag)
    await outages.mark()
    (seconds, micros), key = await room.ask("TIME"), room.keys.outage_of(room.tag)
    words: dict[str, Any] = {"at": int(seconds) * 1000 + int(micros) // 1000 - at_ago_ms, "began": 1, "ended": 1}
    for name, word in {**words, **known}.items():
        await room.call("HSET", key, name, word)
    await outages.mark()
    return outages


async def test_before_the_first_mark_no_sweeper_worked(room: Room) -> None:
    outages = Outages(room.backend.control, room.keys, "me")
    await outages.mark()
    assert outages.latest.began_ms == 0
    assert outages.latest.ended_ms == outages.latest.believed_till_ms - AWAY_MS


@pytest.mark.parametrize(
    ("ago_ms", "known", "is_outage"),
    [
        (500, {}, False),
        (AWAY_MS + 200, {}, True),
        (AWAY_MS + 200, {"by": "another"}, False),
        (FOLLOW_MS + 200, {"by": "another"}, True),
        (0, {"run": "another"}, True),
    ],
)
async def test_a_gap_between_marks_is_an_outage_and_a_handover_is_none(
    ago_ms: int,
    known: dict[str, Any],
    is_outage: bool,
    room: Room,
) -> None:
    latest = (await marked(room, ago_ms, **known)).latest
    now = latest.believed_till_ms - AWAY_MS
    assert (latest.ended_ms == now) is is_outage
    if is_outage:
        assert abs(now - ago_ms - latest.began_ms) < 1000
    else:
        assert (latest.began_ms, latest.ended_ms) == (1, 1)


@pytest.mark.parametrize(
    ("ago_ms", "known", "is_known"),
    [(500, {}, True), (FOLLOW_MS + 200, {}, False), (0, {"run": "another", "host": 1}, False)],
)
async def test_a_mark_that_may_be_of_another_server_for_slots_have_moved_tells_of_no_outage(
    ago_ms: int, known: dict[str, Any], is_known: bool, room: Room
) -> None:
    await marked(room, 0)
    (seconds, micros), key = await room.ask("TIME"), room.keys.outage_of(room.tag)
    at = int(seconds) * 1000 + int(micros) // 1000 - ago_ms
    for name, word in {"at": at, "began": 1, "ended": 1, **known}.items():
        await room.call("HSET", key, name, word)
    moved = Outages(room.backend.control, room.keys, "me", room.tag, is_new=True)
    await moved.mark()
    assert moved.latest[2:] == ((1, 1, 0) if is_known else (0, 0, 0))


async def test_an_outage_in_the_grace_of_the_one_before_is_one_with_it(room: Room) -> None:
    now = room.backend.clock.now_ms()
    latest = (await marked(room, 3000, began=now - 20_000, ended=now - 5000)).latest
    assert latest.began_ms == now - 20_000
    assert latest.ended_ms > now - 1000
    latest = (await marked(room, 3000, began=now - 60_000, ended=now - 30_000)).latest
    assert abs(latest.began_ms - (now - 3000)) < 1000


async def test_an_outage_that_a_clock_an_hour_ahead_ended_is_over_when_that_clock_is_back(room: Room) -> None:
    now = room.backend.clock.now_ms()
    latest = (await marked(room, -3_600_000, began=now - 5000, ended=now + 3_600_000)).latest
    assert latest.began_ms == now - 5000
    assert latest.ended_ms == latest.believed_till_ms - AWAY_MS
    latest = (await marked(room, 500, began=now + 3_590_000, ended=now + 3_600_000)).latest
    assert latest.began_ms == latest.ended_ms == latest.believed_till_ms - AWAY_MS


async def test_marks_of_two_sweepers_at_once_are_no_outage(room: Room) -> None:
    pair = [Outages(room.backend.control, room.keys, name) for name in "ab"]
    await pair[0].mark()
    first = pair[0].latest.ended_ms
    for _ in range(5):
        await asyncio.gather(*(one.mark() for one in pair))
    assert [one.latest.ended_ms for one in pair] == [first, first]


async def test_no_mark_means_no_action(room: Room) -> None:
    sweeper, expiry = room.backend.sweeper()
    job = await run(room)
    await lapse(room, job)
    await sweeper.sweep(room.space)
    assert await is_in(room, job, "running"), "the first mark ends an outage of unknown length"
    assert await deadline(room, job) > room.backend.clock.now_ms()
    await expiry.close()


async def test_a_lease_that_a_clock_behind_granted_is_put_off_once_by_the_difference(room: Room) -> None:
    job = await run(room, timeout_s=300)
    run_id = await server_run(room)
    now = room.backend.clock.now_ms()
    outage = Downtime(LATE_MS, run_id, now - 30_000, now - 20_000, 2000)
    ended = await ended_ago(room, job, 1000)
    await room.backend.store.end_leases(room.space, 100, outage)
    assert await is_in(room, job, "running")
    assert await deadline(room, job) == ended + 2000
    await ended_ago(room, job, 1000)
    await room.backend.store.end_leases(room.space, 100, outage)
    assert await is_in(room, job, "pending")


async def test_a_lease_that_this_clock_granted_is_not_put_off(room: Room) -> None:
    job = await run(room, timeout_s=4)
    run_id = await server_run(room)
    now = room.backend.clock.now_ms()
    await ended_ago(room, job, 1000)
    await room.backend.store.end_leases(room.space, 100, Downtime(LATE_MS, run_id, now - 30_000, now - 20_000, 2000))
    assert await is_in(room, job, "pending")


@pytest.mark.parametrize(("clock_ms", "ahead_ms"), [(0, 0), (2000, 2000), (-2000, 0), (60_000, 10_000)])
async def test_how_far_the_clock_of_another_run_is_ahead_is_found_by_the_sweepers_own(
    clock_ms: int, ahead_ms: int, room: Room
) -> None:
    outages = Outages(room.backend.control, room.keys, "me", "tag")
    await outages.mark()
    assert outages.latest.ahead_ms == 0
    key = room.keys.outage_of("tag")
    await room.call("HINCRBY", key, "at", -clock_ms)
    await room.call("HSET", key, "run", "another")
    await outages.mark()
    assert abs(outages.latest.ahead_ms - ahead_ms) < 200
    await outages.mark()
    assert abs(outages.latest.ahead_ms - ahead_ms) < 200, "it holds as long as the run"


async def test_of_one_server_every_run_has_the_same_clock(room: Room) -> None:
    outages = Outages(room.backend.control, room.keys, "me")
    await outages.mark()
    await room.call("HINCRBY", room.keys.outage, "at", -2000)
    await room.call("HSET", room.keys.outage, "run", "another")
    await outages.mark()
    assert outages.latest.ahead_ms == 0
    assert not await room.call("HEXISTS", room.keys.outage, "host")
