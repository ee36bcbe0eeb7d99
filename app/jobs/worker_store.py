"""The verbs of workers on Redis: poll, claim, and the calls about a job that somebody works on, one by one or many.

Owns: which script is called with which keys, what a batch of calls is cut into, and whom their effects are told.
Never: reads, decides and writes in separate steps; sends anything twice.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from app.jobs.due_index import DueIndex
from app.jobs.job_records import Delivered, FailedAttempt, Failure, Release, ReleasedJob, RenewedLease
from app.jobs.worker_verbs import VERB_SCRIPTS, Bounds, Effects, VerbScript, WorkerCall, request_bytes
from app.metrics import catalog
from app.model.errors import Outage, job_not_found
from app.model.ids import is_ulid, new_lease_token, space_tag_of
from app.model.limits import CALLS_SCRIPT, CALLS_SCRIPT_BYTES, POLLED_BYTES
from app.model.redis_keys import Keys
from app.redis_links.clock import RedisClock
from app.redis_links.link import Link, RedisFault, Word
from app.redis_links.memory_headroom import Headroom
from app.redis_links.scripts import Scripts, refusal
from app.settings import Settings

JOB_BACKSTOP_MS = 86_400_000
"""How much longer than their retention the keys of an ended job live, should nobody sweep."""

LOG_REST_MS = 60_000
"""How long an ended job's log rests before it is looked at: see lua/include/finish.lua."""


