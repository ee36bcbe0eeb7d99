"""Spaces and their keys, by the hundred."""

import asyncio

import pytest

from app.jobs.spaces import READ_AT_ONCE
from app.redis_links import link as link_module
from tests.room import Room


async def test_lists_of_any_length_leave_room_for_other_calls(monkeypatch: pytest.MonkeyPatch, room: Room) -> None:
    many = 3 * READ_AT_ONCE + 1
    spaces = room.backend.spaces
    made = [(await spaces.create(f"s{i}"))[0].id for i in range(many)]
    keys = [(await spaces.create_token(made[0], f"k{i}", ["jobs:read"], None)).id for i in range(many)]
    monkeypatch.setattr(link_module, "IN_FLIGHT", 2 * READ_AT_ONCE)
    assert [space.id for space in await spaces.list_spaces()] == sorted(made)
    assert [token.id for token in await spaces.list_tokens(made[0]) if token.name != "public"] == sorted(keys)
    listed, _ = await asyncio.gather(spaces.list_spaces(), spaces.delete(made[1]))
    assert len(listed) in (many - 1, many)
    assert await spaces.list_spaces() == [space for space in listed if space.id != made[1]]
