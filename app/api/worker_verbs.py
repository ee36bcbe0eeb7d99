"""A worker's calls about its jobs, verb by verb: what a body asks for, and how an outcome is answered.

Owns: the scope, the size and the reading of the body of each verb, and its answer: the same for a call of its own and
for one of a batch. Never: calls a store.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import msgspec

from app.api.body_reading import check_json, decode_body
from app.api.request_schemas import (
    FAIL_BODY,
    PROGRESS_BODY,
    RELEASE_BODY,
    FailRequest,
    ReleaseRequest,
    check_text,
    cut_text,
    decode_or_default,
)
from app.api.response_schemas import Ended, Failed, Released
from app.jobs.job_records import FailedAttempt, Failure, Release, ReleasedJob, RenewedLease
from app.jobs.keys_and_scopes import Identity
from app.model.errors import invalid
from app.model.limits import CHECKPOINT_BYTES, EVENT_BYTES, IGNORED_BYTES, PROGRESS_BYTES, RESULT_BYTES, TEXT_BODY_BYTES
from app.model.times import rfc3339

BLANKS = b" \t\r\n"


class WorkerVerb(NamedTuple):
    """One verb. A call that goes through is answered with 200."""

    name: str
    scope: str
    limit_bytes: int
    """How long a body may be."""
    request: Callable[[bytes, Identity], Any]
    """What a body of the caller asks for: the request of a WorkerCall.

    Refusals: invalid_json, invalid_request, too_large, missing_scope.
    """
    answer: Callable[[Any], bytes]
    """The JSON of an outcome."""


def _nothing(body: bytes, _: Identity) -> None:
    if body.strip():
        check_json(body)


def _progress(body: bytes, _: Identity) -> bytes:
    return msgspec.json.encode(decode_body(PROGRESS_BODY, body))


def _checkpoint(body: bytes, _: Identity) -> bytes:
    text = body.strip(BLANKS)
    check_json(text)
    if text[:1] != b"{":
        raise invalid("A checkpoint is a JSON object.")
    return text


def _any_json(body: bytes, _: Identity) -> bytes:
    text = body.strip(BLANKS) or b"null"
    check_json(text)
    return text


def _failure(body: bytes, caller: Identity) -> Failure:
    request: FailRequest = decode_or_default(FAIL_BODY, body)
    if request.claim:
        caller.require("jobs:poll")
    error = None if request.error is None else cut_text(request.error)
    delay_ms = None if request.retry_after_seconds is None else round(request.retry_after_seconds * 1000)
    return Failure(msgspec.json.encode(error), request.retry is not False, delay_ms, bool(request.claim))


def _release(body: bytes, _: Identity) -> Release:
    request: ReleaseRequest = decode_or_default(RELEASE_BODY, body)
    check_text(request.reason, "reason")
    return Release(msgspec.json.encode(request.reason), round((request.delay_seconds or 0) * 1000))


def renewed_answer(done: RenewedLease) -> bytes:
    """Written by hand, for it is the answer that is sent most."""
    end = f'"{rfc3339(done.lease_end_ms)}"' if done.lease_end_ms is not None else "null"
    return f'{{"success":true,"status":"{done.status}","timeoutAt":{end}}}'.encode()


@cache
def _ended_answer(status: str) -> bytes:
    return msgspec.json.encode(Ended(status))


def _failed_answer(done: FailedAttempt) -> bytes:
    answer = Failed(done.status, done.will_retry, done.attempt)
    if done.lease_end_ms is not None:
        answer.lease_token, answer.timeout_at = done.token, rfc3339(done.lease_end_ms)
    return msgspec.json.encode(answer)


def _released_answer(done: ReleasedJob) -> bytes:
    return msgspec.json.encode(Released(done.status, done.attempt))


WORKER_VERBS = {
    verb.name: verb
    for verb in (
        WorkerVerb("ack", "jobs:ack", IGNORED_BYTES, _nothing, renewed_answer),
        WorkerVerb("progress", "jobs:progress", PROGRESS_BYTES, _progress, renewed_answer),
        WorkerVerb("checkpoint", "jobs:event", CHECKPOINT_BYTES, _checkpoint, renewed_answer),
        WorkerVerb("event", "jobs:event", EVENT_BYTES, _any_json, renewed_answer),
        WorkerVerb("keepalive", "jobs:keepalive", IGNORED_BYTES, _nothing, renewed_answer),
        WorkerVerb("complete", "jobs:complete", RESULT_BYTES, _any_json, _ended_answer),
        WorkerVerb("fail", "jobs:fail", RESULT_BYTES, _failure, _failed_answer),
        WorkerVerb("release", "jobs:fail", TEXT_BODY_BYTES, _release, _released_answer),
    )
}
"""By name, as paths and batches have it."""
