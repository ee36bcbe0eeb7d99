"""Lanes and breakers: the same rules whether or not anything is sent."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from app.webhooks.host_lanes import BREAK_AFTER, IN_HAND_MOST, REST_S, WIDTH_MOST, HostLanes


class Clock:
    """A clock that goes when told."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Stub:
    """A request that ends when told, or as its host always does."""

    def __init__(self, host: str, answers: Callable[[], Awaitable[bool | None]], space: str = "") -> None:
        self.host = host
        self.space = space or host
        self.put_off_s: float | None = None
        self.begun = False
        self._answers = answers

    async def run(self) -> bool | None:
        self.begun = True
        return await self._answers()

    def put_off(self, delay_s: float) -> None:
        self.put_off_s = delay_s


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


async def hang() -> bool:
    await asyncio.Event().wait()
    return False


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(50):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def new_hosts(most: int = 100) -> AsyncIterator[tuple[HostLanes, Clock]]:
    clock = Clock()
    hosts = HostLanes(most, clock)
    yield hosts, clock
    await hosts.close(0)


def offer(hosts: HostLanes, host: str, answers: Callable[[], Awaitable[bool | None]], count: int = 1) -> list[Stub]:
    requests = [Stub(host, answers) for _ in range(count)]
    for request in requests:
        hosts.offer_request(request)
    return requests


async def test_a_host_that_answers_gets_wider_up_to_a_bound() -> None:
    async with new_hosts() as (hosts, _):
        offer(hosts, "a", yes, 16)
        await settled()
        offer(hosts, "a", yes, 100)
        await settled()
        waiting = offer(hosts, "a", hang, 200)
        await settled()
        assert sum(request.begun for request in waiting) == WIDTH_MOST


async def test_a_host_that_hangs_holds_two_places_and_the_others_go_on() -> None:
    async with new_hosts(most=100) as (hosts, _):
        for number in range(20):
            offer(hosts, f"hanging-{number}", hang, 10)
        healthy = offer(hosts, "healthy", yes, 16)
        await settled()
        assert all(request.begun for request in healthy)


async def test_after_ten_in_vain_the_host_rests_and_what_waits_is_put_off() -> None:
    async with new_hosts() as (hosts, _):
        requests = offer(hosts, "ill", no, 16)
        await settled()
        assert sum(request.begun for request in requests) == BREAK_AFTER
        rested = [request.put_off_s for request in requests if not request.begun]
        assert all(delay_s is not None and REST_S <= delay_s <= REST_S * 1.5 for delay_s in rested)
        (late,) = offer(hosts, "ill", yes)
        assert not late.begun
        assert late.put_off_s is not None
        assert hosts.in_hand == 0


async def test_after_its_rest_one_try_finds_out() -> None:
    async with new_hosts() as (hosts, clock):
        offer(hosts, "ill", no, 16)
        await settled()
        clock.now_s += REST_S + 1
        probes = offer(hosts, "ill", hang, 3)
        await settled()
        assert [request.begun for request in probes] == [True, False, False]


async def test_a_vain_probe_doubles_the_rest_and_an_answer_ends_it() -> None:
    async with new_hosts() as (hosts, clock):
        offer(hosts, "ill", no, 16)
        await settled()
        clock.now_s += REST_S + 1
        offer(hosts, "ill", no)
        await settled()
        (late,) = offer(hosts, "ill", yes)
        assert late.put_off_s is not None
        assert late.put_off_s >= 2 * REST_S
        clock.now_s += 2 * REST_S + 1
        (probe,) = offer(hosts, "ill", yes)
        await settled()
        assert probe.begun
        well = offer(hosts, "ill", yes, 5)
        await settled()
        assert all(request.begun for request in well)


async def test_what_tells_nothing_of_the_host_does_not_open_its_breaker() -> None:
    async with new_hosts() as (hosts, _):

        async def nothing() -> None:
            return None

        for _ in range(4):
            requests = offer(hosts, "a", nothing, 16)
            await settled()
            assert all(request.begun for request in requests)


async def test_a_slow_host_with_enough_is_put_off_and_a_quick_one_is_waited_for() -> None:
    async with new_hosts() as (hosts, clock):
        offer(hosts, "slow", hang, 18)
        offer(hosts, "quick", hang, 18)
        assert hosts.is_full("quick", "quick")
        clock.now_s += 2
        (late,) = offer(hosts, "slow", hang)
        assert late.put_off_s is not None
        assert not hosts.is_full("slow", "slow")


async def test_no_more_run_at_once_than_allowed_and_every_host_gets_its_turn() -> None:
    async with new_hosts(most=3) as (hosts, _):
        free = asyncio.Semaphore(0)

        async def one() -> bool:
            await free.acquire()
            return True

        for host in ("a", "b"):
            offer(hosts, host, yes, 4)
        await settled()
        first = offer(hosts, "a", one, 12)
        second = offer(hosts, "b", one, 12)
        await settled()
        assert sum(request.begun for request in first + second) == 3
        for _ in range(10):
            free.release()
            await settled()
        assert sum(request.begun for request in second) >= 4
        assert sum(request.begun for request in first) >= 4


