"""A failover has lost the last writes of one shard: what another says of the same thing is mended by the sweeper."""

from __future__ import annotations

import pytest

from app.jobs.keys_and_scopes import key_digest
from app.model.errors import Refusal
from app.model.ids import space_tag_of
from app.sweeper import mending, sweeper
from tests.cluster.cluster import Cluster
from tests.cluster.load import new_space
from tests.room import Room
from tests.sweeping import eventually, home, run, sweeping


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "FRESH_MS", -60_000)
    monkeypatch.setattr(mending, "MISSING_MS", 0)
    monkeypatch.setattr(mending, "ROUND_PAUSE_S", 0.3)
    monkeypatch.setattr(sweeper, "WALK_S", 0.5)


async def key_apart(room: Room, cluster: Cluster) -> tuple[str, str]:
    """A key whose hash lies on another primary than its space, and its id."""
    space = await home(room)
    while True:
        made = await room.backend.spaces.create_token(space, "key", ["jobs:read"], None)
        if cluster.owner(room.keys.token(key_digest(made.key))) is not cluster.owner(room.keys.space(space)):
            return made.key, made.id


async def test_a_revoked_key_whose_hash_is_back_does_not_work_and_goes(cluster: Cluster, room: Room) -> None:
    key, id_ = await key_apart(room, cluster)
    name = room.keys.token(key_digest(key))
    flat = await room.call("HGETALL", name)
    await room.backend.spaces.revoke_token(room.space, id_)
    await room.call("HSET", name, *flat)
    with pytest.raises(Refusal) as refused:
        await room.backend.keyring.identify(key)
    assert refused.value.code == "unauthorized"
    assert await room.call("EXISTS", name) == 1
    async with sweeping(room):

        async def is_gone() -> bool:
            return not await room.call("EXISTS", name)

        await eventually(is_gone, within_s=20)


async def test_a_space_that_is_not_listed_is_listed_again_wherever_it_lies(cluster: Cluster, room: Room) -> None:
    spaces = [await new_space(room) for _ in range(6)]
    assert len({cluster.owner(room.keys.space(space)).port for space in spaces}) > 1
    await room.call("DEL", room.keys.spaces)
    async with sweeping(room):

        async def are_listed() -> bool:
            return sorted(await room.backend.spaces.list_ids()) == sorted(spaces)

        await eventually(are_listed, within_s=20)


async def test_a_deletion_of_a_job_that_was_cut_before_its_log_went_is_done(cluster: Cluster, room: Room) -> None:
    while True:
        job = await run(room)
        if cluster.owner(room.keys.log(job)) is not cluster.owner(room.keys.space(room.space)):
            break
    await room.append(job, "a line")
    await room.backend.store.complete(room.space, job, "", b"null")
    await room.backend.store.delete_job(room.space, job)
    assert await room.call("EXISTS", room.keys.log_meta(job)) == 1
    async with sweeping(room):

        async def is_gone() -> bool:
            return not await room.call("EXISTS", room.keys.log_meta(job))

        await eventually(is_gone, within_s=20)


async def test_a_removal_of_a_space_that_was_cut_and_half_forgotten_is_done(cluster: Cluster, room: Room) -> None:
    job = await run(room)
    await room.append(job, "a line")
    space = room.space
    await room.call("HDEL", room.keys.spaces, space_tag_of(space))
    await room.call("DEL", room.keys.tokens(space), room.keys.space(space))
    async with sweeping(room):

        async def is_gone() -> bool:
            names = (room.keys.job(space, job), room.keys.log_meta(job), room.keys.feed(space), room.keys.jobs(space))
            return not any([await room.call("EXISTS", name) for name in names])

        await eventually(is_gone, within_s=30)


async def test_spaces_that_have_lost_their_hash_and_logs_that_have_lost_their_job_go(
    cluster: Cluster, room: Room
) -> None:
    job, kept = await run(room), await run(room)
    for one in (job, kept):
        await room.append(one, "a line")
    lost = await new_space(room)
    await room.call("DEL", room.keys.job(room.space, job))
    await room.call("DEL", room.keys.space(lost))
    async with sweeping(room):

        async def are_gone() -> bool:
            return not (
                await room.call("EXISTS", room.keys.log_meta(job))
                or await room.call("HGET", room.keys.spaces, space_tag_of(lost))
                or await room.call("EXISTS", room.keys.tokens(lost))
                or await room.call("HGET", room.keys.deleting, space_tag_of(lost))
            )

        await eventually(are_gone, within_s=30)
    assert [row.message for row in await room.every_line(kept)] == ["a line"]
    assert (await room.backend.spaces.get(room.space)).id == room.space
