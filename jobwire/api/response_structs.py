"""What the service answers, as typed structs: jobs, deliveries, log lines, pages, spaces, keys.

Owns the shapes only. Unknown fields are ignored, so that an older client reads a newer service; times stay the text
that was sent (RFC 3339, UTC). JSON that belongs to users (payload, result, checkpoint, metadata, data) stays the bytes
that it is until somebody asks for it: a number that Python cannot hold hurts nobody who does not read it.
"""

from __future__ import annotations

import json
from decimal import Decimal
from math import isfinite
from typing import Any

import msgspec

STATUSES = ("scheduled", "pending", "delivered", "running", "completed", "dead", "killed")
ENDED = frozenset({"completed", "dead", "killed"})


_NULL = msgspec.Raw(b"null")


def value_of(raw: msgspec.Raw) -> Any:
    """What a piece of JSON says. A number beyond what int and float hold is a `decimal.Decimal`."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, ValueError):
        return json.loads(bytes(raw), parse_int=_number, parse_float=_number)


def _number(text: str) -> int | float | Decimal:
    try:
        exact: int | float = int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return Decimal(text)
    return exact if isinstance(exact, int) or isfinite(exact) else Decimal(text)


class _Record(msgspec.Struct, rename="camel", kw_only=True):
    pass


class Job(_Record):
    """A job as create, list and get answer it; what a call does not carry is None."""

    id: str
    space_id: str
    name: str
    status: str
    payload_json: msgspec.Raw = msgspec.field(name="payload", default=_NULL)
    max_retries: int = 0
    attempt_number: int = 0
    timeout_seconds: int = 300
    scheduled_for: str | None = None
    delivered_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    result_json: msgspec.Raw = msgspec.field(name="result", default=_NULL)
    created_at: str | None = None
    updated_at: str | None = None
    realtime_url: str | None = None
    lease_token: str | None = None
    events_json: list[msgspec.Raw] = msgspec.field(name="events", default_factory=list)

    @property
    def payload(self) -> Any:
        return value_of(self.payload_json)

    @property
    def result(self) -> Any:
        return value_of(self.result_json)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [value_of(event) for event in self.events_json]

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


class Delivery(_Record):
    """A job as poll and claim hand it out, with the lease token of this delivery."""

    id: str
    name: str = ""
    payload_json: msgspec.Raw = msgspec.field(name="payload", default=_NULL)
    timeout_seconds: int = 300
    max_retries: int = 0
    attempt_number: int = 0
    created_at: str | None = None
    lease_token: str | None = None
    timeout_at: str | None = None
    checkpoint_json: msgspec.Raw = msgspec.field(name="checkpoint", default=_NULL)

    @property
    def payload(self) -> Any:
        return value_of(self.payload_json)

    @property
    def checkpoint(self) -> Any:
        return value_of(self.checkpoint_json)


class Renewal(_Record):
    """The answer to a worker's call: the job's status, and when its lease ends now."""

    status: str = ""
    timeout_at: str | None = None


class BulkRetry(_Record):
    """The answer to a bulk retry: how many run again, and whether some are left for a further call."""

    retried: int = 0
    more: bool = False


class Failure(_Record):
    """The answer to fail: whether there will be another attempt, its number, and its lease if it was claimed."""

    status: str = ""
    will_retry: bool = False
    attempt_number: int = 0
    lease_token: str | None = None
    timeout_at: str | None = None


class Released(_Record):
    """The answer to release: where the job stands now, and its attempt, which is as before."""

    status: str = ""
    attempt_number: int = 0


class CallAnswered(_Record):
    """What one call of a batch was answered: the status and the body that it would have got by itself."""

    status: int
    body: dict[str, Any]

    @property
    def is_done(self) -> bool:
        return self.status == 200


class Progress(_Record):
    """The last progress; `progress` is None if none was reported."""

    job_id: str
    progress: dict[str, Any] | None = None
    timestamp: str | None = None


class Appended(_Record):
    """The answer to an append: how many lines, their seqs (None for an empty batch), the job's status."""

    inserted: int = 0
    from_seq: int | None = None
    to_seq: int | None = None
    truncated: int = 0
    status: str = ""


class LogLine(_Record):
    """One stored line."""

    seq: int
    message: str
    level: str = "info"
    source: str | None = None
    metadata_json: msgspec.Raw = msgspec.field(name="metadata", default=_NULL)
    logged_at: str | None = None
    created_at: str | None = None
    id: str | None = None

    @property
    def metadata(self) -> dict[str, Any] | None:
        metadata: dict[str, Any] | None = None if self.metadata_json == _NULL else value_of(self.metadata_json)
        return metadata


class Cursor(_Record):
    """Where a page was read and whether there is more in the direction of travel."""

    mode: str = "tail"
    oldest_seq: int | None = None
    newest_seq: int | None = None
    has_more: bool = False
    first_seq: int | None = None


class LogPage(_Record):
    """Lines in ascending seq, and the cursor to go on from."""

    logs: list[LogLine]
    cursor: Cursor


class Space(_Record):
    """A space and its jobs by status; `public_token` only when it has just been made."""

    id: str
    name: str
    created_at: str | None = None
    counts: dict[str, int] = {}
    public_token: str | None = None


class Token(_Record):
    """What is known of a key; `key` only when it has just been made."""

    id: str
    name: str
    scopes: list[str] = []
    created_at: str | None = None
    expires_at: str | None = None
    last_used_at: str | None = None
    key: str | None = None


class Ends(_Record):
    """How many jobs ended how, and the time (ms) that half and 95 of 100 of the completed stayed within."""

    completed: int = 0
    dead: int = 0
    killed: int = 0
    p50_ms: int | None = None
    p95_ms: int | None = None


class NameStats(_Record):
    """How the jobs of one name fare; `name` is None for those that the server counted without their names."""

    name: str | None
    last_hour: Ends
    last_day: Ends
    pending: int = 0
    oldest_pending_at: str | None = None


class SpaceStats(_Record):
    """How the jobs of a space fare, the busiest name first."""

    names: list[NameStats]
    oldest_pending_at: str | None = None


class Shard(_Record):
    """One primary of a Redis cluster, as `/readyz` tells of it; what it does not tell is None."""

    server: str
    ok: bool
    why: str | None = None
    slots: int | None = None
    used_bytes: int | None = None
    max_bytes: int | None = None


class Readiness(_Record):
    """What `/readyz` answers; no shards without a cluster."""

    shards: list[Shard] | None = None
    problems: list[str] = []

    @property
    def lost_shards(self) -> list[Shard]:
        """Those that have a problem."""
        return [shard for shard in self.shards or () if not shard.ok]
