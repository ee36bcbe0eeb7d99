"""The outbox on Redis: what an end puts in, who has it, and what is noted."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from app.jobs.job_records import NewJob
from app.webhooks.outbox import CallbackRequest, LeasedCallback, Outbox
from tests.any_redis import AnyRedis
from tests.room import Room, new_room, refusal_of
from tests.sweeping import home

T = TypeVar("T")
URL = "http://receiver.example/path?key=1"
LEASE_MS = 60_000
WAIT_MS = 30_000
TRIES = 10
FAILED = msgspec.json.encode({"url": URL, "error": "no", "statusCode": 500, "responseBody": ""})
SENT = msgspec.json.encode({"url": URL, "statusCode": 200})


async def eventually(call: Callable[[], Awaitable[T]]) -> T:
    """What the call returns as soon as that is true; an AssertionError after ten seconds."""
    for _ in range(500):
        if found := await call():
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come in time")


class Desk:
    """A room with a space, its store and its outbox."""

    def __init__(self, room: Room, space: str) -> None:
        self.room = room
        self.space = space
        self.store = room.backend.store
        self.outbox = Outbox(
            room.backend.control, room.backend.bulk, room.keys, room.backend.clock, room.backend.spaces.list_ids
        )

    async def claimed(self, url: str = URL, retries: int = 0, headers: bytes = b"", timeout_s: int = 300) -> str:
        """A delivered job with a callbackUrl."""
        job = NewJob("echo", b"null", retries, timeout_s, None, url, headers, "", True)
        return (await self.store.create(self.space, [job])).ids[0]

    async def completed(self, **fields: Any) -> str:
        """A job that was completed with the result 1."""
        job = await self.claimed(**fields)
        await self.store.complete(self.space, job, "", b"1")
        return job

    async def due(self, job: str) -> float | None:
        """When its callback is due, ms; None without one."""
        score = await self.room.call("ZSCORE", self.room.keys.callbacks(self.space), job)
        return None if score is None else float(score)

    async def take(self, most: int = 100, lease_ms: int = LEASE_MS) -> list[LeasedCallback]:
        """What is due."""
        return (await self.outbox.lease_callbacks(self.space, most, lease_ms))[0]

    async def begin(self, taken: LeasedCallback, token: str = "t", wait_ms: int = WAIT_MS) -> CallbackRequest | None:
        """Begin a try."""
        return await self.outbox.begin_try(taken, token, wait_ms, TRIES)

    async def note(self, taken: LeasedCallback, kind: str, delay_ms: int | None = None, token: str = "t") -> None:
        """Note a try."""
        await self.outbox.note_try(taken, token, kind, SENT if kind == "callback_sent" else FAILED, delay_ms)

    async def events(self, job: str) -> list[tuple[str, Any]]:
        """The job's callback events."""
        items = [json.loads(event.item) for event in (await self.store.read_job(self.space, job))[1].events]
        return [(kind, data) for kind, _, data, *_ in items if kind.startswith("callback_")]


@contextlib.asynccontextmanager
async def new_desk(redis: AnyRedis, **settings: Any) -> AsyncIterator[Desk]:
    async with new_room(redis, **settings) as room:
        yield Desk(room, await home(room))


