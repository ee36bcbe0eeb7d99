"""Scripts that read a job's events: they answer within their bounds, and look at little more than they answer."""

import pytest

from app.model.limits import KIB, MIB
from tests.lua.room import Room

EVENT = '"' + "x" * (256 * KIB - 2) + '"'
TRIES = 8
LOOKED_AT_ONCE = 4
"""Large events that a script reads at once: so many more than it answers are looked at, at most."""

MOST = 2.0
"""How much longer a script may take than the same server takes to read and answer what may be looked at; it is at
most about 1, and was 3 to 86 where all the events were looked at, on Valkey 9 and on Redis 7."""

CEILING = "return redis.call('LRANGE', KEYS[1], -tonumber(ARGV[1]), -1)"


def spent_us(room: Room, command: str) -> int:
    """What a command has taken since the server of the space began."""
    return int(room.server.owner(room.hash).cli("INFO", "commandstats").get(f"cmdstat_{command}", {"usec": 0})["usec"])


@pytest.mark.parametrize(
    ("script", "args", "place", "answered"),
    [
        ("job_watch", [256, 128 * KIB], 6, 0),
        ("job_watch", [256, MIB], 6, 3),
        ("job_watch", [2, MIB], 6, 2),
        ("job_watch", [0, MIB], 6, 0),
        ("job_read", [1000, 4 * MIB], 3, 15),
        ("job_read", [1000, KIB], 3, 1),
        ("job_events", [10, 1000, 4 * MIB], 2, 15),
        ("job_events", [10, 1000, KIB], 2, 1),
        ("job_events", [10, 7, 4 * MIB], 2, 7),
    ],
)
def test_large_events_are_read_as_far_as_they_are_answered(
    room: Room, script: str, args: list[int], place: int, answered: int
) -> None:
    job = room.job_in("running")
    for _ in range(60):
        room.on("job_event", job, EVENT, 0)
    events, looked_at = f"{room.keys.job(room.space, job)}:events", answered + LOOKED_AT_ONCE
    room.run(script, [room.hash], [job, *args])
    took_us, ceiling_us = [], []
    for _ in range(TRIES):
        before_us = spent_us(room, "evalsha")
        reply = room.run(script, [room.hash], [job, *args])
        took_us.append(spent_us(room, "evalsha") - before_us)
        before_us = spent_us(room, "eval")
        room.redis.eval(CEILING, 1, events, looked_at)
        ceiling_us.append(spent_us(room, "eval") - before_us)
    assert len(reply[place]) == answered
    assert min(took_us) < MOST * min(ceiling_us)
