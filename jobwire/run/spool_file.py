"""A job in a file: what a server that stayed away was not told, to be delivered later, once.

Owns the file's form: NDJSON, whose first line is the job (where it goes, how it is created, what is known of it), then
a line for each batch with its Idempotency-Key, then the ends of its attempts. Batches that were answered since are
counted at the end of the file, so that a delivery that was cut short goes on where it was. The file holds a lease token
and the command's output, never a key; nobody but its owner may read it.

While the Idempotency-Keys live (24 hours from their first use) nothing can be doubled. After that only what was counted
as answered is left out.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from ..api.jobs import Jobs
from ..api.response_structs import Job
from ..configuration.settings import state_folder
from ..errors import JobwireError, Outage
from .job_reports import Courier, End, Order
from .lease_renewal import Loss

KEYS_LIVE_S = 24 * 3600.0
_FORM = 1
_SLICE_S = 0.5

_encode = msgspec.json.encode


class SpoolError(JobwireError):
    """A file that is no spool, or goes to another server than this one."""


class _Head(msgspec.Struct):
    spool: int
    url: str
    space_path: str
    key: str
    fields: dict[str, Any]
    left_at_s: float
    job: str | None = None
    lease_token: str | None = None


class _Batch(msgspec.Struct):
    key: str
    lines: int
    body: str


class _Line(msgspec.Struct):
    """Any other line: the ends, or how many batches were answered."""

    ends: list[End] | None = None
    sent: int | None = None


def spool_folder(environ: Mapping[str, str]) -> Path:
    """Where spools lie: `spool` in the state folder."""
    return state_folder(environ) / "spool"


class Undelivered(NamedTuple):
    """What is left of a job: batches (key, NDJSON, lines) in order, then the ends of its attempts."""

    order: Order
    job: Job | None
    batches: Iterable[tuple[str, bytes, int]]
    ends: list[End]


def leave(folder: Path, jobs: Jobs, left: Undelivered) -> Path:
    """Write what was not delivered; the file is whole or not there. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    order, job = left.order, left.job
    token = job.lease_token if job else None
    where = (jobs.http.url, jobs.space_path)
    head = _Head(_FORM, *where, order.key, order.fields, time.time(), job.id if job else None, token)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = folder / f"{stamp}-{secrets.token_hex(4)}.jsonl"
    fd, unfinished = tempfile.mkstemp(dir=folder, prefix=".")
    try:
        with open(fd, "wb") as file:
            file.write(_encode(head) + b"\n")
            file.writelines(_encode(_Batch(key, lines, body.decode())) + b"\n" for key, body, lines in left.batches)
            file.write(_encode(_Line(ends=left.ends)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        Path(unfinished).rename(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    return path


class Spool:
    """A spool that is there. Raises `SpoolError` for what is none, OSError for what cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sent = 0
        self.ends: list[End] = []
        try:
            with path.open("rb") as file:
                self._head = msgspec.json.decode(file.readline(), type=_Head)
                for line in file:
                    if not line.startswith(b'{"key":'):
                        self._note(msgspec.json.decode(line, type=_Line))
        except msgspec.DecodeError as error:
            raise SpoolError(f"{path} is no spool of jobwire: {error}") from None
        if self._head.spool != _FORM:
            raise SpoolError(f"{path} was written by another version of jobwire.")

    def _note(self, line: _Line) -> None:
        self.ends = line.ends if line.ends is not None else self.ends
        self._sent = line.sent if line.sent is not None else self._sent

    @property
    def age_s(self) -> float:
        """How long ago it was written."""
        return time.time() - self._head.left_at_s

    def batches(self) -> Iterator[_Batch]:
        """Those that were not answered yet."""
        with self.path.open("rb") as file:
            number = 0
            for line in file:
                if line.startswith(b'{"key":'):
                    number += 1
                    if number > self._sent:
                        yield msgspec.json.decode(line, type=_Batch)

    def deliver(self, jobs: Jobs, *, patience_s: float, notice: Callable[[str], None]) -> Job:
        """Send it all, in order, and remove the file; the job. Raises what refuses it, and an outage after patience."""
        if (jobs.http.url, jobs.space_path) != (self._head.url, self._head.space_path):
            where = f"{self._head.url}{self._head.space_path}"
            raise SpoolError(f"{self.path} is for {where}: set JOBWIRE_URL and JOBWIRE_SPACE.")
        losses: list[Loss] = []
        order, head = Order(self._head.key, self._head.fields), self._head
        known = _known(head)
        courier = Courier(
            jobs, order, known, on_created=lambda _: None, on_loss=losses.append, notice=notice, is_late=True
        )
        courier.start()
        deadline_s = time.monotonic() + patience_s
        try:
            while courier.job is None and not courier.is_over:
                _check(courier, deadline_s)
                courier.begun(_SLICE_S)
            with self.path.open("ab") as file:
                self._send_batches(courier, file, deadline_s)
            for end in self.ends:
                courier.tell(end)
            while not courier.told(_SLICE_S):
                _check(courier, deadline_s)
        finally:
            courier.stop()
        if losses:
            notice(f"{losses[0].reason}: its end was not reported")
        job = courier.job
        if job is None:
            raise SpoolError(f"The job could not be created: {losses[0].reason if losses else 'no answer'}")
        self.path.unlink()
        return job

    def _send_batches(self, courier: Courier, file: IO[bytes], deadline_s: float) -> None:
        for batch in self.batches():
            while True:
                try:
                    courier.append_logs("", batch.body.encode(), batch.key)
                    break
                except Outage as outage:
                    if time.monotonic() > deadline_s:
                        raise
                    time.sleep(max(_SLICE_S, outage.retry_after_s or 0.0))
            self._sent += 1
            file.write(_encode(_Line(sent=self._sent)) + b"\n")
            file.flush()


def _known(head: _Head) -> Job | None:
    if head.job is None:
        return None
    return Job(id=head.job, space_id="", name="", status="", lease_token=head.lease_token)


def _check(courier: Courier, deadline_s: float) -> None:
    if courier.outage is not None and time.monotonic() > deadline_s:
        raise courier.outage
