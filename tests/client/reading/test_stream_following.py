"""`jobwire.follow`: every frame once and in order, through restarts of the server; for asyncio, too."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import islice

import pytest

import jobwire
from jobwire import AccessDenied, Jobs, NotConfigured, NotFound, StreamFrame
from tests.any_redis import AnyRedis
from tests.factories import NO_JOB, Space
from tests.live.proxy import Proxy
from tests.server import Server
from tests.valkey import until


@pytest.fixture(scope="module")
def space(valkey: AnyRedis) -> Iterator[Space]:
    with Server(valkey.url) as server:
        yield Space(server)


def jobs_of(space: Space, key: str | None = None) -> Jobs:
    return Jobs(space.server.url, key or str(space.all.key), space.id)


class Reader:
    """An iteration in a thread of its own."""

    def __init__(self, frames: Iterator[StreamFrame]) -> None:
        self.frames: list[StreamFrame] = []
        self._thread = threading.Thread(target=lambda: self.frames.extend(self._each(frames)), daemon=True)
        self._read: list[StreamFrame] = []
        self._thread.start()

    def _each(self, frames: Iterator[StreamFrame]) -> Iterator[StreamFrame]:
        for frame in frames:
            self._read.append(frame)
            yield frame

    @property
    def types(self) -> list[str]:
        return [frame.type for frame in self._read]

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive(), self.types


def test_a_job_is_followed_from_its_first_event_to_its_end(space: Space) -> None:
    job = space.job_in("running")
    space.do(job, "logs", ["one", "two"])
    space.do(job, "progress", {"percent": 40, "message": "scaling"})
    reader = Reader(jobwire.follow(job["id"], after=0, logs=True, logs_after=0, jobs=jobs_of(space)))
    until(lambda: "logs" in reader.types)
    space.do(job, "complete", {"width": 640})
    reader.join()
    assert [type_ for type_ in reader.types if type_ not in ("init", "logs")] == [
        *("created", "delivered", "started", "completed")
    ]
    lines = [entry["message"] for frame in reader.frames if frame.type == "logs" for entry in frame.data["entries"]]
    assert lines == ["one", "two"]
    assert reader.frames[0].data == {"percent": 40, "message": "scaling"}
    assert (reader.frames[-1].data, reader.frames[-1].status) == ({"width": 640}, "completed")


def test_frames_come_once_through_restarts(space: Space, valkey: AnyRedis) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        server = first.enter_context(Server(valkey.url))
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{server.port}"))
        own = Space(server)
        job = own.job_in("running")
        told: list[bool] = []
        jobs = Jobs(f"http://127.0.0.1:{proxy.port}", str(own.all.key), own.id)
        reader = Reader(jobwire.follow(job["id"], after=0, jobs=jobs, on_outage=told.append))
        whole = Reader(islice(jobwire.follow(jobs=jobs, after=0), 8))
        own.do(job, "event", {"n": 1})
        until(lambda: reader.types.count("event") == 1 and whole.types.count("event") == 1)
        first.close()
        until(lambda: told == [True])
        second = stack.enter_context(Server(valkey.url, prefix=server.prefix, root_key=server.root_key))
        own.all = second.caller(own.all.key)
        own.do(job, "event", {"n": 2})
        proxy.target = f"127.0.0.1:{second.port}"
        until(lambda: reader.types.count("event") == 2, 20)
        own.do(job, "complete")
        reader.join()
        whole.join()
        assert told == [True, False]
        for types in (reader.types, whole.types):
            told_once = [type_ for type_ in types if type_ not in ("init", "connected")]
            assert told_once == ["created", "delivered", "started", "event", "event", "completed"]


def test_a_key_for_progress_learns_how_it_ended(space: Space) -> None:
    job = space.job_in("running")
    reader = Reader(jobwire.follow(job["id"], jobs=jobs_of(space, str(space.public.key))))
    until(lambda: reader.types)
    space.do(job, "fail", {"error": "broken", "retry": False})
    reader.join()
    assert (reader.frames[-1].type, reader.frames[-1].status) == ("end", "dead")


def test_an_ended_job_is_over_after_what_it_has(space: Space) -> None:
    job = space.job_in("completed")
    frames = list(jobwire.follow(job["id"], after=0, jobs=jobs_of(space)))
    assert [frame.type for frame in frames] == ["init", "created", "delivered", "completed"]


def test_what_is_refused_for_good_is_raised(space: Space) -> None:
    with pytest.raises(NotFound):
        next(jobwire.follow(NO_JOB, jobs=jobs_of(space)))
    with pytest.raises(AccessDenied):
        next(jobwire.follow(space.create()["id"], jobs=jobs_of(space, "emit_nobodys")))
    with pytest.raises(NotConfigured):
        jobwire.follow(logs=True, jobs=jobs_of(space))


async def test_asyncio_has_the_same_frames(space: Space) -> None:
    job = space.job_in("running")

    types = []
    async for frame in jobwire.follow_async(job["id"], after=0, jobs=jobs_of(space)):
        types.append(frame.type)
        if frame.type == "started":
            await asyncio.to_thread(space.do, job, "complete")
    assert types == ["init", "created", "delivered", "started", "completed"]


async def test_asyncio_hears_a_refusal_and_may_leave_early(space: Space) -> None:
    async def refused() -> None:
        async for _ in jobwire.follow_async(NO_JOB, jobs=jobs_of(space)):
            pass

    with pytest.raises(NotFound):
        await refused()
    watching = jobwire.follow_async(space.create()["id"], jobs=jobs_of(space))
    assert isinstance(watching, AsyncIterator)
    assert (await anext(watching)).type == "init"
    await watching.aclose()  # type: ignore[attr-defined]  # an async generator has it


async def test_leaving_early_ends_the_connection(space: Space) -> None:
    job = space.create()["id"]
    before = viewers(space.server)
    frames = jobwire.follow(job, jobs=jobs_of(space))
    assert next(frames).type == "init"
    until(lambda: viewers(space.server) == before + 1)
    frames.close()  # type: ignore[attr-defined]  # a generator has it
    until(lambda: viewers(space.server) == before)
    watching = jobwire.follow_async(job, jobs=jobs_of(space))
    await anext(watching)
    await asyncio.to_thread(until, lambda: viewers(space.server) == before + 1)
    await watching.aclose()  # type: ignore[attr-defined]  # an async generator has it
    until(lambda: viewers(space.server) == before)


async def test_whoever_leaves_in_the_middle_of_many_frames_leaves_no_thread(space: Space) -> None:
    job = space.create(claim=True)
    for number in range(600):
        space.do(job, "event", number)
    watching = jobwire.follow_async(job["id"], after=0, jobs=jobs_of(space))
    await anext(watching)
    await watching.aclose()  # type: ignore[attr-defined]  # an async generator has it
    until(lambda: not any(thread.name == "jobwire-follow" for thread in threading.enumerate()))


def viewers(server: Server) -> float:
    lines = server.beside("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("jobwire_streams_open"))
