"""What time does to jobs, and that nothing keeps the sweeper from it."""

import asyncio
import contextlib
import time
from collections import Counter
from typing import Any

import pytest

from app.backend import Backend
from app.model.errors import ApiError, Unavailable, job_not_found, unavailable
from app.sweeper.sweeper import SLOW_AT_ONCE, SPACES_AT_ONCE, TURN_S
from tests.any_redis import AnyRedis
from tests.room import Room, new_room, refusal_of
from tests.sweeping import (
    events,
    eventually,
    fields,
    home,
    is_in,
    lapse,
    lapse_all,
    make,
    make_many,
    never_away,
    run,
    sweep,
    sweeping,
    take,
    truth,
)


async def test_a_delivered_job_whose_lease_ends_goes_back_without_using_a_retry(room: Room) -> None:
    job = await make(room, timeout_s=1)
    await take(room)
    later = await make(room)
    async with sweeping(room):
        await eventually(lambda: is_in(room, job, "pending"), 2)
    seen = await fields(room, job)
    assert seen["attemptNumber"] == b"0"
    assert "deliveredAt" not in seen
    assert (await events(room, job))[-1] == ("delivery_timeout", None)
    assert [taken.id for taken in await take(room, 2)] == [later, job], "it goes to the back"


async def test_a_running_job_whose_lease_ends_fails_with_a_reason(room: Room) -> None:
    job = await run(room, max_retries=1, timeout_s=7)
    await lapse(room, job)
    await sweep(room)
    problem = "Execution timed out after 7 s"
    assert (await events(room, job))[-1] == ("retried", {"error": problem, "attemptNumber": 1, "reason": "timeout"})
    assert await is_in(room, job, "pending")
    (taken,) = await take(room)
    await room.backend.store.ack(room.space, job, taken.token)
    await lapse(room, job)
    await sweep(room)
    assert (await events(room, job))[-1] == ("dead", {"error": problem, "reason": "timeout"})
    assert (await fields(room, job))["result"] == f'{{"error":"{problem}"}}'.encode()


async def test_after_a_hundred_deliveries_without_an_ack_a_job_is_dead(room: Room) -> None:
    job = await make(room)
    for _ in range(100):
        assert await is_in(room, job, "pending")
        assert len(await take(room)) == 1
        await lapse(room, job)
        await sweep(room)
    assert await is_in(room, job, "dead")
    assert [kind for kind, _ in await events(room, job)].count("delivery_timeout") == 99


async def test_an_ack_begins_the_count_of_deliveries_anew(room: Room) -> None:
    job = await make(room, max_retries=25)
    await room.call("HSET", room.keys.job(room.space, job), "deliveries", 99)
    (taken,) = await take(room)
    await room.backend.store.ack(room.space, job, taken.token)
    await lapse(room, job)
    await sweep(room)
    await take(room)
    await lapse(room, job)
    await sweep(room)
    assert await is_in(room, job, "pending")


async def test_a_call_after_the_lease_lapsed_but_before_the_sweep_renews_it(room: Room) -> None:
    job = await run(room)
    await lapse(room, job)
    await room.backend.store.keepalive(room.space, job, "")
    await sweep(room)
    assert await is_in(room, job, "running")
    assert await room.call("PTTL", room.keys.lease(room.space, job)) > 290_000


async def test_a_living_lease_keeps_its_job_whatever_the_deadline_says(room: Room) -> None:
    job = await run(room)
    await room.call("ZADD", room.keys.deadlines(room.space), 1, job)
    await sweep(room)
    assert await is_in(room, job, "running")
    deadline = int(await room.call("ZSCORE", room.keys.deadlines(room.space), job))
    assert abs(deadline - room.backend.clock.now_ms() - 300_000) < 1000


async def test_a_zombie_cannot_end_what_was_handed_to_another(room: Room) -> None:
    job = await make(room)
    (zombie,) = await take(room)
    await lapse(room, job)
    await sweep(room)
    (heir,) = await take(room)
    store = room.backend.store
    assert (await refusal_of(store.complete(room.space, job, zombie.token, b"1"))).code == "lease_lost"
    assert (await refusal_of(store.keepalive(room.space, job, zombie.token))).code == "lease_lost"
    assert await store.complete(room.space, job, heir.token, b"2") == "completed"