async def test_hosts_that_hang_share_half_of_all_places_however_many_they_are() -> None:
    async with new_hosts(most=20) as (hosts, _):
        offer(hosts, "healthy", yes, 4)
        await settled()
        hanging = [request for number in range(50) for request in offer(hosts, f"hanging-{number}", hang, 5)]
        await settled()
        assert sum(request.begun for request in hanging) == 10
        healthy = offer(hosts, "healthy", yes, 20)
        await settled()
        assert all(request.begun for request in healthy)


async def test_a_request_that_fails_leaves_its_place(caplog: Any) -> None:
    async with new_hosts() as (hosts, _):

        async def broken() -> bool:
            raise ZeroDivisionError

        offer(hosts, "a", broken, 5)
        await settled()
        assert hosts.in_hand == 0

    assert "a request failed" in caplog.text


async def test_closing_puts_off_what_waits_and_lets_end_what_runs() -> None:
    async with new_hosts() as (hosts, _):
        free = asyncio.Event()

        async def one() -> bool:
            await free.wait()
            return True

        requests = offer(hosts, "a", one, 5)
        await settled()
        asyncio.get_running_loop().call_later(0.01, free.set)
        await hosts.close(5)
        assert [request.begun for request in requests] == [True, True, False, False, False]
        assert [request.put_off_s for request in requests] == [None, None, 0.0, 0.0, 0.0]
        assert hosts.in_hand == 0


def in_space(
    hosts: HostLanes, space: str, names: Iterable[str], answers: Callable[[], Awaitable[bool | None]]
) -> list[Stub]:
    """A request of this space to each of these hosts."""
    requests = [Stub(host, answers, space) for host in names]
    for request in requests:
        hosts.offer_request(request)
    return requests


async def test_a_space_whose_hosts_all_hang_leaves_others_as_many_places_as_it_has() -> None:
    async with new_hosts(most=512) as (hosts, _):
        hanging = in_space(hosts, "ill", (f"hanging-{number}" for number in range(4000)), hang)
        await settled()
        assert 120 <= sum(request.begun for request in hanging) <= 130
        unknown = in_space(hosts, "well", (f"new-{number}" for number in range(60)), yes)
        await settled()
        assert all(request.begun for request in unknown), "hosts of which nothing is known yet, too"


async def test_a_space_whose_hosts_answer_slowly_leaves_others_places_too() -> None:
    async with new_hosts(most=40) as (hosts, _):
        names = [f"slow-{number}" for number in range(40) for _ in range(5)]
        in_space(hosts, "busy", names, yes)
        await settled()
        busy = in_space(hosts, "busy", names, hang)
        await settled()
        assert 18 <= sum(request.begun for request in busy) <= 22
        well = in_space(hosts, "well", ("a", "b", "c"), yes)
        await settled()
        assert all(request.begun for request in well)


async def test_many_spaces_that_want_all_have_the_same_each_and_who_comes_later_finds_a_place() -> None:
    async with new_hosts(most=256) as (hosts, _):
        begun = []
        for space in range(6):
            begun.append(in_space(hosts, f"ill-{space}", (f"h{number}" for number in range(200)), hang))
            await settled()
        (late,) = in_space(hosts, "late", ("any",), yes)
        await settled()
        assert late.begun
        assert all(any(request.begun for request in requests) for requests in begun)


async def test_free_places_go_to_the_spaces_in_turn() -> None:
    async with new_hosts(most=8) as (hosts, _):
        free = asyncio.Semaphore(0)
        order = []

        def one(space: str) -> Callable[[], Awaitable[bool | None]]:
            async def run() -> bool:
                await free.acquire()
                order.append(space)
                return True

            return run

        first = in_space(hosts, "a", (f"h{number}" for number in range(50)), one("a"))
        second = in_space(hosts, "b", (f"h{number}" for number in range(50)), one("b"))
        await settled()
        for _ in range(60):
            free.release()
            await settled()
        assert abs(sum(request.begun for request in first) - sum(request.begun for request in second)) <= 4
        assert abs(order.count("a") - order.count("b")) <= 4


async def test_what_one_space_sends_to_a_host_does_not_wait_for_what_another_does() -> None:
    async with new_hosts() as (hosts, clock):
        in_space(hosts, "flood", ["shared"] * 1000, hang)
        clock.now_s += 5
        (one,) = in_space(hosts, "well", ["shared"], yes)
        await settled()
        assert one.begun


async def test_a_space_has_no_more_in_hand_than_it_leaves_to_others() -> None:
    async with new_hosts() as (hosts, _):
        flood = in_space(hosts, "flood", (f"h{number}" for number in range(IN_HAND_MOST)), hang)
        assert not hosts.has_room("flood")
        assert sum(request.put_off_s is not None for request in flood) >= IN_HAND_MOST // 2 - 1
        assert hosts.has_room("well")
        (one,) = in_space(hosts, "well", ["a"], yes)
        await settled()
        assert one.begun


async def test_ten_thousand_hosts_are_taken_in_within_a_second_or_two() -> None:
    async with new_hosts() as (hosts, _):
        begun = time.monotonic()
        in_space(hosts, "flood", (f"h{number}" for number in range(IN_HAND_MOST)), hang)
        assert time.monotonic() - begun < 2, "each new host looks through all the others"
