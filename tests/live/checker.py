"""The independent checker: viewers that resume by themselves, writers that go on, and the comparison with Redis.

It shares no code with the server: what a viewer holds is rebuilt from its frames alone, what should be there is read
from Redis as docs/redis.md describes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import redis
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.factories import Space
from tests.valkey import until

Frame = dict[str, Any]
NOT_EVENTS = ("init", "connected", "progress", "logs", "gap")


class Wrong(AssertionError):
    """A viewer was told something that cannot be: lost, doubled, reordered, or a gap that is not exact."""


class Copy:
    """What one viewer knows of one sequence: entries by seq, without holes but those that were declared."""

    def __init__(self, position: int) -> None:
        self.start = self.position = position
        self.entries: dict[int, Any] = {}
        self.gaps: list[tuple[int, int, str]] = []

    def take(self, seq: int, entry: Any) -> None:
        """The next entry; Wrong if it is another one."""
        if seq != self.position + 1:
            raise Wrong(f"{seq} came after {self.position}")
        self.position = seq
        self.entries[seq] = entry

    def lose(self, first: int, last: int, reason: str) -> None:
        """A gap: trimmed ones lie ahead, rolled back ones behind, up to where the viewer stands."""
        self.gaps.append((first, last, reason))
        if reason == "trimmed":
            if first != self.position + 1:
                raise Wrong(f"a gap from {first} came after {self.position}")
            self.position = last
        else:
            if last != self.position or first > last:
                raise Wrong(f"rolled back from {first} to {last}, standing at {self.position}")
            for seq in range(first, last + 1):
                self.entries.pop(seq, None)
            self.position = first - 1


class Follower:
    """A viewer of one job with its log, that comes back whenever its connection ends, wherever `urls` lead."""

    def __init__(self, urls: Callable[[], str], job: str, key: str) -> None:
        self._urls = urls
        self._job = job
        self._key = key
        self.events = Copy(0)
        self.lines = Copy(0)
        self.epoch = ""
        self.wrong: BaseException | None = None
        self.connections = 0
        self.progress: Any = None
        self.socket: Any = None

    def _url(self) -> str:
        query = f"logs=true&after={self.events.position}&logsAfter={self.lines.position}"
        if self.epoch:
            query += f"&epoch={self.epoch}"
        return f"ws{self._urls().removeprefix('http')}/api/v1/realtime/{self._job}?{query}"

    async def run(self) -> None:
        """Follow until cancelled; what is wrong stays in `wrong`."""
        try:
            while True:
                with contextlib.suppress(OSError, WebSocketException, TimeoutError, asyncio.TimeoutError):
                    await self._once()
                await asyncio.sleep(random.uniform(0.05, 0.3))
        except Wrong as wrong:
            self.wrong = wrong

    async def _once(self) -> None:
        headers = {"x-api-key": self._key}
        opening = connect(
            self._url(),
            additional_headers=headers,
            max_size=None,
            compression=None,
            proxy=None,
            open_timeout=5,
            ping_interval=2,
            ping_timeout=4,
            close_timeout=1,
        )
        async with opening as socket:
            self.connections += 1
            self.socket = socket
            async for text in socket:
                self.take(json.loads(text))

    def take(self, frame: Frame) -> None:
        """One frame. Raises Wrong."""
        kind = frame["type"]
        if kind == "init":
            self._begin(frame)
        elif kind == "logs":
            for line in frame["data"]["entries"]:
                self.lines.take(line["seq"], line)
            if frame["data"]["toSeq"] != self.lines.position:
                raise Wrong(f"{frame['data']['toSeq']} was told, {self.lines.position} came")
        elif kind == "gap":
            copy = self.events if frame["stream"] == "events" else self.lines
            copy.lose(frame["from"], frame["to"], frame["reason"])
            self.epoch = frame["epoch"]
        elif kind == "progress":
            self.progress = frame["data"]
            if frame["seq"] > self.events.position:
                raise Wrong(f"progress of {frame['seq']} came after {self.events.position}")
        else:
            self.events.take(frame["seq"], frame)

    def _begin(self, frame: Frame) -> None:
        if frame["seq"] > self.events.position or frame["logSeq"] > self.lines.position:
            raise Wrong(f"{frame} begins beyond {self.events.position} and {self.lines.position}")
        self.epoch = frame["epoch"]
        self.progress = frame["data"]


class Crowd:
    """Followers, all in one thread of their own."""

    def __init__(self, followers: list[Follower], *others: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.followers = followers
        self._others = others
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._everybody()), daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    async def _everybody(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._started.set()
        works = [follower.run() for follower in self.followers] + [other() for other in self._others]
        tasks = [asyncio.create_task(work) for work in works]
        await self._stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for follower in self.followers:
            if follower.socket is not None:
                follower.socket.transport.abort()
        await asyncio.sleep(0.05)

    def break_off(self) -> None:
        """Break every connection; followers come back when they can."""

        def abort() -> None:
            for follower in self.followers:
                if follower.socket is not None:
                    follower.socket.transport.abort()

        self._loop.call_soon_threadsafe(abort)

    def close(self) -> None:
        """Stop following. Doing it again does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(20)


