"""What time does on a cluster: its work is shared by shards, a dead one holds up no other, and clocks may differ."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from app.backend import Backend
from app.main import run_callbacks
from app.metrics import catalog
from app.model.errors import Outage
from app.streams.frames import Stream
from app.sweeper.sweeper_per_server import Sweeper
from tests.cluster.cluster import Cluster, Node
from tests.room import Room, new_room
from tests.skipping import skip
from tests.sweeping import eventually, is_in, make, sweeping, truth
from tests.webhooks.receiving import Receiving


@pytest.fixture
def bare_cluster() -> Iterator[Cluster]:
    """Three primaries without replicas: a dead one stays dead."""
    with Cluster(replicas=0, config={"cluster-require-full-coverage": "no"}) as running:
        yield running


async def space_on_each(room: Room) -> dict[str, str]:
    """A space on each primary, by the primary's tag."""
    spaces: dict[str, str] = {}
    tags = set(room.backend.control.tags().values())
    while spaces.keys() != tags:
        made, _ = await room.backend.spaces.create("tests")
        spaces.setdefault(room.backend.control.tag_of(room.keys.space(made.id)), made.id)
    return spaces


@contextlib.asynccontextmanager
async def another(room: Room) -> AsyncIterator[Backend]:
    """Another process's backend."""
    backend = Backend(room.settings)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    """What the log says of servers: the address of each, and the message."""
    return [message.partition(": ") for message in caplog.messages]


async def leads(sweeper: Sweeper, count: int) -> None:
    """Return when it works on so many servers."""
    await eventually(lambda: truth(len(sweeper.works_on) == count), 6)


async def time_goes_on(room: Room, spaces: list[str]) -> None:
    """Leases end in time, and schedules come, in all of these spaces."""
    for room.space in spaces:
        begun = time.monotonic()
        soon = room.backend.clock.now_ms(room.keys.space(room.space)) + 500
        leased, scheduled = await make(room, timeout_s=1, claim=True), await make(room, scheduled_ms=soon)
        await eventually(lambda job=scheduled: is_in(room, job, "pending"), 3)  # type: ignore[misc]
        await eventually(lambda job=leased: is_in(room, job, "pending"), 3)  # type: ignore[misc]
        assert time.monotonic() - begun < 2.5


@pytest.mark.alone("it measures seconds")
@pytest.mark.parametrize("at", range(3))
async def test_a_dead_shard_keeps_no_lease_and_no_schedule_of_the_others_waiting(
    bare_cluster: Cluster, at: int
) -> None:
    async with new_room(bare_cluster, redis_timeout_s=1.0) as room:
        spaces = await space_on_each(room)
        async with sweeping(room) as sweeper:
            await leads(sweeper, 3)
            dead = bare_cluster.nodes[at]
            hurt = next(tag for tag in spaces if bare_cluster.owner(room.keys.due_of(tag)) is dead)
            dead.kill()
            left = [space for tag, space in spaces.items() if tag != hurt]
            await time_goes_on(room, left)
        async with another(room) as newcomer, sweeping(newcomer) as sweeper:
            await leads(sweeper, 2)
            await time_goes_on(room, left)


