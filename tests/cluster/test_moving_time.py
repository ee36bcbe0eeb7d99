"""What is due in a space comes in time, and once, while its slot moves to another primary: also when other processes
lead there, and when some of these have not heard of it yet."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest

from app.backend import Backend
from app.redis_links.topology import LOOK_S, TAG_ORDER, slot_of, tag_of
from app.sweeper.sweeper_per_server import Sweeper
from tests.cluster.cluster import Cluster, Node, free_ports, slots_of
from tests.cluster.test_time import another, calling_back, leads, space_on_each
from tests.room import Room, new_room
from tests.server_binary import BINARY
from tests.sweeping import PLAIN, events, eventually, home, is_in, make, run, sweeping, truth
from tests.valkey import until
from tests.webhooks.receiving import Receiving

pytestmark = pytest.mark.alone("it measures seconds")

LATE_S = 2.5
"""How late what is due may come: RENEW_S and IDLE_PAUSE_S, a look at the map, and a busy machine."""

AT_ONCE = pytest.param("migrate_slot", marks=pytest.mark.since("CLUSTER MIGRATESLOTS", redis=None, valkey=(9,)))


@contextlib.asynccontextmanager
async def two_sweepers(room: Room) -> AsyncIterator[tuple[Sweeper, Sweeper]]:
    """Two processes that share the primaries."""
    async with another(room) as other, sweeping(room) as first, sweeping(other) as second:
        await eventually(lambda: truth(len(first.works_on) + len(second.works_on) == 3), 10)
        await eventually(lambda: truth(first.works_on and second.works_on), 10)
        yield first, second


def node_of(cluster: Cluster, room: Room, tag: str) -> Node:
    """The primary with a tag."""
    return cluster.owner(room.keys.due_of(tag))


async def move(cluster: Cluster, room: Room, how: str, slot: int, to: Node) -> None:
    """Move a slot; returns when it has moved."""
    await asyncio.to_thread(getattr(cluster, how), slot, to)


async def is_gone(room: Room, job: str) -> bool:
    """Whether its retention is over."""
    return not await room.call("EXISTS", room.keys.job(room.space, job))


async def make_in(backend: Backend, space: str, **fields: Any) -> str:
    """A job that a process makes."""
    return (await backend.store.create(space, [PLAIN._replace(**fields)])).ids[0]


async def is_told(receiver: Receiving, job: str, times: int = 1) -> bool:
    """Whether a callback has come, so often."""
    return len(await asyncio.to_thread(receiver.seen, job)) == times


def primaries(cluster: Cluster) -> list[Node]:
    """Those that have slots."""
    return [node for node in cluster.nodes if node.is_primary and slots_of(node)]


def rank(node: Node) -> int:
    """The place in TAG_ORDER of the slot that gives a primary its tag."""
    slots = slots_of(node)
    return next(at for at, slot in enumerate(TAG_ORDER) if slot in slots)


async def kinds(room: Room, job: str) -> list[str]:
    """The types of a job's events."""
    return [kind for kind, _ in await events(room, job)]


@pytest.mark.parametrize("how", ["move_slot", AT_ONCE])
async def test_all_that_is_due_while_the_slot_moves_to_another_process_s_primary_comes_in_time_and_once(
    cluster: Cluster, how: str
) -> None:
    settings: dict[str, Any] = {
        "redis_timeout_s": 1.0,
        "retention_s": 5,
        "callback_allow": ("127.0.0.0/8",),
        "callback_schedule": ("3", "3"),
    }
    with Receiving() as receiver:
        async with new_room(cluster, **settings) as room, two_sweepers(room) as (first, second), calling_back(room):
            spaces = await space_on_each(room)
            old = next(iter(first.works_on))
            to = node_of(cluster, room, next(iter(second.works_on)))
            room.space = spaces[old]
            slot = slot_of(room.keys.space(room.space))
            begun = time.monotonic()
            ended = await make(room, claim=True)
            called = await make(room, callback_url=receiver.url("/flaky/1"), claim=True)
            for job in (ended, called):
                await room.backend.store.kill(room.space, job, "", b"null")
            due = room.backend.clock.now_ms(room.keys.space(room.space)) + 3000
            leased = [await make(room, timeout_s=3, claim=True) for _ in range(3)]
            runs = [await run(room, timeout_s=3, max_retries=0) for _ in range(3)]
            scheduled = [await make(room, scheduled_ms=due) for _ in range(3)]
            await move(cluster, room, how, slot, to)

            async def all_came() -> bool:
                return all(
                    [
                        *[await is_in(room, job, "pending") for job in (*leased, *scheduled)],
                        *[await is_in(room, job, "dead") for job in runs],
                    ]
                )

            await eventually(all_came, 3 + LATE_S - (time.monotonic() - begun))
            for job in leased:
                assert (await kinds(room, job)).count("delivery_timeout") == 1
            for job in scheduled:
                assert (await kinds(room, job)).count("pending") == 1
            for job in runs:
                assert (await kinds(room, job)).count("dead") == 1
            await eventually(lambda: is_told(receiver, called, 2), 3 + LATE_S - (time.monotonic() - begun))
            await eventually(lambda: is_gone(room, ended), 5 + LATE_S - (time.monotonic() - begun))
            assert await is_told(receiver, called, 2)


