"""What the verbs of a job take and give: jobs to create, leases, attempts, events and lists, as values without I/O.

Owns: what stands in each of them. Never: reads or changes a job; app/jobs/job_store.py does.
"""

from collections.abc import Sequence
from typing import NamedTuple

HashFields = dict[str, bytes]
"""A hash as Redis holds it."""


class NewJob(NamedTuple):
    """A job to create. `payload` and `headers` are JSON; `retry_delay` as lua/include/retry_delay.lua reads it."""

    name: str
    payload: bytes
    max_retries: int
    timeout_s: int
    scheduled_ms: int | None
    callback_url: str
    callback_headers: bytes
    retry_delay: str
    claim: bool
    limit_s: int | None = None

    @property
    def lease_s(self) -> int:
        """How long the lease is with which an attempt begins."""
        return self.timeout_s if self.limit_s is None else min(self.timeout_s, self.limit_s)


class Created(NamedTuple):
    """What a create did: ids in order, a lease token for each claimed job, and whether an earlier call did it."""

    ids: list[str]
    tokens: list[str]
    at_ms: int
    replayed: bool


class Delivered(NamedTuple):
    """What a worker gets for one job."""

    id: str
    token: str
    name: bytes
    payload: bytes
    timeout_s: int
    max_retries: int
    attempt: int
    created_ms: int
    checkpoint: bytes | None
    trace: bytes | None
    lease_end_ms: int


class RenewedLease(NamedTuple):
    """A worker's call that went through: the job's status, and the end of its lease, if it has one."""

    status: str
    lease_end_ms: int | None


class Failure(NamedTuple):
    """How an attempt failed: an error (JSON), and what comes of it.

    `delay_ms` is in the place of the job's own retry delay; with `claim` the retry is the caller's in the same step.
    """

    error: bytes
    may_retry: bool
    delay_ms: int | None = None
    claim: bool = False


class FailedAttempt(NamedTuple):
    """A failed attempt: where the job stands now."""

    status: str
    will_retry: bool
    attempt: int
    token: str
    """The lease of a retry that the caller claimed; "" for none."""
    lease_end_ms: int | None


class Release(NamedTuple):
    """A job that is given back: the reason (JSON, a string or null), and how long it waits (0: not at all)."""

    reason: bytes
    delay_ms: int


class ReleasedJob(NamedTuple):
    """A job that was given back: where it stands now."""

    status: str
    attempt: int


class Event(NamedTuple):
    """One event of a job: its place, and the item of the list (JSON array of type, ms, data and status)."""

    seq: int
    item: bytes


class Events(NamedTuple):
    """A page of events, and the range that is kept."""

    events: list[Event]
    first_kept: int
    newest: int


class Listed(NamedTuple):
    """One job of a list: its creation counter, which orders the list, and about how many bytes its hash has."""

    id: str
    created: int
    size_bytes: int


class Listing(NamedTuple):
    """Jobs of a list, how many there are in all, and whether there are more behind these."""

    jobs: list[Listed]
    total: int
    more: bool


def hash_fields(flat: Sequence[bytes]) -> HashFields:
    """A hash from Redis's flat reply."""
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
