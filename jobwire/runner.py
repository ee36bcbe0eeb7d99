"""`run`: a command as a job, from its creation to its end.

Owns the order of things: the job is created already claimed; the command runs while its lease is kept and its output
is shipped; all lines are stored before the end is reported; the end is what really happened. Whatever takes the job
away (a kill, a lost lease, a revoked key) stops the command. Nothing of the environment goes into the job.
"""

from __future__ import annotations

import os
import platform
import queue
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from . import exits
from .child import Child
from .errors import Outage, Refused
from .interrupts import routed_to
from .jobs import Jobs
from .lease import Lease, Loss, loss_of
from .lines import LineSplitter
from .record import Job
from .settle import Insistence
from .shipper import CAPACITY_BYTES, LogShipper, ShipperStopped

_COMMAND_LIMIT = 64 * 1024
_SLICE_S = 0.2
_LEVELS = {"stdout": "info", "stderr": "warn"}

Mirror = Callable[[str, bytes], None]
Notice = Callable[[str], None]


class Options(NamedTuple):
    """How to run; `patience_s` is how long an absent server is waited for when nothing else is left to do."""

    name: str
    retries: int = 0
    timeout_s: int = 300
    patience_s: float = 300.0
    start_patience_s: float = 10.0
    kill_grace_s: float = 10.0
    capacity_bytes: int = CAPACITY_BYTES


class _Exited(NamedTuple):
    outcome: int | Exception


class _Signal(NamedTuple):
    number: int


class _Ended(NamedTuple):
    """One attempt's end: the exit code as a shell shows it, and the error to report (None: it went well)."""

    exit_code: int
    error: str | None
    duration_ms: int
    may_retry: bool
    loss: Loss | None = None


