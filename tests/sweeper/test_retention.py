"""Nothing of a job is left when its time is over: thousands of them, ended in every way there is."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable

from app.logs.log_store import batch_key
from app.model.ids import encode_ulid
from tests.any_redis import AnyRedis
from tests.room import Room, batch_of, new_room
from tests.sweeping import PLAIN, eventually, home, lapse, make_many, sweep, sweeping

JOBS = 3_000
"""Many times what one step deletes, and what a sweeper does in its turn, of each way to end."""

AT_ONCE = 100

End = Callable[[Room, str], Awaitable[object]]


async def taken(room: Room, job: str) -> str:
    return (await room.backend.store.claim(room.space, job, "")).token


async def running(room: Room, job: str) -> str:
    token = await taken(room, job)
    await room.backend.store.ack(room.space, job, token)
    return token


async def kill_pending(room: Room, job: str) -> None:
    await room.backend.store.kill(room.space, job, "", b'"no need"')


async def kill_delivered(room: Room, job: str) -> None:
    await taken(room, job)
    await kill_pending(room, job)


async def kill_running(room: Room, job: str) -> None:
    await running(room, job)
    await kill_pending(room, job)


async def kill_waiting_for_its_retry(room: Room, job: str) -> None:
    await room.call("HSET", room.keys.job(room.space, job), "retryDelay", "1000")
    await room.backend.store.fail(room.space, job, await running(room, job), b"null", may_retry=True)
    await kill_pending(room, job)


async def complete_without_an_ack(room: Room, job: str) -> None:
    await room.backend.store.complete(room.space, job, await taken(room, job), b'{"done":true}')


async def complete_with_a_log_and_events(room: Room, job: str) -> None:
    store, token = room.backend.store, await running(room, job)
    await store.progress(room.space, job, token, b'{"percent":50}')
    await store.checkpoint(room.space, job, token, b'{"at":1}')
    await store.event(room.space, job, token, b"1")
    await room.append(job, "one", "two")
    await room.logs.append(room.space, job, await batch_of("three"), batch_key("k", b"three"))
    await store.complete(room.space, job, token, b"null")
    await room.append(job, "a late line")


async def fail_for_good(room: Room, job: str) -> None:
    await room.backend.store.fail(room.space, job, await running(room, job), b'"no"', may_retry=False)


async def fail_until_no_retry_is_left(room: Room, job: str) -> None:
    for _ in range(PLAIN.max_retries + 1):
        await room.backend.store.fail(room.space, job, await taken(room, job), b'"no"', may_retry=True)


async def run_again_after_the_end(room: Room, job: str) -> None:
    await fail_for_good(room, job)
    await room.append(job, "between")
    await room.backend.store.retry(room.space, job, "")
    await complete_without_an_ack(room, job)


async def time_out(room: Room, job: str) -> None:
    await room.call("HSET", room.keys.job(room.space, job), "maxRetries", 0)
    await running(room, job)
    await lapse(room, job)


async def never_be_acked(room: Room, job: str) -> None:
    await room.call("HSET", room.keys.job(room.space, job), "deliveries", 99)
    await taken(room, job)
    await lapse(room, job)


async def be_deleted(room: Room, job: str) -> None:
    await complete_with_a_log_and_events(room, job)
    await room.backend.deletion.delete_job(room.space, job)


ENDS: tuple[End, ...] = (
    kill_pending,
    kill_delivered,
    kill_running,
    kill_waiting_for_its_retry,
    complete_without_an_ack,
    complete_with_a_log_and_events,
    fail_for_good,
    fail_until_no_retry_is_left,
    run_again_after_the_end,
    time_out,
    never_be_acked,
    be_deleted,
)


async def end_them(room: Room, jobs: Iterable[str]) -> None:
    ways = itertools.cycle(ENDS)
    for some in itertools.zip_longest(*[iter(jobs)] * AT_ONCE):
        await asyncio.gather(*(next(ways)(room, job) for job in some if job))
    await sweep(room)


async def make_all(room: Room) -> list[str]:
    """Some pending, some scheduled, some under an Idempotency-Key, of several names."""
    store, jobs = room.backend.store, []
    later = room.backend.clock.now_ms() + 10_000_000
    for name in range(8):
        jobs += await make_many(room, (JOBS - 200) // 8, name=f"kind-{name}")
    for number in range(100):
        made = await store.create(room.space, [PLAIN], idem_key=f"k{number}", digest="d")
        jobs += made.ids
    scheduled = await make_many(room, 100, scheduled_ms=later)
    await asyncio.gather(*(kill_pending(room, job) for job in scheduled))
    assert len(jobs) + len(scheduled) == JOBS
    return jobs


async def keys(room: Room, pattern: str = "*") -> set[str]:
    """Every key of the room's prefix that matches."""
    return await room.names(pattern)


