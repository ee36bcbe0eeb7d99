"""What the logs of a space may hold together: counted without drift, kept by dropping the oldest lines first."""

import asyncio

from tests.any_redis import AnyRedis
from tests.room import Room, messages, new_room

LINE = "x" * 970
"""A line of about a thousand bytes as it is stored."""
BOUND = 300_000


async def told(room: Room) -> int:
    """Bytes in all, after this process has told what it knows."""
    await room.logs._budget._tell_all()
    return int(await room.call("HGET", room.keys.log_bytes(room.space), "total") or 0)


async def held(room: Room, job: str) -> int:
    """Bytes that a log holds by its own account."""
    return int(await room.call("HGET", room.keys.log_meta(job), "bytes") or 0)


async def filled(room: Room, lines: int) -> str:
    """A job with so many lines, ten a batch."""
    job = await room.new_job()
    for _ in range(lines // 10):
        await room.append(job, *[LINE] * 10)
    return job


async def test_beyond_the_bound_the_logs_that_rested_longest_lose_their_oldest_lines(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, space_log_bytes=BOUND) as room:
        first = await filled(room, 150)
        await room.logs.settle(first, 10_000)
        assert await told(room) == await held(room, first)
        second = await filled(room, 100)
        assert await told(room) == await held(room, first) + await held(room, second)
        third = await filled(room, 120)
        assert await told(room) <= BOUND
        assert await held(room, first) == 0
        assert await held(room, second) > 90_000
        assert await held(room, third) > 110_000
        fourth = await filled(room, 150)
        assert BOUND - 20_000 < await told(room) <= BOUND
        page = await room.page(second, "after", 0, 1)
        assert not page.rows or page.cursor.first_kept == page.rows[0].seq
        assert len(await room.every_line(fourth)) == 150


async def test_a_log_of_which_everything_went_is_empty_to_readers_and_goes_on_where_it_was(
    room_redis: AnyRedis,
) -> None:
    async with new_room(room_redis, space_log_bytes=BOUND) as room:
        job = await filled(room, 150)
        await filled(room, 300)
        await told(room)
        assert await held(room, job) == 0
        assert messages(await room.every_line(job)) == []
        tail = await room.page(job)
        assert (tail.cursor.oldest, tail.cursor.newest, tail.cursor.more) == (None, None, False)
        assert not (await room.page(job, "before", 90)).cursor.more
        assert (await room.append(job, "again")).first == 151
        assert [row.seq for row in await room.every_line(job)] == [151]
        assert (await room.page(job)).cursor.first_kept == 151


async def test_a_log_that_is_larger_than_the_bound_keeps_its_newest_lines(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, space_log_bytes=BOUND) as room:
        job = await filled(room, 500)
        assert BOUND - 20_000 < await told(room) <= BOUND
        rows = await room.every_line(job)
        assert rows[-1].seq == 500
        assert rows[0].seq == (await room.page(job)).cursor.first_kept


async def test_what_is_removed_is_not_counted_any_more(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, space_log_bytes=BOUND) as room:
        one, other = await filled(room, 50), await filled(room, 60)
        await told(room)
        await room.logs.delete(room.space, one)
        assert await told(room) == await held(room, other)
        await room.logs.delete(room.space, other)
        assert not await room.call("EXISTS", room.keys.logs(room.space), room.keys.log_bytes(room.space))


async def test_what_a_crash_kept_from_being_told_is_made_good_by_the_next_append(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, space_log_bytes=BOUND) as room:
        job = await filled(room, 50)
        room.logs._budget._noted.clear()
        await room.append(job, LINE)
        assert await told(room) == await held(room, job)


async def test_appends_are_told_within_seconds_by_themselves(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, space_log_bytes=BOUND) as room:
        await filled(room, 400)
        task = room.logs._budget._task
        assert task is not None
        async with asyncio.timeout(10):
            await task
        assert int(await room.call("HGET", room.keys.log_bytes(room.space), "total")) <= BOUND


async def test_without_a_bound_nothing_is_counted(room: Room) -> None:
    await filled(room, 10)
    assert await told(room) == 0
    assert not await room.call("EXISTS", room.keys.logs(room.space), room.keys.log_bytes(room.space))
