"""What tests of time share: jobs made and moved below HTTP, leases that lapse at will, a sweeper that runs for a block.

async def test_a_rule(room: Room) -> None:
    job = await make(room)
    await lapse(room, job)
    async with sweeping(room):
        await eventually(lambda: is_in(room, job, "pending"))
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from app.backend import Backend
from app.jobs.job_records import Delivered, NewJob, hash_fields
from app.redis_links.info import parse_info
from app.redis_links.link import Word
from app.sweeper.sweeper_per_server import Sweeper
from tests.room import Room
from tests.valkey import pause_s

PLAIN = NewJob("echo", b"null", 3, 300, None, "", b"", "", False)


async def eventually(condition: Callable[[], Awaitable[object]], within_s: float = 5.0) -> float:
    """Return the seconds until `condition` was true; fail the test when it is not within `within_s`."""
    begun = time.monotonic()
    while not await condition():
        assert time.monotonic() - begun < within_s, "the condition did not come true in time"
        await asyncio.sleep(pause_s(time.monotonic() - begun, 0.01))
    return time.monotonic() - begun


async def truth(value: object) -> object:
    """A condition for `eventually` that needs no waiting itself."""
    return value


async def home(room: Room) -> str:
    """The room's space, made when it is first wanted."""
    if not room.space:
        made, _ = await room.backend.spaces.create("tests")
        room.space = made.id
    return room.space


async def make(room: Room, **fields: Any) -> str:
    """A job, created now."""
    return (await make_many(room, 1, **fields))[0]


async def make_many(room: Room, count: int, **fields: Any) -> list[str]:
    """Jobs, created now in one call."""
    made = await room.backend.store.create(await home(room), [PLAIN._replace(**fields)] * count)
    return made.ids


async def take(room: Room, count: int = 1) -> list[Delivered]:
    """Jobs, polled."""
    return await room.backend.store.poll(room.space, count)


async def run(room: Room, **fields: Any) -> str:
    """A job that runs."""
    job = await make(room, **fields)
    taken = await room.backend.store.claim(room.space, job, "")
    await room.backend.store.ack(room.space, job, taken.token)
    return job


async def fields(room: Room, job: str) -> dict[str, bytes]:
    """The job's hash."""
    return hash_fields(await room.call("HGETALL", room.keys.job(room.space, job)))


async def is_in(room: Room, job: str, status: str) -> bool:
    """Whether the job has this status."""
    return bool(await room.call("HGET", room.keys.job(room.space, job), "status") == status.encode())


async def events(room: Room, job: str) -> list[tuple[str, Any]]:
    """The job's events as (type, data)."""
    items = await room.call("LRANGE", room.keys.events(room.space, job), 0, -1)
    return [(kind, data) for kind, _, data, *_ in map(msgspec.json.decode, items)]


async def lapse(room: Room, *jobs: str) -> None:
    """Let leases have ended, long ago: what this process takes for Redis's clock is an estimate."""
    for job in jobs:
        await room.call("DEL", room.keys.lease(room.space, job))
        await room.call("ZADD", room.keys.deadlines(room.space), 1, job)


async def never_away(room: Room) -> None:
    """As if a sweeper had worked for long, and nothing had ever been away."""
    run = parse_info(await room.ask("INFO", "server"))["run_id"]
    mark: dict[str, Word] = {"at": room.backend.clock.now_ms(), "by": "before", "run": run, "began": 1, "ended": 1}
    await room.call("HSET", room.keys.outage_of(room.tag), *(word for pair in mark.items() for word in pair))


async def lapse_all(room: Room) -> None:
    """Let every lease of the room's space have ended a moment ago, in one step."""
    text = """
      local ids = redis.call('ZRANGE', KEYS[1], 0, -1)
      for _, id in ipairs(ids) do
        redis.call('DEL', ARGV[1] .. id)
        redis.call('ZADD', KEYS[1], ARGV[2], id)
      end"""
    now = room.backend.clock.now_ms()
    await room.call("EVAL", text, 1, room.keys.deadlines(room.space), room.keys.lease(room.space, ""), now - 1)
    await room.call("ZADD", room.keys.due_of(room.tag), now - 1, room.space)


async def sweep(room: Room) -> None:
    """All that is urgent in the room's space, once."""
    while await room.backend.store.end_leases(room.space, 200) or await room.backend.store.promote_jobs(
        room.space, 200
    ):
        pass


@contextlib.asynccontextmanager
async def sweeping(room: Room | Backend) -> AsyncIterator[Sweeper]:
    """A sweeper that runs while the block does."""
    backend = room if isinstance(room, Backend) else room.backend
    sweeper, expiry = backend.sweeper()
    expiry.start()
    task = asyncio.create_task(sweeper.run())
    try:
        yield sweeper
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await expiry.close()
