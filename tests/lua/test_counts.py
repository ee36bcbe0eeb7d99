"""The counts that an event carries are those of its moment, also when one script moves many jobs."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from app.model.job import Status
from app.model.limits import MIB
from tests.lua.room import KEEP_MS, LATE, Room


def told(room: Room) -> list[dict[str, int]]:
    """The counts of the space's events, oldest first."""
    entries: Any = room.redis.xrange(room.keys.feed(room.space))
    events = [json.loads(fields[b"event"]) for _, fields in entries]
    return [event["counts"] for event in events if event["counts"]]


def counted(room: Room) -> dict[str, int]:
    return {str(status): int(room.redis.zcard(room.keys.jobs(room.space, status))) for status in Status}


def poll(room: Room) -> None:
    for _ in range(5):
        room.job_in("pending")
    room.run("job_poll", [room.hash], [LATE, MIB, 0, 5, *"abcde"])


def end_leases(room: Room) -> None:
    for status in ("running", "delivered", "running"):
        room.redis.delete(room.keys.lease(room.space, job := room.job_in(status, retries=0)))
        room.redis.zadd(room.keys.deadlines(room.space), {job: 1})
    room.run("job_end_leases", [room.hash], [10, 1, KEEP_MS])


def promote(room: Room) -> None:
    for _ in range(3):
        room.redis.zadd(room.keys.scheduled(room.space), {room.job_in("scheduled"): 1})
    room.run("job_promote", [room.hash], [10])


def retry(room: Room) -> None:
    for _ in range(3):
        room.job_in("dead")
    room.run("job_bulk_retry", [room.hash], ["dead", 0, 10, 10, "", 0, LATE])


@pytest.mark.parametrize("move_many", [poll, end_leases, promote, retry], ids=lambda act: act.__name__)
def test_counts_move_by_one_job_with_each_event(room: Room, move_many: Callable[[Room], None]) -> None:
    before = len(told(room))
    move_many(room)
    seen = told(room)[before:]
    assert seen[-1] == counted(room)
    for earlier, later in itertools.pairwise(seen):
        changed = [later[status] - earlier[status] for status in later if later[status] != earlier[status]]
        assert sorted(changed) in ([-1, 1], [1]), (earlier, later)
