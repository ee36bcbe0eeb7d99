"""Every script stays within one slot of a cluster: the keys that it is given, and those whose names it makes itself."""

import re
import secrets

import pytest
from redis.crc import key_slot

from tests.lua.room import Room
from tests.lua.test_maxmemory import CASES

KEYLESS = {"TIME", "INFO", "CONFIG", "HELLO", "CLIENT"}
SEVERAL = {"DEL", "EXISTS", "UNLINK"}
"""Commands whose every word is a key."""


def keys_of(line: str) -> list[str]:
    """The keys and channels of a command as MONITOR prints it; the keys in KEYS of a call of a script."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"', line)
    name = words[0].upper()
    if name in ("EVALSHA", "EVAL"):
        return words[3 : 3 + int(words[2])]
    if name in KEYLESS:
        return []
    return words[1:] if name in SEVERAL else words[1:2]


@pytest.mark.one_server("a cluster shows no command before it has refused the keys of two slots by itself")
@pytest.mark.parametrize("script", sorted(CASES))
def test_all_keys_of_a_script_lie_in_one_slot(room: Room, script: str) -> None:
    keys, args = CASES[script](room)
    over = secrets.token_hex(8)
    with room.redis.monitor() as monitor:
        room.run(script, keys, args)
        room.redis.echo(over)
        seen: list[str] = []
        while over not in (line := monitor.connection.read_response().decode()):
            seen += keys_of(line)
    assert set(keys) <= set(seen)
    assert len({key_slot(key.encode()) for key in seen}) == 1, sorted(set(seen))