async def test_a_scheduled_job_becomes_pending_when_its_time_comes(room: Room) -> None:
    await home(room)
    due = room.backend.clock.now_ms() + 300
    async with sweeping(room):
        job = await make(room, scheduled_ms=due)
        assert await is_in(room, job, "scheduled")
        await eventually(lambda: is_in(room, job, "pending"), 1)
    assert room.backend.clock.now_ms() >= due
    assert [kind for kind, _ in await events(room, job)] == ["created", "pending"]
    assert (await fields(room, job))["scheduledFor"] == str(due).encode()


async def test_a_retry_delay_is_shown_in_scheduled_for_while_it_lasts(room: Room) -> None:
    job = await run(room, retry_delay="0.2")
    done = await room.backend.store.fail(room.space, job, "", b'"no"', may_retry=True)
    assert (done.status, done.will_retry, done.attempt) == ("scheduled", True, 1)
    kept = await fields(room, job)
    assert int(kept["scheduledFor"]) - int(kept["updatedAt"]) == 200
    async with sweeping(room):
        await eventually(lambda: is_in(room, job, "pending"), 1)
    assert "scheduledFor" not in await fields(room, job)


async def test_an_exponential_delay_has_a_cap_and_full_jitter_for_each_job_of_one_sweep(room: Room) -> None:
    jobs = await make_many(room, 100, max_retries=25, retry_delay="10 2 30")
    waits = []
    for _ in range(3):
        taken = await take(room, 50) + await take(room, 50)
        for job in taken:
            await room.backend.store.ack(room.space, job.id, job.token)
        await lapse(room, *jobs)
        now = room.backend.clock.now_ms()
        await sweep(room)
        due = [int((await fields(room, job)).get("scheduledFor", now)) - now for job in jobs]
        waits.append(due)
        for id_ in jobs:
            await room.call("ZADD", room.keys.scheduled(room.space), "XX", 1, id_)
        await sweep(room)
    for wait, cap in zip(waits, (10_000, 20_000, 30_000), strict=True):
        assert len(set(wait)) > 50, "each job has a delay of its own"
        assert cap * 0.7 < max(wait) < cap + 1000
        assert min(wait) < cap * 0.3


async def test_one_script_call_acts_on_no_more_jobs_than_it_is_told(room: Room) -> None:
    jobs = await make_many(room, 30)
    await take(room, 30)
    await lapse(room, *jobs)
    assert [await room.backend.store.end_leases(room.space, 20) for _ in range(3)] == [20, 10, 0]


async def test_a_space_with_nothing_due_is_not_on_the_agenda(room: Room) -> None:
    async def nothing_due_within(room: Room, seconds: float) -> bool:
        soon = room.backend.clock.now_ms() + int(seconds * 1000)
        return not await room.call("ZCOUNT", room.keys.due_of(room.tag), "-inf", soon)

    job = await run(room, timeout_s=1)
    await room.backend.store.kill(room.space, job, "", b"null")
    async with sweeping(room):
        await eventually(lambda: nothing_due_within(room, 2))


async def test_a_hint_that_was_lost_is_made_good_when_another_sweeper_begins(room: Room) -> None:
    job = await make(room, timeout_s=1)
    await take(room)
    await room.call("DEL", room.keys.due_of(room.tag))
    async with sweeping(room):
        await eventually(lambda: is_in(room, job, "pending"), 2)


async def test_a_hint_used_up_by_an_early_look_does_not_hide_the_next_lease(room: Room) -> None:
    first = await make(room, timeout_s=1)
    await take(room)
    await room.backend.store.kill(room.space, first, "", b"null")
    async with sweeping(room) as sweeper:
        await eventually(lambda: truth(sweeper.working))
        await sweeper.sweep(room.space)
        await room.ask("CONFIG", "SET", "notify-keyspace-events", "")
        second = await make(room, timeout_s=1)
        await take(room)
        assert await eventually(lambda: is_in(room, second, "pending"), 2) > 0.9


async def test_a_space_that_fails_does_not_stand_in_the_way_of_others(
    caplog: pytest.LogCaptureFixture, room: Room
) -> None:
    await make(room)
    await take(room)
    broken = room.space
    await room.call("SET", room.keys.scheduled(broken), "no zset")
    await room.call("ZADD", room.keys.due_of(room.tag), 1, broken)
    room.space = ""
    job = await make(room, timeout_s=1)
    await take(room)
    async with sweeping(room):
        await eventually(lambda: is_in(room, job, "pending"), 2)
    assert 1 <= caplog.text.count(f"space {broken} waits") <= 5, "it is put off, not tried all the time"


