"""Background tasks: they end with their owner, and none dies in silence."""

import asyncio
import logging

import pytest

from app.loop.background import Background, until_first_ends
from app.model.errors import unavailable


async def forever() -> None:
    await asyncio.Event().wait()


async def bug() -> None:
    raise ZeroDivisionError


async def test_a_task_ends_with_its_owner_and_has_a_name() -> None:
    background = Background()
    task = background.start(forever(), "a-name")
    assert task.get_name() == "a-name"
    await background.close()
    assert task.cancelled()


async def test_a_block_ends_its_tasks() -> None:
    async with Background() as background:
        task = background.start(forever(), "in-the-block")
    assert task.cancelled()


def test_an_owner_that_started_nothing_closes() -> None:
    asyncio.run(Background().close())


def test_the_result_of_a_task_is_its_own() -> None:
    async def one() -> int:
        return 1

    async def work() -> int:
        return await Background().start(one(), "one")

    assert asyncio.run(work()) == 1


async def test_a_task_that_dies_by_a_bug_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    await asyncio.wait([Background().start(bug(), "the-broken-one")])
    assert "the background task the-broken-one died" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_task_that_ends_by_an_outage_or_by_its_owner_is_not_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def outage() -> None:
        raise unavailable("Redis has gone away.")

    background = Background()
    background.start(forever(), "cancelled")
    await asyncio.wait([background.start(outage(), "outage")])
    await background.close()
    assert not caplog.records


@pytest.mark.parametrize(("error", "said"), [(unavailable("away"), 0), (ZeroDivisionError(), 1)])
async def test_repeated_work_goes_on_after_an_outage_and_after_a_bug(
    error: Exception, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    times = 0
    background, third = Background(), asyncio.Event()

    async def fails_twice() -> None:
        nonlocal times
        times += 1
        if times <= 2:
            raise error
        third.set()

    background.repeat(fails_twice, 0, "repeated")
    async with asyncio.timeout(10):
        await third.wait()
    await background.close()
    assert times >= 3
    assert caplog.text.count("the background task repeated failed, and goes on") == said
    assert caplog.text.count("the background task repeated does not fail any more") == said


def test_works_run_until_the_first_ends_and_the_others_are_cancelled() -> None:
    ended = []

    async def other() -> None:
        try:
            await forever()
        finally:
            ended.append("other")

    async def first() -> None:
        await asyncio.sleep(0)

    asyncio.run(until_first_ends(other(), first()))
    assert ended == ["other"]


def test_what_the_first_work_raised_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(until_first_ends(forever(), bug()))


async def test_cancelled_it_cancels_its_works() -> None:
    ended = []
    begun = asyncio.Event()

    async def notes_its_end() -> None:
        begun.set()
        try:
            await forever()
        finally:
            ended.append(True)

    task = asyncio.create_task(until_first_ends(notes_its_end()))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert ended == [True]
