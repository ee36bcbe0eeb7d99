"""POST /spaces/:spaceId/calls: many calls of a worker in one request, each answered as if it had come alone.

Owns: how a batch is read, and how its answer is put together. What a verb's body asks for, and how an outcome is
answered, is said in app/api/worker_verbs.py, for calls alone and in batches.

Always: what is wrong with the batch refuses it before anything is done; what is wrong with one call refuses that call.
"""

from collections.abc import Sequence

import msgspec
from starlette.types import Scope

from app.api.body_reading import body_too_large, check_json, decode_body
from app.api.call import Call
from app.api.error_answers import bug_answer, error_answer
from app.api.request_schemas import AT_ONCE_BYTES, CALL_BODY, CALLS_BODY, CallEntry, decode_element
from app.api.responses import Answer
from app.api.worker_verbs import WORKER_VERBS
from app.jobs.job_store import JobStore
from app.jobs.keys_and_scopes import Identity
from app.jobs.worker_verbs import WorkerCall
from app.loop.turns import in_turns
from app.metrics import catalog
from app.model.errors import ApiError, Refusal, invalid, too_large
from app.model.json_items import array_elements
from app.model.limits import BATCH_BYTES, BATCH_CALLS, KIB, NESTING_MOST, UNIT_JOBS
from app.model.steps import Steps

CALL_ANSWER_BYTES = KIB
"""What the answer of a call has at most."""


class CallBatches:
    """The handler of batches of calls."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    async def calls(self, call: Call) -> Answer:
        """POST /spaces/:spaceId/calls"""
        entries = await in_turns(decode_calls_steps(await call.read_body(BATCH_BYTES)))
        await call.spend((len(entries) - 1) // UNIT_JOBS)
        call.require_room(len(entries) * CALL_ANSWER_BYTES)  # else nobody could be told what was done
        read = await in_turns(read_calls_steps(entries, call.identity))
        wanted = [one for one in read if isinstance(one, WorkerCall)]
        outcomes = await self._store.calls(call.space, wanted)
        answers = await in_turns(answer_calls_steps(call.scope, read, outcomes))
        return Answer(200, b"[" + b",".join(answers) + b"]")


def decode_calls_steps(body: bytes) -> Steps[list[CallEntry]]:
    """The calls of a batch. Refusals: invalid_json; invalid_request and too_large, with `index`."""
    entries: list[CallEntry] = []
    is_array = body.lstrip()[:1] == b"["
    if len(body) <= AT_ONCE_BYTES or not is_array:
        if not is_array and len(body) <= AT_ONCE_BYTES:
            check_json(body)  # that it is no JSON is told before that it is no array
        entries = decode_body(CALLS_BODY, body, nesting=False)
    else:
        entries = yield from _large_batch_steps(body)
    if not entries:
        raise invalid("An array of calls holds at least one.")
    if len(entries) > BATCH_CALLS:
        raise _too_many()
    return entries


def _large_batch_steps(body: bytes) -> Steps[list[CallEntry]]:
    """The calls of a body of up to 8 MiB, one in a step."""
    entries: list[CallEntry] = []
    try:
        for text in array_elements(body, len(body)):
            if len(entries) == BATCH_CALLS:
                raise _too_many()
            yield
            entries.append(decode_element(CALL_BODY, text, {"index": len(entries)}))
    except RecursionError:
        raise Refusal("invalid_json", f"The body is nested deeper than {NESTING_MOST}.") from None
    except msgspec.DecodeError as error:
        raise Refusal("invalid_json", f"The body is not JSON: {error}.") from None
    return entries


def _too_many() -> Refusal:
    return too_large(f"An array of calls holds at most {BATCH_CALLS}.", "calls", BATCH_CALLS, index=BATCH_CALLS)


def read_calls_steps(entries: Sequence[CallEntry], caller: Identity) -> Steps[list[WorkerCall | ApiError]]:
    """What each call asks for, or why it is refused; one in a step."""
    read: list[WorkerCall | ApiError] = []
    for entry in entries:
        verb = WORKER_VERBS[entry.verb]
        try:
            caller.require(verb.scope)
            body = bytes(entry.body)
            if len(body) > verb.limit_bytes:
                raise body_too_large(verb.limit_bytes)
            request = verb.request(b"" if body == b"null" else body, caller)
            read.append(WorkerCall(entry.verb, entry.job_id, entry.lease_token or "", request))
        except ApiError as refusal:
            read.append(refusal)
        yield
    return read


def answer_calls_steps(
    scope: Scope, read: Sequence[WorkerCall | ApiError], outcomes: Sequence[object]
) -> Steps[list[bytes]]:
    """What each call is answered, one in a step; `outcomes` are of those that were not refused, in their order."""
    answers, left = [], iter(outcomes)
    for one in read:
        answers.append(_answer(scope, one.verb, next(left)) if isinstance(one, WorkerCall) else _refused(one))
        yield
    return answers


def _answer(scope: Scope, verb: str, outcome: object) -> bytes:
    if not isinstance(outcome, Exception):
        return _entry(200, WORKER_VERBS[verb].answer(outcome))
    if isinstance(outcome, ApiError):
        return _refused(outcome)
    failed = bug_answer(scope, outcome)
    return _entry(failed.status, failed.body)


def _refused(error: ApiError) -> bytes:
    catalog.count_refusal(error.code, error.more.get("limit", ()))
    answer = error_answer(error)
    return _entry(answer.status, answer.body)


def _entry(status: int, body: bytes) -> bytes:
    return b'{"status":%d,"body":%b}' % (status, body)