class WorkerStore:
    """The jobs of all spaces, as workers see them."""

    def __init__(self, control: Link, keys: Keys, clock: RedisClock, settings: Settings, headroom: Headroom) -> None:
        self._control = control
        self._due, self._due_callbacks = (
            DueIndex(control, keys, key_of) for key_of in (keys.due_of, keys.due_callbacks_of)
        )
        self._keys = keys
        self._clock = clock
        self._headroom = headroom
        self._late_ms = int(settings.redis_timeout_s * 1000)
        self._retention_ms = settings.retention_s * 1000
        self._bounds = Bounds(self._retention_ms + JOB_BACKSTOP_MS, settings.space_bytes)
        self._scripts = Scripts(control)

    async def poll(self, space: str, count: int, names: Sequence[str] = (), *, ack: bool = False) -> list[Delivered]:
        """Up to `count` of the oldest pending jobs, of these names or of any; each is now the caller's.

        With `ack` they are running, and have the event `started` alone.

        Fewer once what they carry (payload and checkpoint) would come to more than 8 MiB, but one.

        Refusals: space_not_found; `unavailable` when Redis was so late that the caller has given up.
        """
        deadline = self._now_ms(space) + self._late_ms
        args: list[Word] = [deadline, POLLED_BYTES, int(ack), count]
        args += [*(new_lease_token() for _ in range(count)), *names]
        reply = await self._scripts.run("job_poll", [self._keys.space(space)], args)
        catalog.count_transitions("started" if ack else "delivered", len(reply))
        taken = [_delivered(item) for item in reply]
        if taken:
            self._hint_due(space, min(job.lease_end_ms for job in taken))
        return taken

    async def claim(self, space: str, job: str, token: str) -> Delivered:
        """One pending job by its id. Refusals: job_not_found, lease_lost, invalid_state, unavailable when late."""
        if not is_ulid(job):
            raise job_not_found()
        deadline = self._now_ms(space) + self._late_ms
        args: list[Word] = [job, deadline, new_lease_token(), token]
        reply = await self._scripts.run("job_claim", [self._keys.space(space)], args)
        catalog.count_transitions("delivered")
        taken = _delivered(reply[0])
        self._hint_due(space, taken.lease_end_ms)
        return taken

    async def ack(self, space: str, job: str, token: str) -> RenewedLease:
        """delivered -> running. Refusals as `call`."""
        return await self._renewing(space, WorkerCall("ack", job, token, None))

    async def progress(self, space: str, job: str, token: str, progress: bytes) -> RenewedLease:
        """The latest progress (JSON). Refusals as `call`."""
        return await self._renewing(space, WorkerCall("progress", job, token, progress))

    async def checkpoint(self, space: str, job: str, token: str, checkpoint: bytes) -> RenewedLease:
        """What the next attempt shall know (JSON). Refusals as `call`."""
        return await self._renewing(space, WorkerCall("checkpoint", job, token, checkpoint))

    async def event(self, space: str, job: str, token: str, data: bytes) -> RenewedLease:
        """A custom event (JSON). Refusals as `call`; space_full, unavailable when Redis is almost full."""
        return await self._renewing(space, WorkerCall("event", job, token, data))

    async def keepalive(self, space: str, job: str, token: str) -> RenewedLease:
        """The lease anew. Refusals as `call`."""
        return await self._renewing(space, WorkerCall("keepalive", job, token, None))

    async def complete(self, space: str, job: str, token: str, result: bytes) -> str:
        """The job is done, with a result (JSON); its new status. Refusals as `call`."""
        return str(await self.call(space, WorkerCall("complete", job, token, result)))

    async def fail(
        self,
        space: str,
        job: str,
        token: str,
        error: bytes,
        *,
        may_retry: bool,
        delay_ms: int | None = None,
        claim: bool = False,
    ) -> FailedAttempt:
        """The attempt failed, as a Failure says. A claim that is repeated with the same token is answered again.

        Refusals as `call`; invalid_request for a claim of a retry that waits.
        """
        failure = Failure(error, may_retry, delay_ms, claim)
        failed: FailedAttempt = await self.call(space, WorkerCall("fail", job, token, failure))
        return failed

    async def release(self, space: str, job: str, token: str, reason: bytes, delay_ms: int = 0) -> ReleasedJob:
        """The job goes back, as a Release says. Repeated with the same token it is answered again while nobody took it.

        Refusals as `call`.
        """
        released: ReleasedJob = await self.call(space, WorkerCall("release", job, token, Release(reason, delay_ms)))
        return released

    async def call(self, space: str, call: WorkerCall) -> Any:
        """One call; what VerbScript.outcome says of it. Atomic.

        Refusals: job_not_found, lease_lost, invalid_state.
        """
        verb = VERB_SCRIPTS[call.verb]
        if verb.is_new:
            await self._headroom.require(len(call.request), self._keys.space(space))
        if not is_ulid(call.job):
            raise job_not_found()
        words = [call.job, call.token, *verb.words(call.request, self._bounds)]
        reply = await self._scripts.run(f"job_{call.verb}", [self._keys.space(space)], words)
        effects = Effects()
        outcome = verb.outcome(reply, effects)
        self._tell(space, effects)
        return outcome

    async def calls(self, space: str, calls: Sequence[WorkerCall]) -> list[Any]:
        """Many calls about jobs of one space, in their order; for each what `call` returns, or the exception it raises.

        Each is atomic, all of them together are not: they go in scripts of at most 100 calls and about 1 MiB. Where a
        script has no outcome (an Outage), that is the outcome of each of its calls, and the next ones are sent on.
        """
        outcomes: list[Any] = []
        effects = Effects()
        try:
            for some in _scripts_of(calls):
                outcomes += await self._calls_at_once(space, some, effects)
        finally:
            self._tell(space, effects)
        return outcomes

    async def _calls_at_once(self, space: str, calls: Sequence[WorkerCall], effects: Effects) -> list[Any]:
        """What one script is called for."""
        outcomes: list[Any] = [None] * len(calls)
        space_key, tag = self._keys.space(space), space_tag_of(space)
        words: list[Word] = []
        sent: list[tuple[int, VerbScript]] = []
        for index, (name, job, token, request) in enumerate(calls):
            verb = VERB_SCRIPTS[name]
            if verb.is_new:
                try:
                    await self._headroom.require(len(request), space_key)
                except Outage as outage:
                    outcomes[index] = outage
                    continue
            if not is_ulid(job) or space_tag_of(job) != tag:
                outcomes[index] = job_not_found()
                continue
            more = verb.words(request, self._bounds)
            words += (name, len(more) + 2, job, token, *more)
            sent.append((index, verb))
        if not sent:
            return outcomes
        try:
            replies = await self._scripts.run("job_calls", [space_key], words)
        except (Outage, RedisFault) as error:
            for index, _ in sent:
                outcomes[index] = error
            return outcomes
        for (index, verb), reply in zip(sent, replies, strict=True):
            outcomes[index] = verb.outcome(reply[1:], effects) if reply[0] == b"ok" else refusal("job_calls", reply)
        return outcomes

    async def _renewing(self, space: str, call: WorkerCall) -> RenewedLease:
        renewed: RenewedLease = await self.call(space, call)
        return renewed

    # Whom it is told

    def _now_ms(self, space: str) -> int:
        """The clock of the server that has the space."""
        return self._clock.now_ms(self._keys.space(space))

    def _tell(self, space: str, effects: Effects) -> None:
        """Count what changed, and hint at what is due."""
        for event, count in effects.transitions.items():
            catalog.count_transitions(event, count)
        if effects.due_ms is not None:
            self._hint_due(space, effects.due_ms)
        if effects.any_ended:
            self._hint_ended(space, effects.callback_due_ms)

    def _hint_due(self, space: str, at_ms: int) -> None:
        """Tell the sweeper of what is newly due in a space. Renewals need not: they only make things later."""
        self._due.hint_soon(space, at_ms)

    def _hint_ended(self, space: str, callback_due_ms: int | None) -> None:
        """Tell of the callback, and the sweeper of when it has first to look at a job that ended now."""
        self._hint_callback(space, callback_due_ms)
        self._hint_due(space, self._now_ms(space) + min(LOG_REST_MS, self._retention_ms))

    def _hint_callback(self, space: str, due_ms: int | None) -> None:
        """Tell the callbacks processes that one is due, if one is; a hint that is lost is made good within 30 s."""
        if due_ms is not None:
            self._due_callbacks.hint_soon(space, due_ms)


def _scripts_of(calls: Sequence[WorkerCall]) -> Iterator[Sequence[WorkerCall]]:
    """The calls in their order, in pieces that a script does within some ms; each has at least one."""
    start = size_bytes = 0
    for index, call in enumerate(calls):
        more_bytes = request_bytes(call.request) + len(call.token)
        if index > start and (index - start == CALLS_SCRIPT or size_bytes + more_bytes > CALLS_SCRIPT_BYTES):
            yield calls[start:index]
            start, size_bytes = index, 0
        size_bytes += more_bytes
    if start < len(calls):
        yield calls[start:]


def _delivered(item: Sequence[Any]) -> Delivered:
    id_, token, name, payload, timeout_s, max_retries, attempt, created_ms, checkpoint, trace, lease_end_ms = item
    return Delivered(
        id_.decode(),
        token.decode(),
        name,
        payload,
        int(timeout_s),
        int(max_retries),
        int(attempt),
        int(created_ms),
        checkpoint,
        trace,
        lease_end_ms,
    )
