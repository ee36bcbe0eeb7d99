"""For those who do jobs: poll, claim, and the verbs of app/api/worker_verbs.py, a request for each call."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from app.api.body_reading import ClientGone
from app.api.call import Call
from app.api.request_schemas import POLL_BODY, PollRequest, decode_or_default, whole_number
from app.api.response_schemas import Polled, delivered_answer
from app.api.responses import Answer, json_answer
from app.api.worker_verbs import WorkerVerb
from app.jobs.job_records import Delivered
from app.jobs.job_store import JobStore
from app.jobs.long_polls import LongPolls
from app.jobs.worker_verbs import WorkerCall
from app.model.errors import Outage, unavailable
from app.model.limits import MIB, POLLED_BYTES


class Wanted(NamedTuple):
    """What a poll asks for."""

    most: int
    names: Sequence[str]
    ack: bool


class WorkerHandlers:
    """The handlers of a job's way from pending to its end."""

    def __init__(self, store: JobStore, long_polls: LongPolls) -> None:
        self._store = store
        self._long_polls = long_polls

    async def poll(self, call: Call) -> Answer:
        """POST /spaces/:spaceId/jobs/poll"""
        request: PollRequest = decode_or_default(POLL_BODY, await call.read_body(MIB))
        wanted = Wanted(whole_number(request.count, 1), request.filter(), bool(request.ack))
        if wanted.ack:
            call.identity.require("jobs:ack")
        call.require_room(POLLED_BYTES)  # else a job that was taken would wait for its lease
        jobs = await self._store.poll(call.space, wanted.most, wanted.names, ack=wanted.ack)
        if not jobs and request.wait_seconds:
            jobs = await self._wait(call, wanted, request.wait_seconds)
        return json_answer(Polled([delivered_answer(job) for job in jobs]))

    async def _wait(self, call: Call, wanted: Wanted, wait_s: float) -> list[Delivered]:
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
            async with self._long_polls.waiting(call.space, wanted.names, call.identity.digest) as (room, waiter):
                gone.add_done_callback(lambda _: waiter.woken.set())
                while not jobs and loop.time() < deadline_s and not self._long_polls.released:
                    if gone.done():
                        raise ClientGone
                    call.require_room(POLLED_BYTES)
                    room.note_ask(waiter)
                    jobs = await self._poll_again(call.space, wanted)
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

    def call(self, verb: WorkerVerb) -> Callable[[Call], Awaitable[Answer]]:
        """The handler of POST /jobs/:jobId/VERB"""

        async def handler(call: Call) -> Answer:
            request = verb.request(await call.read_body(verb.limit_bytes), call.identity)
            wanted = WorkerCall(verb.name, call.job, call.lease_token, request)
            return Answer(200, verb.answer(await self._store.call(call.space, wanted)))

        return handler

    async def _poll_again(self, space: str, wanted: Wanted) -> list[Delivered]:
        """Poll again; while Redis is away there is nothing to take, and after its return the rooms look around.

        What a poll took whose answer was lost comes back to the queue when its lease ends, as it does for any worker
        that never got its answer.
        """
        try:
            return await self._store.poll(space, wanted.most, wanted.names, ack=wanted.ack)
        except Outage:
            return []
