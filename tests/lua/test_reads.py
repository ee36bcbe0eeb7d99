"""Scripts that read a job's events: they answer within their bounds, and look at little more than they answer."""

import pytest

from app.model.limits import KIB, MIB
from tests.lua.room import Room

EVENT = '"' + "x" * (256 * KIB - 2) + '"'
TRIES = 8
MOST_US = 9000
"""What the least of some tries may take: it is about 2 ms, and was 10 to 25 where all the events were looked at."""


def spent_us(room: Room) -> int:
    """What scripts have taken since the server of the space began."""
    return int(room.server.owner(room.hash).cli("INFO", "commandstats")["cmdstat_evalsha"]["usec"])


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
    room.run(script, [room.hash], [job, *args])
    took_us = []
    for _ in range(TRIES):
        before_us = spent_us(room)
        reply = room.run(script, [room.hash], [job, *args])
        took_us.append(spent_us(room) - before_us)
    assert len(reply[place]) == answered
    assert min(took_us) < MOST_US
