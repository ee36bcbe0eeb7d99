"""The links of a backend on a real cluster: slots that move under calls, primaries that die, a cluster that is down."""

from __future__ import annotations

import asyncio

import pytest

from app.model.errors import Unavailable
from app.redis_links.topology import slot_of
from tests.cluster.cluster import Cluster, Node, slots_of
from tests.cluster.load import Load, new_space
from tests.room import Room, refusal_of
from tests.sweeping import eventually, truth


def spaces_slot(room: Room, space: str) -> int:
    """The slot in which all keys of a space lie."""
    return slot_of(room.keys.space(space))


def key_on(room: Room, cluster: Cluster, node: Node) -> str:
    """A key that a primary has."""
    slots = slots_of(node)
    return next(key for at in range(10_000) if slot_of(key := f"{room.keys.prefix}:{at}") in slots)


async def test_a_slot_that_is_moved_key_by_key_under_calls_loses_nothing_and_doubles_nothing(
    cluster: Cluster, room: Room
) -> None:
    space = await new_space(room)
    slot = spaces_slot(room, space)
    here = cluster.owner(slot)
    there = cluster.others(here)[0]
    async with Load(room, space) as load:
        for to in (there, here):
            await asyncio.to_thread(cluster.move_slot, slot, to)
            await load.goes_on()
    await load.check()
    assert load.count_unknown == load.make_unknown == 0


@pytest.mark.since("CLUSTER MIGRATESLOTS", redis=None, valkey=(9,))
async def test_a_slot_that_is_moved_in_one_step_under_calls_refuses_nobody(cluster: Cluster, room: Room) -> None:
    space = await new_space(room)
    slot = spaces_slot(room, space)
    here = cluster.owner(slot)
    there = cluster.others(here)[0]
    async with Load(room, space) as load:
        for to in (there, here):
            await asyncio.to_thread(cluster.migrate_slot, slot, to)
            await load.goes_on()
    await load.check()
    assert load.refused == load.count_unknown == load.make_unknown == 0


async def test_a_shard_from_which_no_message_comes_is_known_by_name_until_a_replica_takes_its_place(
    cluster: Cluster, room: Room
) -> None:
    relay = room.backend.relay
    await eventually(lambda: truth(relay.live), 10)
    victim = cluster.owner(0)
    replica = cluster.replica_of(victim)
    victim.kill()
    await eventually(lambda: truth([place.port for place in relay.deaf()] == [victim.port]))
    await eventually(lambda: truth(replica.is_primary), 30)
    await eventually(lambda: truth(relay.live and not relay.deaf()), 10)


async def test_in_a_slot_that_is_half_moved_scripts_are_refused_before_they_write_and_other_slots_work(
    cluster: Cluster, room: Room
) -> None:
    space, other = await new_space(room), await new_space(room)
    slot = spaces_slot(room, space)
    async with room.client() as client:
        for _ in range(5):
            assert (await client.post(f"/spaces/{space}/jobs", json={"name": "x"})).status_code == 201
        source = cluster.owner(slot)
        there = cluster.others(source)[0]
        cluster.open_slot(slot, there)
        names = source.cli("CLUSTER", "GETKEYSINSLOT", slot, 100)
        for name in sorted(names)[: len(names) // 2]:
            source.cli("MIGRATE", "127.0.0.1", there.port, "", 0, 10_000, "KEYS", name)
        try:
            refused = await client.post(f"/spaces/{space}/jobs", json={"name": "x"})
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            refused = await client.post(f"/spaces/{space}/jobs/poll", json={})
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            left = {node: set(node.cli("CLUSTER", "GETKEYSINSLOT", slot, 100)) for node in (source, there)}
            assert not left[source] & left[there]
            assert left[source] | left[there] == set(names)
            assert (await client.post(f"/spaces/{other}/jobs", json={"name": "x"})).status_code == 201
        finally:
            cluster.close_slot(slot, source, there)
        assert (await client.post(f"/spaces/{space}/jobs", json={"name": "x"})).status_code == 201
        assert (await client.get(f"/spaces/{space}/jobs")).headers["x-total-count"] == "6"


async def test_a_replica_that_takes_over_by_hand_loses_nothing_and_doubles_nothing(
    cluster: Cluster, room: Room
) -> None:
    space = await new_space(room)
    async with Load(room, space) as load:
        await asyncio.to_thread(cluster.fail_over, cluster.owner(spaces_slot(room, space)))
        await load.goes_on()
    await load.check()


async def test_when_a_primary_is_killed_its_replica_is_found_and_knows_the_scripts_and_others_notice_nothing(
    cluster: Cluster, room: Room
) -> None:
    space = await new_space(room)
    killed = cluster.owner(spaces_slot(room, space))
    elsewhere = key_on(room, cluster, cluster.others(killed)[0])
    async with Load(room, space) as load:
        assert killed.cli("WAIT", 1, 5000) == 1
        killed.kill()
        for _ in range(50):
            await room.call("INCR", elsewhere)
        await load.goes_on(within_s=30)
    count, jobs = await load.kept()
    assert count <= load.counted + load.count_unknown
    assert jobs <= load.made + load.make_unknown
    assert int(await room.call("GET", elsewhere)) == 50


async def test_a_cluster_that_is_down_is_unavailable_and_works_again_by_itself(cluster: Cluster, room: Room) -> None:
    dead = cluster.owner(0)
    replica = cluster.replica_of(dead)
    lost, alive = (key_on(room, cluster, node) for node in (dead, cluster.others(dead)[0]))
    await room.call("INCR", alive)
    for node in cluster.nodes:
        node.cli("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    try:
        replica.kill()
        dead.kill()

        async def is_down() -> bool:
            try:
                await room.call("GET", alive)
            except Unavailable as outage:
                return "cluster" in outage.text
            return False

        await eventually(is_down, within_s=20)
        assert (await refusal_of(room.call("INCR", alive))).code == "unavailable"
        assert (await refusal_of(room.call("INCR", lost))).code == "unavailable"
    finally:
        for node in (dead, replica):
            node.start()
        for node in cluster.nodes:
            node.cli("CONFIG", "SET", "cluster-require-full-coverage", "no")
    await asyncio.to_thread(cluster.wait_until_well)

    async def works() -> bool:
        try:
            return bool(await room.call("INCR", lost)) and bool(await room.call("GET", alive) == b"1")
        except Unavailable:
            return False

    await eventually(works, within_s=5)
