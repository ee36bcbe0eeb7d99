"""Producers, workers, zombies, kills and leases that end, in any order, against a small model of the job."""

import asyncio
import functools
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from app.jobs.job_records import hash_fields
from app.model.errors import Refusal
from app.model.job import ALIVE, TRANSITION_TABLE, Status
from tests.any_redis import AnyRedis
from tests.jobs.model import LEASED, Job, Refused
from tests.room import Room
from tests.sweeping import PLAIN

T = TypeVar("T")
NAMES = ("a", "b")


UNKNOWN_TOKEN = "?"
"""Stands in the model for a lease token that the service makes, until its answer is there."""


class World(RuleBasedStateMachine):
    """The service on one side, a Job of the model for each of its jobs on the other."""

    here: tuple[Room, asyncio.AbstractEventLoop]
    """One room and one event loop for all examples; each has a space of its own."""

    jobs = Bundle("jobs")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.room, self._loop = self.here
        self.store = self.room.backend.store
        self.space = self.wait(self.room.backend.spaces.create("model"))[0].id
        self.model: dict[str, Job] = {}
        self.queue: list[str] = []
        self.frozen: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str] = set()

    def wait(self, work: Awaitable[T]) -> T:
        return self._loop.run_until_complete(work)

    def same(self, job: str, change: Callable[[Job], object], work: Callable[[], Awaitable[T]]) -> T | None:
        """Do it on both sides: both do it, or both refuse with the same code."""
        wanted = ""
        before = self.model[job].status
        try:
            change(self.model[job])
        except Refused as refused:
            wanted = refused.code
        answer = self.wait(answer_or_refusal(work()))
        if isinstance(answer, Refusal):
            assert answer.code == wanted, (job, before)
            assert answer.code != "invalid_state" or answer.more["status"] == before
            return None
        assert not wanted, (job, before)
        self.line_up(job, before)
        return answer

    def line_up(self, job: str, before: str) -> None:
        """Keep the model's queue: whatever comes to pending goes to the back."""
        after = self.model[job].status
        if before == "pending" and after != "pending":
            self.queue.remove(job)
        if after == "pending" and before != "pending":
            self.queue.append(job)

    @rule(
        target=jobs,
        name=st.sampled_from(NAMES),
        retries=st.integers(0, 2),
        delay=st.booleans(),
        count=st.integers(1, 3),
    )
    def create(self, name: str, retries: int, delay: bool, count: int) -> Any:
        new = PLAIN._replace(name=name, max_retries=retries, retry_delay="1000" if delay else "")
        ids = self.wait(self.store.create(self.space, [new] * count)).ids
        for id_ in ids:
            self.model[id_] = Job(name, retries, delay)
            self.queue.append(id_)
        return multiple(*ids)

    @rule(target=jobs, name=st.sampled_from(NAMES))
    def create_scheduled(self, name: str) -> str:
        later = self.room.backend.clock.now_ms() + 10_000_000
        (id_,) = self.wait(self.store.create(self.space, [PLAIN._replace(name=name, scheduled_ms=later)])).ids
        self.model[id_] = Job(name, PLAIN.max_retries, status="scheduled")
        return id_

    @rule(target=leases, count=st.integers(1, 4), names=st.lists(st.sampled_from(NAMES), max_size=2), ack=st.booleans())
    def poll(self, count: int, names: list[str], ack: bool) -> Any:
        wanted = [job for job in self.queue if not names or self.model[job].name in names][:count]
        taken = self.wait(self.store.poll(self.space, count, names, ack=ack))
        assert [one.id for one in taken] == wanted, "the oldest first, none twice"
        for one in taken:
            self.handed_out(one.id, one.token, one.attempt)
            model = self.model[one.id]
            (model.deliver_acked if ack else model.deliver)(one.token)
            self.queue.remove(one.id)
        return multiple(*((one.id, one.token) for one in taken))

    def handed_out(self, job: str, token: str, attempt: int) -> None:
        assert token not in self.tokens, "each delivery has a token of its own"
        self.tokens.add(token)
        assert attempt == self.model[job].attempt

    @rule(target=leases, job=jobs)
    def claim(self, job: str) -> Any:
        if self.model[job].status == "pending":
            taken = self.wait(self.store.claim(self.space, job, ""))
            self.handed_out(job, taken.token, taken.attempt)
            self.model[job].deliver(taken.token)
            self.queue.remove(job)
            return (job, taken.token)
        self.same(job, lambda model: model.deliver("none"), lambda: self.store.claim(self.space, job, ""))
        return multiple()

    @rule(lease=leases, fenced=st.booleans())
    def ack(self, lease: tuple[str, str], fenced: bool) -> None:
        job, token = lease[0], lease[1] if fenced else ""
        self.same(job, lambda model: model.ack(token), lambda: self.store.ack(self.space, job, token))

    @rule(lease=leases, fenced=st.booleans(), progress=st.booleans())
    def renew(self, lease: tuple[str, str], fenced: bool, progress: bool) -> None:
        job, token = lease[0], lease[1] if fenced else ""
        verb = functools.partial(self.store.progress, progress=b"{}") if progress else self.store.keepalive
        self.same(job, lambda model: model.renew(token), lambda: verb(self.space, job, token))

    @rule(lease=leases, fenced=st.booleans(), result=st.sampled_from((b"1", b"2")))
    def complete(self, lease: tuple[str, str], fenced: bool, result: bytes) -> None:
        job, token = lease[0], lease[1] if fenced else ""
        self.same(
            job,
            lambda model: model.complete(token, result),
            lambda: self.store.complete(self.space, job, token, result),
        )

    @rule(lease=leases, fenced=st.booleans(), may_retry=st.booleans())
    def fail(self, lease: tuple[str, str], fenced: bool, may_retry: bool) -> None:
        job, token = lease[0], lease[1] if fenced else ""
        self.same(
            job,
            lambda model: model.fail(token, may_retry),
            lambda: self.store.fail(self.space, job, token, b'"no"', may_retry=may_retry),
        )

    @rule(lease=leases, fenced=st.booleans(), waits=st.booleans())
    def release(self, lease: tuple[str, str], fenced: bool, waits: bool) -> None:
        job, token = lease[0], lease[1] if fenced else ""
        self.same(
            job,
            lambda model: model.release(token, waits),
            lambda: self.store.release(self.space, job, token, b"null", 10_000_000 if waits else 0),
        )

    @rule(target=leases, lease=leases, fenced=st.booleans(), may_retry=st.booleans())
    def fail_and_claim(self, lease: tuple[str, str], fenced: bool, may_retry: bool) -> Any:
        job, token = lease[0], lease[1] if fenced else ""
        model = self.model[job]
        answer = self.same(
            job,
            lambda model: model.fail_and_claim(token, may_retry, UNKNOWN_TOKEN),
            lambda: self.store.fail(self.space, job, token, b'"no"', may_retry=may_retry, claim=True),
        )
        if answer is None or not answer.token:
            return multiple()
        if model.token == UNKNOWN_TOKEN:
            self.handed_out(job, answer.token, answer.attempt)
            model.learn(answer.token)
        assert model.token == answer.token, "the retry is the caller's, however often it is told"
        return (job, answer.token)

    @rule(job=jobs)
    def kill(self, job: str) -> None:
        self.same(job, lambda model: model.kill(""), lambda: self.store.kill(self.space, job, "", b"null"))

    @rule(job=jobs)
    def retry(self, job: str) -> None:
        if self.same(job, lambda model: model.retry(), lambda: self.store.retry(self.space, job, "")):
            self.frozen.pop(job, None)

    @rule(lease=leases)
    def lapse(self, lease: tuple[str, str]) -> None:
        job = lease[0]
        if self.model[job].status in ("delivered", "running"):
            self.model[job].lapse()
            past = self.room.backend.clock.now_ms() - 5
            self.wait(self.room.call("DEL", self.room.keys.lease(self.space, job)))
            self.wait(self.room.call("ZADD", self.room.keys.deadlines(self.space), past, job))

    @rule(most=st.integers(1, 3))
    def sweep(self, most: int) -> None:
        due = [id_.decode() for id_ in self.wait(self.room.call("ZRANGE", self.room.keys.deadlines(self.space), 0, -1))]
        lapsed = [job for job in due if self.model[job].lapsed][:most]
        assert self.wait(self.store.end_leases(self.space, most)) == len(lapsed)
        for job in lapsed:
            before = self.model[job].status
            assert self.model[job].end_lease()
            self.line_up(job, before)

    @rule(job=jobs)
    def time_comes(self, job: str) -> None:
        if self.model[job].promote():
            self.queue.append(job)
            self.wait(self.room.call("ZADD", self.room.keys.scheduled(self.space), 1, job))
            assert self.wait(self.store.promote_jobs(self.space, 10)) == 1

    @invariant()
    def everything_agrees(self) -> None:
        """All that Redis holds, at one moment, against all that the model knows."""
        seen = Sight(self.room, self.space, list(self.model))
        self.wait(seen.look())
        for job, model in self.model.items():
            self.hash_agrees(model, seen.hashes[job])
            self.an_end_stays_as_it_is(job, model, seen.hashes[job])
            self.events_tell_the_story(model, seen.hashes[job], seen.events[job])
        self.indexes_agree(seen)
        self.leases_are_held_by_leased_jobs_only(seen)

    def hash_agrees(self, model: Job, found: dict[str, bytes]) -> None:
        assert found["status"].decode() == model.status
        assert int(found["attemptNumber"]) == model.attempt <= int(found["maxRetries"])
        assert found.get("leaseToken", b"").decode() == model.token
        assert model.runs <= model.allowed_runs

    def an_end_stays_as_it_is(self, job: str, model: Job, found: dict[str, bytes]) -> None:
        ended = model.status not in ALIVE
        assert ("completedAt" in found) == ended == ("result" in found)
        if ended:
            assert self.frozen.setdefault(job, found) == found, "an ended job never changes but by retry"

    def events_tell_the_story(self, model: Job, found: dict[str, bytes], events: list[str]) -> None:
        assert events == model.events
        assert int(found["eventSeq"]) == len(events), "seqs have no holes"
        assert model.status in statuses_after(events)

    def indexes_agree(self, seen: "Sight") -> None:
        for status in Status:
            assert set(seen.indexes[status]) == {job for job, model in self.model.items() if model.status == status}
        assert seen.counts == Counter(model.status for model in self.model.values())
        assert seen.indexes["queue"] == self.queue
        for name in NAMES:
            assert seen.indexes[name] == [job for job in self.queue if self.model[job].name == name]

    def leases_are_held_by_leased_jobs_only(self, seen: "Sight") -> None:
        leased = {job for job, model in self.model.items() if model.status in LEASED}
        assert set(seen.indexes["deadlines"]) == leased
        for job, model in self.model.items():
            holds = job in leased and not model.lapsed
            assert seen.leases[job] == (model.token.encode() if holds else None), "one holder for each lease"


