"""Every way a call can end badly, sorted by what the caller may do about it.

Owns the exceptions that leave this package and the rule that turns an answer into one. Holds always: an `Outage` may be
tried again, a `Refused` may not (the same call would be refused again), and no message ever contains a key.
"""

from __future__ import annotations

from typing import Any

import msgspec

_RETRY_AFTER_LIMIT_S = 60.0


class JobwireError(Exception):
    """The base of everything that this package raises on purpose."""


class NotConfigured(JobwireError):
    """There is no address, key or space to work with; the text says what to set."""


class Outage(JobwireError):
    """The service could not be asked or did not answer.

    `retry_after_s` is its own wish for a pause, if it had one; `details` the whole error body, if there was one.
    """

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.details = details or {}


class NotDone(Outage):
    """Certainly nothing was done (no connection, 503 `unavailable` or `space_full`, 429): any call may be repeated."""


class RateLimited(NotDone):
    """429: the service is there, and wants the call later."""


class OutcomeUnknown(Outage):
    """It may have been done (lost answer, 503 `outcome_unknown`, 5xx): only a repeatable call may be repeated."""


class Refused(JobwireError):
    """The service said no. `status` is HTTP's, `code` the stable word, `details` the whole error body."""

    def __init__(self, message: str, *, status: int, code: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details


class AccessDenied(Refused):
    """401 or 403: the key is unknown, revoked, expired, of another space, or lacks a scope."""


class NotFound(Refused):
    """404: there is no such job, space or path."""


class LeaseLost(Refused):
    """409 `lease_lost`: the job was handed to somebody else since."""


class InvalidState(Refused):
    """409 `invalid_state`: the job's status does not allow the call; `job_status` is that status."""

    @property
    def job_status(self) -> str:
        return str(self.details.get("status", ""))


def error_from_answer(status: int, body: bytes, retry_after: str | None) -> JobwireError:
    """The exception for an answer of 300 or more; a body that is not the service's JSON is survived."""
    details = _details(body)
    code = str(details.get("code", "")) or f"http_{status}"
    message = str(details.get("error", "")) or f"The server answered {status}"
    pause_s = _seconds(retry_after)
    if status == 429:
        return RateLimited(message, retry_after_s=pause_s, details=details)
    if status == 503 and code in ("unavailable", "space_full"):
        return NotDone(message, retry_after_s=pause_s, details=details)
    if status >= 500:
        return OutcomeUnknown(message, retry_after_s=pause_s, details=details)
    return _refusal_class(status, code)(message, status=status, code=code, details=details)


def _refusal_class(status: int, code: str) -> type[Refused]:
    if status in (401, 403):
        return AccessDenied
    if status == 404:
        return NotFound
    by_code: dict[str, type[Refused]] = {"lease_lost": LeaseLost, "invalid_state": InvalidState}
    return by_code.get(code, Refused)


def _details(body: bytes) -> dict[str, Any]:
    try:
        details = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return details if isinstance(details, dict) else {}


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After as seconds, at most a minute; the form with a date is treated as absent."""
    try:
        return min(max(float(retry_after or ""), 0.0), _RETRY_AFTER_LIMIT_S)
    except ValueError:
        return None
