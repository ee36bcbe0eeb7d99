"""Every viewer, compared with Redis, after each thing that goes wrong: nothing lost, doubled or reordered.

A thousand viewers of jobs and of their space, through two servers on one Redis, where all of them come at once or stay
throughout, and where one thing follows another; two hundred where their number proves nothing. LIVE_VIEWERS=100 are
faster.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.any_redis import AnyRedis, NewRedis
from tests.factories import Space
from tests.live.checker import JobTruth, Truth, Writer, settle
from tests.live.crowd import Crowd
from tests.live.followers import Copy, Follower, JobFollower, ProgressFollower, SpaceFollower
from tests.live.proxy import Proxy
from tests.live.raw import BINARY, TEXT, RawSocket, frame, handshake
from tests.server import Server
from tests.valkey import until

thousand = pytest.mark.alone("a thousand viewers and two servers fill the machine")
few = pytest.mark.parametrize("stage", ["few"], indirect=True)

VIEWERS = int(os.environ.get("LIVE_VIEWERS", "1000"))
FEW = min(VIEWERS, 200)
"""Viewers where their number proves nothing: what goes wrong is told to a server once, and not to each of them."""

JOBS = 4
WRITERS = 2
FRAMES_A_SECOND = 25_000
"""About how many frames all viewers get together: what two cores carry beside the servers and the checks."""

LEAST_PAUSE_S = 0.01
"""Between two rounds of a writer, however few viewers there are."""

PATIENCE_S = 60.0


class Stage:
    """Two servers on one Redis, jobs whose workers post through either, and viewers of both."""

    frames_a_second = FRAMES_A_SECOND

    def __init__(
        self,
        valkey: AnyRedis,
        stack: contextlib.ExitStack,
        redis_url: str = "",
        *,
        sharded: bool = False,
        viewers: int = VIEWERS,
        jobs: int = JOBS,
    ) -> None:
        self.valkey = valkey
        self.stack = stack
        self.environ = {"JOBWIRE_LOG_HOT_LINES": "500", "JOBWIRE_SHARDED_PUBSUB": str(int(sharded))}
        self.first = stack.enter_context(Server(redis_url or valkey.url, **self.environ))
        self.second = self.another(redis_url or valkey.url)
        self.servers = [self.first, self.second]
        self.space = Space(self.first)
        self.key = str(self.space.all.key)
        self.jobs = [str(self.space.create(claim=True, timeoutSeconds=3600)["id"]) for _ in range(jobs)]
        self.viewers = viewers
        for job in self.jobs:
            self.space.do({"id": job}, "ack")
        self.crowd: Crowd
        self.writers: list[Writer] = []

    def another(self, redis_url: str) -> Server:
        """One more server of the same service."""
        first = self.first
        return self.stack.enter_context(Server(redis_url, prefix=first.prefix, root_key=first.root_key, **self.environ))

    def url(self) -> str:
        """Where a client finds the service: any of the servers."""
        return random.choice(self.servers).url

    def viewer(self, number: int) -> Follower:
        """One viewer: of twenty, two watch the space, two without a key, two a job by server-sent events."""
        job = self.jobs[number // 20 % len(self.jobs)]
        kind, by_events = number % 20, number % 2 == 1
        if kind < 2:
            return SpaceFollower(self.url, self.space.id, self.key, by_events=by_events)
        if kind < 4:
            return ProgressFollower(self.url, job, by_events=by_events)
        return JobFollower(self.url, job, self.key, by_events=kind < 6)

    def begin(
        self,
        *others: Callable[[], Any],
        urls: Callable[[], str] | None = None,
        detour: Callable[[], str] | None = None,
    ) -> None:
        """Let viewers come and writers write. Every fifth viewer takes the detour, if there is one."""
        followers = [self.viewer(number) for number in range(self.viewers)]
        for number, follower in enumerate(followers):
            follower.urls = (detour if number % 5 == 0 else None) or urls or self.url
        self.crowd = Crowd(followers, *others)
        self.stack.callback(self.crowd.close)
        self.write()
        self.go_on()

    def write(self) -> None:
        """Let writers write."""
        pause_s = max(LEAST_PAUSE_S, 3 * self.viewers / self.frames_a_second / len(self.jobs) * WRITERS)
        self.writers = [Writer(self.url, self.jobs, self.key, pause_s) for _ in range(WRITERS)]

    def truth(self) -> Truth:
        """What Redis holds."""
        return Truth(self.valkey.url, self.first.prefix, self.space.id, self.jobs)

    def end(self) -> Truth:
        """Let the writers finish, check every viewer, and again after the end of every job."""
        for writer in self.writers:
            writer.close()
        before = settle(self.crowd, self.truth, PATIENCE_S)
        for job in self.jobs:
            done = self.call(job, "complete", {"result": "a secret"})
            assert done.status_code == 200, done.text
        settle(self.crowd, self.truth, PATIENCE_S)
        for follower in self.crowd.job_followers:
            assert follower.lines_at_end == before.jobs[follower.job].line_seq, "the end came before a line"
        narrow = [follower for follower in self.crowd.followers if isinstance(follower, ProgressFollower)]
        until(lambda: all(follower.has_ended for follower in narrow), PATIENCE_S)
        return before

    def go_on(self, lines: int = 50) -> None:
        """Return when every viewer of a job has that many lines more than the furthest of them has now."""
        followers = self.crowd.job_followers
        stands = {job: max(f.lines.position for f in followers if f.job == job) for job in self.jobs}
        goals = [(follower, stands[follower.job] + lines) for follower in followers]
        until(lambda: all(f.wrong is not None or f.lines.position >= goal for f, goal in goals), PATIENCE_S)

    def call(self, job: str, verb: str, body: Any) -> httpx.Response:
        """A POST to a job, through the first server."""
        return self.servers[0].caller(self.key).post(f"/jobs/{job}/{verb}", json=body)

    # What goes wrong

    def replace(self) -> None:
        """Kill a server; another one takes its place."""
        self.servers.pop(0).kill()
        self.servers.append(self.another(self.valkey.url))

    def break_links(self) -> None:
        """Kill every connection to Redis."""
        self.valkey.cli("CLIENT", "KILL", "TYPE", "normal")
        self.valkey.cli("CLIENT", "KILL", "TYPE", "pubsub")

    def stand_still(self, seconds: float = 0.5) -> None:
        """Redis answers nothing for a while."""
        self.valkey.stall()
        time.sleep(seconds)
        self.valkey.resume()

    def restart(self) -> None:
        """Redis is killed, and comes back a moment later."""
        self.valkey.kill()
        time.sleep(0.3)
        self.valkey.restart()

    def lose(self) -> None:
        """Redis comes back without the last third of what it had answered."""
        self.valkey.lose(0.3)

    def break_off(self) -> None:
        """Break every connection of a viewer."""
        self.crowd.break_off()

    @property
    def gaps(self) -> list[tuple[int, int, str]]:
        """What viewers were told to be missing."""
        return [
            gap
            for follower in self.crowd.followers
            for copy in vars(follower).values()
            if isinstance(copy, Copy)
            for gap in copy.gaps
        ]


def slow_readers(server: Server) -> float:
    """How often a viewer of a server was set aside because it did not read."""
    found = re.search(r"^jobwire_slow_readers_total (\S+)", server.beside("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def has_lost(before: JobTruth, after: JobTruth) -> bool:
    """Whether a log has lost its last line, however much was written since: no two lines of writers are alike."""
    return after.lines.get(before.line_seq) != before.lines[before.line_seq]


@pytest.fixture(params=["everysec"])
def stage(request: pytest.FixtureRequest, new_redis: NewRedis) -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        words = request.param.split()
        valkey = stack.enter_context(new_redis(appendfsync="always" if "always" in words else "everysec"))
        viewers = FEW if "few" in words else VIEWERS
        yield Stage(valkey, stack, sharded="sharded" in words, viewers=viewers)


@thousand
def test_nothing_goes_wrong(stage: Stage) -> None:
    stage.begin()
    stage.go_on(500)
    truth = stage.end()
    assert all(job.event_seq > 10 for job in truth.jobs.values())
    assert not stage.gaps


@few
def test_pubsub_connections_are_killed(stage: Stage) -> None:
    stage.begin()
    for _ in range(10):
        stage.valkey.cli("CLIENT", "KILL", "TYPE", "pubsub")
        time.sleep(random.uniform(0.05, 0.4))
    stage.end()
    assert all(follower.connections == 1 for follower in stage.crowd.followers), "nobody noticed"


@few
def test_every_connection_to_redis_is_killed(stage: Stage) -> None:
    stage.begin()
    for _ in range(5):
        stage.break_links()
        time.sleep(random.uniform(0.05, 0.4))
    stage.go_on()
    stage.end()


@pytest.mark.parametrize("stage", ["few always", pytest.param("everysec", marks=thousand)], indirect=True)
def test_redis_is_killed_and_restarted(stage: Stage) -> None:
    stage.begin()
    for _ in range(3):
        stage.restart()
        stage.go_on()
    stage.end()
    assert not stage.gaps, "what was answered had been written"


@few
def test_a_store_that_lost_answered_writes_is_noticed(stage: Stage) -> None:
    stage.begin()
    for _ in range(2):
        before = stage.truth()
        stage.lose()
        after = stage.truth()
        assert all(has_lost(before.jobs[job], after.jobs[job]) for job in stage.jobs), "the test loses something"
        stage.go_on()
    stage.end()
    assert all(follower.lines.gaps for follower in stage.crowd.job_followers)
    assert {reason for _, _, reason in stage.gaps} == {"rolled_back", "missed"}


@few
def test_viewers_that_were_away_when_the_store_lost_writes_are_told(stage: Stage) -> None:
    away = [False]

    def nowhere_or_there() -> str:
        return "http://127.0.0.1:1" if away[0] else stage.url()

    stage.begin(urls=nowhere_or_there)
    away[0] = True
    for server in stage.servers:
        server.kill()
    stage.lose()
    stage.servers = [stage.another(stage.valkey.url), stage.another(stage.valkey.url)]
    position = max(follower.lines.position for follower in stage.crowd.job_followers)
    until(lambda: min(stage.truth().line_seqs.values()) > position + 50, PATIENCE_S)
    away[0] = False
    stage.go_on()
    stage.end()
    assert all(follower.lines.gaps for follower in stage.crowd.job_followers)


@few
@pytest.mark.parametrize("seconds", [1.0, 5.0])
def test_redis_stands_still(stage: Stage, seconds: float) -> None:
    stage.begin()
    stage.stand_still(seconds)
    stage.go_on()
    stage.end()


@thousand
def test_a_server_is_killed_and_its_viewers_come_back_elsewhere(stage: Stage) -> None:
    stage.begin()
    for _ in range(2):
        stage.replace()
        stage.go_on()
    stage.end()


@few
def test_a_server_is_killed_after_redis_was_restarted(stage: Stage) -> None:
    stage.begin()
    stage.restart()
    stage.go_on()
    stage.replace()
    stage.go_on()
    stage.end()
    assert not stage.gaps, "nothing was lost"


@thousand
def test_a_server_ends_and_its_viewers_come_back_elsewhere(stage: Stage) -> None:
    stage.begin()
    victim, stage.servers = stage.servers[0], stage.servers[1:]
    os.kill(victim.pid, signal.SIGTERM)
    stage.go_on()
    stage.end()


@pytest.mark.one_server("a proxy stands before one server, and a cluster names the ports of all")
def test_the_way_to_redis_stalls_and_swallows(new_redis: NewRedis) -> None:
    with contextlib.ExitStack() as stack:
        valkey = stack.enter_context(new_redis())
        proxy = stack.enter_context(Proxy(valkey.url.removeprefix("unix://")))
        stage = Stage(valkey, stack, f"redis://127.0.0.1:{proxy.port}", viewers=FEW)
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


@few
def test_the_way_to_viewers_stalls_and_swallows(stage: Stage) -> None:
    with Proxy(f"127.0.0.1:{stage.first.port}") as proxy:
        stage.begin(detour=lambda: f"http://127.0.0.1:{proxy.port}")
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
        assert all(f.connections == 1 for n, f in enumerate(stage.crowd.followers) if n % 5), "nobody else noticed"
        stage.crowd.close()


@thousand
def test_others_never_read_flap_and_send_garbage(stage: Stage) -> None:
    job, key = stage.jobs[0], stage.key
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
        flood = [f"{number} {'x' * 16_000}" for number in range(20)]
        until(lambda: stage.call(job, "logs", flood) and slow_readers(stage.first) >= len(deaf), PATIENCE_S)
        stage.go_on(500)
        goal, story = stage.truth().line_seqs[job], JobFollower(stage.url, job, key)
        while story.lines.position < goal:
            story.take(json.loads(deaf[0].until(TEXT).payload))
    stage.end()
    assert all(follower.connections == 1 for follower in stage.crowd.followers), "nobody else noticed"


@thousand
@pytest.mark.parametrize(("stage", "seed"), [("everysec", 0), ("sharded", 1)], indirect=["stage"])
def test_one_thing_after_another(stage: Stage, seed: int) -> None:
    chance = random.Random(seed)
    things = [stage.replace, stage.break_links, stage.stand_still, stage.restart, stage.lose, stage.break_off]
    stage.begin()
    for thing in chance.sample(things * 2, 8):
        thing()
        if chance.random() < 0.5:
            stage.go_on(20)
    stage.go_on()
    stage.end()
