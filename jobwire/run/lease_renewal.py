"""The lease of one delivered job: kept alive, and watched for its loss.

Owns one thread that renews the lease at a third of its length (and at least every few seconds, for a renewal is also
how a kill is noticed). An outage is waited out, since only the service can say that the lease is gone. Says at most
once that the job is no longer ours, and why.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from .. import exit_codes
from ..api.backoff import Backoff
from ..api.jobs import Jobs
from ..errors import InvalidState, LeaseLost, Outage, Refused

LONGEST_INTERVAL_S = 5.0


class Loss(NamedTuple):
    """Why a job is no longer ours, and the exit code that says so.

    `job_status` is what the job is by now, "" if that was not told; `has_lapsed` whether our own lease can have ended
    before, because no renewal got through in its time.
    """

    exit_code: int
    reason: str
    job_status: str = ""
    has_lapsed: bool = False


class Lease:
    """Renews from `start` to `stop`; `on_loss` is called on its thread."""

    def __init__(
        self, jobs: Jobs, job_id: str, token: str | None, timeout_s: float, on_loss: Callable[[Loss], None]
    ) -> None:
        self.token = token
        self._jobs = jobs
        self._job_id = job_id
        self._interval_s = min(timeout_s / 3, LONGEST_INTERVAL_S)
        self._timeout_s = timeout_s
        self._renewed_at_s = time.monotonic()
        self._on_loss = on_loss
        self._stopped = False
        self._hurried = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="jobwire-lease", daemon=True)

    @property
    def has_lapsed(self) -> bool:
        """Whether the lease can have ended, because no renewal got through in its time."""
        return time.monotonic() - self._renewed_at_s > self._timeout_s

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Renew no more. Does not wait for a renewal that is under way; its answer no longer matters."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def check(self) -> None:
        """Renew at once: something hints that the job is no longer ours."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def _renew_until_stopped(self) -> None:
        backoff = Backoff(most_s=self._interval_s)
        pause_s = self._interval_s
        while self._wait(pause_s):
            try:
                self._jobs.keepalive(self._job_id, self.token)
                self._renewed_at_s = time.monotonic()
                backoff.reset()
                pause_s = self._interval_s
            except Outage as outage:
                pause_s = backoff.pause_s(outage)
            except Refused as refusal:
                self._lost(refusal)
                return

    def _wait(self, seconds: float) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._hurried, seconds)
            self._hurried = False
            return not self._stopped

    def _lost(self, refusal: Refused) -> None:
        with self._changed:
            if self._stopped:
                return
            self._stopped = True
        self._on_loss(loss_of(refusal)._replace(has_lapsed=self.has_lapsed))


def loss_of(refusal: Refused) -> Loss:
    """What a refused worker's call says about the job."""
    if isinstance(refusal, InvalidState):
        if refusal.job_status == "killed":
            return Loss(exit_codes.KILLED, "the job was killed", "killed")
        status = refusal.job_status
        return Loss(exit_codes.LEASE_LOST, f"the job is {status or 'in another state'} by now", status)
    if isinstance(refusal, LeaseLost):
        return Loss(exit_codes.LEASE_LOST, "the lease ran out, and the job was given to somebody else")
    return Loss(exit_codes.code_of(refusal), f"the server refused: {refusal}")
