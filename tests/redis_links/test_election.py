"""One of several candidates leads: while it renews its lease, and no longer; of several works each has its share."""

from typing import Any

from app.redis_links.election import HOLD_MS, RENEW_S, Election
from tests.room import Room
from tests.sweeping import eventually


def candidates(room: Room) -> tuple[Election, Election]:
    key = f"{room.keys.prefix}:leader"
    return Election(room.backend.control, key, "one"), Election(room.backend.control, key, "other")


async def test_one_leads_and_goes_on_leading(room: Room) -> None:
    one, other = candidates(room)
    leads = [await candidate.lead() for candidate in (one, other, one, other)]
    assert leads == [True, False, True, False]
    assert RENEW_S * 2000 <= HOLD_MS, "a renewal may be late once"


async def test_who_resigns_is_followed_at_once_and_who_does_not_lead_cannot_resign_for_another(room: Room) -> None:
    one, other = candidates(room)
    assert await one.lead()
    await other.resign()
    assert not await other.lead()
    await one.resign()
    assert await other.lead()


async def test_a_leader_that_is_gone_is_followed_when_its_lease_is_over(room: Room) -> None:
    one, other = candidates(room)
    assert await one.lead()
    await eventually(other.lead)
    assert not await one.lead()


async def test_a_leader_whose_clock_was_an_hour_ahead_and_which_has_gone_is_followed_by_this_clock(room: Room) -> None:
    one, other = candidates(room)
    assert await one.lead()
    await room.call("PEXPIRE", f"{room.keys.prefix}:leader", 3_600_000 + HOLD_MS)
    await other.resign()
    assert await other.lead()
    assert not await one.lead()
    await room.call("PEXPIRE", f"{room.keys.prefix}:leader", 3_600_000 + HOLD_MS)
    assert await other.lead(), "one that is there goes on"
    assert not await one.lead()


class TaggedLink:
    """A link to one server which, to those who ask for tags, is several."""

    def __init__(self, room: Room, *tags: str) -> None:
        self._tags = tags
        self.sharded = False
        self.call = room.backend.control.call

    def tags(self) -> dict[str, str]:
        """As told."""
        return {tag: tag for tag in self._tags}


TAGS = ("0", "5", "7", "9")


def shares(room: Room, *names: str) -> dict[str, list[Election]]:
    link: Any = TaggedLink(room, *TAGS)
    return {name: [Election(link, room.keys.sweeper_of(tag), name, tag) for tag in TAGS] for name in names}


async def led(elections: list[Election]) -> int:
    """Of how many works it leads now."""
    return sum([await election.lead() for election in elections])


async def test_one_alone_leads_everywhere_and_who_comes_has_half_at_once_when_the_other_has_asked_again(
    room: Room,
) -> None:
    of = shares(room, "one", "other")
    assert await led(of["one"]) == 4
    assert await led(of["other"]) == 0, "two never lead the same, also while they change places"
    assert await led(of["one"]) == 2
    assert [await led(of[name]) for name in ("other", "one", "other")] == [2, 2, 2]


async def test_who_resigns_is_followed_at_once_and_who_is_gone_when_its_lease_is_over(room: Room) -> None:
    of = shares(room, "a", "b", "c")
    for _ in range(3):
        counts = [await led(of[name]) for name in "abc"]
    assert sum(counts) == 4
    assert min(counts) == 1
    for election in of["a"]:
        await election.resign()
    assert [await led(of[name]) for name in "bcbc"][2:] == [2, 2]

    async def alone() -> bool:
        return await led(of["c"]) == 4

    await eventually(alone, HOLD_MS / 1000 + 2)


async def test_who_led_by_a_clock_that_was_an_hour_ahead_and_has_gone_is_followed_by_this_clock(room: Room) -> None:
    of = shares(room, "gone", "here")
    await led(of["gone"])
    ahead_ms = room.backend.clock.now_ms() + 3_600_000
    for tag in TAGS:
        await room.call("HSET", room.keys.sweeper_of(tag), "gone", ahead_ms, "until", ahead_ms + HOLD_MS)
    assert await led(of["here"]) == len(TAGS)


async def test_a_resigned_candidate_that_led_elsewhere_is_no_candidate_where_it_resigned(room: Room) -> None:
    of = shares(room, "a", "b")
    assert await led(of["a"]) == 4
    await of["a"][0].resign()
    assert [await election.lead() for election in of["b"]] == [True, False, False, False]
