"""`logging` to a job: a handler that any Python program can add.

    logging.getLogger().addHandler(jobwire.LogHandler(job_id))

Owns the translation of log records to entries. Never blocks the program and never raises into it: records go into a
bounded buffer (log_buffer.py) and a thread ships them (shipper.py); what finds no room is dropped, and one line in the
log says how many were. At exit (or `close`) what is left is sent for at most `flush_timeout_s`, in children of
`multiprocessing` too. Usable after a fork, in parent and child. A refusal (of the key, the scope, the job) is said once
on standard error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from typing import Any

import msgspec

from ..api.jobs import Jobs
from ..errors import JobwireError, NotConfigured
from ..log_lines.byte_lines import LINE_LIMIT_BYTES
from ..log_lines.entry import Entry, rfc3339
from .shipper import LogShipper

CAPACITY_BYTES = 8 * 1024 * 1024
FLUSH_TIMEOUT_S = 5.0
_JUST_S = 1.0
"""`logging` flushes and then closes: who has just waited in vain does not wait again."""

_SOURCE_LIMIT = 200
_HEAD_BYTES = 16 * 1024
"""How much of a message that is cut stays from its beginning; of a traceback the end says more."""
_METADATA_BYTES = 15 * 1024
_RECORD_NAMES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; all else came by `extra=`."""
_LEVELS = (
    (logging.CRITICAL, "fatal"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warn"),
    (logging.INFO, "info"),
    (logging.DEBUG, "debug"),
)


class LogHandler(logging.Handler):
    """Ships records to a job: by default the one named in JOBWIRE_JOB (set inside `jobwire run`), with the settings
    of the environment. A record's logger name becomes the line's source, its traceback part of the message, `extra=`
    fields and the exception's type and text its metadata.

    Raises `NotConfigured` when there is no job or no service to log to.
    """

    def __init__(
        self,
        job_id: str | None = None,
        *,
        jobs: Jobs | None = None,
        level: int | str = logging.NOTSET,
        capacity_bytes: int = CAPACITY_BYTES,
        flush_timeout_s: float = FLUSH_TIMEOUT_S,
    ) -> None:
        super().__init__(level)
        job_id = job_id or os.environ.get("JOBWIRE_JOB")
        if not job_id:
            raise NotConfigured("A LogHandler needs the id of a job, as its argument or in JOBWIRE_JOB.")
        self._flush_timeout_s = flush_timeout_s
        self._waited_in_vain_at_s = float("-inf")
        self._shipper = LogShipper(
            jobs or Jobs.from_env("worker"),
            job_id,
            when_full="drop",
            capacity_bytes=capacity_bytes,
            on_refused=self._say_refused,
            exit_timeout_s=flush_timeout_s,
        )
        # A filter runs before the handler's lock is taken: the shipping thread must never wait for it.
        self.addFilter(self._comes_from_elsewhere)

    def _comes_from_elsewhere(self, record: logging.LogRecord) -> bool:
        """What is logged while shipping (by urllib3, say) would be shipped, and logged again, without end."""
        return not self._shipper.runs_here

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record; returns at once."""
        try:
            self._shipper.put([self._entry(record)])
        except Exception:
            self.handleError(record)

    def _entry(self, record: logging.LogRecord) -> Entry:
        return Entry(
            in_the_middle_cut(self.format(record)),
            level_name(record.levelno),
            record.name[:_SOURCE_LIMIT] or None,
            rfc3339(record.created),
            metadata_of(record),
        )

    def _say_refused(self, error: JobwireError) -> None:
        _say(f"the log of job {self._shipper.job_id} takes no lines: {error}")

    @property
    def error(self) -> JobwireError | None:
        """The refusal that ended it, if one did."""
        return self._shipper.error

    @property
    def dropped_lines(self) -> int:
        """Records that found no room, so far."""
        return self._shipper.dropped_lines

    def flush(self) -> None:
        """Wait until what was logged so far is stored, for at most `flush_timeout_s`."""
        if not self._shipper.runs_here and not self._shipper.flush(self._flush_timeout_s):
            self._waited_in_vain_at_s = time.monotonic()

    def close(self) -> None:
        """Ship what is left, for at most `flush_timeout_s`; `logging` calls this at exit, after `flush`."""
        just_waited = time.monotonic() - self._waited_in_vain_at_s < _JUST_S
        if not self._shipper.close(0 if just_waited else self._flush_timeout_s) and self.error is None:
            _say(f"{self._shipper.unsent_lines} lines of job {self._shipper.job_id} were not sent: no server answered")
        super().close()


def _say(text: str) -> None:
    """One sentence on standard error, if there is one."""
    with contextlib.suppress(Exception):
        print(f"jobwire: {text}", file=sys.stderr, flush=True)  # noqa: T201  # `logging` would come back here


def in_the_middle_cut(message: str) -> str:
    """A message of at most 60 KiB: of a longer one the beginning and the end, which says how a traceback came out."""
    if len(message) * 4 <= LINE_LIMIT_BYTES:
        return message
    encoded = message.encode(errors="replace")
    if len(encoded) <= LINE_LIMIT_BYTES:
        return message
    mark = "\n... %d bytes left out ...\n"
    tail_bytes = LINE_LIMIT_BYTES - _HEAD_BYTES - len(mark) - 20
    head, tail = encoded[:_HEAD_BYTES].decode(errors="ignore"), encoded[-tail_bytes:].decode(errors="ignore")
    return head + mark % (len(encoded) - _HEAD_BYTES - tail_bytes) + tail


def metadata_of(record: logging.LogRecord) -> dict[str, Any] | None:
    """The `extra=` fields of a record and its exception, as JSON; what is too large for the service is left out."""
    metadata = {name: value for name, value in vars(record).items() if name not in _RECORD_NAMES}
    if record.exc_info and record.exc_info[0] is not None:
        kind, error, _ = record.exc_info
        metadata["exception"] = {"type": kind.__name__, "message": str(error)[:1000]}
    if not metadata:
        return None
    kept: dict[str, Any] = {}
    left_bytes = _METADATA_BYTES
    for name, value in metadata.items():
        text = _json_of(value)
        left_bytes -= len(text) + len(name.encode(errors="replace")) + 4
        if left_bytes < 0:
            kept["leftOut"] = True
            break
        kept[name] = msgspec.Raw(text)
    return kept


def _json_of(value: Any) -> bytes:
    """The value as JSON; of what has none the text that `repr` gives."""
    try:
        text = msgspec.json.encode(value, enc_hook=repr)
        text.decode()
        return text
    except (TypeError, ValueError, UnicodeError, RecursionError):
        return msgspec.json.encode(repr(value)[:1000].encode(errors="replace").decode())


def level_name(levelno: int) -> str:
    """The service's level for a number of `logging`'s: the nearest one below it; anything under DEBUG is trace."""
    return next((name for number, name in _LEVELS if levelno >= number), "trace")
