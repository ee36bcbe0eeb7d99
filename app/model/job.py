"""The domain: what a job is, which changes of status there are, what an id is made of, and every limit. No I/O."""

import re
import secrets
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32, as ULIDs use it. https://github.com/ulid/spec"""

_PAIRS = tuple(high + low for high in ALPHABET for low in ALPHABET)
_SHIFTS = range(120, -1, -10)
_REST_SHIFTS = range(50, -1, -10)
_EVEN = {c: ALPHABET[i & ~1] for i, c in enumerate(ALPHABET)}
_ULID = re.compile(f"[0-7][{ALPHABET}]{{25}}")

KIB = 1024
MIB = 1024 * KIB


class Status(StrEnum):
    """Where a job stands."""

    SCHEDULED = "scheduled"
    PENDING = "pending"
    DELIVERED = "delivered"
    RUNNING = "running"
    COMPLETED = "completed"
    DEAD = "dead"
    KILLED = "killed"


ENDED = frozenset({Status.COMPLETED, Status.DEAD, Status.KILLED})
LEASED = frozenset({Status.DELIVERED, Status.RUNNING})
ALIVE = frozenset(Status) - ENDED


class Transition(NamedTuple):
    """One change of status: what brings it about, from where, to where, and the event that tells of it."""

    by: str
    sources: frozenset[Status]
    target: Status
    event: str
    when: str


def _transitions() -> Iterable[Transition]:
    scheduled, pending = frozenset({Status.SCHEDULED}), frozenset({Status.PENDING})
    delivered, running = frozenset({Status.DELIVERED}), frozenset({Status.RUNNING})
    yield Transition("create", frozenset(), Status.PENDING, "created", "")
    yield Transition("create", frozenset(), Status.SCHEDULED, "created", "with a future scheduledFor")
    yield Transition("promote", scheduled, Status.PENDING, "pending", "the time has come")
    yield Transition("poll", pending, Status.DELIVERED, "delivered", "")
    yield Transition("claim", pending, Status.DELIVERED, "delivered", "")
    yield Transition("ack", delivered, Status.RUNNING, "started", "")
    yield Transition("expire", delivered, Status.PENDING, "delivery_timeout", "")
    yield Transition("expire", delivered, Status.DEAD, "dead", "after 100 deliveries in a row without an ack")
    yield Transition("complete", LEASED, Status.COMPLETED, "completed", "")
    for by, sources in (("fail", LEASED), ("expire", running)):
        yield Transition(by, sources, Status.PENDING, "retried", "a retry is left")
        yield Transition(by, sources, Status.SCHEDULED, "retried", "a retry is left, after a delay")
        yield Transition(by, sources, Status.DEAD, "dead", "no retry is left")
    yield Transition("kill", ALIVE, Status.KILLED, "killed", "")
    yield Transition("retry", frozenset({Status.DEAD, Status.KILLED}), Status.PENDING, "requeued", "")


TRANSITIONS = tuple(_transitions())

NAME_CHARS = 200
PAYLOAD_BYTES = MIB
RETRIES_MOST = 25
TIMEOUT_S_MOST = 86_400
URL_CHARS = 2048
HEADERS_MOST = 32
HEADERS_BYTES = 8 * KIB
BATCH_JOBS = 1000
BATCH_CLAIMS = 100
BATCH_BYTES = 8 * MIB
RESULT_BYTES = MIB
TEXT_BYTES = 64 * KIB
PROGRESS_BYTES = 16 * KIB
STAGES_MOST = 100
CHECKPOINT_BYTES = 256 * KIB
EVENT_BYTES = 256 * KIB
POLL_JOBS = 50
RETRY_JOBS = 10_000
POLL_NAMES = 50
WAIT_S_MOST = 30
PAGE_BYTES = 8 * MIB
POLLED_BYTES = 8 * MIB
EVENTS_ANSWERED = 1000
EVENTS_ANSWERED_BYTES = 4 * MIB
NESTING_MOST = 64
IDEMPOTENCY_MS = 86_400_000

JOB_BYTES = KIB
"""What a job is counted at beside what it holds: what Redis needs for the smallest. As in lua/include/emit.lua."""

UNIT_BYTES = 64 * KIB
"""Bytes of an inflated body that are one unit more of a key's rate."""

UNIT_JOBS = 10
"""Jobs of one call, beside the first, that are one unit more."""


def encode_ulid(at_ms: int, entropy: bytes) -> str:
    """The ULID of a time and ten bytes."""
    number = at_ms << 80 | int.from_bytes(entropy)
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def new_space_id(at_ms: int) -> str:
    """A fresh space id. Its first 24 random bits are the space's tag."""
    return encode_ulid(at_ms, secrets.token_bytes(10))


def tag(ulid: str) -> str:
    """The first 24 random bits of an id, as its characters 10 to 14 with the 25th bit cleared: the space's tag."""
    return ulid[10:14] + _EVEN[ulid[14]]


@lru_cache(maxsize=256)
def _head(space: str, at_ms: int) -> tuple[str, int]:
    """What all job ids of a space and a moment begin with: 14 characters, and the last four bits of the tag."""
    return encode_ulid(at_ms, bytes(10))[:10] + space[10:14], ALPHABET.index(space[14]) >> 1


def new_job_ids(space: str, at_ms: int, count: int) -> list[str]:
    """Fresh job ids of a space: its tag, then 56 bits that nobody can guess, so that neighbours tell nothing."""
    (head, mark), entropy = _head(space, at_ms), secrets.token_bytes(7 * count)
    rests = [mark << 56 | int.from_bytes(entropy[i : i + 7]) for i in range(0, 7 * count, 7)]
    return [head + "".join([_PAIRS[rest >> shift & 1023] for shift in _REST_SHIFTS]) for rest in rests]


def is_ulid(text: str) -> bool:
    """Whether the text is a ULID in its canonical, upper-case form."""
    return _ULID.fullmatch(text) is not None


def new_lease_token() -> str:
    """A lease token: 128 bits, of which each delivery has its own."""
    return secrets.token_urlsafe(16)