async def owned(room: Room) -> set[str]:
    """Every key that belongs to a space, a job or a token, and not to the service as a whole or to a server."""
    shards = tuple(f"{room.keys.prefix}:{{{tag}}}:" for tag in room.backend.control.tags().values() if tag)
    return {key for key in await keys(room) if ("{" in key and not key.startswith(shards)) or ":token:" in key}


async def test_of_thousands_of_jobs_that_ended_in_every_way_no_key_is_left(room_redis: AnyRedis) -> None:
    async def all_gone(room: Room) -> bool:
        listed = (room.keys.jobs(room.space), room.keys.log_work(room.space), room.keys.ended(room.space))
        return not await room.call("EXISTS", *listed)

    async with new_room(room_redis, retention_s=1) as room:
        await home(room)
        before = await keys(room)
        await end_them(room, await make_all(room))
        assert len(await keys(room)) > JOBS
        async with sweeping(room):
            await eventually(lambda: all_gone(room), 30)
        graves = await keys(room, "*:log:gone")
        await graves_are_short_lived(room, graves)
        ends = await keys(room, "*:ends:*")
        assert await owned(room) - graves - ends - before <= {room.keys.feed(room.space)}
        assert len(ends) <= 4

        await room.backend.spaces.delete(room.space)
        assert await owned(room) - graves == set()


async def graves_are_short_lived(room: Room, graves: set[str]) -> None:
    """Tombstones are all that is left of a log, and they go by themselves within a minute."""
    left_ms = await room.backend.control.pipeline(*(("PTTL", key) for key in graves))
    assert all(ms == -2 or 0 < ms <= 60_000 for ms in left_ms)


async def test_a_space_is_removed_with_all_that_is_its_own_whatever_its_jobs_do(room: Room) -> None:
    await home(room)
    await room.backend.spaces.create_token(room.space, "worker", ("jobs:worker",), None)
    jobs = await make_many(room, 60)
    for end, job in zip((*ENDS[:-1], taken, running), jobs, strict=False):
        await end(room, job)
    await make_many(room, 5, scheduled_ms=room.backend.clock.now_ms() + 10_000_000)
    await room.backend.spaces.delete(room.space)
    graves = await keys(room, "*:log:gone")
    assert await owned(room) - graves == set()


async def test_a_removal_of_a_space_that_was_cut_off_is_finished(room: Room) -> None:
    await home(room)
    await make_many(room, 5)
    await room.call("HSET", room.keys.deleting, "tag", room.space)
    await room.call("DEL", room.keys.space(room.space))
    await room.backend.spaces.resume_deletions(room.tag)
    graves = await keys(room, "*:log:gone")
    assert await keys(room, f"{{{room.space}}}*") - graves == set()


async def test_should_nobody_sweep_the_keys_of_an_ended_job_go_by_themselves(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, retention_s=3600) as room:
        (job,) = await make_many(room, 1)
        await complete_with_a_log_and_events(room, job)
        await room.call("ZADD", room.keys.log_work(room.space), 1, job)
        await room.backend.deletion.settle_logs(room.space)
        for key in await keys(room, f"*{job}*"):
            assert 0 < await room.call("PTTL", key) <= (room.settings.retention_s + 86_400) * 1000, key


async def test_keys_that_expired_leave_the_list_of_their_space(room: Room) -> None:
    spaces, listed = room.backend.spaces, room.keys.tokens(await home(room))
    long_ago = [encode_ulid(number, bytes(10)) for number in range(20)]
    for id_ in long_ago:
        await room.call("HSET", listed, id_, f"digest-{id_}")
    being_made = encode_ulid(room.backend.clock.now_ms(), bytes(10))
    await room.call("HSET", listed, being_made, "digest of one whose hash is still to come")
    for _ in range(20):
        await spaces.create_token(room.space, "worker", ("jobs:worker",), None)
    kept = {id_.decode() for id_ in await room.call("HKEYS", listed)}
    assert being_made in kept
    assert len(kept & set(long_ago)) < 10
    assert len(await spaces.list_tokens(room.space)) == 21
