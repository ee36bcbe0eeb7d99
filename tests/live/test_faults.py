"""Every viewer, compared with Redis, after each thing that goes wrong: nothing lost, doubled or reordered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.factories import Space
from tests.live.checker import Crowd, Follower, Truth, Writer, settle
from tests.live.proxy import Proxy
from tests.live.raw import BINARY, TEXT, RawSocket, frame, handshake
from tests.server import Server
from tests.valkey import Valkey, until

VIEWERS = int(os.environ.get("LIVE_VIEWERS", "24"))


class Stage:
    """Two servers on one Valkey, a job whose workers post through either, and viewers of both."""

    def __init__(self, valkey: Valkey, stack: contextlib.ExitStack, redis_url: str = "") -> None:
        self.valkey = valkey
        self.stack = stack
        self.first = stack.enter_context(Server(redis_url or valkey.url))
        self.second = self.another(redis_url or valkey.url)
        self.servers = [self.first, self.second]
        self.space = Space(self.first)
        self.job = self.space.create(claim=True, timeoutSeconds=3600)
        self.space.do(self.job, "ack")
        self.crowd: Crowd
        self.writers: list[Writer] = []

    def another(self, redis_url: str) -> Server:
        """One more server of the same service."""
        return self.stack.enter_context(Server(redis_url, prefix=self.first.prefix, root_key=self.first.root_key))

    def url(self) -> str:
        """Where a client finds the service: any of the servers."""
        return random.choice(self.servers).url

    def begin(self, *others: Callable[[], Any], urls: Callable[[], str] | None = None) -> None:
        """Let viewers come and writers write."""
        key = str(self.space.all.key)
        job = str(self.job["id"])
        followers = [Follower(urls or self.url, job, key) for _ in range(VIEWERS)]
        self.crowd = Crowd(followers, *others)
        self.stack.callback(self.crowd.close)
        self.writers = [Writer(self.url, job, key) for _ in range(2)]
        until(lambda: all(follower.lines.position > 20 for follower in followers), 20)

    def truth(self) -> Truth:
        """What Redis holds."""
        return Truth(self.valkey.url, self.first.prefix, self.space, self.job["id"])

    def end(self, within_s: float = 30.0) -> Truth:
        """Let the writers finish, and check every viewer."""
        for writer in self.writers:
            writer.close()
        return settle(self.crowd, self.truth, within_s)

    def go_on(self, lines: int = 50) -> None:
        """Return when every viewer has got that much more."""
        goals = [follower.lines.position + lines for follower in self.crowd.followers]
        pairs = list(zip(self.crowd.followers, goals, strict=True))
        until(lambda: all(f.wrong is not None or f.lines.position >= goal for f, goal in pairs), 30)


@pytest.fixture(params=["everysec"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey(appendfsync=request.param))
        yield Stage(valkey, stack)


def test_nothing_goes_wrong(stage: Stage) -> None:
    stage.begin()
    stage.go_on(500)
    truth = stage.end()
    assert truth.event_seq > 20
    assert all(not follower.events.gaps and not follower.lines.gaps for follower in stage.crowd.followers)


def test_pubsub_connections_are_killed(stage: Stage) -> None:
    stage.begin()
    for _ in range(10):
        stage.valkey.cli("CLIENT", "KILL", "TYPE", "pubsub")
        time.sleep(random.uniform(0.05, 0.4))
    stage.end()
    assert all(follower.connections == 1 for follower in stage.crowd.followers), "nobody noticed"


def test_every_connection_to_redis_is_killed(stage: Stage) -> None:
    stage.begin()
    for _ in range(5):
        stage.valkey.cli("CLIENT", "KILL", "TYPE", "normal")
        stage.valkey.cli("CLIENT", "KILL", "TYPE", "pubsub")
        time.sleep(random.uniform(0.05, 0.4))
    stage.go_on()
    stage.end()


@pytest.mark.parametrize("stage", ["always", "everysec"], indirect=True)
def test_redis_is_killed_and_restarted(stage: Stage) -> None:
    stage.begin()
    for _ in range(3):
        stage.valkey.kill()
        time.sleep(0.3)
        stage.valkey.restart()
        stage.go_on()
    stage.end()
    gaps = [gap for follower in stage.crowd.followers for gap in follower.events.gaps + follower.lines.gaps]
    assert not gaps, "what was answered had been written"


def lose_the_end(folder: Path, share: float) -> None:
    """Cut the end off the append-only file, as a power cut does with what was not flushed."""
    (newest,) = sorted(folder.rglob("*.incr.aof"))[-1:]
    os.truncate(newest, int(newest.stat().st_size * (1 - share)))


def test_a_store_that_lost_answered_writes_is_noticed(stage: Stage) -> None:
    stage.begin()
    for _ in range(2):
        before = stage.truth()
        stage.valkey.kill()
        lose_the_end(stage.valkey.data, 0.3)
        stage.valkey.restart()
        after = stage.truth()
        assert after.line_seq < before.line_seq, "the test loses something"
        stage.go_on()
    stage.end()
    assert all(follower.lines.gaps for follower in stage.crowd.followers)
    assert {reason for f in stage.crowd.followers for _, _, reason in f.lines.gaps + f.events.gaps} == {"rolled_back"}


def test_viewers_that_were_away_when_the_store_lost_writes_are_told(stage: Stage) -> None:
    away = [False]

    def nowhere_or_there() -> str:
        return "http://127.0.0.1:1" if away[0] else stage.url()

    stage.begin(urls=nowhere_or_there)
    away[0] = True
    for server in stage.servers:
        server.kill()
    stage.valkey.kill()
    lose_the_end(stage.valkey.data, 0.3)
    stage.valkey.restart()
    stage.servers = [stage.another(stage.valkey.url), stage.another(stage.valkey.url)]
    position = max(follower.lines.position for follower in stage.crowd.followers)
    until(lambda: stage.truth().line_seq > position + 50, 30)
    away[0] = False
    stage.go_on()
    stage.end()
    assert all(follower.lines.gaps for follower in stage.crowd.followers)


@pytest.mark.parametrize("seconds", [1.0, 5.0])
def test_redis_stands_still(stage: Stage, seconds: float) -> None:
    stage.begin()
    stage.valkey.stall()
    time.sleep(seconds)
    stage.valkey.resume()
    stage.go_on()
    stage.end()


def test_a_server_is_killed_and_its_viewers_come_back_elsewhere(stage: Stage) -> None:
    stage.begin()
    for _ in range(2):
        victim = stage.servers[0]
        victim.kill()
        stage.servers = [stage.servers[1], stage.another(stage.valkey.url)]
        stage.go_on()
    stage.end()


def test_a_server_ends_and_its_viewers_come_back_elsewhere(stage: Stage) -> None:
    stage.begin()
    victim, stage.servers = stage.servers[0], stage.servers[1:]
    os.kill(victim.pid, signal.SIGTERM)
    stage.go_on()
    stage.end()


def test_the_way_to_redis_stalls_and_swallows() -> None:
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(Valkey())
        proxy = stack.enter_context(Proxy(valkey.url.removeprefix("unix://")))
        stage = Stage(valkey, stack, f"redis://127.0.0.1:{proxy.port}")
        stage.begin()
        proxy.stall()
        time.sleep(1.5)
        proxy.flow()
        stage.go_on()
        proxy.swallow()
        time.sleep(4)
        proxy.flow()
        stage.go_on()
        proxy.cut()
        stage.go_on()
        stage.end()


def test_the_way_to_viewers_stalls_and_swallows(stage: Stage) -> None:
    with Proxy(f"127.0.0.1:{stage.first.port}") as proxy:
        stage.begin(urls=lambda: f"http://127.0.0.1:{proxy.port}")
        proxy.stall()
        time.sleep(2)
        proxy.flow()
        stage.go_on()
        proxy.swallow()
        time.sleep(2)
        proxy.flow()
        stage.go_on()
        proxy.cut()
        stage.go_on()
        stage.end()
        stage.crowd.close()


def test_others_never_read_flap_and_send_garbage(stage: Stage) -> None:
    job, key = stage.job["id"], str(stage.space.all.key)
    path = f"/realtime/{job}?logs=true&logsAfter=0&after=0"

    async def flap() -> None:
        while True:
            port = random.choice(stage.servers).port
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(handshake(path, key))
                    await asyncio.sleep(0.2)
                finally:
                    writer.transport.abort()

    stage.begin(flap, flap, flap)
    with contextlib.ExitStack() as stack:
        deaf = [stack.enter_context(RawSocket(stage.first, path, key, receive_bytes=4096)) for _ in range(5)]
        rude = [stack.enter_context(RawSocket(stage.second, path, key)) for _ in range(20)]
        for number, socket in enumerate(rude):
            with contextlib.suppress(OSError):
                socket.send([os.urandom(300), frame(BINARY, b"x" * 300_000), frame(TEXT, b"\xff")][number % 3])
        stage.go_on(3000)
        assert deaf
    stage.end()
    assert all(follower.connections == 1 for follower in stage.crowd.followers), "nobody else noticed"