async def test_however_long_turns_take_no_more_go_on_at_once_on_a_server_than_are_allowed(
    monkeypatch: pytest.MonkeyPatch, room: Room
) -> None:
    control = room.backend.control
    at_once: Counter[str] = Counter()
    most: Counter[str] = Counter()
    met: set[str] = set()

    async def promote(space: str, most_jobs: int) -> int:
        tag = control.tag_of(room.keys.space(space))
        at_once[tag] += 1
        most[tag] = max(most[tag], at_once[tag])
        met.add(space)
        await asyncio.sleep(2 * TURN_S)
        at_once[tag] -= 1
        return 0

    spaces: set[str] = set()
    tags: Counter[str] = Counter()
    for _ in range(100 * len(control.servers())):
        room.space = ""
        spaces.add(await home(room))
        tags[room.tag] += 1
        await room.call("ZADD", room.keys.due_of(room.tag), 1, room.space)
    assert min(tags.values()) > SPACES_AT_ONCE + SLOW_AT_ONCE, "so many that each server could have too many at once"
    monkeypatch.setattr(room.backend.store, "promote_jobs", promote)
    async with sweeping(room):
        await eventually(lambda: truth(met >= spaces), 10)
    assert most.keys() == tags.keys()
    assert all(SPACES_AT_ONCE <= count < SPACES_AT_ONCE + SLOW_AT_ONCE for count in most.values()), most


async def test_a_refusal_puts_its_space_off_and_an_outage_does_not(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    room: Room,
) -> None:
    def meet(error: ApiError) -> None:
        async def promote(space: str, most: int) -> int:
            raise error

        monkeypatch.setattr(room.backend.store, "promote_jobs", promote)

    await home(room)
    sweeper, _ = room.backend.sweeper()
    meet(unavailable("Redis has gone away."))
    with pytest.raises(Unavailable):
        await sweeper.sweep(room.space)
    assert "the sweeper failed there" not in caplog.text
    meet(job_not_found())
    await sweeper.sweep(room.space)
    assert f"space {room.space} waits" in caplog.text


@pytest.mark.alone("it measures delay under load")
async def test_very_many_leases_that_end_at_once_in_one_space_delay_anothers_by_a_second_at_most(room: Room) -> None:
    for _ in range(240):
        await make_many(room, 100, claim=True)
    crowded, room.space = room.space, ""
    await home(room)
    due = room.backend.clock.now_ms() + 300
    await never_away(room)
    async with sweeping(room) as sweeper:
        await eventually(lambda: truth(sweeper.working))
        job, scheduled = await make(room, timeout_s=1, claim=True), await make(room, scheduled_ms=due)
        ends = int(await room.call("ZSCORE", room.keys.deadlines(room.space), job))
        room.space, alone = crowded, room.space
        await lapse_all(room)
        room.space = alone
        await eventually(lambda: is_in(room, scheduled, "pending"), 10)
        assert room.backend.clock.now_ms() - due < 1000
        await eventually(lambda: is_in(room, job, "pending"), 10)
        assert room.backend.clock.now_ms() - ends < 1000
        left = await room.call("ZCARD", room.keys.deadlines(crowded))
        assert left > 0, "the crowded space is still at it, or this proved nothing"


@pytest.mark.alone("it measures delay under load")
async def test_very_many_spaces_that_are_due_have_their_turns_one_after_the_other(room: Room) -> None:
    crowded = []
    for _ in range(30):
        room.space = ""
        for _ in range(6):
            await make_many(room, 100, claim=True)
        crowded.append(room.space)
    await never_away(room)
    async with sweeping(room) as sweeper:
        await eventually(lambda: truth(sweeper.working))
        for room.space in crowded:
            await lapse_all(room)
        room.space = ""
        job = await make(room, timeout_s=1, claim=True)
        ends = int(await room.call("ZSCORE", room.keys.deadlines(room.space), job))
        await eventually(lambda: is_in(room, job, "pending"), 10)
        assert room.backend.clock.now_ms() - ends < 1000


@pytest.mark.one_server("sweepers share the servers of a cluster: tests/redis_links/test_election.py")
async def test_a_sweeper_that_waits_stays_awake_and_takes_over_when_the_other_leaves(room: Room) -> None:
    async def stay_awake(room: Room) -> None:
        lost = await make(room, timeout_s=1)
        await take(room)
        await eventually(lambda: is_in(room, lost, "pending"), 2)
        begun = time.monotonic()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert time.monotonic() - begun < 1, "a hint that it does not act on must not keep it busy"

    other = Backend(room.settings)
    await other.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(other.close)
        first = await stack.enter_async_context(sweeping(other))
        await eventually(lambda: truth(first.working))
        async with sweeping(room) as second:
            await stay_awake(room)
            assert not second.working
            await stack.aclose()
            await eventually(lambda: truth(second.working), 1)


