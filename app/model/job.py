"""The domain: which statuses a job has, and which changes of status there are. No I/O."""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

NO_SPACE = "-"
"""Stands for the space of a job that nobody has. Nothing lies under its tag; `{}` would be no hash tag at all."""


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
    yield Transition("poll", pending, Status.RUNNING, "started", "with ack")
    yield Transition("claim", pending, Status.DELIVERED, "delivered", "")
    yield Transition("ack", delivered, Status.RUNNING, "started", "")
    yield Transition("end_leases", delivered, Status.PENDING, "delivery_timeout", "")
    yield Transition("end_leases", delivered, Status.DEAD, "dead", "after 100 deliveries in a row without an ack")
    yield Transition("complete", LEASED, Status.COMPLETED, "completed", "")
    for by, sources in (("fail", LEASED), ("end_leases", running)):
        yield Transition(by, sources, Status.PENDING, "retried", "a retry is left")
        yield Transition(by, sources, Status.SCHEDULED, "retried", "a retry is left, after a delay")
        yield Transition(by, sources, Status.DEAD, "dead", "no retry is left")
    yield Transition("release", LEASED, Status.PENDING, "released", "")
    yield Transition("release", LEASED, Status.SCHEDULED, "released", "with delaySeconds")
    yield Transition("kill", ALIVE, Status.KILLED, "killed", "")
    yield Transition("retry", frozenset({Status.DEAD, Status.KILLED}), Status.PENDING, "requeued", "")


TRANSITION_TABLE = tuple(_transitions())
