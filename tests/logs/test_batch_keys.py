"""Idempotency-Keys of batches: done once, answered alike, small, and free again after a day."""

import asyncio
import hashlib
import json
from collections.abc import Callable

import pytest

from app.logs.intake import decode_batch_steps
from app.logs.log_store import Appended, batch_key
from app.model.steps import exhaust
from app.redis_links.scripts import SCRIPTS, SHARDED
from tests.room import Room, batch_of, messages, refusal_of


async def test_the_same_batch_under_the_same_key_is_done_once_and_answered_alike(room: Room) -> None:
    job = await room.new_job()
    key = batch_key("key", b"body")
    await room.append(job, "before")
    first = await room.append(job, "a", "b", key=key)
    await room.append(job, "after")
    again = await room.append(job, "a", "b", key=key)
    assert again == first._replace(replayed=True)
    assert messages(await room.every_line(job)) == ["before", "a", "b", "after"]


async def test_two_copies_at_once_are_done_once_a_hundred_times(room: Room) -> None:
    job = await room.new_job()
    for n in range(100):
        key = batch_key(f"key {n}", b"body")
        both = await asyncio.gather(*(room.append(job, f"{n} a", f"{n} b", key=key) for _ in range(2)))
        assert sorted(answer.replayed for answer in both) == [False, True]
        assert both[0]._replace(replayed=True) == both[1]._replace(replayed=True)
    assert messages(await room.every_line(job)) == [f"{n} {x}" for n in range(100) for x in "ab"]


async def test_a_key_belongs_to_its_job(room: Room) -> None:
    one, other = await room.new_job(), await room.new_job()
    key = batch_key("key", b"body")
    assert not (await room.append(one, "a", key=key)).replayed
    assert not (await room.append(other, "a", key=key)).replayed


async def test_a_key_used_with_another_body_is_refused_and_changes_nothing(room: Room) -> None:
    job = await room.new_job()
    await room.append(job, "a", key=batch_key("key", b"one body"))
    refused = await refusal_of(room.append(job, "b", key=batch_key("key", b"another")))
    assert refused.code == "idempotency_mismatch"
    assert messages(await room.every_line(job)) == ["a"]


async def test_an_empty_batch_uses_its_key_up(room: Room) -> None:
    job = await room.new_job()
    assert await room.append(job, key=batch_key("key", b"[]")) == Appended("running", 0, None, None, 0, False)
    assert (await room.append(job, key=batch_key("key", b"[]"))).replayed
    assert (await refusal_of(room.append(job, "a", key=batch_key("key", b"a")))).code == "idempotency_mismatch"
    assert (await room.append(job, "a")).first == 1


async def test_a_replay_after_the_log_was_cut_is_answered_like_the_first(room: Room) -> None:
    job = await room.new_job()
    body = json.dumps(["x" * 70_000]).encode()
    batch = exhaust(decode_batch_steps(body, ndjson=False))
    first = await room.logs.append(room.space, job, batch, batch_key("key", body))
    assert first.truncated == 1
    assert await room.logs.append(room.space, job, batch, batch_key("key", body)) == first._replace(replayed=True)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, int]], None]:
    """Lets a test make the script's slices small, so that they are closed and dropped within it."""

    def shrink(constants: dict[str, int]) -> None:
        script = SCRIPTS["log_append"]
        text = script.text
        for name, value in constants.items():
            old = next(line for line in text.splitlines() if line.startswith(f"local {name} = "))
            text = text.replace(old, f"local {name} = {value}")
        changed = type(script).__new__(type(script))
        changed.name, changed.text = script.name, text
        changed.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(SCRIPTS, "log_append", changed)
        monkeypatch.setitem(SHARDED, "log_append", changed.sharded())

    return shrink


async def test_keys_are_found_across_slices_and_the_oldest_slices_go(
    small_slices: Callable[[dict[str, int]], None], room: Room
) -> None:
    small_slices({"SLICE_KEYS": 5, "SLICES": 3})
    job = await room.new_job()
    for n in range(40):
        await room.append(job, str(n), key=batch_key(str(n), b""))
    fields = await room.call("HKEYS", room.keys.log_meta(job))
    assert len([name for name in fields if b":" in name]) <= 20
    for n in range(39, 24, -1):
        assert (await room.append(job, "again", key=batch_key(str(n), b""))).replayed, n
    assert not (await room.append(job, "new", key=batch_key("0", b""))).replayed


async def test_keys_older_than_a_day_are_free_again(small_slices: Callable[[dict[str, int]], None], room: Room) -> None:
    small_slices({"KEPT_S": 0})
    job = await room.new_job()
    assert not (await room.append(job, "a", key=batch_key("key", b"one"))).replayed
    assert not (await room.append(job, "b", key=batch_key("key", b"two"))).replayed


async def test_a_key_costs_little_memory(room: Room) -> None:
    job = await room.new_job()
    batch = await batch_of("x")
    keys = 20_000
    for n in range(0, keys, 500):
        await asyncio.gather(
            *(room.logs.append(room.space, job, batch, batch_key(str(k), b"")) for k in range(n, n + 500))
        )
    used = await room.call("MEMORY", "USAGE", room.keys.log_meta(job), "SAMPLES", 0)
    assert used / keys < 80
