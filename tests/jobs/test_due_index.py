"""The due index: a space by its earliest moment."""

from typing import Any

import pytest

from app.jobs.due_index import DueIndex
from app.model.errors import Unavailable, unavailable
from tests.room import Room
from tests.sweeping import eventually


@pytest.mark.one_server("each shard has an index of its own, of the spaces that lie there")
async def test_the_earliest_moment_of_a_space_is_kept_and_the_first_come_first(room: Room) -> None:
    index = DueIndex(room.backend.control, room.keys, room.keys.due_callbacks_of)
    await index.hint([("b", 20), ("a", 30)])
    await index.hint([("a", 10), ("b", 40), ("c", 50)])
    assert await index.first("", 2) == [("a", 10), ("b", 20)]
    await index.drop("", ["a", "c"])
    assert await index.first("", 9) == [("b", 20)]


async def test_nothing_is_hinted_and_nothing_dropped_without_a_space(room: Room) -> None:
    index = DueIndex(room.backend.control, room.keys, room.keys.due_callbacks_of)
    await index.hint([])
    await index.drop("", [])
    assert await index.first("", 9) == []


class Shards:
    """A link to two shards, of which the one with what begins with "a" is away."""

    def __init__(self) -> None:
        self.hinted: list[Any] = []

    def tag_of(self, key: str) -> str:
        return "dead" if "{a" in key else "well"

    async def call(self, *command: Any) -> None:
        if "{dead}" in command[1]:
            raise unavailable("Redis cannot be reached.")
        self.hinted += command[3:]


async def test_a_shard_that_is_away_keeps_no_hint_from_another_and_whoever_hints_is_told(room: Room) -> None:
    link: Any = Shards()
    index = DueIndex(link, room.keys, room.keys.due_callbacks_of)
    with pytest.raises(Unavailable):
        await index.hint([("a", 10), ("b", 20)])
    assert link.hinted == [20, "b"]


class Late:
    """A link behind whose back a space is worked on where it is now, and hinted once more under the old tag."""

    def __init__(self, room: Room) -> None:
        self.index = DueIndex(room.backend.control, room.keys, room.keys.due_callbacks_of)
        self._call = room.backend.control.call
        self._is_over = False

    def tag_of(self, key: str) -> str:
        return "new"

    async def call(self, *command: Any) -> Any:
        reply = await self._call(*command)
        if command[0] == "ZADD" and not self._is_over:
            self._is_over = True
            await self.index.drop("new", ["a"])
            await self._call("ZADD", self.index.key_of("old"), "LT", 5, "a")
        return reply


@pytest.mark.one_server("its tags are no server's")
async def test_what_is_hinted_under_a_tag_that_is_gone_comes_to_where_the_space_is_now(room: Room) -> None:
    late = Late(room)
    await late.index._hint_on("old", [("a", 10), ("b", 20)])
    link: Any = late
    index = DueIndex(link, room.keys, room.keys.due_callbacks_of)
    for _ in range(2):
        await index.disband("old")
    assert await index.first("new", 9) == [("a", 0), ("b", 0)]
    assert await index.first("old", 9) == []


class NewIsAway:
    """A link to two shards, of which the one with the tag "new" has all spaces, and is away."""

    def __init__(self, room: Room) -> None:
        self._call = room.backend.control.call

    def tag_of(self, key: str) -> str:
        return "new"

    async def call(self, *command: Any) -> Any:
        if "{new}" in command[1]:
            raise unavailable("Redis cannot be reached.")
        return await self._call(*command)


@pytest.mark.one_server("its tags are no server's")
async def test_hints_under_a_tag_that_is_gone_stay_while_where_the_space_is_now_is_away(room: Room) -> None:
    link: Any = NewIsAway(room)
    index = DueIndex(link, room.keys, room.keys.due_callbacks_of)
    await index._hint_on("old", [("a", 10)])
    with pytest.raises(Unavailable):
        await index.disband("old")
    assert await index.first("old", 9) == [("a", 10)]


@pytest.mark.one_server("each shard has an index of its own, of the spaces that lie there")
async def test_a_tag_that_is_a_server_s_after_all_keeps_its_hints(room: Room) -> None:
    index = DueIndex(room.backend.control, room.keys, room.keys.due_callbacks_of)
    await index.hint([("a", 10)])
    await index.disband(room.tag)
    assert await index.first(room.tag, 9) == [("a", 0)]


@pytest.mark.one_server("each shard has an index of its own, of the spaces that lie there")
async def test_a_hint_for_which_nobody_waits_arrives(room: Room) -> None:
    index = DueIndex(room.backend.control, room.keys, room.keys.due_callbacks_of)
    index.hint_soon("a", 10)

    async def arrived() -> bool:
        return await index.first("", 1) == [("a", 10)]

    await eventually(arrived)