async def leads(room: Room) -> bool:
    """Whether the server of the space has a leader."""
    if not room.tag:
        return bool(await room.call("EXISTS", room.keys.sweeper))
    return bool(await room.call("HGET", room.keys.sweeper_of(room.tag), "leader"))


async def test_a_sweeper_that_stops_lets_another_begin_at_once(room: Room) -> None:
    async with sweeping(room) as sweeper:
        await eventually(lambda: truth(sweeper.working))
        assert await leads(room)
    assert not await leads(room)


async def test_a_job_that_runs_again_keeps_its_log_and_its_keys(room: Room) -> None:
    job = await run(room)
    await room.append(job, "a line")
    await room.backend.store.kill(room.space, job, "", b"null")
    await settle_logs(room, job)
    assert await room.call("PTTL", room.keys.log_meta(job)) > 0
    assert await room.call("PTTL", room.keys.job(room.space, job)) > 0
    await room.backend.store.retry(room.space, job, "")

    async def lives_on() -> bool:
        await room.backend.deletion.settle_logs(room.space)  # due by Redis's clock, and soon by the estimate of it
        return bool(await room.call("PTTL", room.keys.log_meta(job)) == -1)

    await eventually(lives_on)
    assert await room.call("PTTL", room.keys.job(room.space, job)) == -1
    assert not await room.call("ZCARD", room.keys.log_work(room.space))


async def settle_logs(room: Room, job: str) -> None:
    """As if the job's log had rested."""
    await room.call("ZADD", room.keys.log_work(room.space), 1, job)
    await room.backend.deletion.settle_logs(room.space)


async def test_a_removal_that_was_cut_off_after_its_first_half_is_finished_by_the_sweeper(room: Room) -> None:
    async def gone(room: Room, job: str) -> bool:
        return not await room.call("EXISTS", room.keys.log(job), room.keys.log_meta(job))

    async def unlisted(room: Room) -> bool:
        return not await room.call("ZCARD", room.keys.log_work(room.space))

    job = await run(room)
    await room.append(job, "a line")
    await room.backend.store.kill(room.space, job, "", b"null")
    await room.backend.store.delete_job(room.space, job)
    assert await room.call("EXISTS", room.keys.log(job))
    async with sweeping(room):
        await eventually(lambda: gone(room, job))
        await eventually(lambda: unlisted(room))


async def test_the_log_of_an_ended_job_listed_again_meanwhile_stays_listed(room: Room) -> None:
    job = await run(room)
    index = room.keys.log_work(room.space)
    await room.call("ZADD", index, 5, job)
    await room.backend.store.kill(room.space, job, "", b"null")
    assert int(await room.call("ZSCORE", index, job)) > room.backend.clock.now_ms()
    await room.backend.deletion.settle_logs(room.space)
    assert await room.call("ZCARD", index) == 1


async def test_a_job_goes_when_its_retention_is_over_though_nothing_else_happens_in_its_space(
    room_redis: AnyRedis,
) -> None:
    async def gone(room: Room, job: str) -> bool:
        return not await room.call("EXISTS", room.keys.job(room.space, job))

    async with new_room(room_redis, retention_s=2) as room:
        await home(room)
        await never_away(room)
        async with sweeping(room) as sweeper:
            await eventually(lambda: truth(sweeper.working))
            job = await make(room)
            await room.backend.store.kill(room.space, job, "", b"null")
            ended = room.backend.clock.now_ms()
            await eventually(lambda: gone(room, job))
            assert 1900 < room.backend.clock.now_ms() - ended < 4000


async def test_retention_never_takes_a_job_that_was_let_run_again(room_redis: AnyRedis) -> None:
    async def over(room: Room) -> Any:
        heads = await room.call("ZRANGE", room.keys.ended(room.space), 0, 0, "WITHSCORES")
        return room.backend.clock.now_ms() - int(heads[1]) > 1000

    async with new_room(room_redis, retention_s=1) as room:
        job = await run(room)
        await room.backend.store.kill(room.space, job, "", b"null")
        await eventually(lambda: over(room))
        await room.backend.store.retry(room.space, job, "")
        await room.backend.deletion.retire_jobs(room.space)
        assert await is_in(room, job, "pending")


async def test_a_poll_that_names_a_kind_twice_gets_as_many_jobs_as_one_that_names_it_once(room: Room) -> None:
    jobs = await make_many(room, 3, name="a")
    assert [job.id for job in await room.backend.store.poll(room.space, 2, ("a", "a"))] == jobs[:2]
