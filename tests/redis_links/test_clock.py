"""The clocks of Redis: each server has its own, and nobody is kept waiting by one that is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from app.model.errors import Unavailable, unavailable
from app.redis_links.clock import RedisClock
from tests.sweeping import eventually, truth


class ToldServer:
    """A server whose clock is so far ahead of the host's."""

    def __init__(self, ahead_s: float) -> None:
        self.ahead_s = ahead_s
        self.is_away = False

    async def ready(self, timeout_s: float) -> None:
        """At once, unless it is away."""
        if self.is_away:
            raise unavailable("Redis cannot be reached.")

    async def call(self, *command: str) -> list[bytes]:
        """TIME."""
        seconds, part = divmod(time.time() + self.ahead_s, 1)
        return [b"%d" % seconds, b"%d" % (part * 1_000_000)]


class ToldLink:
    """A link to servers, each of which has the keys that begin with its letter."""

    def __init__(self, **ahead_s: float) -> None:
        self.by_letter = {letter: ToldServer(ahead) for letter, ahead in ahead_s.items()}

    def server_of(self, key: str) -> Any:
        """By the first letter."""
        if key[:1] not in self.by_letter:
            raise unavailable("Nobody has it.")
        return self.by_letter[key[0]]

    def servers(self) -> list[Any]:
        """All."""
        return list(self.by_letter.values())


def shown_ahead_s(clock: RedisClock, key: str) -> float:
    """How far what it shows is ahead of the host's clock, to a tenth of a second."""
    return round(clock.now_ms(key) / 1000 - time.time(), 1)


async def test_a_moment_is_that_of_the_server_which_has_the_key() -> None:
    link = ToldLink(a=0, b=5, c=-5)
    clock = RedisClock(link)  # type: ignore[arg-type]
    await clock.measure()
    assert [shown_ahead_s(clock, key) for key in "abc"] == [0, 5, -5]


async def test_a_server_that_is_away_keeps_nobody_from_the_others_and_its_clock_goes_on() -> None:
    link = ToldLink(a=0, b=5)
    clock = RedisClock(link)  # type: ignore[arg-type]
    await clock.measure()
    link.by_letter["a"].is_away = True
    link.by_letter["b"].ahead_s = 7
    with pytest.raises(Unavailable):
        await clock.measure()
    assert [shown_ahead_s(clock, key) for key in "ab"] == [0, 7]


async def test_a_server_that_was_just_met_is_asked_at_once_and_is_taken_for_another_until_then() -> None:
    link = ToldLink(a=3)
    clock = RedisClock(link)  # type: ignore[arg-type]
    await clock.measure()
    link.by_letter["b"] = ToldServer(5)
    assert shown_ahead_s(clock, "b") == 3

    def shows(ahead_s: float) -> Callable[[], Any]:
        return lambda: truth(shown_ahead_s(clock, "b") == ahead_s)

    await eventually(shows(5), 1)
    await clock.close()


async def test_a_key_that_nobody_has_and_no_key_at_all_have_a_moment_too() -> None:
    link = ToldLink()
    clock = RedisClock(link)  # type: ignore[arg-type]
    assert shown_ahead_s(clock, "") == 0
    link.by_letter["a"] = ToldServer(4)
    await clock.measure()
    assert [shown_ahead_s(clock, key) for key in ("", "x")] == [4, 4]
