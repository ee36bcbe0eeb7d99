"""What has lost one of its halves, as a failover with loss leaves it: found by the walk, and made whole or removed."""

from __future__ import annotations

import secrets

import pytest

from app.jobs.spaces import Token
from app.model.ids import encode_ulid, new_job_ids, space_tag_of
from app.sweeper import mending
from app.sweeper.mending import Mender
from tests.room import Room, batch_of
from tests.sweeping import home, run

RETENTION_MS = 604_800_000


@pytest.fixture(autouse=True)
def nothing_is_too_young(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "FRESH_MS", -60_000)
    monkeypatch.setattr(mending, "MISSING_MS", 0)


def mender(room: Room, tag: str) -> Mender:
    """One that has not looked yet, at the server with that tag."""
    backend = room.backend
    return Mender(backend.control, room.keys, backend.clock, tag=tag, store=backend.store, deletion=backend.deletion)


async def mend(room: Room) -> None:
    """One walk through all names of each server, to its end, and what the sweeper does after it."""
    backend = room.backend
    for tag in [*backend.control.tags().values()]:
        walk = mender(room, tag)
        while await walk.look() != mending.ROUND_PAUSE_S:
            pass
        await backend.spaces.resume_deletions(tag)
    if room.space:
        await backend.deletion.settle_logs(room.space)


async def new_key(room: Room) -> Token:
    return await room.backend.spaces.create_token(await home(room), "worker", ["jobs:read"], None)


async def names(room: Room, *parts: str) -> list[bytes]:
    """The names that hold one of these."""
    return [name.encode() for name in await room.names() if any(part in name for part in parts)]


async def test_a_key_that_its_space_does_not_list_is_removed_and_others_stay(room: Room) -> None:
    lost, kept = await new_key(room), await new_key(room)
    await room.call("HDEL", room.keys.tokens(room.space), lost.id)
    hashes = len(await names(room, ":token:"))
    await mend(room)
    assert len(await names(room, ":token:")) == hashes - 1
    assert kept.id in [token.id for token in await room.backend.spaces.list_tokens(room.space)]
    assert (await room.backend.keyring.identify(kept.key)).space == room.space


async def test_a_key_whose_hash_is_lost_is_dead_and_not_shown(room: Room) -> None:
    lost = await new_key(room)
    (digest,) = [await room.call("HGET", room.keys.tokens(room.space), lost.id)]
    await room.call("DEL", room.keys.token(digest.decode()))
    await mend(room)
    assert lost.id not in [token.id for token in await room.backend.spaces.list_tokens(room.space)]


async def test_a_space_that_is_not_listed_is_listed_again_with_its_jobs(room: Room) -> None:
    job = await run(room)
    await room.call("HDEL", room.keys.spaces, space_tag_of(room.space))
    room.backend.store.forget_space(room.space)
    assert await room.backend.store.space_of(job) is None
    await mend(room)
    assert await room.backend.store.space_of(job) == room.space
    assert [space.id for space in await room.backend.spaces.list_spaces()] == [room.space]


async def test_a_space_with_webhooks_that_is_not_listed_as_such_is_listed_again_and_others_are_not(room: Room) -> None:
    spaces = [await home(room), (await room.backend.spaces.create("plain"))[0].id]
    await room.backend.spaces.patch(spaces[0], {"push": "https://example.com/"})
    await room.call("DEL", room.keys.hooks)
    await mend(room)
    assert await room.call("SMEMBERS", room.keys.hooks) == [spaces[0].encode()]


async def test_a_space_that_has_lost_its_hash_goes_with_everything_of_it(room: Room) -> None:
    job = await run(room)
    await room.append(job, "a line")
    space = room.space
    await room.call("DEL", room.keys.space(space))
    await mend(room)
    room.space = ""
    assert await room.call("HVALS", room.keys.spaces) == []
    assert await room.call("HVALS", room.keys.deleting) == []
    assert [name for name in await names(room, space, job) if not name.endswith(b":log:gone")] == []
    assert await names(room, ":token:") == []


