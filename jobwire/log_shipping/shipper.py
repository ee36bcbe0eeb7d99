"""Log lines shipped to one job, in order, each exactly once.

Owns the one thread that empties a `LogBuffer`. One batch is under way at a time, so order is kept; each has an
Idempotency-Key of its own and is repeated byte for byte until it is answered, so that a lost answer doubles nothing.
An outage is waited out; a batch that the service refuses is halved until the line at fault is alone, and only that
one is given up.

After a fork the child begins with an empty buffer and a thread of its own; what was waiting is the parent's to send. A
child of `multiprocessing` ends without the program's exit handlers: `multiprocessing_exit` sends what it still has.
Where a thread can no longer be started (the interpreter ends), `close` ships on the caller's.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from ..api.backoff import Backoff
from ..api.response_structs import Appended
from ..errors import JobwireError, Outage, RateLimited, Refused
from ..log_lines.entry import Entry, encode_safely
from .log_buffer import BATCH_LINES, LogBuffer, WhenFull
from .multiprocessing_exit import at_the_childs_end
from .overflow_file import Overflow

CAPACITY_BYTES = 16 * 1024 * 1024
LINGER_S = 0.1
EXIT_TIMEOUT_S = 5.0

# Refusals that speak of the batch's content. Any other speaks of the job or the key, and every batch would meet it.
_CONTENT_STATUSES = frozenset({400, 413, 422})


class ShipperStopped(JobwireError):
    """`put` after `close`, or after the service refused this job's lines for good."""


class Appends(Protocol):
    """Whatever takes a batch of lines for a job: `Jobs`."""

    def append_logs(self, job_id: str, ndjson: bytes, idempotency_key: str | None = None) -> Appended: ...


