"""Work that goes on whatever happens, and what the log says meanwhile."""

import asyncio
import logging
from functools import partial

import pytest

from app.loop.attempts import Attempts
from app.model.errors import UNANSWERED, outcome_unknown, unavailable

OUTAGE = unavailable("Redis has gone away.")


async def attempted(*outcomes: Exception | int) -> list[int]:
    """What attempts return whose calls end like this, one after the other; -1 for what failed."""
    attempts = Attempts(
        logging.getLogger("test"), waits="it waits: %s", goes_on="it goes on", failed="it failed", pause_s=0
    )

    async def call(outcome: Exception | int) -> int:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return [await attempts.make(partial(call, outcome), -1) for outcome in outcomes]


async def test_an_outage_is_said_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert await attempted(1, OUTAGE, OUTAGE, 2, 3, OUTAGE, 4) == [1, -1, -1, 2, 3, -1, 4]
    said = ["it waits: Redis has gone away.", "it goes on"]
    assert caplog.messages == [*said, *said]


async def test_what_a_caller_may_repeat_is_not_said_to_the_operator(caplog: pytest.LogCaptureFixture) -> None:
    assert await attempted(outcome_unknown()) == [-1]
    assert caplog.messages == [f"it waits: {UNANSWERED}"]


async def test_a_bug_is_told_once_and_its_end_once_and_is_no_end_of_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bug = ZeroDivisionError()
    assert await attempted(OUTAGE, bug, bug, OUTAGE, bug, 5, 6, bug) == [-1, -1, -1, -1, -1, 5, 6, -1]
    over = "it failed: no more (attempted.<locals>.call)"
    assert caplog.messages == ["it waits: Redis has gone away.", "it failed", "it goes on", over, "it failed"]
    assert "ZeroDivisionError" in caplog.text


async def test_another_bug_is_told_and_what_other_work_does_is_no_end_of_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    attempts = Attempts(logging.getLogger("test"), waits="%s", goes_on="it goes on", failed="it failed", pause_s=0)

    async def works() -> None:
        pass

    async def fails(text: str) -> None:
        raise ValueError(text)

    for text in ("one", "one", "other", "other"):
        await attempts.make(partial(fails, text), None)
        await attempts.make(works, None)
    assert caplog.messages == ["it failed"] * 2
    assert ("ValueError: one" in caplog.text, "ValueError: other" in caplog.text) == (True, True)


async def test_after_a_failure_it_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    rests = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    await attempted(1, OUTAGE, ZeroDivisionError())
    assert rests == [0, 0]
