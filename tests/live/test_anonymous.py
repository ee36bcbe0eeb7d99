"""Viewers without a key: as many as the operator says, and no viewer with a key is counted among them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import InvalidStatus

from tests.any_redis import AnyRedis
from tests.factories import Space, refused
from tests.server import Server
from tests.valkey import until
from tests.viewers import EventViewer, SocketViewer

MOST = 3


@pytest.fixture(scope="module")
def space(valkey: AnyRedis) -> Iterator[Space]:
    with Server(valkey.url, JOBWIRE_ANONYMOUS_VIEWERS=str(MOST)) as server:
        yield Space(server)


def viewer(space: Space, path: str, key: str | None = None) -> SocketViewer | None:
    """A viewer; None where it is refused for want of room."""
    try:
        return SocketViewer(space.server, path, key)
    except InvalidStatus as refusal:
        if refusal.response.status_code != 503:
            raise
        return None


def opens(space: Space, path: str) -> bool:
    """Whether one more viewer without a key is taken."""
    with contextlib.ExitStack() as stack:
        one = viewer(space, path)
        if one is not None:
            stack.push(one)
        return one is not None


def test_more_viewers_without_a_key_than_are_taken_are_refused_until_one_goes(space: Space) -> None:
    path = f"/realtime/{space.create()['id']}"
    keyless = space.server.caller(None)
    with contextlib.ExitStack() as stack:
        stack.enter_context(SocketViewer(space.server, path))
        stack.enter_context(EventViewer(space.server, path))
        with SocketViewer(space.server, path):
            answer = keyless.get(path)
            assert refused(answer, 503, "unavailable")["limit"] == {"anonymousViewers": MOST}
            assert answer.headers["retry-after"] == "5"
            for key in (space.all.key, space.public.key):
                stack.enter_context(SocketViewer(space.server, path, key))
        until(lambda: opens(space, path))


def test_those_who_come_at_the_same_moment_are_counted_too(space: Space) -> None:
    jobs = [space.create()["id"] for _ in range(20)]

    until(lambda: opens(space, f"/realtime/{jobs[0]}"))
    with ThreadPoolExecutor(20) as threads, contextlib.ExitStack() as stack:
        came = [one for one in threads.map(lambda job: viewer(space, f"/realtime/{job}"), jobs) if one is not None]
        for one in came:
            stack.push(one)
        assert len(came) == MOST
