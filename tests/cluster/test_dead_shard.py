"""One shard of a cluster is dead, with no replica: what lies on the others works, and it is named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from time import monotonic

import pytest

from app.jobs.keys_and_scopes import Identity
from app.jobs.rate_limit import Rate
from app.model.errors import Outage, Unavailable
from app.redis_links.memory_headroom import FRESH_S, MEMORY_SHARE
from app.redis_links.server_advice import advise
from app.redis_links.topology import tag_of
from tests.cluster.cluster import Cluster, Node, slots_of
from tests.cluster.load import new_space
from tests.metrics.test_metrics import scrape, value
from tests.room import Room, new_room, refusal_of
from tests.sweeping import eventually, truth

BALLAST_BYTES = 33_554_432
"""Beside so much, what comes and goes counts for nothing: each connection takes some 37 kB, a server itself 2 MB."""


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    with Cluster(replicas=0, config={"cluster-require-full-coverage": "no"}) as running:
        yield running


@pytest.fixture
async def room(cluster: Cluster) -> AsyncIterator[Room]:
    """As elsewhere, with a rate for each key."""
    async with new_room(cluster, redis_timeout_s=1.0, rate=1000) as made:
        yield made


async def space_on(room: Room, cluster: Cluster, node: Node, *, elsewhere: bool = False) -> str:
    """A new space that a primary has, or that another one has."""
    while True:
        space = await new_space(room)
        if (cluster.owner(room.keys.space(space)) is node) != elsewhere:
            return space


async def key_on(room: Room, cluster: Cluster, node: Node, space: str) -> str:
    """A key of a space that may do everything, of which the hash lies on a primary."""
    while True:
        token = await room.backend.spaces.create_token(space, "key", ("jobs:read", "jobs:create"), None)
        identity = await room.backend.keyring.identify(token.key)
        if cluster.owner(room.keys.token(identity.digest)) is node:
            return token.key


def name_of(node: Node) -> str:
    return f"127.0.0.1:{node.port}"


async def test_readyz_names_the_shard_that_is_away_and_stays_200_until_none_works(cluster: Cluster, room: Room) -> None:
    async with room.client() as client:

        async def ask() -> tuple[int, dict[str, dict[str, object]], str]:
            answer = await client.get("http://test/readyz")
            body = answer.json()
            return answer.status_code, {shard["server"]: shard for shard in body["shards"]}, answer.text

        await eventually(lambda: truth(room.backend.relay.live))
        status, shards, _ = await ask()
        assert status == 200
        assert shards.keys() == {name_of(node) for node in cluster.nodes}
        assert sum(int(str(shard["slots"])) for shard in shards.values()) == 16_384
        assert all(shard["ok"] and shard["maxBytes"] is None for shard in shards.values())
        assert all(int(str(shard["usedBytes"])) > 0 for shard in shards.values())

        dead, *others = cluster.nodes
        dead.kill()

        async def is_named() -> bool:
            status, shards, _ = await ask()
            return status == 200 and [name for name, shard in shards.items() if not shard["ok"]] == [name_of(dead)]

        await eventually(is_named, within_s=20)

        async def is_reasoned() -> bool:
            _, shards, text = await ask()
            why = "Redis cannot be reached. Connection refused."
            return shards[name_of(dead)]["why"] == why and f"{name_of(dead)}: {why}" in text

        await eventually(is_reasoned)

        for node in others:
            node.kill()

        async def is_red() -> bool:
            return (await ask())[0] == 503

        await eventually(is_red, within_s=20)


async def test_a_shard_with_a_policy_that_may_drop_jobs_is_named(
    cluster: Cluster, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    node = cluster.nodes[1]
    node.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        await advise(room.backend.control)
        assert f"{name_of(node)}: Redis's eviction policy is allkeys-lru" in caplog.text
        assert caplog.text.count("allkeys-lru") == 1
        assert room.backend.shards is not None
        wrong = [shard.server for shard in await room.backend.shards.look() if "allkeys-lru" in shard.why]
        assert wrong == [name_of(node)]
    finally:
        node.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_keys_that_were_known_and_spaces_of_other_shards_work_while_a_shard_is_dead(
    cluster: Cluster, room: Room
) -> None:
    dead = cluster.owner(room.keys.spaces)
    alive = await space_on(room, cluster, dead, elsewhere=True)
    lost = await space_on(room, cluster, dead)
    key = await key_on(room, cluster, dead, alive)
    elsewhere = await key_on(room, cluster, cluster.others(dead)[0], alive)
    unknown = await key_on(room, cluster, dead, alive)
    identities: list[Identity] = [await room.backend.keyring.identify(each) for each in (key, elsewhere)]
    del room.backend.keyring._seen[(await room.backend.keyring.identify(unknown)).digest]
    async with room.client() as client:
        headers = {"x-api-key": key}
        made = await client.post(f"/spaces/{alive}/jobs", json={"name": "x"}, headers=headers)
        assert made.status_code == 201
        assert lost in [space["id"] for space in (await client.get("/spaces")).json()]
        await asyncio.to_thread(dead.kill)
        for identity in identities:
            seen = room.backend.keyring._seen[identity.digest]
            room.backend.keyring._seen[identity.digest] = seen._replace(until_s=monotonic())

        async def is_away() -> bool:
            return (await client.get(f"/spaces/{lost}", headers={})).status_code == 503

        await eventually(is_away, within_s=20)
        for _ in range(3):
            for known in (key, elsewhere):
                job = await client.post(f"/spaces/{alive}/jobs", json={"name": "x"}, headers={"x-api-key": known})
                assert job.status_code == 201, job.text
                read = await client.get(f"/jobs/{job.json()['id']}", headers={"x-api-key": known})
                assert read.status_code == 200
        assert await room.backend.keyring.check_identities(identities) == [True, True]
        refused = await client.post(f"/spaces/{alive}/jobs", json={"name": "x"}, headers={"x-api-key": unknown})
        assert refused.status_code == 503
        listed = [space["id"] for space in (await client.get("/spaces")).json()]
        assert alive in listed
        assert lost not in listed
        tokens = await client.get(f"/spaces/{alive}/tokens")
        assert tokens.status_code == 200


async def test_the_rate_of_a_key_is_counted_by_the_process_while_its_shard_is_dead(cluster: Cluster) -> None:
    async with new_room(cluster, redis_timeout_s=1.0, rate=50) as room:
        dead = cluster.nodes[1]
        space = await space_on(room, cluster, dead, elsewhere=True)
        rate = Rate(room.backend.control, room.keys, room.settings)
        while True:
            key = await key_on(room, cluster, cluster.nodes[0], space)
            identity = await room.backend.keyring.identify(key)
            if cluster.owner(room.keys.rate(identity.digest)) is dead:
                break
        await rate.spend(identity)
        await asyncio.to_thread(dead.kill)

        async def is_granted() -> bool:
            try:
                await rate.spend(identity)
            except Outage:
                return False
            return True

        await eventually(is_granted, within_s=20)
        granted = 1
        while await is_granted():
            granted += 1
        assert granted <= 2 * 50


async def test_what_a_live_shard_lost_is_known_within_a_moment_though_another_is_dead(
    cluster: Cluster, room: Room
) -> None:
    dead = cluster.nodes[0]
    space = await space_on(room, cluster, dead, elsewhere=True)
    lies_dead = await key_on(room, cluster, dead, space)
    revoked = await key_on(room, cluster, cluster.nodes[1], space)
    identities = [await room.backend.keyring.identify(key) for key in (lies_dead, revoked)]
    cluster.cli("DEL", room.keys.token(identities[1].digest))
    await asyncio.to_thread(dead.kill)

    async def is_away() -> bool:
        try:
            await room.call("EXISTS", room.keys.token(identities[0].digest))
        except Unavailable:
            return True
        return False

    await eventually(is_away, within_s=20)
    assert await room.backend.keyring.check_identities(identities) == [True, False]


async def test_gauges_of_the_other_shards_go_on_and_the_dead_one_is_told(cluster: Cluster, room: Room) -> None:
    dead = cluster.nodes[2]
    await space_on(room, cluster, dead, elsewhere=True)

    async def shows() -> bool:
        samples = await scrape(room)
        return value(samples, "spaces") >= 1 and value(samples, "shard_up", server=name_of(dead)) == 1

    await eventually(shows, within_s=10)
    await asyncio.to_thread(dead.kill)

    async def tells() -> bool:
        room.backend.service_gauges._made_s = float("-inf")
        samples = await scrape(room)
        return (
            value(samples, "shard_ok", server=name_of(dead)) == 0
            and value(samples, "shard_ok", server=name_of(cluster.nodes[0])) == 1
            and value(samples, "shard_memory_bytes", server=name_of(cluster.nodes[0]), kind="used") > 0
            and value(samples, "shard_memory_bytes", server=name_of(dead), kind="used") == 0
            and value(samples, "redis_up") == 1
        )

    await eventually(tells, within_s=20)


async def test_a_full_shard_refuses_nothing_for_the_others(cluster: Cluster, room: Room) -> None:
    full = cluster.nodes[0]
    space, other = await space_on(room, cluster, full), await space_on(room, cluster, full, elsewhere=True)
    ballast = tag_of(min(slots_of(full)))
    full.cli("SETRANGE", ballast, BALLAST_BYTES, "x")
    try:
        async with room.client() as client:

            async def create(space: str) -> int:
                return (await client.post(f"/spaces/{space}/jobs", json={"name": "x"})).status_code

            assert [await create(space), await create(other)] == [201, 201]
            used = int(full.cli("INFO", "memory")["used_memory"])
            full.cli("CONFIG", "SET", "maxmemory", int(0.95 * used / MEMORY_SHARE))
            until_s = monotonic() + FRESH_S
            while monotonic() < until_s and await create(space) == 201:
                assert await create(other) == 201
            assert [await create(space), await create(other)] == [503, 201]
        jobs = [await room.new_job() for _ in range(12)]
        stored = 0
        for job in jobs:
            if cluster.owner(room.keys.log(job)) is full:
                assert "memory" in (await refusal_of(room.append(job, "x"))).text
            else:
                stored += (await room.append(job, "x")).inserted
        assert stored > 0
    finally:
        full.cli("CONFIG", "SET", "maxmemory", 0)
        full.cli("DEL", ballast)


@pytest.mark.parametrize("has_epochs", [False, True])
async def test_a_new_process_comes_up_while_a_shard_is_dead(cluster: Cluster, room: Room, has_epochs: bool) -> None:
    of_epochs = cluster.owner(room.keys.epoch)
    dead = of_epochs if has_epochs else next(node for node in cluster.nodes if node is not of_epochs)
    alive = await space_on(room, cluster, dead, elsewhere=True)
    key = await key_on(room, cluster, cluster.others(dead)[0], alive)
    await asyncio.to_thread(dead.kill)
    late = Room(cluster, prefix=room.settings.prefix, redis_timeout_s=1.0)
    await late.backend.start()
    try:
        async with late.client() as client:

            async def works() -> bool:
                made = await client.post(f"/spaces/{alive}/jobs", json={"name": "x"}, headers={"x-api-key": key})
                return made.status_code == 201

            await eventually(works, within_s=20)

            async def misses_it_alone() -> bool:
                ready = await client.get("http://test/readyz")
                return [shard["server"] for shard in ready.json()["shards"] if not shard["ok"]] == [name_of(dead)]

            await eventually(misses_it_alone, within_s=20)
    finally:
        await late.backend.close()