class LogShipper:
    """Ships entries to a job.

    When the buffer is full, `put` waits (`block`) or drops and counts (`drop`). Called on the shipping thread:
    `on_answer` with the job's status after each batch, `on_outage` with True when the service stops answering, False
    when it is back, `on_refused` with the refusal that ends it. A child of `multiprocessing` sends what is left for at
    most `exit_timeout_s` when it ends.
    """

    def __init__(
        self,
        jobs: Appends,
        job_id: str,
        *,
        when_full: WhenFull = "block",
        capacity_bytes: int = CAPACITY_BYTES,
        linger_s: float = LINGER_S,
        batch_lines: int = BATCH_LINES,
        on_answer: Callable[[str], None] | None = None,
        on_outage: Callable[[bool], None] | None = None,
        on_refused: Callable[[JobwireError], None] | None = None,
        exit_timeout_s: float = EXIT_TIMEOUT_S,
        overflow: Overflow | None = None,
    ) -> None:
        self._overflow = overflow
        self.job_id = job_id
        self._jobs = jobs
        self._when_full: WhenFull = when_full
        self._capacity_bytes = capacity_bytes
        self._linger_s = linger_s
        self._batch_lines = batch_lines
        self._on_answer = on_answer or _ignore
        self._on_outage = on_outage or _ignore
        self._on_refused = on_refused or _ignore
        self._exit_timeout_s = exit_timeout_s
        self._begin()
        _shippers.add(self)

    def _begin(self) -> None:
        """What belongs to one process: made at the start, and anew in the child of a fork."""
        self._buffer = LogBuffer(
            when_full=self._when_full,
            capacity_bytes=self._capacity_bytes,
            linger_s=self._linger_s,
            batch_lines=self._batch_lines,
            overflow=self._overflow,
        )
        self._pending: deque[tuple[list[Entry], str]] = deque()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._give_up_at_s: float | None = None
        self._series = secrets.token_hex(16)
        self.error: JobwireError | None = None
        self.outage: Outage | None = None
        self.sent_lines = 0
        self.refused_lines = 0

    def put(self, entries: Sequence[Entry]) -> None:
        """Take lines, in order. Raises `ShipperStopped` when they can no longer be shipped (`drop` only counts)."""
        if self._thread is None:
            self._start()
        if not self._buffer.put(entries) and self._when_full == "block":
            raise ShipperStopped("The log of this job takes no more lines.") from self.error

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._ship, name="jobwire-shipper", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # The interpreter ends, and starts no thread any more: `close` ships by itself.
                return
            self._thread = thread
            at_the_childs_end(self, LogShipper.leave)

    @property
    def unsent_lines(self) -> int:
        """Lines that were taken and not answered yet."""
        return self._buffer.unsettled_lines

    @property
    def dropped_lines(self) -> int:
        """Lines that were never taken, for want of room or after the end."""
        return self._buffer.dropped_lines

    @property
    def runs_here(self) -> bool:
        """Whether the caller is on the shipping thread (what is logged there must not be shipped)."""
        return threading.current_thread() is self._thread

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything taken so far was answered; False when time ran out or it cannot be any more."""
        return self._buffer.flush(timeout_s if self._thread is not None or self.unsent_lines == 0 else 0)

    def leave(self) -> None:
        """`close` for a process that ends, in the time that it has for that."""
        self.close(self._exit_timeout_s)

    def close(self, timeout_s: float | None = None) -> bool:
        """Take no more, go on sending for at most `timeout_s`, then give up. Whether everything was answered."""
        self._buffer.close()
        if self._thread is None and self.unsent_lines:
            self._give_up_at_s = None if timeout_s is None else time.monotonic() + timeout_s
            self._ship()
        answered = self._buffer.flush(timeout_s)
        self._buffer.abandon()
        return answered

    # --- on the shipping thread --------------------------------------------------------------------------------------

    def _ship(self) -> None:
        try:
            while (batch := self._buffer.next_batch()) is not None:
                self._pending.append((batch, self._key()))
                if not self._deliver_pending():
                    return
                self._buffer.settle()
        except JobwireError as error:
            self.error = error
            self._on_refused(error)
        except Exception as error:
            self.error = ShipperStopped(f"Shipping log lines failed: {error!r}")
            raise
        finally:
            self._buffer.abandon()

    def _key(self) -> str:
        return f"{self._series}-{self._buffer.batches_taken}"

    def _deliver_pending(self) -> bool:
        """Send until all is answered; False if that was given up. Raises the refusal that would meet every batch."""
        while self._pending:
            batch, key = self._pending[0]
            try:
                if not self._append(encode_safely(batch), len(batch), key):
                    return False
                self._pending.popleft()
            except Refused as refusal:
                if refusal.status not in _CONTENT_STATUSES:
                    raise
                self._pending.popleft()
                self._divide(batch, key)
        return True

    def _divide(self, batch: list[Entry], key: str) -> None:
        """Halve a batch that was refused, until the line at fault is alone: that one is given up."""
        if len(batch) == 1:
            self.refused_lines += 1
            return
        middle = len(batch) // 2
        self._pending.extendleft([(batch[middle:], f"{key}b"), (batch[:middle], f"{key}a")])

    def left(self) -> Iterator[tuple[str, bytes, int]]:
        """What was not answered, after `close`: batches in order, each with its Idempotency-Key and how many lines.

        The one that was under way is the first, byte for byte; it may have arrived.
        """
        self._buffer.abandon()
        pending = list(self._pending)
        for number, batch in enumerate(self._buffer.left()):
            if number == 0 and pending:
                for part, key in pending:
                    yield key, encode_safely(part), len(part)
            else:
                yield self._key(), encode_safely(batch), len(batch)

    def _append(self, body: bytes, lines: int, idempotency_key: str) -> bool:
        backoff = Backoff()
        while not self._buffer.abandoned:
            try:
                answer = self._jobs.append_logs(self.job_id, body, idempotency_key)
            except Outage as outage:
                self._note_outage(None if isinstance(outage, RateLimited) else outage)
                pause_s = backoff.pause_s(outage)
                if self._give_up_at_s is not None and time.monotonic() + pause_s > self._give_up_at_s:
                    return False
                self._buffer.pause(pause_s)
            else:
                self._note_outage(None)
                self.sent_lines += lines
                self._on_answer(answer.status)
                return True
        return False

    def _note_outage(self, outage: Outage | None) -> None:
        changed = (outage is None) != (self.outage is None)
        self.outage = outage
        if changed:
            self._buffer.note_outage(outage is not None)
            self._on_outage(outage is not None)


def _ignore(_: object) -> None:
    pass


_shippers: weakref.WeakSet[LogShipper] = weakref.WeakSet()


def _begin_in_child() -> None:
    for shipper in list(_shippers):
        shipper._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
