"""Of several sweepers one works; when it is killed, another takes over within three seconds."""

from __future__ import annotations

import time

import pytest

from tests.faults.service import Process
from tests.room import Room, new_room
from tests.sweeping import eventually, fields, is_in, make, take
from tests.valkey import Valkey

pytestmark = pytest.mark.alone("it measures seconds")

TAKEOVER_S = 3.0


async def test_when_the_sweeper_that_works_is_killed_another_takes_over_within_three_seconds() -> None:
    async def holder_is(room: Room, not_this: bytes) -> bool:
        return await room.call("GET", room.keys.sweeper) not in (None, not_this)

    def environment(room: Room) -> dict[str, str]:
        return {"REDIS_URL": valkey.url, "JOBWIRE_PREFIX": room.keys.prefix}

    with Valkey() as valkey:
        async with new_room(valkey) as room:
            with Process("sweeper", env=environment(room)) as first:
                await eventually(lambda: holder_is(room, b""), 10)
                before = await room.call("GET", room.keys.sweeper)
                with Process("sweeper", env=environment(room)) as second:
                    job = await make(room, timeout_s=1)
                    await take(room)
                    await eventually(lambda: is_in(room, job, "pending"), 2)
                    first.kill()
                    killed = time.monotonic()
                    again = await make(room, timeout_s=1)
                    await take(room, 2)
                    await eventually(lambda: is_in(room, again, "pending"), TAKEOVER_S + 1)
                    assert time.monotonic() - killed < TAKEOVER_S
                    await eventually(lambda: holder_is(room, before), 1)
                    assert "this sweeper works now" in second.log
            assert (await fields(room, again))["attemptNumber"] == b"0"
