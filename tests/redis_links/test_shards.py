"""What is done for each server of a cluster apart."""

import asyncio
import itertools
import logging
from typing import Any, NamedTuple, cast

import pytest

from app.redis_links import shards
from app.redis_links.dialling import Place
from app.redis_links.link import Link
from app.redis_links.shards import ShardLog, run_on_each
from app.redis_links.topology import SLOTS, slot_of, tag_of
from tests.sweeping import eventually, truth


class Server(NamedTuple):
    """A link to one of them."""

    tag: str
    place: Place | None


class FakeLink:
    """A link to servers with these tags."""

    def __init__(self, *tags: str) -> None:
        self.names = list(tags)
        self.places: dict[str, Place] = {}

    def tags(self) -> dict[Any, str]:
        return {Server(tag, self.places.get(tag)): tag for tag in self.names}


async def test_work_that_ends_at_once_is_begun_anew_now_and_then_and_that_of_others_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shards, "FOLLOW_S", 0.05)
    begun: list[str] = []
    looks = itertools.count()

    async def work(tag: str) -> None:
        begun.append(tag)
        if tag == "other":
            await asyncio.Event().wait()

    class Counted(FakeLink):
        def tags(self) -> dict[Any, str]:
            next(looks)
            return super().tags()

    running = asyncio.create_task(run_on_each(cast(Link, Counted("quick", "other")), work))
    await eventually(lambda: truth(begun.count("quick") == 3))
    assert next(looks) < 10
    assert begun.count("other") == 1
    running.cancel()
    await asyncio.wait([running])


async def test_work_ends_with_its_server_and_what_it_raises_ends_all() -> None:
    ended: list[str] = []

    async def work(tag: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(tag)

    link = FakeLink("one", "other")
    running = asyncio.create_task(run_on_each(cast(Link, link), work))
    await asyncio.sleep(0)
    link.names.remove("one")
    await eventually(lambda: truth(ended == ["one"]))

    async def fails(tag: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(run_on_each(cast(Link, link), fails), 5)
    running.cancel()
    await asyncio.wait([running])
    assert ended == ["one", "other"]


async def test_a_tag_that_is_no_server_s_any_more_is_left_for_a_while_and_not_while_it_is_one_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shards, "FOLLOW_S", 0.01)
    monkeypatch.setattr(shards, "HAND_ON_S", 0.05)
    left: list[str] = []

    async def work(tag: str) -> None:
        await asyncio.Event().wait()

    async def leave(tag: str) -> None:
        left.append(tag)

    link = FakeLink("one", "other")
    running = asyncio.create_task(run_on_each(cast(Link, link), work, leave))
    await asyncio.sleep(0)
    link.names.remove("one")
    await eventually(lambda: truth(left == ["one"] * 5))
    monkeypatch.setattr(shards, "HAND_ON_S", 1000)
    link.names[:] = ["one"]
    await eventually(lambda: truth("other" in left))
    link.names[:] = ["other"]
    await eventually(lambda: truth(left[-1] == "one"))
    count = left.count("other")
    await eventually(lambda: truth(left.count("one") > 10))
    assert left.count("other") == count
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize(("tag", "said"), [("5", "127.0.0.1:7002: it works"), ("9", "it works"), ("", "it works")])
def test_a_message_of_a_shard_begins_with_the_server_that_has_it_now(
    caplog: pytest.LogCaptureFixture, tag: str, said: str
) -> None:
    link = FakeLink("5", "7")
    link.places = {"5": Place("127.0.0.1", 7001), "7": Place("127.0.0.1", 7002)}
    log = ShardLog(logging.getLogger("test"), cast(Link, link), tag)
    link.places["5"] = Place("127.0.0.1", 7002)
    log.warning("it %s", "works")
    assert caplog.messages == [said]


def test_the_only_server_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    link = FakeLink("")
    ShardLog(logging.getLogger("test"), cast(Link, link), "").warning("it works")
    assert caplog.messages == ["it works"]


def test_the_tag_of_a_slot_is_the_first_number_that_lies_there() -> None:
    assert all(slot_of(tag_of(slot)) == slot for slot in range(SLOTS))
    first: dict[int, str] = {}
    for number in map(str, range(20_000)):
        first.setdefault(slot_of(number), number)
    assert all(tag_of(slot) == number for slot, number in first.items())
