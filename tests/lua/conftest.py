"""One Valkey for the tests of the scripts, and a room of its own for each."""

from collections.abc import Iterator

import pytest

from tests.lua.room import Room
from tests.valkey import Valkey


@pytest.fixture(scope="session")
def lua_valkey() -> Iterator[Valkey]:
    with Valkey() as valkey:
        yield valkey


@pytest.fixture
def room(lua_valkey: Valkey) -> Iterator[Room]:
    made = Room(lua_valkey)
    yield made
    made.close()
