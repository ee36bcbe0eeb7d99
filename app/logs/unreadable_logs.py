"""Logs that cannot be read, as NULs that a power cut left in the store make them: told once each, the others are well.

Owns: what of all that can go wrong counts as damage of what is stored: wrong types, and bytes that cannot be decoded.
"""

import contextlib
import logging
import struct
from collections.abc import Iterator

import zstandard
from msgspec import MsgspecError

from app.model.errors import ApiError
from app.redis_links.link import RedisFault

log = logging.getLogger("jobwire.logs")

DAMAGE_ERRORS = (
    RedisFault,
    MsgspecError,
    zstandard.ZstdError,
    struct.error,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
)
"""What decoders raise, and scripts that meet another type than theirs."""

REMEMBERED_MOST = 10_000
"""Damaged logs that are remembered; when there are more, the oldest may be told of again."""


class Unreadable(ApiError):
    """The log of a job cannot be read, ever again: its stored data is damaged."""

    def __init__(self, job: str) -> None:
        text = f"The log of job {job} cannot be read: what is stored of it is damaged."
        super().__init__("internal", text, jobId=job)


class UnreadableLogs:
    """What this process knows of damaged logs."""

    def __init__(self) -> None:
        self._reported: dict[str, None] = {}

    @contextlib.contextmanager
    def guard(self, job: str) -> Iterator[None]:
        """Around whatever reads the log of a job: raises Unreadable for what its damage raises."""
        try:
            yield
        except DAMAGE_ERRORS as error:
            self._report(job, error)
            raise Unreadable(job) from error

    def _report(self, job: str, error: BaseException) -> None:
        if job in self._reported:
            return
        if len(self._reported) >= REMEMBERED_MOST:
            del self._reported[next(iter(self._reported))]
        self._reported[job] = None
        log.error("the log of job %s cannot be read: what is stored of it is damaged", job, exc_info=error)
