"""What clients get: the typed structs that encode answers, and how they are made from what the stores return.

Owns: every answer but those of logs (app/api/log_schemas.py). /openapi.json is made of these structs.
"""

import hashlib
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from app.jobs.job_records import Delivered, Event, HashFields, NewJob
from app.jobs.spaces import Space, Token
from app.model.ids import encode_ulid
from app.model.json_items import NULL
from app.model.times import rfc3339
from app.webhooks.space_hooks import HooksShown, show_hooks


class JobAnswer(Struct, rename="camel"):
    """The job object."""

    id: str
    space_id: str
    name: str
    payload: Raw
    status: str
    max_retries: int
    attempt_number: int
    timeout_seconds: int
    scheduled_for: str | None
    delivered_at: str | None
    started_at: str | None
    completed_at: str | None
    result: Raw
    created_at: str
    updated_at: str
    limit_seconds: int | None = None
    traceparent: str | UnsetType = UNSET
    realtime_url: str | UnsetType = UNSET
    lease_token: str | UnsetType = UNSET
    timeout_at: str | UnsetType = UNSET


class EventAnswer(Struct, rename="camel"):
    """One event of a job. `id` is derived from the job, the time and the seq: the same at each reading."""

    id: str
    job_id: str
    space_id: str
    type: str
    data: Raw
    created_at: str
    seq: int


class JobDetails(JobAnswer, kw_only=True):
    """The job object with what only its own page shows."""

    callback_url: str | None
    callback_headers: dict[str, str] | None
    checkpoint: Raw
    events: list[EventAnswer]
    events_truncated: bool | UnsetType = UNSET


class DeliveredAnswer(Struct, rename="camel"):
    """What a worker gets for one job."""

    id: str
    name: str
    payload: Raw
    timeout_seconds: int
    max_retries: int
    attempt_number: int
    created_at: str
    lease_token: str
    timeout_at: str
    checkpoint: Raw
    traceparent: str | UnsetType = UNSET


class SpaceAnswer(Struct, rename="camel"):
    """A space and its jobs by status."""

    id: str
    name: str
    created_at: str
    counts: Raw
    hooks: HooksShown | UnsetType = UNSET
    public_token: str | UnsetType = UNSET
    webhook_secret: str | UnsetType = UNSET


class TokenAnswer(Struct, rename="camel"):
    """What is known of a key; `key` only when it has just been made."""

    id: str
    name: str
    scopes: list[str]
    created_at: str
    expires_at: str | None
    last_used_at: str | UnsetType | None = UNSET
    key: str | UnsetType = UNSET


def when(at_ms: bytes | int | None) -> str | None:
    """A moment, or None."""
    return None if at_ms is None else rfc3339(int(at_ms))


def job_fields(space: str, job: str, fields: HashFields) -> dict[str, Any]:
    """The members of a job object, from its hash."""
    return {
        "id": job,
        "space_id": space,
        "name": fields["name"].decode(),
        "payload": Raw(fields["payload"]),
        "status": fields["status"].decode(),
        "max_retries": int(fields["maxRetries"]),
        "attempt_number": int(fields["attemptNumber"]),
        "timeout_seconds": int(fields["timeoutSeconds"]),
        "scheduled_for": when(fields.get("scheduledFor")),
        "delivered_at": when(fields.get("deliveredAt")),
        "started_at": when(fields.get("startedAt")),
        "completed_at": when(fields.get("completedAt")),
        "result": Raw(fields["result"]) if "result" in fields else NULL,
        "created_at": rfc3339(int(fields["createdAt"])),
        "updated_at": rfc3339(int(fields["updatedAt"])),
        "limit_seconds": int(fields["limitSeconds"]) if "limitSeconds" in fields else None,
        "traceparent": fields["traceparent"].decode() if "traceparent" in fields else UNSET,
    }


def created_answer(
    space: str, job: NewJob, id_: str, token: str, *, at_ms: int, realtime_url: str, trace: str
) -> JobAnswer:
    """The job object of a job as it was when it was created."""
    at = rfc3339(at_ms)
    status = "delivered" if token else "scheduled" if (job.scheduled_ms or 0) > at_ms else "pending"
    return JobAnswer(
        id=id_,
        space_id=space,
        name=job.name,
        payload=Raw(job.payload),
        status=status,
        max_retries=job.max_retries,
        attempt_number=0,
        timeout_seconds=job.timeout_s,
        scheduled_for=when(job.scheduled_ms),
        delivered_at=at if token else None,
        started_at=None,
        completed_at=None,
        result=NULL,
        created_at=at,
        updated_at=at,
        limit_seconds=job.limit_s,
        traceparent=trace or UNSET,
        realtime_url=realtime_url,
        lease_token=token or UNSET,
        timeout_at=rfc3339(at_ms + job.lease_s * 1000) if token else UNSET,
    )