class Writer:
    """Appends events, lines and progress to one job over HTTP until told to stop, whatever fails meanwhile."""

    def __init__(self, urls: Callable[[], str], job: str, key: str, pause_s: float = 0.01) -> None:
        self._urls, self._job, self._key, self._pause_s = urls, job, key, pause_s
        self._stop = threading.Event()
        self.answered = 0
        self.failed = 0
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        with httpx.Client(timeout=6, trust_env=False, headers={"x-api-key": self._key}) as http:
            number = 0
            while not self._stop.wait(self._pause_s):
                number += 1
                bodies = {
                    "event": {"number": number},
                    "logs": [f"line {number}.{i} {'x' * (number % 300)}" for i in range(1 + number % 40)],
                    "progress": {"percent": number % 100, "message": f"at {number}"},
                }
                for verb, body in bodies.items():
                    try:
                        answer = http.post(f"{self._urls()}/api/v1/jobs/{self._job}/{verb}", json=body)
                    except httpx.HTTPError:
                        self.failed += 1
                    else:
                        self.answered += answer.is_success
                        self.failed += not answer.is_success

    def close(self) -> None:
        """Stop writing; returns when the last call has been answered."""
        self._stop.set()
        self._thread.join(20)


class Truth:
    """What Redis holds of one job."""

    def __init__(self, redis_url: str, prefix: str, space: Space, job: str) -> None:
        events = f"{prefix}:{{{space.id}}}:job:{job}"
        with redis.Redis.from_url(redis_url, socket_timeout=20) as client:
            fields: Any = client.hmget(events, "eventSeq", "progress")
            self.event_seq = int(fields[0])
            self.progress = json.loads(fields[1]) if fields[1] else None
            items: Any = client.lrange(f"{events}:events", 0, -1)
            meta: Any = client.hgetall(f"{prefix}:{{{job}}}:log:meta")
            batches: Any = client.xrange(f"{prefix}:{{{job}}}:log")
        first = self.event_seq - len(items) + 1
        self.events = {first + i: json.loads(item) for i, item in enumerate(items)}
        self.line_seq = int(meta.get(b"lastSeq", 0))
        self.messages: dict[int, str] = {}
        for _, fields in batches:
            for i, line in enumerate(json.loads(fields[b"lines"])):
                self.messages[int(fields[b"first"]) + i] = line["message"]


def check(follower: Follower, truth: Truth) -> None:
    """That a viewer that is up to date holds exactly what Redis holds. Raises Wrong."""
    if follower.wrong is not None:
        raise follower.wrong
    if (follower.events.position, follower.lines.position) != (truth.event_seq, truth.line_seq):
        raise Wrong(f"stands at {follower.events.position}, {follower.lines.position}")
    for seq, (kind, _, data, _) in truth.events.items():
        frame = follower.events.entries.get(seq)
        if frame is None or (frame["type"], frame["data"]) != (kind, data):
            raise Wrong(f"event {seq} is {frame}, not {kind} {data}")
    for seq, message in truth.messages.items():
        line = follower.lines.entries.get(seq)
        if line is None or line["message"] != message:
            raise Wrong(f"line {seq} is {line}, not {message!r}")
    if follower.progress != truth.progress:
        raise Wrong(f"the progress is {follower.progress}, not {truth.progress}")


def settle(crowd: Crowd, read: Callable[[], Truth], within_s: float = 30.0) -> Truth:
    """Wait until everybody is up to date, then check everybody; what Redis holds."""
    truth = read()

    def is_settled() -> bool:
        return all(
            follower.wrong is not None
            or (follower.events.position, follower.lines.position, follower.progress)
            == (truth.event_seq, truth.line_seq, truth.progress)
            for follower in crowd.followers
        )

    with contextlib.suppress(AssertionError):
        until(is_settled, within_s)
    time.sleep(0.2)
    for follower in crowd.followers:
        check(follower, truth)
    return truth
