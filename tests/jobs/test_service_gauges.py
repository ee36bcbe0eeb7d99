"""How all spaces stand together: what the log says while Redis refuses to tell it."""

import logging

import pytest

from app.model.job import Status
from tests.any_redis import AnyRedis
from tests.room import new_room
from tests.sweeping import eventually, home, truth


async def test_gauges_that_cannot_be_read_are_told_once_and_once_that_they_are_read_again(
    caplog: pytest.LogCaptureFixture, room_redis: AnyRedis
) -> None:
    caplog.set_level(logging.INFO, "jobwire.jobs")
    async with new_room(room_redis) as room:
        caplog.clear()
        gauges, index = room.backend.service_gauges, room.keys.jobs(await home(room), Status.PENDING)
        await room.call("SET", index, "no index at all")

        async def look() -> list[str]:
            gauges._made_s = float("-inf")
            await gauges.collect()
            await eventually(lambda: truth(gauges._refreshing is None))
            return caplog.messages

        for _ in range(3):
            assert await look() == ["the gauges of all spaces cannot be read"]
        assert "WRONGTYPE" in caplog.text
        await room.call("DEL", index)
        assert (await look())[1:] == ["the gauges of all spaces are read again"]