class Sight:
    """What Redis holds of a space and its jobs."""

    def __init__(self, room: Room, space: str, jobs: list[str]) -> None:
        self._room, self._space, self._jobs = room, space, jobs
        self.hashes: dict[str, dict[str, bytes]] = {}
        self.leases: dict[str, bytes | None] = {}
        self.events: dict[str, list[str]] = {}
        self.indexes: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()

    async def look(self) -> None:
        """Read it all."""
        keys, space, jobs = self._room.keys, self._space, self._jobs
        indexes = {**{status.value: keys.jobs(space, status) for status in Status}, "queue": keys.pending(space)}
        indexes |= {name: keys.pending(space, name) for name in NAMES} | {"deadlines": keys.deadlines(space)}
        replies = iter(
            await self._room.backend.control.pipeline(
                *(("HGETALL", keys.job(space, job)) for job in jobs),
                *(("GET", keys.lease(space, job)) for job in jobs),
                *(("LRANGE", keys.events(space, job), 0, -1) for job in jobs),
                *(("ZRANGE", key, 0, -1) for key in indexes.values()),
            )
        )
        self.hashes = {job: hash_fields(next(replies)) for job in jobs}
        self.leases = {job: next(replies) for job in jobs}
        self.events = {job: [msgspec.json.decode(item)[0] for item in next(replies)] for job in jobs}
        self.indexes = {name: [id_.decode() for id_ in next(replies)] for name in indexes}
        counts = msgspec.json.decode((await self._room.backend.spaces.get(space)).counts)
        self.counts = Counter({status: count for status, count in counts.items() if count})


async def answer_or_refusal(work: Awaitable[T]) -> T | Refusal:
    try:
        return await work
    except Refusal as refusal:
        return refusal


def statuses_after(kinds: list[str]) -> set[str]:
    """Where a job may stand after these events, as app/model/job.py's table of transitions has it."""
    standing: set[str] = {""}
    for kind in kinds:
        steps = [step for step in TRANSITION_TABLE if step.event == kind]
        standing = {step.target for step in steps if standing & (step.sources or {""})}
        assert standing, f"no transition tells {kind} there: {kinds}"
    return standing


@pytest.fixture
def world(room_redis: AnyRedis) -> Iterator[type[World]]:
    loop, room = asyncio.new_event_loop(), Room(room_redis)
    loop.run_until_complete(room.backend.start())
    loop.run_until_complete(room.backend.control.ready(10))
    yield type("World", (World,), {"here": (room, loop)})
    loop.run_until_complete(room.backend.close())
    loop.close()


def test_the_service_does_what_the_model_does(world: type[World]) -> None:
    run_state_machine_as_test(
        world,
        settings=settings(
            max_examples=int(os.environ.get("MODEL_EXAMPLES", "60")),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