async def test_hints_under_a_tag_that_is_none_any_more_are_found_also_those_of_a_process_that_has_not_heard_of_it(
    cluster: Cluster,
) -> None:
    settings: dict[str, Any] = {"redis_timeout_s": 1.0, "callback_allow": ("127.0.0.0/8",)}
    with Receiving() as receiver:
        async with (
            new_room(cluster, **settings) as room,
            two_sweepers(room) as (first, second),
            calling_back(room),
            another(room) as old,
        ):
            ranks = {rank(node): node for node in primaries(cluster)}
            before = next(at for at in range(max(ranks)) if at not in ranks)
            spaces = await space_on_each(room)
            await old.spaces.list_ids()
            assert old.topology is not None
            await old.topology.close()
            await move(cluster, room, "move_slot", TAG_ORDER[before], ranks[max(ranks)])
            # A call is led to the new owner. The epoch may tell nobody: who has the newest takes slots without another.
            await room.call("EXISTS", room.keys.due_of(tag_of(TAG_ORDER[before])))
            await eventually(lambda: truth(spaces.keys() - room.backend.control.tags().values()), 10)
            now = set(room.backend.control.tags().values())
            await eventually(lambda: truth(first.works_on | second.works_on == now), 10)
            made = {}
            for space in spaces.values():
                soon = old.clock.now_ms(room.keys.space(space)) + 500
                called = await make_in(old, space, callback_url=receiver.url("/ok"), claim=True)
                await old.store.kill(space, called, "", b"null")
                made[space] = called, await make_in(old, space, scheduled_ms=soon)
            for room.space, (called, scheduled) in made.items():
                await eventually(partial(is_told, receiver, called), LATE_S)
                await eventually(partial(is_in, room, scheduled, "pending"), 0.5 + LATE_S)


async def test_that_primaries_get_other_tags_is_no_outage_and_lengthens_no_lease(cluster: Cluster, room: Room) -> None:
    async with two_sweepers(room):
        ranks = {rank(node): node for node in primaries(cluster)}
        spaces = (await space_on_each(room)).values()
        begun = time.monotonic()
        leased = {space: await make_in(room.backend, space, timeout_s=7, claim=True) for space in spaces}
        await asyncio.sleep(4)  # a grace of 7 s from now on would be noticed
        await move(cluster, room, "move_slot", TAG_ORDER[min(ranks)], ranks[max(ranks)])
        for room.space, job in leased.items():
            await eventually(partial(is_in, room, job, "pending"), 7 + LATE_S - (time.monotonic() - begun))


@pytest.fixture
def growing_cluster() -> Iterator[Cluster]:
    """Three primaries without replicas."""
    with Cluster(replicas=0, config={"cluster-require-full-coverage": "no"}) as running:
        yield running


def add_primary(cluster: Cluster) -> Node:
    """One more, without slots; returns when all know it."""
    port, bus_port = free_ports(2)
    made = Node(cluster.folder / str(port), port, bus_port, {"cluster-require-full-coverage": "no"}, BINARY)
    made.start()
    cluster.nodes[0].cli("CLUSTER", "MEET", "127.0.0.1", port, bus_port)
    cluster.nodes.append(made)
    until(lambda: all(node.info()["cluster_known_nodes"] == "4" for node in cluster.nodes), 20)
    cluster.wait_until_well()
    return made


async def test_a_primary_that_was_added_has_a_leader_soon_and_time_there_goes_on(growing_cluster: Cluster) -> None:
    async with new_room(growing_cluster, redis_timeout_s=1.0) as room, two_sweepers(room) as (first, second):
        made = await asyncio.to_thread(add_primary, growing_cluster)
        await home(room)
        begun = time.monotonic()
        leased = await make(room, timeout_s=4, claim=True)
        await move(growing_cluster, room, "move_slot", slot_of(room.keys.space(room.space)), made)
        tag = tag_of(slot_of(room.keys.space(room.space)))
        await eventually(lambda: truth(tag in first.works_on | second.works_on), LOOK_S + 3)
        soon = room.backend.clock.now_ms(room.keys.space(room.space)) + 500
        scheduled = await make(room, scheduled_ms=soon)
        await eventually(partial(is_in, room, scheduled, "pending"), 0.5 + LATE_S)
        await eventually(partial(is_in, room, leased, "pending"), 4 + LATE_S - (time.monotonic() - begun))
        await eventually(lambda: truth(len(first.works_on) == len(second.works_on) == 2), 10)


async def test_a_space_whose_slot_is_half_moved_keeps_no_other_of_its_primary_waiting(cluster: Cluster) -> None:
    async with new_room(cluster) as room, sweeping(room) as sweeper:
        await leads(sweeper, 3)
        torn = await home(room)
        owner = cluster.owner(room.keys.space(torn))
        due = await make(room, timeout_s=1, claim=True)
        room.space = ""
        while not room.space or cluster.owner(room.keys.space(room.space)) is not owner:
            room.space = ""
            await home(room)
        slot, to = slot_of(room.keys.space(torn)), cluster.others(owner)[0]
        cluster.open_slot(slot, to)
        try:
            cluster.move_keys(slot, owner, to, 3)
            for _ in range(8):
                soon = room.backend.clock.now_ms(room.keys.space(room.space)) + 500
                scheduled = await make(room, scheduled_ms=soon)
                await eventually(partial(is_in, room, scheduled, "pending"), 0.5 + LATE_S)
        finally:
            await asyncio.to_thread(cluster.close_slot, slot, owner, to)
        room.space = torn
        await eventually(partial(is_in, room, due, "pending"), 5)