async def test_what_is_left_of_a_space_is_kept_for_a_day_and_whole_again_when_its_hash_is_back(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mending, "MISSING_MS", 86_400_000)
    job = await run(room)
    await room.append(job, "a line")
    (backup,) = await room.backend.control.pipeline(("DUMP", room.keys.space(room.space)))
    await room.call("DEL", room.keys.space(room.space), room.keys.job(room.space, job))
    await mend(room)
    since = await room.call("HGET", room.keys.missing, room.space)
    await mend(room)
    assert await room.call("HGET", room.keys.missing, room.space) == since is not None
    assert await room.call("HVALS", room.keys.spaces) == [room.space.encode()]
    assert await room.call("EXISTS", room.keys.log_meta(job)) == 1
    await room.call("RESTORE", room.keys.space(room.space), 0, backup)
    await mend(room)
    assert await room.call("HLEN", room.keys.missing) == 0
    assert (await room.backend.spaces.get(room.space)).id == room.space


async def test_what_is_left_of_a_space_of_which_both_names_are_lost_goes(room: Room) -> None:
    job = await run(room)
    await room.append(job, "a line")
    space = room.space
    await room.call("DEL", room.keys.space(space), room.keys.tokens(space))
    await room.call("HDEL", room.keys.spaces, space_tag_of(space))
    await mend(room)
    room.space = ""
    assert [name for name in await names(room, space, job) if not name.endswith(b":log:gone")] == []
    await mend(room)
    assert await names(room, ":token:") == []


async def test_a_removal_that_was_cut_in_the_middle_and_forgotten_is_done(room: Room) -> None:
    job = await run(room)
    await room.append(job, "a line")
    space = room.space
    await room.call("HDEL", room.keys.spaces, space_tag_of(space))
    await room.call("DEL", room.keys.tokens(space), room.keys.space(space))
    await mend(room)
    room.space = ""
    assert [name for name in await names(room, space, job) if not name.endswith(b":log:gone")] == []


async def test_a_log_whose_job_is_lost_goes_and_that_of_another_stays(room: Room) -> None:
    lost, kept = await run(room), await run(room)
    for job in (lost, kept):
        await room.append(job, "a line")
    await room.call("DEL", room.keys.job(room.space, lost))
    await mend(room)
    assert [name for name in await names(room, lost) if b":log" in name and not name.endswith(b":log:gone")] == []
    assert [row.message for row in await room.every_line(kept)] == ["a line"]
    assert await room.call("PTTL", room.keys.log_meta(kept)) == -1


async def test_the_log_of_an_ended_job_that_is_not_on_the_list_gets_its_time_to_live(room: Room) -> None:
    job = await run(room)
    await room.append(job, "a line")
    await room.backend.store.complete(room.space, job, "", b"null")
    await room.call("DEL", room.keys.log_work(room.space))
    await mend(room)
    assert await room.call("PTTL", room.keys.log_meta(job)) > 0


async def test_the_log_of_a_job_that_runs_lives_on_whatever_its_time_to_live_was(room: Room) -> None:
    job = await run(room)
    await room.append(job, "a line")
    await room.backend.logs.set_ttl(job, RETENTION_MS)
    await mend(room)
    assert await room.call("PTTL", room.keys.log_meta(job)) == -1


async def test_a_log_of_a_space_that_nobody_knows_lapses_and_is_not_removed_at_once(room: Room) -> None:
    stranger = encode_ulid(room.backend.clock.now_ms(), secrets.token_bytes(10))
    (job,) = new_job_ids(stranger, room.backend.clock.now_ms(), 1)
    await room.call("HSET", room.keys.job(stranger, job), "status", "running")
    await room.backend.logs.append(stranger, job, await batch_of("a line"))
    await room.call("DEL", room.keys.job(stranger, job))
    await mend(room)
    assert await room.call("PTTL", room.keys.log_meta(job)) > 0


async def test_what_is_young_is_left_alone(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "FRESH_MS", 60_000)
    lost = await new_key(room)
    await room.call("HDEL", room.keys.tokens(room.space), lost.id)
    await room.call("HDEL", room.keys.spaces, space_tag_of(room.space))
    hashes = len(await names(room, ":token:"))
    await mend(room)
    assert len(await names(room, ":token:")) == hashes
    assert await room.call("HVALS", room.keys.spaces) == []


async def test_a_walk_goes_on_from_where_it_was_left(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "LOOK_KEYS", 1)
    for _ in range(20):
        await new_key(room)
    lost = await new_key(room)
    await room.call("HDEL", room.keys.tokens(room.space), lost.id)
    hashes = len(await names(room, ":token:"))
    looks = 0
    tags = [*room.backend.control.tags().values()]
    for tag in tags:
        pause_s = 0.0
        while pause_s != mending.ROUND_PAUSE_S:
            pause_s = await mender(room, tag).look()  # each look is another sweeper's
            looks += 1
    assert looks > len(tags)
    assert len(await names(room, ":token:")) == hashes - 1
