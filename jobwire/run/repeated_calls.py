"""Calls that must get through: repeated over outages until they are answered, refused, or patience ends.

Owns the rule for each verb of how it may be repeated. Create carries an Idempotency-Key; ack and complete are
repeatable by contract; before a fail or a claim whose outcome is unknown is repeated, the job is asked what became of
it. Nothing here is ever done twice.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ..api.backoff import Backoff
from ..api.jobs import Jobs
from ..api.response_structs import Delivery, Failure, Job, Renewal
from ..errors import InvalidState, LeaseLost, NotDone, Outage, OutcomeUnknown

_Answered = TypeVar("_Answered")

# Waits that many seconds; whether to go on trying afterwards.
Wait = Callable[[float], bool]


class Insistence:
    """Repeats calls for at most `patience_s` after each first failure. `wait` may end it early.

    Raises the last `Outage` when patience ends, and every `Refused` at once.
    """

    def __init__(self, jobs: Jobs, *, patience_s: float, wait: Wait) -> None:
        self._jobs = jobs
        self._patience_s = patience_s
        self._wait = wait

    def create(self, name: str, **fields: Any) -> Job:
        """Create one job, once."""
        key = secrets.token_hex(16)
        return self.repeated(lambda: self._jobs.create(name, idempotency_key=key, **fields))

    def ack(self, job_id: str, token: str | None) -> Renewal:
        return self.repeated(lambda: self._jobs.ack(job_id, token))

    def complete(self, job_id: str, result: Any, token: str | None) -> Renewal:
        return self.repeated(lambda: self._jobs.complete(job_id, result, token))

    def fail(self, job_id: str, attempt_number: int, error: str, token: str | None, *, retry: bool) -> Failure:
        """Fail this very attempt, once."""
        unsure = False

        def fail_once() -> Failure:
            nonlocal unsure
            if unsure and (done := _failure_seen(self._jobs.get(job_id), attempt_number)):
                return done
            try:
                return self._jobs.fail(job_id, error, retry=retry, lease_token=token)
            except OutcomeUnknown:
                unsure = True
                raise
            except (LeaseLost, InvalidState):
                if unsure and (done := _failure_seen(self._jobs.get(job_id), attempt_number)):
                    return done
                raise

        return self.repeated(fail_once)

    def claim(self, job_id: str, lease_s: float) -> Delivery:
        """Take the job. If the answer to a claim was lost, its lease is left to lapse, and the job is claimed again."""
        unsure = False

        def claim_once() -> Delivery:
            nonlocal unsure
            try:
                return self._jobs.claim(job_id)
            except OutcomeUnknown:
                unsure = True
                raise
            except InvalidState as refusal:
                if unsure and refusal.job_status == "delivered":
                    raise NotDone(str(refusal)) from refusal
                raise

        return self.repeated(claim_once, more_patience_s=lease_s)

    def repeated(self, call: Callable[[], _Answered], more_patience_s: float = 0.0) -> _Answered:
        """The answer of a call that may be repeated as it is."""
        backoff = Backoff()
        deadline_s = time.monotonic() + self._patience_s + more_patience_s
        while True:
            try:
                return call()
            except Outage as outage:
                pause_s = backoff.pause_s(outage)
                if time.monotonic() + pause_s > deadline_s or not self._wait(pause_s):
                    raise


def _failure_seen(job: Job, attempt_number: int) -> Failure | None:
    """What the job shows of a fail whose answer was lost; None while the attempt still runs."""
    if job.status == "dead" or job.attempt_number > attempt_number:
        return Failure(status=job.status, will_retry=job.status != "dead", attempt_number=job.attempt_number)
    return None