class Runner:
    """Runs one command as one job. `mirror` gets the command's bytes as they come, `notice` sentences for a person.

    The command's environment is `environ` (ours by default) with JOBWIRE_JOB and JOBWIRE_LEASE_TOKEN, so that it can
    report progress or log by itself.
    """

    def __init__(
        self,
        jobs: Jobs,
        command: Sequence[str],
        options: Options,
        *,
        mirror: Mirror,
        notice: Notice,
        on_created: Callable[[Job], None] = lambda job: None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._jobs = jobs
        self._command = command
        self._options = options
        self._mirror = mirror
        self._notice = notice
        self._on_created = on_created
        self._environ = os.environ if environ is None else environ
        self._events: queue.SimpleQueue[_Exited | _Signal | Loss] = queue.SimpleQueue()
        self._insist = Insistence(jobs, patience_s=options.patience_s, wait=self._wait)
        self._lease: Lease | None = None
        self._is_refused = False
        self._has_waited = False

    def run(self) -> int:
        """Run it, all attempts; returns the exit code. Raises `JobwireError` only if there never was a job."""
        job = self._create()
        with routed_to(lambda number: self._events.put(_Signal(number))):
            self._on_created(job)
            self._shipper = LogShipper(
                self._jobs,
                job.id,
                capacity_bytes=self._options.capacity_bytes,
                on_answer=self._see_status,
                on_outage=self._tell_outage,
            )
            try:
                return self._run_attempts(job)
            except Outage as outage:
                self._notice(f"giving up: {outage} {self._shipper.unsent_lines} lines and the end were not delivered")
                return exits.UNAVAILABLE
            except Refused as refusal:
                loss = loss_of(refusal)
                self._notice(f"{loss.reason}: its end was not reported")
                return loss.exit_code
            finally:
                self._let_go()
                self._shipper.close(0)

    def _create(self) -> Job:
        insist = Insistence(self._jobs, patience_s=self._options.start_patience_s, wait=self._wait_for_a_server)
        return insist.create(
            self._options.name,
            payload=payload_of(self._command),
            max_retries=self._options.retries,
            timeout_seconds=self._options.timeout_s,
            claim=True,
        )

    def _wait_for_a_server(self, seconds: float) -> bool:
        if not self._has_waited:
            self._notice("no server answers; waiting for one")
        self._has_waited = True
        time.sleep(seconds)
        return True

    def _run_attempts(self, job: Job) -> int:
        token, attempt_number = job.lease_token, job.attempt_number
        while True:
            ended = self._attempt(job.id, token)
            self._drain()
            self._let_go()
            if ended.loss is not None:
                self._notice(f"{ended.loss.reason}: the command was stopped")
                return ended.loss.exit_code
            if not self._report(job.id, attempt_number, ended, token):
                return ended.exit_code
            self._notice(f"{ended.error}: trying again")
            delivery = self._insist.claim(job.id, self._options.timeout_s)
            token, attempt_number = delivery.lease_token, delivery.attempt_number

    def _report(self, job_id: str, attempt_number: int, ended: _Ended, token: str | None) -> bool:
        """Tell the end; whether there will be another attempt."""
        if ended.error is None:
            result = {"exitCode": ended.exit_code, "durationMs": ended.duration_ms}
            self._insist.complete(job_id, result, token)
            return False
        return self._insist.fail(job_id, attempt_number, ended.error, token, retry=ended.may_retry).will_retry

    # --- one attempt -------------------------------------------------------------------------------------------------

    def _attempt(self, job_id: str, token: str | None) -> _Ended:
        self._lease = Lease(self._jobs, job_id, token, self._options.timeout_s, self._events.put)
        self._lease.start()
        self._insist.ack(job_id, token)
        started_s = time.monotonic()
        try:
            child = Child(
                self._command,
                env={**self._environ, "JOBWIRE_JOB": job_id, "JOBWIRE_LEASE_TOKEN": token or ""},
                sink=self._sink(),
                on_exit=lambda outcome: self._events.put(_Exited(outcome)),
            )
        except OSError as fault:
            return self._not_started(fault)
        returncode, interrupted_by, loss = self._supervise(child)
        duration_ms = round((time.monotonic() - started_s) * 1000)
        error = error_of(returncode, interrupted_by)
        code = exits.code_of_process(returncode)
        return _Ended(code, error, duration_ms, may_retry=interrupted_by is None, loss=loss)

    def _not_started(self, fault: OSError) -> _Ended:
        """A command that cannot be started now cannot be started by trying again."""
        code = exits.NOT_FOUND if isinstance(fault, FileNotFoundError) else exits.NOT_EXECUTABLE
        text = f"could not be started: {fault.strerror}"
        self._notice(f"{os.fsencode(self._command[0]).decode(errors='replace')}: {text}")
        return _Ended(code, text, 0, may_retry=False)

    def _supervise(self, child: Child) -> tuple[int, int | None, Loss | None]:
        """Wait for the end: (return code, the first signal handed on, why the job was lost)."""
        interrupted_by: int | None = None
        loss: Loss | None = None
        kill_at_s: float | None = None
        while True:
            try:
                event = self._events.get(timeout=None if kill_at_s is None else max(0.0, kill_at_s - time.monotonic()))
            except queue.Empty:
                child.kill()
                kill_at_s = None
                continue
            match event:
                case _Exited(outcome):
                    if loss is not None or isinstance(outcome, Exception):
                        child.kill()
                    if isinstance(outcome, Exception):
                        raise outcome
                    return outcome, interrupted_by, loss
                case _Signal(number):
                    child.signal(signal.SIGKILL if interrupted_by is not None else number)
                    interrupted_by = interrupted_by or number
                case Loss() if loss is None:
                    loss = event
                    kill_at_s = time.monotonic() + self._options.kill_grace_s
                    child.signal(signal.SIGTERM)
                    child.signal(signal.SIGCONT)

    def _sink(self) -> Callable[[str, bytes], None]:
        splitters = {name: LineSplitter(source=name, level=level) for name, level in _LEVELS.items()}

        def sink(name: str, chunk: bytes) -> None:
            splitter = splitters[name]
            if chunk:
                self._mirror(name, chunk)
            entries = splitter.feed(chunk) if chunk else splitter.end()
            if entries and not self._is_refused:
                try:
                    self._shipper.put(entries)
                except ShipperStopped as stopped:
                    self._is_refused = True
                    self._events.put(_loss_by(stopped))

        return sink

    # --- between and after attempts ----------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Wait until every line is stored. Raises the outage when patience ends or a signal ends it."""
        deadline_s = time.monotonic() + self._options.patience_s
        while not self._shipper.flush(_SLICE_S):
            if self._shipper.error is not None:
                return
            outage = self._shipper.outage
            if outage is not None and (self._was_signalled() or time.monotonic() > deadline_s):
                raise outage

    def _was_signalled(self) -> bool:
        return not self._wait(0)

    def _wait(self, seconds: float) -> bool:
        """Wait out an outage; a signal ends the waiting for good."""
        deadline_s = time.monotonic() + seconds
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                return True
            if isinstance(event, _Signal):
                return False

    def _let_go(self) -> None:
        if self._lease is not None:
            self._lease.stop()
            self._lease = None

    def _see_status(self, status: str) -> None:
        """On the shipping thread: an append is answered in any status, so it may be the first to show a kill."""
        lease = self._lease
        if lease is not None and status not in ("delivered", "running", ""):
            lease.check()

    def _tell_outage(self, away: bool) -> None:
        self._notice("the server is away; lines wait here" if away else "the server is back")


def payload_of(command: Sequence[str]) -> dict[str, Any]:
    """What the job shows of the command: its words (cut when endless), the folder, the host. Never the environment."""
    words: list[str] = []
    left = _COMMAND_LIMIT
    for word in command:
        shown = os.fsencode(word).decode(errors="replace")
        if len(shown) > left:
            words.append(shown[:left] + "...")
            break
        words.append(shown)
        left -= len(shown)
    return {"command": words, "cwd": os.fsencode(os.getcwd()).decode(errors="replace"), "host": platform.node()}


def error_of(returncode: int, interrupted_by: int | None) -> str | None:
    """The error to report for a return code as `subprocess` has it; None for success."""
    if returncode == 0:
        return None
    text = f"exit code {returncode}" if returncode > 0 else f"killed by {signal_name(-returncode)}"
    if interrupted_by is None:
        return text
    return f"interrupted by {signal_name(interrupted_by)} ({text})"


def signal_name(number: int) -> str:
    """SIGINT for 2, and so on; `signal 35` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _loss_by(stopped: ShipperStopped) -> Loss:
    cause = stopped.__cause__
    return loss_of(cause) if isinstance(cause, Refused) else Loss(exits.LEASE_LOST, str(stopped))
