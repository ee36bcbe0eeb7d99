"""Where a log begins and ends: which jobs have one, what becomes of it, and how large it may grow."""

import pytest

from app.logs.log_store import batch_key
from app.model.errors import Unavailable
from app.model.ids import new_job_ids
from tests.any_redis import AnyRedis, NewRedis
from tests.room import Room, batch_of, messages, new_room, refusal_of


async def test_a_log_is_not_begun_for_a_job_that_does_not_exist(room: Room) -> None:
    await room.new_job()
    (ghost,) = new_job_ids(room.space, 0, 1)
    for append in (room.append(ghost, "a"), room.append(ghost), room.append(ghost, key=batch_key("k", b""))):
        assert (await refusal_of(append)).code == "job_not_found"
    assert (await refusal_of(room.page(ghost))).code == "job_not_found"
    assert (await refusal_of(room.page("no id"))).code == "job_not_found"
    assert not await room.call("EXISTS", room.keys.log(ghost), room.keys.log_meta(ghost))


@pytest.mark.parametrize("status", ["scheduled", "pending", "completed", "dead", "killed"])
async def test_logs_are_taken_in_any_status_and_tell_it(status: str, room: Room) -> None:
    job = await room.new_job(status)
    assert (await room.append(job, "a")).status == status
    assert (await room.append(job)).status == status


async def test_after_a_deletion_a_late_append_finds_no_job_and_nothing_grows_back(room: Room) -> None:
    job = await room.new_job()
    await room.append(job, "a")
    await room.logs.delete(room.space, job)
    assert (await refusal_of(room.append(job, "late"))).code == "job_not_found"
    assert messages((await room.page(job)).rows) == []
    assert await room.names(f"{{{job}}}*") == {room.keys.log_gone(job)}
    assert 0 < await room.call("TTL", room.keys.log_gone(job)) <= 60


async def test_log_keys_expire_when_told_to_those_of_late_lines_too(room: Room) -> None:
    job = await room.new_job("completed")
    await room.append(job, "a")
    await room.logs.set_ttl(job, 100_000)
    await room.call("DEL", room.keys.log(job))
    await room.append(job, "late")
    for key in (room.keys.log(job), room.keys.log_meta(job)):
        assert 0 < await room.call("PTTL", key) <= 100_000
    await room.logs.persist(job)
    for key in (room.keys.log(job), room.keys.log_meta(job)):
        assert await room.call("PTTL", key) == -1


async def test_a_job_that_runs_again_keeps_its_log(room: Room) -> None:
    job = await room.new_job("pending")
    await room.append(job, "a")
    await room.logs.set_ttl(job, 100_000)
    await room.append(job, "b")
    assert await room.call("PTTL", room.keys.log(job)) == -1
    assert await room.call("PTTL", room.keys.log_meta(job)) == -1


async def test_beyond_the_kept_lines_the_oldest_go_and_the_cursor_says_so(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, log_lines=1000) as room:
        job = await room.new_job()
        for i in range(30):
            await room.append(job, *[f"{i} {k}" for k in range(100)])
        page = await room.page(job, "after", 0, 500)
        assert page.cursor.first_kept == page.cursor.oldest == page.rows[0].seq == 2001
        assert (await room.page(job)).cursor.newest == 3000
        assert len(await room.every_line(job)) == 1000


async def test_beyond_the_kept_bytes_the_oldest_go(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, log_bytes=1_048_576) as room:
        job = await room.new_job()
        for _ in range(40):
            await room.append(job, *["x" * 1000] * 60)
        kept = await room.every_line(job)
        assert 900 < len(kept) < 1_048_576 / 1000
        assert kept[-1].seq == 2400
        assert int(await room.call("HGET", room.keys.log_meta(job), "bytes")) <= 1_048_576


async def test_near_the_memory_limit_logs_are_refused_before_job_state_is(new_redis: NewRedis) -> None:
    with new_redis(maxmemory_bytes=64 << 20) as server:
        async with new_room(server) as room:
            job = await room.new_job()
            batch = await batch_of(*["x" * 5000] * 1000)
            refused = None
            for _ in range(40):
                try:
                    await room.logs.append(room.space, job, batch)
                except Unavailable as error:
                    refused = error
                    break
            assert refused is not None
            assert refused.code == "unavailable"
            assert await room.call("HSET", room.keys.job(room.space, job), "more", "x" * 100_000) == 1
            rows = await room.every_line(job, 500)
            assert rows[-1].seq == len(rows)
            await room.logs.delete(room.space, job)
            assert not await room.call("EXISTS", room.keys.log(job), room.keys.log_meta(job))
