"""A worker's calls about its jobs: what each verb's script takes, and what its reply means.

Owns: the words behind job and lease token that lua/job_<verb>.lua takes, and the outcome that its reply stands for,
whether it came from that script or from lua/job_calls.lua. Never: calls one.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from app.jobs.job_records import FailedAttempt, Failure, Release, ReleasedJob, RenewedLease
from app.model.ids import new_lease_token
from app.redis_links.link import Word


class WorkerCall(NamedTuple):
    """One call: its verb, its job, the lease token that the caller holds ("" for none), and what the verb asks for.

    `request` is None for ack and keepalive, a Failure for fail, a Release for release, and JSON for all others.
    """

    verb: str
    job: str
    token: str
    request: Any


def request_bytes(request: Any) -> int:
    """About how many bytes a request has for Redis."""
    if isinstance(request, bytes):
        return len(request)
    if isinstance(request, Failure):
        return len(request.error)
    return len(request.reason) if isinstance(request, Release) else 0


class Bounds(NamedTuple):
    """What scripts are told by whoever runs the service."""

    keep_ms: int
    """How long the keys of an ended job live on, should nobody sweep."""

    space_bytes: int
    """What jobs and events of a space may take, 0 for no bound."""


class Effects:
    """What calls brought about, to be told when all of them are done: changes by event, and what is due first."""

    __slots__ = ("any_ended", "callback_due_ms", "due_ms", "transitions")

    def __init__(self) -> None:
        self.transitions: dict[str, int] = {}
        self.due_ms: int | None = None
        self.callback_due_ms: int | None = None
        self.any_ended = False

    def count(self, event: str) -> None:
        """One more job changed, and this event tells of it."""
        self.transitions[event] = self.transitions.get(event, 0) + 1

    def due(self, at_ms: int) -> None:
        """Something of a job is due then."""
        if self.due_ms is None or at_ms < self.due_ms:
            self.due_ms = at_ms

    def ended(self, callback_due_ms: int | None) -> None:
        """A job ended; None where no callback is due."""
        self.any_ended = True
        if callback_due_ms is not None and (self.callback_due_ms is None or callback_due_ms < self.callback_due_ms):
            self.callback_due_ms = callback_due_ms


class VerbScript(NamedTuple):
    """How a verb's script is called, and what its reply means."""

    words: Callable[[Any, Bounds], tuple[Word, ...]]
    outcome: Callable[[Sequence[Any], Effects], Any]
    """Of a reply behind its `ok`: a RenewedLease, a FailedAttempt, a ReleasedJob, or the status of a job that ended."""

    is_new: bool = False
    """Whether it stores what is refused first when Redis is almost full."""


def _nothing(_: None, __: Bounds) -> tuple[Word, ...]:
    return ()


def _json(text: bytes, _: Bounds) -> tuple[Word, ...]:
    return (text,)


def _event_words(data: bytes, bounds: Bounds) -> tuple[Word, ...]:
    return (data, bounds.space_bytes)


def _complete_words(result: bytes, bounds: Bounds) -> tuple[Word, ...]:
    return (result, bounds.keep_ms)


def _fail_words(failure: Failure, bounds: Bounds) -> tuple[Word, ...]:
    delay: Word = "" if failure.delay_ms is None else failure.delay_ms
    fresh = new_lease_token() if failure.claim else ""
    return (failure.error, int(failure.may_retry), repr(random.random()), bounds.keep_ms, delay, fresh)


def _release_words(release: Release, _: Bounds) -> tuple[Word, ...]:
    return (release.reason, release.delay_ms)


def _renewed(reply: Sequence[Any], _: Effects) -> RenewedLease:
    return RenewedLease(reply[0].decode(), reply[1])


def _acked(reply: Sequence[Any], effects: Effects) -> RenewedLease:
    effects.count("started")
    return RenewedLease(reply[0].decode(), reply[1])


def _completed(reply: Sequence[Any], effects: Effects) -> str:
    effects.count("completed")
    effects.ended(reply[1])
    return str(reply[0].decode())


def _failed(reply: Sequence[Any], effects: Effects) -> FailedAttempt:
    status, will_retry, attempt, due, callback_due, lease, lease_end_ms = reply
    effects.count("dead" if status == b"dead" else "retried")
    if due:
        effects.due(int(due))
    if lease:
        effects.due(lease_end_ms)
    if status == b"dead":
        effects.ended(callback_due)
    return FailedAttempt(status.decode(), will_retry == 1, attempt, lease.decode(), lease_end_ms)


def _released(reply: Sequence[Any], effects: Effects) -> ReleasedJob:
    status, attempt, due = reply
    effects.count("released")
    if due:
        effects.due(int(due))
    return ReleasedJob(status.decode(), attempt)


VERB_SCRIPTS = {
    "ack": VerbScript(_nothing, _acked),
    "progress": VerbScript(_json, _renewed),
    "checkpoint": VerbScript(_json, _renewed),
    "event": VerbScript(_event_words, _renewed, is_new=True),
    "keepalive": VerbScript(_nothing, _renewed),
    "complete": VerbScript(_complete_words, _completed),
    "fail": VerbScript(_fail_words, _failed),
    "release": VerbScript(_release_words, _released),
}
"""By name, as the API and the scripts have it."""
