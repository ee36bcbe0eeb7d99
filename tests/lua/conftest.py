"""One Redis for the tests of the scripts, and a room of its own for each."""

from collections.abc import Iterator

import pytest

from tests.any_redis import AnyRedis, NewRedis
from tests.lua.room import Room


@pytest.fixture(scope="session")
def lua_redis(new_redis: NewRedis) -> Iterator[AnyRedis]:
    with new_redis() as running:
        yield running


@pytest.fixture
def room(lua_redis: AnyRedis) -> Iterator[Room]:
    made = Room(lua_redis)
    yield made
    made.close()
