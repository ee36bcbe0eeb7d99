"""For those who make jobs: create, kill, retry, delete."""

import hashlib

import msgspec

from app.api.body_reading import decode_body
from app.api.call import Call
from app.api.request_log import traceparent_of
from app.api.request_schemas import (
    BULK_RETRY_BODY,
    KILL_BODY,
    BulkRetryRequest,
    check_callbacks_steps,
    check_text,
    decode_jobs_steps,
    decode_or_default,
    whole_number,
)
from app.api.response_schemas import BulkRetried, Ended, created_answer
from app.api.responses import NO_CONTENT, Answer, json_answer
from app.jobs.bulk_retry import BulkRetries
from app.jobs.deletion_and_retention import Deletion
from app.jobs.job_store import JobStore
from app.loop.turns import in_turns
from app.model.errors import job_not_found
from app.model.job import NO_SPACE
from app.model.limits import BATCH_BYTES, KIB, TEXT_BODY_BYTES, UNIT_JOBS
from app.model.steps import exhaust
from app.settings import Settings
from app.webhooks.forbidden_addresses import parse_networks

REPLAYED = (b"idempotency-replayed", b"true")
SHORT_BYTES = 4096
"""A body up to this size is decoded within a millisecond, whatever it holds."""


class ProducerHandlers:
    """The handlers of a job's beginning, and of its end by somebody else than its worker."""

    def __init__(self, store: JobStore, bulk_retries: BulkRetries, deletion: Deletion, settings: Settings) -> None:
        self._store = store
        self._bulk_retries = bulk_retries
        self._deletion = deletion
        self._allowed = parse_networks(settings.callback_allow)
        self._public_url = settings.public_url.rstrip("/")

    async def create(self, call: Call) -> Answer:
        """POST /spaces/:spaceId/jobs"""
        body = await call.read_body(BATCH_BYTES)
        idem_key = call.idempotency_key()
        steps = decode_jobs_steps(body)
        jobs, many = exhaust(steps) if len(body) <= SHORT_BYTES else await in_turns(steps)
        if any(job.callback_url for job in jobs):
            await in_turns(check_callbacks_steps(jobs, self._allowed, many=many))
        if any(job.claim for job in jobs):
            call.identity.require("jobs:poll")
        await call.spend((len(jobs) - 1) // UNIT_JOBS)
        digest = hashlib.sha256(body).hexdigest() if idem_key else ""
        trace = traceparent_of(call.headers)
        created = await self._store.create(call.space, jobs, idem_key=idem_key, digest=digest, trace=trace)
        base = self._realtime(call)
        answers = [
            created_answer(call.space, job, id_, token, at_ms=created.at_ms, realtime_url=base + id_, trace=trace)
            for job, id_, token in zip(jobs, created.ids, created.tokens, strict=True)
        ]
        return json_answer(answers if many else answers[0], 201, (REPLAYED,) if created.replayed else ())

    async def kill(self, call: Call) -> Answer:
        """POST /jobs/:jobId/kill"""
        request = decode_or_default(KILL_BODY, await call.read_body(TEXT_BODY_BYTES))
        check_text(request.reason, "reason")
        reason = msgspec.json.encode(request.reason)
        status = await self._store.kill(call.space, call.job, call.lease_token, reason)
        return json_answer(Ended(status))

    async def retry(self, call: Call) -> Answer:
        """POST /jobs/:jobId/retry"""
        await call.skip_body()
        return json_answer(Ended(await self._store.retry(call.space, call.job, call.lease_token)))

    async def bulk_retry(self, call: Call) -> Answer:
        """POST /spaces/:spaceId/jobs/retry"""
        request: BulkRetryRequest = decode_body(BULK_RETRY_BODY, await call.read_body(8 * KIB))
        done = await self._bulk_retries.run(
            call.space, request.selection(), whole_number(request.limit, 1000), call.spend
        )
        return json_answer(BulkRetried(done.jobs, done.more))

    async def delete(self, call: Call) -> Answer:
        """DELETE /jobs/:jobId"""
        if call.space == NO_SPACE:
            raise job_not_found()
        await self._deletion.delete_job(call.space, call.job)
        return NO_CONTENT

    def _realtime(self, call: Call) -> str:
        """Where a job's stream is, without the job's id: absolute, and a WebSocket's."""
        base = self._public_url
        if not base:
            host = call.get_header(b"host") or "{}:{}".format(*(call.scope.get("server") or ("127.0.0.1", 80)))
            base = f"{call.scope.get('scheme', 'http')}://{host}"
        scheme, _, rest = base.partition("://")
        return f"{'wss' if scheme in ('https', 'wss') else 'ws'}://{rest}/api/v1/realtime/"
