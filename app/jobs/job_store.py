"""The verbs of a job on Redis. Each that changes something is one script: all of it happens, or none.

Owns: those of producers, readers and the sweeper (app/jobs/worker_store.py has the workers'): which script is called
with which keys, and what comes back. Never: reads, decides and writes in separate steps; sends anything twice. JSON
that belongs to users goes through as bytes.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence

from app.jobs.job_records import (
    Created,
    Event,
    Events,
    HashFields,
    Listed,
    Listing,
    NewJob,
    hash_fields,
)
from app.jobs.outages import Downtime
from app.jobs.worker_store import WorkerStore
from app.metrics import catalog
from app.model.errors import invalid, job_not_found
from app.model.ids import is_ulid, new_job_ids, new_lease_token, space_tag_of
from app.model.limits import EVENTS_ANSWERED, EVENTS_ANSWERED_BYTES, IDEMPOTENCY_MS, JOB_BYTES, MIB
from app.model.redis_keys import Keys
from app.redis_links.clock import RedisClock
from app.redis_links.link import Link, Word
from app.redis_links.memory_headroom import Headroom
from app.redis_links.scripts import Scripts
from app.settings import Settings

LIST_SLICE_BYTES = MIB
LIST_SLICES_AT_ONCE = 4
"""What is read of a list in one go, and how many such reads of this process are on their way at once."""


class JobStore(WorkerStore):
    """Jobs of all spaces. `control` carries small calls, `bulk` large answers."""

    def __init__(
        self, control: Link, bulk: Link, keys: Keys, clock: RedisClock, settings: Settings, *, headroom: Headroom
    ) -> None:
        super().__init__(control, keys, clock, settings, headroom)
        self._bulk = bulk
        self._bulk_scripts = Scripts(bulk)
        self._slices = asyncio.Semaphore(LIST_SLICES_AT_ONCE)
        self._spaces: dict[str, str] = {}

    # Which space

    async def space_of(self, job: str) -> str | None:
        """The space that a job id belongs to, by its tag; None for a string that is no id or a tag nobody has."""
        if not is_ulid(job):
            return None
        mark = space_tag_of(job)
        known = self._spaces.get(mark)
        if known is None:
            space = await self._control.call("HGET", self._keys.spaces, mark)
            if space is None:
                return None
            known = self._spaces[mark] = space.decode()
        return known

    def forget_space(self, space: str) -> None:
        """No longer take this space for granted."""
        self._spaces.pop(space_tag_of(space), None)

    # Producers

    async def create(
        self, space: str, jobs: Sequence[NewJob], *, idem_key: str = "", digest: str = "", trace: str = ""
    ) -> Created:
        """Create jobs, all or none. With `idem_key`, the same `digest` again is answered like the first.

        `trace` is the traceparent that they belong to.

        Refusals: space_not_found, idempotency_mismatch, space_full, unavailable when Redis is almost full,
        invalid_request for a scheduledFor that passed more than a minute ago.
        """
        size_bytes = sum(JOB_BYTES + len(job.payload) + len(job.callback_headers) for job in jobs)
        space_key = self._keys.space(space)
        await self._headroom.require(size_bytes, space_key)
        ids = new_job_ids(space, self._clock.now_ms(space_key), len(jobs))
        tokens = [new_lease_token() if job.claim else "" for job in jobs]
        args: list[Word] = [len(jobs), digest, IDEMPOTENCY_MS, self._bounds.space_bytes]
        for id_, job, token in zip(ids, jobs, tokens, strict=True):
            due = "" if job.scheduled_ms is None else job.scheduled_ms
            args += (id_, job.name, job.payload, job.max_retries, job.timeout_s, due)
            args += (job.callback_url, job.callback_headers, job.retry_delay, token)
            args.append("" if job.limit_s is None else job.limit_s)
        if trace:
            args.append(trace)
        idem = self._keys.idem(space, idem_key) if digest else space_key
        reply = await self._scripts.raw("job_create", [space_key, idem], args)
        if reply[0] == b"past":
            index = {"index": reply[1]} if len(jobs) > 1 else {}
            raise invalid("scheduledFor is more than a minute ago.", **index)
        if reply[0] == b"replay":
            created = [entry.partition(":") for entry in reply[2].decode().split(",")]
            return Created([m[0] for m in created], [m[2] for m in created], int(reply[1]), True)
        done = self._scripts.done("job_create", reply)
        catalog.count_transitions("created", len(jobs))
        catalog.count_transitions("delivered", len(jobs) - tokens.count(""))
        at_ms = int(done[0])
        if dues := [_first_due_ms(job, at_ms) for job in jobs if job.claim or (job.scheduled_ms or 0) > at_ms]:
            self._hint_due(space, min(dues))
        return Created(ids, tokens, at_ms, False)

    async def kill(self, space: str, job: str, token: str, reason: bytes) -> str:
        """End a job that has not ended; its new status. Refusals: job_not_found, lease_lost, invalid_state."""
        if not is_ulid(job):
            raise job_not_found()
        words: list[Word] = [job, token, reason, self._bounds.keep_ms]
        status, callback_due = await self._scripts.run("job_kill", [self._keys.space(space)], words)
        catalog.count_transitions("killed")
        self._hint_ended(space, callback_due)
        return str(status.decode())

    async def retry(self, space: str, job: str, token: str) -> str:
        """Let a dead or killed job run again; its new status. Refusals: job_not_found, lease_lost, invalid_state."""
        if not is_ulid(job):
            raise job_not_found()
        reply = await self._scripts.run("job_retry", [self._keys.space(space)], [job, token])
        catalog.count_transitions("requeued")
        return str(reply[0].decode())

    async def retry_callback(self, space: str, job: str) -> str:
        """Send the callback of an ended job once more; the job's status.

        Refusals: job_not_found, invalid_state, invalid_request without a callbackUrl.
        """
        if not is_ulid(job):
            raise job_not_found()
        status, due = await self._scripts.run("callback_retry", [self._keys.space(space)], [job])
        self._hint_callback(space, due)
        return str(status.decode())

    # Readers

    async def read_job(self, space: str, job: str) -> tuple[HashFields, Events]:
        """A job's hash and its newest events, as they are at one moment. Refusals: job_not_found."""
        if not is_ulid(job):
            raise job_not_found()
        args: list[Word] = [job, EVENTS_ANSWERED, EVENTS_ANSWERED_BYTES]
        reply = await self._bulk_scripts.run("job_read", [self._keys.space(space)], args)
        fields = hash_fields(reply[0])
        first, items, kept = reply[1], reply[2], reply[3]
        newest = int(fields["eventSeq"])
        events = [Event(first + i, item) for i, item in enumerate(items)]
        return fields, Events(events, newest - kept + 1, newest)

    async def read_events(
        self, space: str, job: str, after: int, limit: int, limit_bytes: int = EVENTS_ANSWERED_BYTES
    ) -> Events:
        """Up to `limit` events after a seq, or `limit_bytes` of them, but one. Refusals: job_not_found."""
        if not is_ulid(job):
            raise job_not_found()
        args: list[Word] = [job, after, limit, limit_bytes]
        reply = await self._bulk_scripts.run("job_events", [self._keys.space(space)], args)
        events = [Event(reply[0] + i, item) for i, item in enumerate(reply[1])]
        return Events(events, reply[2], reply[3])

    async def read_fields(self, space: str, job: str, *names: str) -> list[bytes | None]:
        """Some fields of a job's hash. Refusals: job_not_found."""
        if not is_ulid(job):
            raise job_not_found()
        reply: list[bytes | None] = await self._control.call("HMGET", self._keys.job(space, job), "status", *names)
        if reply[0] is None:
            raise job_not_found()
        return reply[1:]

    async def list_jobs(
        self, space: str, statuses: Sequence[str], limit: int, *, below: int = 0, skipped: int = 0
    ) -> Listing:
        """Which jobs of these statuses (none: of all) there are, newest created first, as they stand at one moment.

        Those created before the counter `below` (0: all of them), without the newest `skipped`.
        """
        args: list[Word] = [below, skipped, limit + 1, *statuses]
        total, flat = await self._bulk_scripts.run("job_list", [self._keys.space(space)], args)
        jobs = [Listed(flat[i].decode(), flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)]
        return Listing(jobs[:limit], total, len(jobs) > limit)

    async def read_hashes(self, space: str, jobs: Sequence[Listed]) -> list[HashFields]:
        """The hash of each job, empty for one that has gone. Ask for no more than a slice of a listing at once.

        Few slices are on their way at a time, so that small calls on the same link wait for a few MiB at most.
        """
        async with self._slices:
            hashes = await self._bulk.pipeline(*(("HGETALL", self._keys.job(space, job.id)) for job in jobs))
        return [hash_fields(flat) for flat in hashes]

    # The sweeper's part

    async def end_leases(self, space: str, most: int, outage: Downtime | None = None) -> int | None:
        """Act on up to `most` leases that ended; how many deadlines were looked at.

        None, and nothing was done, when `outage` is not to be believed any more: a newer one may have been.
        """
        args: list[Word] = [most, random.getrandbits(31), self._bounds.keep_ms, *(outage.words() if outage else ())]
        reply = await self._scripts.raw("job_end_leases", [self._keys.space(space)], args)
        if reply[0] == b"stale":
            return None
        looked_at, callback_due, undelivered, retried, dead = self._scripts.done("job_end_leases", reply)
        for outcome, count in (("delivery_timeout", undelivered), ("retried", retried), ("dead", dead)):
            catalog.count_lease_expiries(outcome, count)
        self._hint_callback(space, callback_due)
        return int(looked_at)

    async def promote_jobs(self, space: str, most: int) -> int:
        """Make up to `most` scheduled jobs pending whose time has come; how many were looked at."""
        (looked_at,) = await self._scripts.run("job_promote", [self._keys.space(space)], [most])
        catalog.count_transitions("pending", looked_at)
        return int(looked_at)

    async def delete_job(self, space: str, job: str) -> None:
        """Remove one ended job's keys of its space. Its log is then listed to go.

        Refusals: job_not_found, invalid_state.
        """
        await self._scripts.run("job_delete", [self._keys.space(space)], [job])

    async def retire_jobs(self, space: str, most: int) -> list[str]:
        """Remove the keys of up to `most` jobs whose retention is over; their ids. Their logs are then listed to go."""
        args: list[Word] = [most, self._retention_ms]
        return [id_.decode() for id_ in await self._scripts.run("job_retire", [self._keys.space(space)], args)]

    async def clear_space(self, space: str, most: int) -> list[str]:
        """Remove the keys of up to `most` jobs of a space that goes; their ids. Their logs are then listed to go."""
        return [id_.decode() for id_ in await self._scripts.run("job_retire", [self._keys.space(space)], [most, ""])]


def list_slices(jobs: Sequence[Listed]) -> Iterator[list[Listed]]:
    """The jobs in their order, in pieces of about SLICE_BYTES, of which each has at least one."""
    piece: list[Listed] = []
    size_bytes = 0
    for job in jobs:
        if piece and size_bytes + job.size_bytes > LIST_SLICE_BYTES:
            yield piece
            piece, size_bytes = [], 0
        piece.append(job)
        size_bytes += job.size_bytes
    if piece:
        yield piece


def _first_due_ms(job: NewJob, now_ms: int) -> int:
    """When something of a scheduled or claimed job is due."""
    if job.scheduled_ms is not None:
        return job.scheduled_ms
    return now_ms + job.lease_s * 1000
