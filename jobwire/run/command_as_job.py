"""`run`: a command as a job, from its creation to its end.

Owns the order of things: the job is created already claimed; the command runs while its lease is kept and its output
is shipped; all lines are stored before the end is reported; the end is what really happened. Whatever takes the job
away (a kill, a lease that somebody else holds, a revoked key) stops the command. A server that is away does not: the
command runs, its lines go to memory and then to a file, and what could not be delivered in the end is left in a spool.
Nothing of the environment goes into the job.
"""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import secrets
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from .. import exit_codes
from ..api.jobs import Jobs
from ..api.response_structs import Job
from ..errors import Outage, RateLimited, Refused
from ..log_shipping.overflow_file import Overflow
from ..log_shipping.shipper import CAPACITY_BYTES, LogShipper, ShipperStopped
from . import spool_file
from .child_process import Child
from .job_reports import Courier, End, Order
from .lease_renewal import Loss, loss_of
from .output_lines import Mirror, OutputLines
from .repeated_calls import Insistence
from .signals import routed_to

_COMMAND_LIMIT = 64 * 1024
_SLICE_S = 0.2
_FIRST_ANSWER_S = 5.0
"""How long the command waits for the first answer of a server, before it runs without one."""

Notice = Callable[[str], None]


class Options(NamedTuple):
    """How to run; `patience_s` is how long an absent server is waited for when nothing else is left to do.

    `require_server`: no server, no command; and lines wait for it in memory only. `find_levels` looks for words of
    levels in the lines, `stderr_level` is that of other lines of stderr. `adds_to_environ` is about what the command
    finds in its environment, `owns_process` says that this process has no other children.
    """

    name: str
    retries: int = 0
    timeout_s: int = 300
    patience_s: float = 300.0
    start_patience_s: float = 10.0
    kill_grace_s: float = 10.0
    capacity_bytes: int = CAPACITY_BYTES
    require_server: bool = False
    terminal: bool = False
    find_levels: bool = True
    stderr_level: str = "info"
    adds_to_environ: bool = True
    owns_process: bool = False


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

    The command's environment is `environ` (ours by default) with JOBWIRE_JOB and JOBWIRE_LEASE_TOKEN once there is a
    job, so that it can report progress or log by itself, and PYTHONUNBUFFERED.
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
        self._spool_folder = spool_file.spool_folder(self._environ)
        self._overflow = Overflow(self._spool_folder)
        self._events: queue.SimpleQueue[_Exited | _Signal | Loss] = queue.SimpleQueue()
        self._is_refused = False
        self._is_away = False
        self._has_waited = False
        self._order = Order(secrets.token_hex(16), self._fields())

    def _fields(self) -> dict[str, Any]:
        options = self._options
        return {
            "name": options.name,
            "payload": payload_of(self._command),
            "max_retries": options.retries,
            "timeout_seconds": options.timeout_s,
            "claim": True,
        }

    def run(self) -> int:
        """Run it, all attempts; returns the exit code. Raises `JobwireError` only if there never was a job."""
        with routed_to(lambda number: self._events.put(_Signal(number)), also=self._other_signals()):
            job = self._create()
            self._courier = Courier(
                self._jobs,
                self._order,
                job,
                on_created=self._on_created,
                on_loss=self._events.put,
                notice=self._notice,
            )
            if job is not None:
                self._on_created(job)
            self._shipper = LogShipper(
                self._courier,
                job.id if job else "",
                capacity_bytes=self._options.capacity_bytes,
                on_answer=self._see_status,
                on_outage=self._tell_outage,
                overflow=None if self._options.require_server else self._overflow,
            )
            self._courier.start()
            try:
                return self._run_attempts()
            finally:
                self._courier.stop()
                self._shipper.close(0)
                self._overflow.close()

    def _other_signals(self) -> tuple[int, ...]:
        return (signal.SIGTSTP, *((signal.SIGWINCH,) if self._options.terminal else ()))

    def _create(self) -> Job | None:
        """The job; None if no server answers, and the command shall run all the same."""
        if self._options.require_server:
            patient = Insistence(self._jobs, patience_s=self._options.start_patience_s, wait=self._wait_for_a_server)
            return patient.repeated(lambda: self._order.create(self._jobs))
        hurried = Jobs("", None, self._jobs.space, http=self._jobs.http.waiting(_FIRST_ANSWER_S))
        deadline_s = time.monotonic() + self._options.patience_s
        while True:
            try:
                return self._order.create(hurried)
            except RateLimited as later:
                if time.monotonic() > deadline_s or not self._wait(later.retry_after_s or _SLICE_S):
                    return None
            except Outage:
                self._tell_outage(True)
                return None

    def _wait_for_a_server(self, seconds: float) -> bool:
        if not self._has_waited:
            self._notice("no server answers; waiting for one")
        self._has_waited = True
        return self._wait(seconds)

    def _run_attempts(self) -> int:
        attempts_left = self._options.retries
        while True:
            ended = self._attempt()
            if ended.loss is not None:
                self._drain()
                self._notice(f"{ended.loss.reason}: the command was stopped")
                return ended.loss.exit_code
            again = ended.error is not None and ended.may_retry and attempts_left > 0
            result = {"exitCode": ended.exit_code, "durationMs": ended.duration_ms} if ended.error is None else None
            end = End(result, ended.error, again)
            attempts_left -= 1
            if not again:
                return self._finish(ended, end)
            self._drain(waits_for_server=False)
            self._courier.tell(end)
            if not self._told(waits_for_server=self._options.require_server) and self._options.require_server:
                return self._give_up(ended)
            if self._courier.is_over:
                return self._code_of_lost(ended)
            self._notice(f"{ended.error}: trying again")

    def _finish(self, ended: _Ended, end: End) -> int:
        """Tell the end behind all lines; where that cannot be, leave it in a spool_file."""
        drained = self._drain()
        self._courier.tell(end)
        if drained and self._told(waits_for_server=True):
            return self._code_of_lost(ended)
        return self._give_up(ended)

    def _code_of_lost(self, ended: _Ended) -> int:
        """The command's own code, unless the job was lost after the command had ended."""
        loss = self._next_loss()
        if loss is None:
            return ended.exit_code
        self._notice(f"{loss.reason}: its end was not reported")
        return loss.exit_code

    def _next_loss(self) -> Loss | None:
        with contextlib.suppress(queue.Empty):
            while True:
                if isinstance(event := self._events.get_nowait(), Loss):
                    return event
        return None

    def _give_up(self, ended: _Ended) -> int:
        self._courier.stop()
        self._shipper.close(0)
        if self._options.require_server:
            outage = self._courier.outage or self._shipper.outage
            text = f"{self._shipper.unsent_lines} lines and the end were not delivered"
            self._notice(f"giving up: {outage or 'stopped.'} {text}")
            return exit_codes.UNAVAILABLE
        try:
            job = self._courier.job
            job = job and msgspec.structs.replace(job, lease_token=self._courier.token)
            left = spool_file.Undelivered(self._order, job, self._shipper.left(), self._courier.left())
            path = spool_file.leave(self._spool_folder, self._jobs, left)
        except OSError as fault:
            self._notice(f"giving up: the server is away, and {self._spool_folder} takes no spool: {fault.strerror}")
        else:
            self._notice(f"the server is still away; when it is back: jobwire send --spool {path}")
        return ended.exit_code

    # --- one attempt -------------------------------------------------------------------------------------------------

    def _attempt(self) -> _Ended:
        if not self._is_away:
            self._begin()
        started_s = time.monotonic()
        lines = OutputLines(
            self._put, self._mirror, find_levels=self._options.find_levels, stderr_level=self._options.stderr_level
        )
        try:
            child = Child(
                self._command,
                env=self._child_environ(),
                sink=lines,
                on_exit=lambda outcome: self._events.put(_Exited(outcome)),
                on_tick=lines.tick,
                terminal=self._options.terminal,
                adopts=self._options.owns_process,
            )
        except OSError as fault:
            return self._not_started(fault)
        returncode, interrupted_by, loss = self._supervise(child)
        duration_ms = round((time.monotonic() - started_s) * 1000)
        error = error_of(returncode, interrupted_by)
        code = exit_codes.code_of_process(returncode)
        return _Ended(code, error, duration_ms, may_retry=interrupted_by is None, loss=loss)

    def _begin(self) -> None:
        """Wait until the server knows that the command runs, or is seen to be away."""
        courier = self._courier
        while not courier.begun(_SLICE_S) and not courier.is_over:
            if courier.outage is not None and not isinstance(courier.outage, RateLimited):
                return

    def _child_environ(self) -> dict[str, str]:
        environ = dict(self._environ)
        if self._options.adds_to_environ:
            environ.setdefault("PYTHONUNBUFFERED", "1")
            if self._courier.job is not None:
                environ |= {"JOBWIRE_JOB": self._courier.job.id, "JOBWIRE_LEASE_TOKEN": self._courier.token or ""}
        return environ

    def _not_started(self, fault: OSError) -> _Ended:
        """A command that cannot be started now cannot be started by trying again."""
        code = exit_codes.NOT_FOUND if isinstance(fault, FileNotFoundError) else exit_codes.NOT_EXECUTABLE
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
                case _Signal(signal.SIGWINCH):
                    child.resize()
                case _Signal(signal.SIGTSTP):
                    self._stop_with(child)
                case _Signal(number):
                    child.signal(signal.SIGKILL if interrupted_by is not None else number)
                    child.signal(signal.SIGCONT)
                    interrupted_by = interrupted_by or number
                case Loss() if loss is None:
                    loss = event
                    kill_at_s = time.monotonic() + self._options.kill_grace_s
                    child.signal(signal.SIGTERM)
                    child.signal(signal.SIGCONT)

    def _stop_with(self, child: Child) -> None:
        """Ctrl-Z: the command stops, then we do; `fg` lets both go on, and the lease is looked after at once."""
        child.signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        child.signal(signal.SIGCONT)
        self._courier.check()

    def _put(self, entries: list[Any]) -> None:
        if entries and not self._is_refused:
            try:
                self._shipper.put(entries)
            except ShipperStopped as stopped:
                self._is_refused = True
                self._events.put(_loss_by(stopped))

    # --- between and after attempts ----------------------------------------------------------------------------------

    def _drain(self, *, waits_for_server: bool = True) -> bool:
        """Wait until every line is stored; False when patience ends, a signal ends it, or nothing is waited for."""
        return self._until(lambda: self._shipper.flush(_SLICE_S) or self._shipper.error is not None, waits_for_server)

    def _told(self, *, waits_for_server: bool) -> bool:
        return self._until(lambda: self._courier.told(_SLICE_S), waits_for_server)

    def _until(self, done: Callable[[], bool], waits_for_server: bool) -> bool:
        deadline_s = time.monotonic() + (self._options.patience_s if waits_for_server else 0)
        while not done():
            away = [one for one in (self._shipper.outage, self._courier.outage) if one is not None]
            if away and (not self._wait(0) or time.monotonic() > deadline_s):
                return False
        return True

    def _wait(self, seconds: float) -> bool:
        """Wait; a signal ends the waiting for good."""
        deadline_s = time.monotonic() + seconds
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                return True
            if isinstance(event, _Signal) and event.number not in (signal.SIGWINCH, signal.SIGTSTP):
                return False
            if isinstance(event, Loss):
                self._events.put(event)
                return False

    def _see_status(self, status: str) -> None:
        """On the shipping thread: an append is answered in any status, so it may be the first to show a kill."""
        if status not in ("delivered", "running", ""):
            self._courier.check()

    def _tell_outage(self, away: bool) -> None:
        if away != self._is_away:
            self._is_away = away
            where = "lines wait here" if self._options.require_server else "the command runs, and lines wait here"
            self._notice(f"the server is away; {where}" if away else "the server is back")


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
    return {"command": words, "cwd": _working_folder(), "host": platform.node()}


def _working_folder() -> str:
    """The folder's path; as the shell knew it, if it was removed meanwhile."""
    try:
        path = os.getcwd()
    except OSError:
        path = os.environ.get("PWD", "")
    return os.fsencode(path).decode(errors="replace")


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
    return loss_of(cause) if isinstance(cause, Refused) else Loss(exit_codes.LEASE_LOST, str(stopped))