def event_answer(space: str, job: str, event: Event) -> EventAnswer:
    """One event, from the item of the job's list."""
    kind, at_ms, data, _ = _ITEM.decode(event.item)
    return EventAnswer(_event_id(job, at_ms, event.seq), job, space, kind, data, rfc3339(at_ms), event.seq)


_ITEM = msgspec.json.Decoder(tuple[str, int, Raw, str])


def _event_id(job: str, at_ms: int, seq: int) -> str:
    return encode_ulid(at_ms, hashlib.blake2b(f"{job}:{seq}".encode(), digest_size=10).digest())


def delivered_answer(job: Delivered) -> DeliveredAnswer:
    """What a worker gets for one job."""
    return DeliveredAnswer(
        id=job.id,
        name=job.name.decode(),
        payload=Raw(job.payload),
        timeout_seconds=job.timeout_s,
        max_retries=job.max_retries,
        attempt_number=job.attempt,
        created_at=rfc3339(job.created_ms),
        lease_token=job.token,
        timeout_at=rfc3339(job.lease_end_ms),
        checkpoint=NULL if job.checkpoint is None else Raw(job.checkpoint),
        traceparent=UNSET if job.trace is None else job.trace.decode(),
    )


def space_answer(
    space: Space, public_token: str | UnsetType = UNSET, webhook_secret: str | UnsetType = UNSET
) -> SpaceAnswer:
    """A space; with its public key or a secret when that has just been made."""
    created_at = rfc3339(int(space.fields["createdAt"]))
    return SpaceAnswer(
        space.id,
        space.fields["name"].decode(),
        created_at,
        Raw(space.counts),
        show_hooks(space.fields),
        public_token,
        webhook_secret,
    )


def token_answer(token: Token) -> TokenAnswer:
    """A key: with the key itself when it has just been made, else with when it was last used."""
    return TokenAnswer(
        token.id,
        token.name,
        token.scopes,
        rfc3339(token.created_ms),
        when(token.expires_ms),
        UNSET if token.key else when(token.used_ms),
        token.key or UNSET,
    )


class Ended(Struct):
    """A call that changed a job's status went through."""

    status: str
    success: bool = True


class Renewed(Struct, rename="camel"):
    """A worker's call went through: where the job stands, and when its lease ends (null without one)."""

    status: str
    timeout_at: str | None
    success: bool = True


class Failed(Struct, rename="camel"):
    """A failed attempt: where the job stands, whether another follows, and the lease of one that was claimed."""

    status: str
    will_retry: bool
    attempt_number: int
    success: bool = True
    lease_token: str | UnsetType = UNSET
    timeout_at: str | UnsetType = UNSET


class Released(Struct, rename="camel"):
    """A job that was given back: where it stands, and its attempt, which is as before."""

    status: str
    attempt_number: int
    success: bool = True


class CallAnswered(Struct):
    """One call of a batch: the status and the body that it would have been answered with by itself."""

    status: int
    body: dict[str, Any]


class BulkRetried(Struct):
    """How many jobs run again after a bulk retry, and whether some are left for a further call."""

    retried: int
    more: bool
    success: bool = True


class Polled(Struct):
    """What a worker got."""

    jobs: list[DeliveredAnswer]


class ProgressShown(Struct, rename="camel"):
    """The latest progress of a job; nulls before the first one."""

    job_id: str
    progress: Raw
    timestamp: str | None


class EventCursor(Struct, rename="camel"):
    """The oldest event kept, the last one of this page, and whether there are more after it."""

    first_seq: int
    newest_seq: int
    has_more: bool


class EventPage(Struct):
    """Events of a job, oldest first."""

    events: list[EventAnswer]
    cursor: EventCursor


class WhoAmI(Struct, rename="camel"):
    """What a key may do, and in which space (null: the root key, in all of them)."""

    space: str | None
    space_name: str | None
    scopes: list[str]
    root: bool


class Problem(Struct):
    """Every error: a sentence for a person, a stable word for a program, and further members where they help."""

    error: str
    code: str


class EndsShown(Struct, rename="camel"):
    """How jobs ended, and how long half and 95 of 100 of the completed took at most (null where none completed)."""

    completed: int
    dead: int
    killed: int
    p50_ms: int | None
    p95_ms: int | None


class NameShown(Struct, rename="camel"):
    """One name (null: all those beyond the thousand that an hour counts by name), and its pending jobs."""

    name: str | None
    last_hour: EndsShown
    last_day: EndsShown
    pending: int
    oldest_pending_at: str | None


class StatsShown(Struct, rename="camel"):
    """A space's names, the busiest first, and since when its oldest pending job waits."""

    names: list[NameShown]
    oldest_pending_at: str | None
