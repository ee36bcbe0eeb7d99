"""A standard EventSource lives through whatever passes, and stops at what does not: 60 of them, none may be lost."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.any_redis import AnyRedis, NewRedis
from tests.factories import NO_JOB, Json, Space
from tests.live.event_source import EventSource
from tests.live.proxy import Proxy
from tests.live.test_workers import Poster, Web
from tests.server import Server
from tests.valkey import until
from tests.viewers import EventViewer

SOURCES = 60


@contextlib.contextmanager
def watching(url: str, job: Json, key: str) -> Iterator[list[EventSource]]:
    """So many EventSources of a job, all of them open."""
    path = f"{url}/api/v1/realtime/{job['id']}?after=0&token={key}"
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(EventSource(path)) for _ in range(SOURCES)]
        until(lambda: all(source.opened for source in sources))
        yield sources


def check_all_went_on(sources: list[EventSource], last_seq: int) -> None:
    """Each of them came back, and has every event once and in order."""
    until(lambda: all(source.dead or source.seqs[-1:] == [last_seq] for source in sources), 40)
    assert [source.dead for source in sources if source.dead] == []
    first = min(source.seqs[0] for source in sources)
    assert {tuple(source.seqs) for source in sources} == {tuple(range(first, last_seq + 1))}


def test_a_hangup_of_two_workers_loses_no_event_source(valkey: AnyRedis) -> None:
    with Web(valkey.url) as web:
        space = Space(web)
        job = space.create(claim=True, timeoutSeconds=3600)
        with watching(web.url, job, str(space.all.key)) as sources:
            poster = Poster(space, job)
            before = web.workers()
            os.kill(web.pid, signal.SIGHUP)
            until(lambda: len(web.workers() - before) == 2 and not web.workers() & before, 40)
            until(lambda: all(source.opened > 1 or source.dead for source in sources), 40)
            poster.stop()
            last = space.get(job)["events"][-1]["seq"]
            check_all_went_on(sources, last)
            assert min(min(source.retries_ms) for source in sources) >= 1000


def test_a_restart_under_a_narrow_rate_loses_no_event_source(valkey: AnyRedis) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        server = first.enter_context(Server(valkey.url))
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{server.port}"))
        space = Space(server)
        job = space.create(claim=True, timeoutSeconds=3600)
        key = str(space.token("jobs:read")["key"])
        sources = stack.enter_context(watching(f"http://127.0.0.1:{proxy.port}", job, key))
        space.do(job, "event", "before")
        first.close()
        again = {"prefix": server.prefix, "root_key": server.root_key}
        second = stack.enter_context(Server(valkey.url, JOBWIRE_RATE="20", **again))
        proxy.target = f"127.0.0.1:{second.port}"
        space.all = second.caller(space.all.key)
        space.do(job, "event", "after")
        check_all_went_on(sources, 4)
        refused = re.search(
            r'^jobwire_refusals_total\{code="rate_limited"\} (\d+)', second.beside("/metrics").text, re.M
        )
        assert refused is not None
        assert int(refused[1]) > 0


@pytest.fixture(scope="module")
def space(valkey: AnyRedis) -> Iterator[Space]:
    with Server(valkey.url, JOBWIRE_RATE="5") as server:
        yield Space(server)


def spent(space: Space, key: str, path: str) -> httpx.Response:
    """The answer to a first request for an event stream, once the rate is spent: 429."""
    found: list[httpx.Response] = []

    def is_over() -> bool:
        found.append(space.server.caller(key).get(f"{path}?after=x&since=x"))
        return found[-1].status_code == 429

    until(is_over)
    return found[-1]


def check_comes_back(answer: httpx.Response) -> None:
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    retry = re.fullmatch(r"retry: (\d+)\n\n", answer.text)
    assert retry is not None, answer.text
    assert int(retry[1]) >= 1000


@pytest.mark.parametrize(
    "path", [lambda job, space: f"/realtime/{job['id']}", lambda _, space: f"/realtime/spaces/{space.id}"]
)
def test_who_returns_over_the_rate_is_told_when(space: Space, path: Callable[[Json, Space], str]) -> None:
    key = str(space.token("jobs:read")["key"])
    place = path(space.server.root.post(space.jobs, json={"name": "x"}).json(), space)
    assert spent(space, key, place).headers["content-type"] == "application/json"
    check_comes_back(space.server.caller(key).get(place, headers={"last-event-id": "e.1.0"}))


def test_who_returns_while_redis_is_away_is_told_when(new_redis: NewRedis) -> None:
    with new_redis() as valkey, Server(valkey.url) as server:
        space = Space(server)
        path = f"/realtime/{space.create()['id']}"
        valkey.kill()
        until(lambda: server.caller(None).get(path).status_code == 503)
        for key in (None, space.all.key):
            check_comes_back(server.caller(key).get(path, headers={"last-event-id": "e.1.0"}))


def test_who_returns_and_meets_a_fault_of_ours_is_told_when(new_redis: NewRedis) -> None:
    """A job's hash that is no hash stands for every fault that nobody foresaw."""
    with new_redis() as valkey, Server(valkey.url) as server:
        space = Space(server)
        job = space.create()
        key = f"{server.prefix}:{{{space.id}}}:job:{job['id']}"
        valkey.cli("SET", key, "no hash")
        path = f"/realtime/{job['id']}"
        assert server.root.get(path).status_code == 500
        check_comes_back(server.root.get(path, headers={"last-event-id": "e.1.0"}))


def test_what_is_final_stays_final_for_who_returns(space: Space) -> None:
    root = space.server.root
    job = root.post(space.jobs, json={"name": "x"}).json()
    expected = [
        (f"/realtime/{job['id']}", "emit_wrong", "e.1.0", 401),
        (f"/realtime/spaces/{space.id}", space.public.key, "i.1", 403),
        (f"/realtime/{NO_JOB}", root.key, "e.1.0", 404),
        (f"/realtime/{job['id']}", root.key, "nonsense", 400),
        (f"/realtime/{job['id']}", root.key, "e..ended", 400),
    ]
    for path, key, last_id, status in expected:
        answer = space.server.caller(key).get(path, headers={"last-event-id": last_id})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), path


def test_every_event_stream_begins_with_when_to_come_back(space: Space) -> None:
    root = space.server.root
    job = root.post(space.jobs, json={"name": "x"}).json()
    told = set()
    for _ in range(20):
        for path in (f"/realtime/{job['id']}", f"/realtime/spaces/{space.id}"):
            with EventViewer(space.server, path, root.key) as viewer:
                viewer.until(lambda frame: frame["type"] in ("init", "connected"))
            told |= set(viewer.retries_ms[:1])
            assert len(viewer.retries_ms) == 1
    assert all(2400 <= ms <= 3600 for ms in told)
    assert len(told) > 5
