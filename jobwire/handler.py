"""`logging` to a job: a handler that any Python program can add.

    logging.getLogger().addHandler(jobwire.LogHandler(job_id))

Owns the translation of log records to entries. Never blocks the program and never raises into it: records go into a
bounded buffer and a thread ships them; what finds no room is dropped, and one line in the log says how many were. At
exit (or `close`) what is left is sent for at most `flush_timeout_s`. Usable after a fork, in parent and child.
"""

from __future__ import annotations

import logging
import os

from .entry import Entry, rfc3339
from .errors import NotConfigured
from .jobs import Jobs
from .lines import LINE_LIMIT_BYTES
from .shipper import LogShipper

CAPACITY_BYTES = 8 * 1024 * 1024
FLUSH_TIMEOUT_S = 5.0

_SOURCE_LIMIT = 200
_MESSAGE_LIMIT = LINE_LIMIT_BYTES // 4
_CUT_MARK = " ...[cut]"
_LEVELS = (
    (logging.CRITICAL, "fatal"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warn"),
    (logging.INFO, "info"),
    (logging.DEBUG, "debug"),
)


class LogHandler(logging.Handler):
    """Ships records to a job: by default the one named in JOBWIRE_JOB (set inside `jobwire run`), with the settings
    of the environment. A record's logger name becomes the line's source, its traceback part of the message.

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
        self._shipper = LogShipper(
            jobs or Jobs.from_env("worker"), job_id, when_full="drop", capacity_bytes=capacity_bytes
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
        message = self.format(record)
        if len(message) > _MESSAGE_LIMIT:
            message = message[: _MESSAGE_LIMIT - len(_CUT_MARK)] + _CUT_MARK
        return Entry(message, level_name(record.levelno), record.name[:_SOURCE_LIMIT] or None, rfc3339(record.created))

    @property
    def dropped_lines(self) -> int:
        """Records that found no room, so far."""
        return self._shipper.dropped_lines

    def flush(self) -> None:
        """Wait until what was logged so far is stored, for at most `flush_timeout_s`."""
        if not self._shipper.runs_here:
            self._shipper.flush(self._flush_timeout_s)

    def close(self) -> None:
        """Ship what is left, for at most `flush_timeout_s`; `logging` calls this at exit."""
        self._shipper.close(self._flush_timeout_s)
        super().close()


def level_name(levelno: int) -> str:
    """The service's level for a number of `logging`'s: the nearest one below it; anything under DEBUG is trace."""
    return next((name for number, name in _LEVELS if levelno >= number), "trace")
