"""For those who do jobs: poll, claim, ack, progress, checkpoint, event, keepalive, complete, fail."""

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec
from msgspec import UNSET

from app.api.body_reading import ClientGone, check_json, decode_body
from app.api.call import Call
from app.api.request_schemas import (
    FAIL_BODY,
    POLL_BODY,
    PROGRESS_BODY,
    FailRequest,
    PollRequest,
    cut_text,
    decode_or_default,
    whole_number,
)
from app.api.response_schemas import Ended, Failed, Polled, delivered_answer
from app.api.responses import Answer, json_answer
from app.jobs.job_records import Delivered, RenewedLease
from app.jobs.job_store import JobStore
from app.jobs.long_polls import LongPolls
from app.model.errors import Outage, invalid, unavailable
from app.model.limits import CHECKPOINT_BYTES, EVENT_BYTES, MIB, POLLED_BYTES, PROGRESS_BYTES, RESULT_BYTES
from app.model.times import rfc3339


def renewed_answer(done: RenewedLease) -> Answer:
    """The answer of a call that renews the lease; written by hand, for it is the one that is sent most."""
    end = f'"{rfc3339(done.lease_end_ms)}"' if done.lease_end_ms is not None else "null"
    return Answer(200, f'{{"success":true,"status":"{done.status}","timeoutAt":{end}}}'.encode())


class WorkerHandlers:
    """The handlers of a job's way from pending to its end."""

    def __init__(self, store: JobStore, long_polls: LongPolls) -> None:
        self._store = store
        self._long_polls = long_polls

    async def poll(self, call: Call) -> Answer:
        """POST /spaces/:spaceId/jobs/poll"""
        request: PollRequest = decode_or_default(POLL_BODY, await call.read_body(MIB))
        names, count = request.filter(), whole_number(request.count, 1)
        call.require_room(POLLED_BYTES)  # else a job that was taken would wait for its lease
        jobs = await self._store.poll(call.space, count, names)
        if not jobs and request.wait_seconds:
            jobs = await self._wait(call, count, names, request.wait_seconds)
        return json_answer(Polled([delivered_answer(job) for job in jobs]))

    async def _wait(self, call: Call, count: int, names: Sequence[str], wait_s: float) -> list[Delivered]:
        """Park until a job comes, the time is over, the process ends, or the caller goes: then nothing is taken.

        Raises Unavailable when the process has been told to end (whoever comes back at once finds another), Refusal
        `rate_limited` when too many polls of the key wait.
        """
        if self._long_polls.released:
            raise unavailable("This process is shutting down.")
        call.hold(0)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        gone = asyncio.create_task(call.wait_until_gone())
        jobs: list[Delivered] = []
        try:
            async with self._long_polls.waiting(call.space, names, call.identity.digest) as (room, waiter):
                gone.add_done_callback(lambda _: waiter.woken.set())
                while not jobs and loop.time() < deadline_s and not self._long_polls.released:
                    if gone.done():
                        raise ClientGone
                    call.require_room(POLLED_BYTES)
                    room.note_ask(waiter)
                    jobs = await self._poll_again(call.space, count, names)
                    if not jobs:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout_at(deadline_s):
                                await waiter.woken.wait()
        finally:
            gone.cancel()
        return jobs

    async def claim(self, call: Call) -> Answer:
        """POST /jobs/:jobId/claim"""
        await call.skip_body()
        call.require_room(POLLED_BYTES)
        return json_answer(delivered_answer(await self._store.claim(call.space, call.job, call.lease_token)))

    async def ack(self, call: Call) -> Answer:
        """POST /jobs/:jobId/ack"""
        await call.skip_body()
        return renewed_answer(await self._store.ack(call.space, call.job, call.lease_token))

    async def progress(self, call: Call) -> Answer:
        """POST /jobs/:jobId/progress"""
        request = decode_body(PROGRESS_BODY, await call.read_body(PROGRESS_BYTES))
        progress = msgspec.json.encode(request)
        return renewed_answer(await self._store.progress(call.space, call.job, call.lease_token, progress))

    async def checkpoint(self, call: Call) -> Answer:
        """POST /jobs/:jobId/checkpoint"""
        body = (await call.read_body(CHECKPOINT_BYTES)).strip(b" \t\r\n")
        check_json(body)
        if body[:1] != b"{":
            raise invalid("A checkpoint is a JSON object.")
        return renewed_answer(await self._store.checkpoint(call.space, call.job, call.lease_token, body))

    async def event(self, call: Call) -> Answer:
        """POST /jobs/:jobId/event"""
        body = (await call.read_body(EVENT_BYTES)).strip(b" \t\r\n") or b"null"
        check_json(body)
        return renewed_answer(await self._store.event(call.space, call.job, call.lease_token, body))

    async def keepalive(self, call: Call) -> Answer:
        """POST /jobs/:jobId/keepalive"""
        await call.skip_body()
        return renewed_answer(await self._store.keepalive(call.space, call.job, call.lease_token))

    async def complete(self, call: Call) -> Answer:
        """POST /jobs/:jobId/complete"""
        body = (await call.read_body(RESULT_BYTES)).strip(b" \t\r\n") or b"null"
        check_json(body)
        status = await self._store.complete(call.space, call.job, call.lease_token, body)
        return json_answer(Ended(status))

    async def fail(self, call: Call) -> Answer:
        """POST /jobs/:jobId/fail"""
        request: FailRequest = decode_or_default(FAIL_BODY, await call.read_body(RESULT_BYTES))
        if request.claim:
            call.identity.require("jobs:poll")
        if request.error is not None:
            request.error = cut_text(request.error)
        after_s = request.retry_after_seconds
        done = await self._store.fail(
            call.space,
            call.job,
            call.lease_token,
            msgspec.json.encode(request.error),
            may_retry=request.retry is not False,
            delay_ms=None if after_s is None else round(after_s * 1000),
            claim=bool(request.claim),
        )
        return json_answer(Failed(done.status, done.will_retry, done.attempt, lease_token=done.token or UNSET))

    async def _poll_again(self, space: str, count: int, names: Sequence[str]) -> list[Delivered]:
        """Poll again; while Redis is away there is nothing to take, and after its return the rooms look around.

        What a poll took whose answer was lost comes back to the queue when its lease ends, as it does for any worker
        that never got its answer.
        """
        try:
            return await self._store.poll(space, count, names)
        except Outage:
            return []
