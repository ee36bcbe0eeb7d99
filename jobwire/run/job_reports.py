"""What a job's server is told besides its lines: that it begins, that it is alive, how its attempts ended.

Owns one thread, the lease, and the order of these calls: created, begun, each failed attempt, the end. An outage is
waited out without end while the command runs on; what could not be told waits here, and `left` hands it over. Nothing
is done twice: create has an Idempotency-Key, ack and complete are repeatable, a fail that claims the next attempt is
answered again, and before any other fail whose outcome is unknown is repeated the job is asked what became of it.

A lease that lapsed while nobody could be told is taken up again: a job that waits for a worker is claimed anew, one
that ended by it can be told nothing more, but its command may go on. A job that somebody else has by now is lost.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from ..api.backoff import Backoff
from ..api.jobs import Jobs
from ..api.response_structs import Appended, Job
from ..errors import InvalidState, JobwireError, LeaseLost, NotDone, Outage, OutcomeUnknown, Refused
from .lease_renewal import Lease, Loss, loss_of


class End(NamedTuple):
    """How an attempt ended: well with a `result`, or with an `error`, and whether this program runs the next one."""

    result: dict[str, Any] | None = None
    error: str | None = None
    retry: bool = False


class Order(NamedTuple):
    """The job to be created: the members of the create, in snake_case, and its Idempotency-Key."""

    key: str
    fields: dict[str, Any]

    @property
    def timeout_s(self) -> int:
        return int(self.fields["timeout_seconds"])

    def create(self, jobs: Jobs) -> Job:
        """Create it, once however often this is called."""
        return jobs.create(idempotency_key=self.key, **self.fields)


class Courier:
    """Works from `start` to `stop`. Called on its threads: `on_created` once, `on_loss` at most once, `on_outage`.

    `job` is the one that was created already, None for one that is still to be created. `is_late`: the command ended
    long ago, so that any lease of it may have lapsed.
    """

    def __init__(
        self,
        jobs: Jobs,
        order: Order,
        job: Job | None,
        *,
        on_created: Callable[[Job], None],
        on_loss: Callable[[Loss], None],
        notice: Callable[[str], None],
        is_late: bool = False,
    ) -> None:
        self._is_late = is_late
        self._jobs = jobs
        self._order = order
        self._on_created = on_created
        self._on_loss = on_loss
        self._notice = notice
        self._changed = threading.Condition()
        self._untold: deque[End] = deque()
        self._lease: Lease | None = None
        self._has_begun = self._stopped = self._is_unsure = self._is_telling = False
        self._lapsed_as = ""
        self.job = job
        self.token = job.lease_token if job else None
        self.outage: Outage | None = None
        self.is_over = False
        """Nothing more can be told: the job has ended, or was lost."""
        self._thread = threading.Thread(target=self._work, name="jobwire-courier", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Tell no more; does not wait for a call that is under way."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._let_go()

    def tell(self, end: End) -> None:
        """Tell this, after what waits already."""
        with self._changed:
            self._untold.append(end)
            self._changed.notify_all()

    def told(self, timeout_s: float) -> bool:
        """Wait until all is told, or nothing more can be."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_over or not self._untold, timeout_s)

    def begun(self, timeout_s: float) -> bool:
        """Wait until the server knows that the command runs; False when it could not be told in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_over or self._has_begun, timeout_s) and not self.is_over

    def check(self) -> None:
        """Renew the lease at once: something hints that the job is no longer ours."""
        lease = self._lease
        if lease is not None:
            lease.check()

    def left(self) -> list[End]:
        """What was not told."""
        with self._changed:
            return list(self._untold)

    def append_logs(self, job_id: str, ndjson: bytes, idempotency_key: str | None = None) -> Appended:
        """As `Jobs` does it, once there is a job."""
        if self.job is None:
            raise NotDone("The job could not be created yet.")
        return self._jobs.append_logs(self.job.id, ndjson, idempotency_key)

    # --- on the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        backoff = Backoff()
        while not self._stopped and not self.is_over:
            try:
                self._step()
                backoff.reset()
                self.outage = None
            except Outage as outage:
                self.outage = outage
                with self._changed:
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._stopped, backoff.pause_s(outage))
            except Refused as refusal:
                lapsed = self._lease is not None and self._lease.has_lapsed
                self._see_loss(loss_of(refusal)._replace(has_lapsed=lapsed))
            except JobwireError as error:
                self._lost(Loss(1, str(error)))

    def _step(self) -> None:
        if self.job is None:
            self._hold(self._order.create(self._jobs))
        elif self._lapsed_as == "pending":
            self._claim_anew(self.job)
        elif not self._has_begun:
            self._begin(self.job)
        elif self._untold:
            self._tell(self.job, self._untold[0])
        else:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._untold or self._lapsed_as)

    def _hold(self, job: Job) -> None:
        self.token, self.job = job.lease_token, job
        self._on_created(job)

    def _begin(self, job: Job) -> None:
        if self._lease is None:
            self._lease = Lease(self._jobs, job.id, self.token, self._order.timeout_s, self._see_loss)
            self._lease.start()
        self._jobs.ack(job.id, self.token)
        with self._changed:
            self._has_begun = True
            self._changed.notify_all()

    def _tell(self, job: Job, end: End) -> None:
        self._is_telling = True
        if end.error is None:
            self._jobs.complete(job.id, end.result, self.token)
            self._note_told(is_over=True)
            return
        token = self._fail(job, end, end.error)
        if token is not None:
            self._let_go()
            self.token, self._has_begun = token, False
        self._note_told(is_over=token is None)

    def _fail(self, job: Job, end: End, error: str) -> str | None:
        """The lease token of the next attempt; None if there is none."""
        try:
            if self._is_unsure and not end.retry and self._jobs.get(job.id).status == "dead":
                return None
            done = self._jobs.fail(job.id, error, retry=end.retry, claim=end.retry, lease_token=self.token)
        except OutcomeUnknown:
            self._is_unsure = True
            raise
        except (LeaseLost, InvalidState):
            if self._is_unsure and self._jobs.get(job.id).status == "dead":
                return None
            raise
        self._is_unsure = False
        if done.will_retry and done.lease_token is None:
            return self._jobs.claim(job.id).lease_token
        return done.lease_token if done.will_retry else None

    def _note_told(self, *, is_over: bool) -> None:
        with self._changed:
            self._untold.popleft()
            self.is_over = self.is_over or is_over
            self._is_telling = False
            self._changed.notify_all()
        if is_over:
            self._let_go()

    def _let_go(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.stop()

    def _see_loss(self, loss: Loss) -> None:
        """On this thread, or on that of the lease, which may learn of an end that we tell before its answer is here."""
        if (self._is_telling or self.is_over) and threading.current_thread() is not self._thread:
            return
        loss = loss._replace(has_lapsed=loss.has_lapsed or self._is_late)
        if loss.has_lapsed and loss.job_status == "pending":
            with self._changed:
                self._lapsed_as = loss.job_status
                self._changed.notify_all()
        else:
            self._lost(loss)

    def _claim_anew(self, job: Job) -> None:
        self._let_go()
        self.token = self._jobs.claim(job.id).lease_token
        self._lapsed_as, self._has_begun = "", False
        self._notice("the lease had run out while the server was away; the job is ours again")

    def _lost(self, loss: Loss) -> None:
        with self._changed:
            self.is_over = True
            self._changed.notify_all()
        if loss.job_status == "dead" and loss.has_lapsed:
            self._notice("the lease ran out while the server was away, and the job ended: its end cannot be told")
            return
        self._on_loss(loss)
