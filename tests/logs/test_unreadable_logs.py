"""A log that is damaged in the store: whoever asks is told which job, the operator once, and all others go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
import pytest

from app.logs.unreadable_logs import Unreadable, UnreadableLogs
from app.model.limits import KIB
from tests.any_redis import AnyRedis
from tests.room import EVERYTHING, Room, new_room

LINES = [f"line {i}" for i in range(40)]


async def nuls_in_the_lines(room: Room, job: str) -> None:
    """NULs in the place of half a record batch."""
    (entry, fields), *_ = await room.call("XRANGE", room.keys.log(job), "-", "+")
    half = len(fields[5]) // 2
    await room.call("DEL", room.keys.log(job))
    await room.call("XADD", room.keys.log(job), entry, *fields[:5], fields[5][:half] + bytes(half))


async def another_type(room: Room, job: str) -> None:
    """A string in the place of the stream."""
    await room.call("SET", room.keys.log(job), "no stream")


async def another_type_of_meta(room: Room, job: str) -> None:
    """A string in the place of the hash."""
    await room.call("SET", room.keys.log_meta(job), "no hash")


async def nuls_in_meta(room: Room, job: str) -> None:
    """NULs in the place of a number."""
    await room.call("HSET", room.keys.log_meta(job), "lastSeq", bytes(2))


async def sealed(room: Room, job: str) -> bytes:
    """The log, sealed; its block."""
    await room.logs._sealer.seal(job, 0, 0)
    return bytes(await room.call("LINDEX", room.keys.log_blocks(job), 0))


async def nuls_in_the_block(room: Room, job: str) -> None:
    """NULs in the place of the end of a block."""
    block = await sealed(room, job)
    await room.call("LSET", room.keys.log_blocks(job), 0, block[:60] + bytes(len(block) - 60))


async def a_block_of_nuls(room: Room, job: str) -> None:
    """NULs in the place of a block."""
    block = await sealed(room, job)
    await room.call("LSET", room.keys.log_blocks(job), 0, bytes(len(block)))


async def a_short_block(room: Room, job: str) -> None:
    """Not even a head of a block."""
    await sealed(room, job)
    await room.call("LSET", room.keys.log_blocks(job), 0, b"\1\2\3")


async def no_block(room: Room, job: str) -> None:
    """A block that is listed and not there."""
    await sealed(room, job)
    await room.call("DEL", room.keys.log_blocks(job))


WAYS = [
    nuls_in_the_lines,
    another_type,
    another_type_of_meta,
    nuls_in_meta,
    nuls_in_the_block,
    a_block_of_nuls,
    a_short_block,
    no_block,
]
Way = Callable[[Room, str], Awaitable[None]]


async def new_job(http: httpx.AsyncClient, space: str) -> str:
    """A job with a log."""
    job = str((await http.post(f"/spaces/{space}/jobs", json={"name": "j"})).json()["id"])
    assert (await http.post(f"/jobs/{job}/logs", json=LINES)).status_code == 200
    return job


@pytest.mark.parametrize("damage", WAYS, ids=lambda way: str(way.__name__))
async def test_a_damaged_log_is_a_500_that_names_the_job_told_once_and_others_are_well(
    damage: Way, caplog: pytest.LogCaptureFixture, room_redis: AnyRedis
) -> None:
    async with new_room(room_redis) as room, room.client() as http:
        space = (await http.post("/spaces", json={"name": "s"})).json()["id"]
        job, other = [await new_job(http, space) for _ in range(2)]
        await damage(room, job)
        asked = [
            *[await http.get(f"/jobs/{job}/logs", params=query) for query in ({}, {"after": 0}, {"q": "line"})],
            await http.get(f"/jobs/{job}/logs", headers={"accept": "application/x-ndjson"}),
        ]
        for answer in asked:
            assert answer.status_code == 500
            assert answer.json() == {
                "error": f"The log of job {job} cannot be read: what is stored of it is damaged.",
                "code": "internal",
                "jobId": job,
            }
        assert (await http.get(f"/jobs/{job}")).status_code == 200
        assert len((await http.get(f"/jobs/{other}/logs")).json()["logs"]) == len(LINES)
    assert caplog.text.count("cannot be read") == 1
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


@pytest.mark.parametrize("damage", [nuls_in_the_lines, another_type, another_type_of_meta, a_block_of_nuls])
async def test_a_damaged_log_does_not_stop_the_sweeper(
    damage: Way, caplog: pytest.LogCaptureFixture, room_redis: AnyRedis
) -> None:
    async with new_room(room_redis) as room:
        job, other = await room.new_job("completed"), await room.new_job("completed")
        for each in (job, other):
            await room.append(each, *LINES)
        await damage(room, job)
        for each in (job, other):
            await room.call("ZADD", room.keys.log_work(room.space), 1, each)
        await room.backend.deletion.settle_logs(room.space)
        assert await room.call("ZCARD", room.keys.log_work(room.space)) == 0
        assert await room.call("LLEN", room.keys.log_blocks(other)) == 1
        await room.logs.delete(room.space, job)
        assert not await room.call("EXISTS", room.keys.log(job), room.keys.log_meta(job), room.keys.log_blocks(job))
    assert caplog.text.count("cannot be read") <= 1


async def test_an_append_to_a_damaged_log_is_told_which_job(room: Room) -> None:
    job = await room.new_job()
    await room.append(job, "first")
    await another_type(room, job)
    with pytest.raises(Unreadable, match=job):
        await room.append(job, "second")


async def test_a_download_that_meets_damage_later_is_broken_off(room: Room) -> None:
    job = await room.new_job()
    for _ in range(3):
        await room.append(job, *["x" * KIB] * 1000)
    await room.call("XADD", room.keys.log(job), "3001-0", "first", 3001, "at", 1, "lines", bytes(9))
    await room.call("HSET", room.keys.log_meta(job), "lastSeq", 3001)
    pieces = await room.logs.download(room.space, job, 0, EVERYTHING)
    with pytest.raises(Unreadable, match=job):
        async for _ in pieces:
            pass


def test_many_damaged_logs_take_a_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.logs.unreadable_logs.REMEMBERED_MOST", 3)
    unreadable_logs = UnreadableLogs()
    for number in range(9):
        with pytest.raises(Unreadable), unreadable_logs.guard(str(number)):
            raise ValueError
    assert list(unreadable_logs._reported) == ["6", "7", "8"]
