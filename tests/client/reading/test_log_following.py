"""Following a log by its stream, on a real server: through restarts of the server and of Redis, each line once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from jobwire import Jobs
from jobwire.reading.event_stream import LogsData, events
from jobwire.reading.log_following import Follow
from tests.any_redis import AnyRedis, NewRedis
from tests.factories import Space
from tests.live.proxy import Proxy
from tests.server import Server
from tests.valkey import until


@pytest.fixture
def valkey(new_redis: NewRedis) -> Iterator[AnyRedis]:
    with new_redis() as server:
        yield server


class Reader:
    """A follower in a thread of its own."""

    def __init__(self, follow: Follow) -> None:
        self.follow = follow
        self.messages: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for batch in self.follow:
            self.messages += [line.message for line in batch]

    def join(self) -> None:
        """Return when the job has ended and everything was read."""
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_lines_come_once_and_in_order_through_restarts(valkey: AnyRedis) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        server = first.enter_context(Server(valkey.url))
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{server.port}"))
        space = Space(server)
        job = space.create(claim=True)
        told: list[bool] = []
        jobs = Jobs(f"http://127.0.0.1:{proxy.port}", str(space.all.key))
        reader = Reader(Follow(jobs, job["id"], on_outage=told.append))
        space.do(job, "logs", ["one", "two"])
        until(lambda: reader.messages == ["one", "two"])
        first.close()
        until(lambda: told == [True])
        second = stack.enter_context(Server(valkey.url, prefix=server.prefix, root_key=server.root_key))
        space.all = second.caller(space.all.key)
        space.do(job, "logs", ["three"])
        proxy.target = f"127.0.0.1:{second.port}"
        until(lambda: reader.messages == ["one", "two", "three"], 20)
        assert told == [True, False]
        valkey.kill()
        valkey.restart()
        until(lambda: space.call(job, "logs", ["four"]).is_success)
        space.do(job, "fail", {"error": "broken", "retry": False})
        reader.join()
        assert reader.messages == ["one", "two", "three", "four"]
        assert reader.follow.job is not None
        assert reader.follow.job.status == "dead"


def test_lines_that_took_the_place_of_lost_ones_come_too(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        job = space.create(claim=True)
        reader = Reader(Follow(Jobs(server.url, str(space.all.key)), job["id"]))
        for number in range(60):
            space.do(job, "logs", [f"before {number}"])
        until(lambda: len(reader.messages) == 60)
        valkey.lose(0.2, f"{{{job['id']}}}")
        until(lambda: space.call(job, "logs", ["after 0"]).is_success)
        for number in range(1, 60):
            space.do(job, "logs", [f"after {number}"])
        space.do(job, "complete")
        reader.join()
        assert reader.messages == [f"{when} {number}" for when in ("before", "after") for number in range(60)]


def test_only_the_wanted_levels_come(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        job = space.create(claim=True)
        reader = Reader(Follow(Jobs(server.url, str(space.all.key)), job["id"], level="warn,error"))
        for level in ("info", "warn", "debug", "error"):
            space.do(job, "logs", [{"message": level, "level": level}])
        space.do(job, "complete")
        reader.join()
        assert reader.messages == ["warn", "error"]


def test_an_ended_job_is_read_to_its_end(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        job = space.create(claim=True)
        space.do(job, "logs", [str(number) for number in range(1200)])
        space.do(job, "complete")
        reader = Reader(Follow(Jobs(server.url, str(space.all.key)), job["id"]))
        reader.join()
        assert reader.messages == [str(number) for number in range(1200)]


@pytest.mark.parametrize("comes_late", [False, True])
def test_a_key_that_reads_no_more_than_progress_learns_how_it_ended(valkey: AnyRedis, comes_late: bool) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        job = space.create(claim=True)
        told: list[bool] = []
        follow = Follow(Jobs(server.url, str(space.public.key)), job["id"], on_outage=told.append)
        reader = None if comes_late else Reader(follow)
        if reader is not None:
            until(lambda: 'jobwire_streams_open{kind="job"} 1.0' in server.beside("/metrics").text)
        space.do(job, "fail", {"error": "broken", "retry": False})
        (reader or Reader(follow)).join()
        assert (follow.status, follow.job, told) == ("dead", None, [])


def test_events_are_cut_wherever_chunks_end() -> None:
    body = b'retry: 5\n\nid: e.1.2\ndata: {"a":1}\n\n:\n:\n\nevent: end\ndata: {"b":": "}\n\ndata: cut'
    for size in range(1, len(body)):
        pieces = [body[i : i + size] for i in range(0, len(body), size)]
        found = [(event.type, event.data) for event in events(pieces) if event.data]
        assert found == [("", b'{"a":1}'), ("end", b'{"b":": "}')]
    assert LogsData().entries == []
