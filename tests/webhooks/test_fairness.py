"""Twelve thousand callbacks to hosts that hang, and what another space notices of them."""

import asyncio
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from app.main import run_callbacks
from tests.any_redis import AnyRedis
from tests.room import Room, new_room
from tests.sweeping import eventually, home, make_many
from tests.webhooks.receiving import Receiving

pytestmark = pytest.mark.alone("it measures delay under load")

JOBS = 12_000
HERE = ("127.0.0.0/8",)
LATE_S = 5.0


@pytest.fixture
def hanging() -> Iterator[int]:
    """A port, on every address of this machine, that takes connections and says nothing."""
    with socket.create_server(("0.0.0.0", 0), backlog=4096) as sock:
        yield sock.getsockname()[1]


@contextlib.asynccontextmanager
async def calling_back(room: Room) -> AsyncIterator[None]:
    """A process's callbacks while the block runs."""
    over = asyncio.Event()

    async def until() -> None:
        await over.wait()

    task = asyncio.create_task(run_callbacks(room.settings, until))
    try:
        yield
    finally:
        over.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def end_many(room: Room, urls: list[str]) -> None:
    """Jobs that end now, each with its callbackUrl."""
    store = room.backend.store
    jobs = await make_many(room, len(urls), claim=True, callback_url="http://127.0.0.1/")
    for job, url in zip(jobs, urls, strict=True):
        room.backend.control.cast("HSET", room.keys.job(room.space, job), "callbackUrl", url)
    await asyncio.gather(*(store.complete(room.space, job, "", b"1") for job in jobs))


async def delivered_s(room: Room, receiver: Receiving) -> float:
    """End a job of a space of its own; how long until its callback has come."""
    room.space = ""
    await home(room)
    await end_many(room, [receiver.url("/ok")])
    begun = time.monotonic()

    async def came() -> bool:
        return any(one["body"]["spaceId"] == room.space for one in await asyncio.to_thread(receiver.seen))

    await eventually(came, 30)
    return time.monotonic() - begun


async def test_twelve_thousand_callbacks_to_hosts_that_hang_delay_anothers_by_five_seconds_at_most(
    hanging: int, room_redis: AnyRedis
) -> None:
    async def tried(room: Room, space: str) -> bool:
        """Whether many were taken."""
        now = room.backend.clock.now_ms()
        return int(await room.call("ZCOUNT", room.keys.callbacks(space), now + 5000, "inf")) > 1000

    with Receiving() as receiver:
        async with new_room(room_redis, callback_allow=HERE) as room:
            addresses = itertools.product(range(1, 250), range(1, 250))
            urls = [f"http://127.1.{a}.{b}:{hanging}/" for a, b in itertools.islice(addresses, JOBS)]
            await home(room)
            crowded = room.space
            for at in range(0, JOBS, 100):
                await end_many(room, urls[at : at + 100])
            async with calling_back(room):
                await eventually(lambda: tried(room, crowded), 30)
                for _ in range(5):
                    assert await delivered_s(room, receiver) < LATE_S