@pytest.mark.alone("it measures seconds")
async def test_sweepers_share_the_servers_and_one_that_stops_is_followed_everywhere(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with new_room(cluster, redis_timeout_s=1.0) as room, another(room) as other, sweeping(other) as second:
        async with sweeping(room) as first:
            await eventually(lambda: truth({len(first.works_on), len(second.works_on)} == {1, 2}), 10)
            await eventually(lambda: truth(len(first.works_on | second.works_on) == 3), 10)
            await time_goes_on(room, list((await space_on_each(room)).values()))
        await leads(second, 3)
        assert room.backend.topology is not None
        works_on = {place for place, _, text in said(caplog) if text == "this sweeper works now"}
        assert works_on == {str(place) for place in room.backend.topology.primaries}
        await time_goes_on(room, list((await space_on_each(room)).values()))


async def test_a_dead_shard_keeps_no_parked_poll_of_the_others_waiting(bare_cluster: Cluster) -> None:
    async with new_room(bare_cluster, redis_timeout_s=1.0) as room, contextlib.AsyncExitStack() as stack:
        spaces = await space_on_each(room)
        dead, *left = [space for _, space in sorted(spaces.items())]
        waiters = {
            space: (await stack.enter_async_context(room.backend.long_polls.waiting(space, [], "key")))[1]
            for space in (dead, *left)
        }
        bare_cluster.owner(room.keys.space(dead)).kill()
        for space in left:
            await room.call("ZADD", room.keys.pending(space), 1, "a job of which nobody was told")
        for space in left:
            await asyncio.wait_for(waiters[space].woken.wait(), 5)


@pytest.mark.alone("it measures seconds")
async def test_a_dead_shard_keeps_no_callback_and_no_push_of_the_others_waiting(bare_cluster: Cluster) -> None:
    settings = {"redis_timeout_s": 1.0, "callback_allow": ("127.0.0.0/8",)}
    with Receiving() as receiver:
        async with new_room(bare_cluster, **settings) as room, calling_back(room):
            spaces = await space_on_each(room)
            for space in spaces.values():
                await room.backend.spaces.patch(space, {"push": f'{{"url":"{receiver.url("/push")}"}}'})

            async def are_told(room: Room, within_s: float) -> None:
                for room.space in left:
                    job = await make(room, callback_url=receiver.url("/ended"), claim=True)
                    await room.backend.store.kill(room.space, job, "", b"null")
                    await eventually(partial(has_come, receiver, job, "/ended"), within_s)
                    await eventually(partial(is_pushed, receiver, room, []), within_s)

            left = list(spaces.values())
            await are_told(room, 10)
            dead = min(spaces)
            bare_cluster.owner(room.keys.due_of(dead)).kill()
            left.remove(spaces[dead])
            await are_told(room, 5)


async def test_a_callbacks_process_that_starts_without_the_list_of_hooks_sends_callbacks_and_pushes_once_it_is_back(
    bare_cluster: Cluster,
) -> None:
    settings = {"redis_timeout_s": 1.0, "callback_allow": ("127.0.0.0/8",)}
    with Receiving() as receiver:
        async with new_room(bare_cluster, **settings) as room:
            dead = bare_cluster.owner(room.keys.hooks)
            spaces = (await space_on_each(room)).values()
            room.space = next(one for one in spaces if bare_cluster.owner(room.keys.space(one)) is not dead)
            await room.backend.spaces.patch(room.space, {"push": f'{{"url":"{receiver.url("/push")}"}}'})
            await asyncio.to_thread(dead.stop)
            async with calling_back(room):
                job = await make(room, callback_url=receiver.url("/ended"), claim=True)
                await room.backend.store.kill(room.space, job, "", b"null")
                await eventually(partial(has_come, receiver, job, "/ended"), 10)
                await asyncio.to_thread(dead.start)
                await eventually(partial(is_pushed, receiver, room, []), 10)


async def has_come(receiver: Receiving, job: str, path: str) -> bool:
    """Whether a webhook of a job has come there."""
    return any(one["path"] == path for one in await asyncio.to_thread(receiver.seen, job))


async def is_pushed(receiver: Receiving, room: Room, made: list[str]) -> bool:
    """Whether one of the jobs made so far was told of; makes one more."""
    made.append(await make(room))
    return any([await has_come(receiver, job, "/push") for job in made])


@contextlib.asynccontextmanager
async def calling_back(room: Room) -> AsyncIterator[None]:
    """A callbacks process, as it were, while the block runs."""
    over = asyncio.Event()

    async def until() -> None:
        await over.wait()

    task = asyncio.create_task(run_callbacks(room.settings, until))
    try:
        yield
    finally:
        over.set()
        await task


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.fixture
def faketime() -> None:
    """Without libfaketime the test is skipped, unless nothing may skip."""
    if FAKETIME is None:
        skip("No libfaketime on this machine: apt-get install faketime")


needs_faketime = pytest.mark.usefixtures("faketime")


@contextlib.contextmanager
def clock_ahead(seconds: float) -> Iterator[None]:
    """Nodes that are started in the block have a clock that is so far ahead; their monotonic clock is as it was.

    Their memory is the C library's: jemalloc, which Debian's server has, would wait for the clock, and that for memory.
    """
    words = {
        "LD_PRELOAD": f"{FAKETIME}:libc.so.6",
        "FAKETIME": f"{seconds:+g}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    os.environ.update(words)
    try:
        yield
    finally:
        for name in words:
            del os.environ[name]


def restart_ahead(node: Node, seconds: float) -> None:
    """Start a node anew with another clock."""
    node.stop()
    with clock_ahead(seconds):
        node.start()
    assert abs(node.cli("TIME")[0] - time.time() - seconds) < 1.5


def scripts_run(node: Node) -> int:
    """How many scripts a node has run."""
    told = node.cli("INFO", "commandstats")
    return int(told["cmdstat_evalsha"]["calls"]) if "cmdstat_evalsha" in told else 0


@needs_faketime
@pytest.mark.alone("it measures seconds")
async def test_a_node_whose_clock_is_five_seconds_off_ends_its_leases_in_time_and_keeps_nobody_busy(
    bare_cluster: Cluster,
) -> None:
    behind, ahead, _ = bare_cluster.nodes
    restart_ahead(behind, -5)
    restart_ahead(ahead, 5)
    bare_cluster.wait_until_well()
    async with new_room(bare_cluster, redis_timeout_s=1.0) as room, sweeping(room) as sweeper:
        await leads(sweeper, 3)
        spaces = list((await space_on_each(room)).values())
        await time_goes_on(room, spaces)
        for room.space in spaces:
            await make(room, timeout_s=20, claim=True)
        before = [scripts_run(node) for node in bare_cluster.nodes]
        await asyncio.sleep(3)
        ran = [scripts_run(node) - then for node, then in zip(bare_cluster.nodes, before, strict=True)]
        assert max(ran) < 60, "marks, elections and a look now and then"
        for room.space in spaces:
            assert len(await room.backend.store.poll(room.space, 5)) == 2, "no poll is late"


def clock_ms(node: Node) -> float:
    """What a node's clock shows."""
    seconds, micros = node.cli("TIME")
    return float(seconds) * 1000 + float(micros) / 1000


@needs_faketime
@pytest.mark.alone("it measures seconds")
async def test_what_is_shown_of_a_space_or_a_log_has_the_time_of_its_own_primary(bare_cluster: Cluster) -> None:
    for node, seconds in zip(bare_cluster.nodes, (60, -60), strict=False):
        restart_ahead(node, seconds)
    bare_cluster.wait_until_well()
    async with new_room(bare_cluster, redis_timeout_s=1.0) as room:
        spaces = (await space_on_each(room)).values()
        clock, gauges = room.backend.clock, room.backend.service_gauges
        await eventually(lambda: truth(len(clock._clocks) == 3))
        for space in spaces:
            room.space = space
            for _ in range(3):
                job = await make(room)
                watch = await room.backend.viewers.watch_job(space, job)
                await watch.open_logs()
                for key, at_ms in (
                    (room.keys.space(space), watch.now_ms(Stream.EVENTS)),
                    (room.keys.log(job), watch.topic._logs_ms),
                ):
                    assert abs(clock_ms(bare_cluster.owner(key)) - at_ms) < 5000

        async def queue_age_s() -> list[float]:
            return [one.number for one in await gauges.collect() if one.gauge is catalog.QUEUE_AGE_SECONDS]

        await eventually(queue_age_s)
        assert 0 <= (await queue_age_s())[0] < 30


@needs_faketime
@pytest.mark.alone("it measures seconds")
async def test_a_failover_to_a_clock_two_seconds_off_ends_no_lease_early_and_hands_no_job_out_twice() -> None:
    lease_s = 17

    async def lasted_s(cluster: Cluster) -> float:
        """How long a lease lasts whose primary is killed."""
        async with new_room(cluster, redis_timeout_s=1.0) as room, sweeping(room) as sweeper:
            await leads(sweeper, 3)
            job = await make(room, timeout_s=lease_s, claim=True)
            granted = time.monotonic()
            cluster.owner(room.keys.space(room.space)).kill()

            async def is_taken_back() -> bool:
                with contextlib.suppress(Outage):  # until the replica has been promoted
                    return await is_in(room, job, "pending")
                return False

            await eventually(is_taken_back, lease_s + 6)
            return time.monotonic() - granted

    with Cluster() as ahead, Cluster() as behind:
        for cluster, seconds in ((ahead, 2), (behind, -2)):
            for node in cluster.nodes[3:]:
                restart_ahead(node, seconds)
        for cluster in (ahead, behind):
            cluster.wait_until_well()
        lasted = await asyncio.gather(lasted_s(ahead), lasted_s(behind))
    assert lease_s - 0.3 < lasted[0] < lease_s + 2
    assert lease_s - 0.3 < lasted[1] < lease_s + 4