async def test_every_kind_of_end_puts_one_callback_into_the_outbox(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        jobs = [await desk.claimed() for _ in range(3)]
        await desk.store.complete(desk.space, jobs[0], "", b"1")
        await desk.store.kill(desk.space, jobs[1], "", b"null")
        await desk.store.fail(desk.space, jobs[2], "", b"null", may_retry=False)
        expired = await desk.claimed(timeout_s=1)
        await desk.store.ack(desk.space, expired, "")
        assert await eventually(lambda: desk.store.end_leases(desk.space, 10))
        assert {taken.job for taken in await desk.take()} == {*jobs, expired}
        assert await desk.outbox.due_spaces(tag=desk.room.tag) == [desk.space]


async def test_no_end_no_callback_and_no_url_no_callback(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        job = await desk.claimed(retries=1)
        await desk.store.fail(desk.space, job, "", b"null", may_retry=True)
        quiet = await desk.claimed(url="")
        await desk.store.complete(desk.space, quiet, "", b"1")
        assert await desk.take() == []
        assert await desk.outbox.due_spaces(tag=desk.room.tag) == []


async def test_a_repeated_complete_puts_nothing_in_again(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        job = await desk.completed()
        (taken,) = await desk.take()
        assert await desk.begin(taken)
        await desk.note(taken, "callback_sent")
        await desk.store.complete(desk.space, job, "", b"1")
        assert await desk.due(job) is None


async def test_what_is_sent_is_the_end_of_the_job(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        job = await desk.completed(headers=b'{"a":"b"}')
        await desk.room.backend.spaces.patch(desk.space, {"webhookSecrets": "whsec_new whsec_old"})
        (taken,) = await desk.take()
        message = await desk.begin(taken)
        assert message is not None
        fields, _ = await desk.store.read_job(desk.space, job)
        body = json.loads(message.body)
        assert body.pop("timestamp").endswith("Z")
        assert body == {
            "jobId": job,
            "spaceId": desk.space,
            "name": "echo",
            "status": "completed",
            "attemptNumber": 0,
            "result": 1,
        }
        assert message.id == f"msg_{job}_{int(fields['completedAt'])}"
        assert (message.number, message.headers, message.secrets) == (0, {"a": "b"}, ["whsec_new", "whsec_old"])


async def test_what_one_has_taken_no_other_takes_until_its_lease_is_over(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        await desk.completed()
        (taken,) = await desk.take(lease_ms=200)
        assert await desk.take() == []
        again = await eventually(desk.take)
        assert again[0].job == taken.job
        assert await desk.begin(taken) is None
        assert await desk.begin(again[0]) is not None


async def test_a_failed_try_is_due_again_and_numbered(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        job = await desk.completed()
        for number in range(3):
            (taken,) = await desk.take()
            message = await desk.begin(taken)
            assert message is not None
            assert message.number == number
            await desk.note(taken, "callback_failed", 0 if number < 2 else None)
        assert await desk.due(job) is None
        events = await desk.events(job)
        assert [(data["retryAttempt"], data["willRetry"]) for _, data in events] == [(0, True), (1, True), (2, False)]
        assert events[0][1].keys() == {"url", "error", "statusCode", "responseBody", "retryAttempt", "willRetry"}


async def test_a_note_that_is_repeated_changes_nothing(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        job = await desk.completed()
        (taken,) = await desk.take()
        await desk.begin(taken)
        for _ in range(3):
            await desk.note(taken, "callback_sent")
        assert await desk.events(job) == [("callback_sent", {"url": URL, "statusCode": 200, "retryAttempt": 0})]


async def test_a_try_that_nobody_noted_is_told_of_before_the_next(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        job = await desk.completed()
        (taken,) = await desk.take(lease_ms=50)
        assert await desk.begin(taken, "dead", wait_ms=50)
        again = await eventually(desk.take)
        message = await desk.begin(again[0], "living")
        assert message is not None
        assert message.number == 1
        await desk.note(taken, "callback_sent", token="dead")
        await desk.note(again[0], "callback_sent", token="living")
        (lost_kind, lost), (_, sent) = await desk.events(job)
        assert lost_kind == "callback_failed"
        assert "ended before it could note" in lost["error"]
        assert (lost["url"], lost["retryAttempt"], lost["willRetry"]) == (URL, 0, True)
        assert sent == {"url": URL, "statusCode": 200, "retryAttempt": 1}


async def test_a_job_that_runs_again_calls_back_again_and_cancels_what_was_due(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        job = await desk.claimed()
        await desk.store.kill(desk.space, job, "", b"null")
        await desk.store.retry(desk.space, job, "")
        assert await desk.take() == []
        await desk.store.claim(desk.space, job, "")
        await desk.store.complete(desk.space, job, "", b"2")
        (taken,) = await desk.take()
        message = await desk.begin(taken)
        assert message is not None
        assert json.loads(message.body)["result"] == 2
        assert message.number == 0


async def test_a_try_in_the_air_is_noted_after_a_retry_and_decides_nothing(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        job = await desk.claimed()
        await desk.store.kill(desk.space, job, "", b"null")
        (taken,) = await desk.take()
        await desk.begin(taken)
        await desk.store.retry(desk.space, job, "")
        await desk.note(taken, "callback_failed", 0)
        assert await desk.due(job) is None
        assert [(data["retryAttempt"], data["willRetry"]) for _, data in await desk.events(job)] == [(0, False)]


async def test_a_new_end_waits_for_the_try_of_the_old_one_and_follows_at_once(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        job = await desk.claimed()
        await desk.store.kill(desk.space, job, "", b"null")
        (old,) = await desk.take()
        await desk.begin(old)
        await desk.store.retry(desk.space, job, "")
        await desk.store.claim(desk.space, job, "")
        await desk.store.complete(desk.space, job, "", b"2")
        assert await desk.take() == []
        await desk.note(old, "callback_sent")
        (taken,) = await desk.take()
        message = await desk.begin(taken)
        assert message is not None
        assert json.loads(message.body)["result"] == 2


async def test_another_try_can_be_asked_for_of_an_ended_job_with_a_url(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        job = await desk.completed()
        (taken,) = await desk.take()
        await desk.begin(taken)
        await desk.note(taken, "callback_failed", None)
        assert await desk.store.retry_callback(desk.space, job) == "completed"
        (again,) = await desk.take()
        message = await desk.begin(again)
        assert message is not None
        assert message.number == 0
        running = await desk.claimed()
        assert (await refusal_of(desk.store.retry_callback(desk.space, running))).more == {"status": "delivered"}
        quiet = await desk.claimed(url="")
        await desk.store.complete(desk.space, quiet, "", b"1")
        assert (await refusal_of(desk.store.retry_callback(desk.space, quiet))).code == "invalid_request"
        assert (await refusal_of(desk.store.retry_callback(desk.space, desk.space))).code == "job_not_found"


async def test_what_is_given_back_was_not_tried(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        job = await desk.completed()
        (taken,) = await desk.take()
        await desk.outbox.postpone_callbacks(desk.space, [(taken, 0)])
        (again,) = await desk.take(lease_ms=2 * LEASE_MS)
        await desk.outbox.postpone_callbacks(desk.space, [(taken, 10_000_000)])
        message = await desk.begin(again)
        assert message is not None
        assert message.number == 0
        assert await desk.events(job) == []


async def test_a_hint_that_was_lost_is_found_again(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        await desk.completed()
        await desk.outbox.drop_hint(desk.space, desk.room.tag)
        assert await desk.outbox.due_spaces(tag=desk.room.tag) == []
        await desk.outbox.rebuild_hints(desk.room.tag)
        # The hint is right to a moment, and the clock that is compared with it to half a round trip.
        assert await eventually(lambda: desk.outbox.due_spaces(tag=desk.room.tag)) == [desk.space]


async def test_a_job_that_is_removed_leaves_nothing_to_send(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        job = await desk.completed()
        (taken,) = await desk.take()
        await desk.begin(taken)
        await desk.room.backend.deletion.delete_job(desk.space, job)
        await desk.note(taken, "callback_failed", 0)
        assert await desk.due(job) is None
        assert not await desk.room.call("EXISTS", desk.room.keys.job(desk.space, job))


async def test_a_space_that_is_removed_leaves_no_key(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:
        await desk.completed()
        await desk.room.backend.spaces.patch(desk.space, {"slack": '{"url":"https://a.example","events":["dead"]}'})
        await desk.room.backend.spaces.delete(desk.space)
        left = await desk.room.call("KEYS", f"{desk.room.keys.prefix}:*")
        mine = [key for key in left if desk.space.encode() in key]
        for key in (desk.room.keys.hooks, desk.room.keys.due_callbacks):
            assert not await desk.room.call("EXISTS", key)
        assert [key for key in mine if b":callbacks" in key or key.endswith(b":space")] == []


async def test_secrets_rotate_two_at_a_time(room_redis: AnyRedis) -> None:
    async with new_desk(room_redis) as desk:

        async def secrets() -> bytes | None:
            found: bytes | None = await desk.room.call("HGET", desk.room.keys.space(desk.space), "webhookSecrets")
            return found

        patch = desk.room.backend.spaces.patch
        await patch(desk.space, {}, drop_old=True)
        assert await secrets() is None
        for fresh, wanted in (("one", b"one"), ("two", b"two one"), ("three", b"three two")):
            await patch(desk.space, {}, fresh_secret=fresh)
            assert await secrets() == wanted
        await patch(desk.space, {}, drop_old=True)
        assert await secrets() == b"three"
        await patch(desk.space, {"webhookSecrets": ""})
        assert await secrets() is None
