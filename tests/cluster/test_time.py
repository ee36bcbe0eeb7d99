"""What time does on a cluster: its work is shared by shards, a dead one holds up no other, and clocks may differ."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from app.backend import Backend
from app.sweeper.sweeper import Sweeper
from tests.cluster.cluster import Cluster
from tests.room import Room, new_room
from tests.sweeping import eventually, is_in, make, sweeping, truth


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
    async with new_room(bare_cluster, redis_timeout_s=1.0) as room, sweeping(room) as sweeper:
        spaces = await space_on_each(room)
        await leads(sweeper, 3)
        dead = bare_cluster.nodes[at]
        hurt = next(tag for tag in spaces if bare_cluster.owner(room.keys.due_of(tag)) is dead)
        dead.kill()
        left = [space for tag, space in spaces.items() if tag != hurt]
        await time_goes_on(room, left)


@pytest.mark.alone("it measures seconds")
async def test_sweepers_share_the_servers_and_one_that_stops_is_followed_everywhere(cluster: Cluster) -> None:
    async with new_room(cluster, redis_timeout_s=1.0) as room, another(room) as other, sweeping(other) as second:
        async with sweeping(room) as first:
            await eventually(lambda: truth({len(first.works_on), len(second.works_on)} == {1, 2}), 10)
            await eventually(lambda: truth(len(first.works_on | second.works_on) == 3), 10)
            await time_goes_on(room, list((await space_on_each(room)).values()))
        await leads(second, 3)
        await time_goes_on(room, list((await space_on_each(room)).values()))
