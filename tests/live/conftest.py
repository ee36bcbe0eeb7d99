"""A server for those who speak to it by hand, one for each file, and a fresh socket for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.any_redis import NewRedis
from tests.factories import Space
from tests.live.raw import TEXT, RawSocket
from tests.server import Server


@pytest.fixture(scope="module")
def socket_space(new_redis: NewRedis) -> Iterator[Space]:
    with new_redis() as valkey, Server(valkey.url) as server:
        yield Space(server)


@pytest.fixture
def socket(socket_space: Space) -> Iterator[RawSocket]:
    """A viewer of a job that has read the first frame."""
    job = socket_space.create()
    with RawSocket(socket_space.server, f"/realtime/{job['id']}", socket_space.all.key) as opened:
        assert opened.read().opcode == TEXT
        yield opened
