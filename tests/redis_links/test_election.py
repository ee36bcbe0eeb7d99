"""One of several candidates leads: while it renews its lease, and no longer."""

from app.redis_links.election import HOLD_MS, RENEW_S, Election
from tests.room import Room
from tests.sweeping import eventually


def candidates(room: Room) -> tuple[Election, Election]:
    key = f"{room.keys.prefix}:leader"
    return Election(room.backend.control, key), Election(room.backend.control, key)


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
