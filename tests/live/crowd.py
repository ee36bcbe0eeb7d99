"""A thousand followers in one thread: each comes back whenever its connection ends, with the position that it has.

Frames that many viewers are sent alike are decoded once.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from tests.live.followers import Follower, Frame, JobFollower, Wrong
from tests.live.raw import CLOSE, PING, PONG, TEXT, frame, handshake

HELLO_S = 2.0
SILENT_S = 6.0
"""After how long without a byte a viewer asks whether anybody is there, and after how long it gives up."""

PAUSE_S = (0.05, 0.3)
"""Between two connections, unless the server names a time."""

OVER = 1000
AWAY = 1012
"""Close codes: nothing more will come; the process ends, and its reason says when to come back."""


class Link(asyncio.Protocol):
    """One connection of a follower: a WebSocket, or a response of server-sent events."""

    def __init__(self, follower: Follower, decode: Callable[[bytes], Frame]) -> None:
        self._follower = follower
        self._decode = decode
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._body = b""
        self._is_open = False
        self._has_begun = False
        """Whether an event came; what a stream begins with is a time to come back that is longer than ours."""
        self._heard_s = self._loop.time()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.pause_s = random.uniform(*PAUSE_S)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        follower = self._follower
        follower.recent.append((follower.path(), follower.event_id()))
        if not follower.by_events:
            transport.write(handshake(follower.path(), follower.key))
            return
        last = follower.event_id()
        lines = [f"GET /api/v1{follower.path()} HTTP/1.1", "Host: test"]
        lines += [f"x-api-key: {follower.key}"] if follower.key else []
        lines += [f"Last-Event-ID: {last}"] if last else []
        transport.write("\r\n".join([*lines, "", ""]).encode())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        try:
            data = self._rest + data
            if not self._is_open:
                data = self._opened(data)
            if self._is_open:
                data = self._read_chunks(data) if self._follower.by_events else self._read_frames(data)
            self._rest = data
        except Exception as error:
            error.add_note("\n".join(" ".join(words) for words in self._follower.recent))
            self._follower.wrong = error
            self.abort()

    def _take(self, text: bytes, event_id: str = "") -> None:
        self._follower.recent.append((text[:300].decode(), event_id))
        self._follower.take(self._decode(text))

    def _opened(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return data
        status = int(head[9:12])
        if status in (101, 200):
            self._is_open = True
            self._follower.connections += 1
            return rest
        if status == 204:
            self._follower.has_ended = True
        elif status < 500:
            raise Wrong(f"refused: {data!r}")
        self.abort()
        return b""

    def _read_frames(self, data: bytes) -> bytes:
        at, size = 0, len(data)
        while at + 2 <= size:
            length, start = data[at + 1], at + 2
            if length >= 126:
                start = at + (4 if length == 126 else 10)
                if start > size:
                    break
                length = int.from_bytes(data[at + 2 : start])
            if start + length > size:
                break
            self._read_frame(data[at], data[start : start + length])
            at = start + length
        return data[at:]

    def _read_frame(self, first: int, payload: bytes) -> None:
        assert self._transport is not None
        if first == 0x80 | TEXT:
            self._take(payload)
        elif first == 0x80 | PING:
            self._transport.write(frame(PONG, payload))
        elif first == 0x80 | CLOSE:
            code, reason = int.from_bytes(payload[:2]), payload[2:]
            self._follower.has_ended = code == OVER
            if code == AWAY:
                self.pause_s = json.loads(reason)["reconnectAfterMs"] / 1000
            self._transport.write(frame(CLOSE, payload[:2]))
            self._transport.close()
        elif first != 0x80 | PONG:
            raise Wrong(f"a frame that begins with {first:#x}")

    def _read_chunks(self, data: bytes) -> bytes:
        while (end := data.find(b"\r\n")) >= 0:
            start, length = end + 2, int(data[:end], 16)
            if len(data) < start + length + 2:
                break
            self._body += data[start : start + length]
            data = data[start + length + 2 :]
        *events, self._body = self._body.split(b"\n\n")
        for event in events:
            self._read_event(event)
        return data

    def _read_event(self, event: bytes) -> None:
        fields = dict(line.split(b":", 1) for line in event.split(b"\n"))
        if b"retry" in fields and self._has_begun:
            self.pause_s = int(fields[b"retry"]) / 1000
        self._has_begun = True
        self._follower.has_ended = fields.get(b"event") == b" end"
        if b"data" not in fields or self._follower.has_ended:
            return
        told = fields.get(b"id", b" ")[1:].decode()
        self._take(fields[b"data"][1:], told)
        held = self._follower.event_id()
        if told != held:
            raise Wrong(f"the id {told} came with what leads to {held}")

    def tick(self) -> None:
        """Called every second: notice that nobody is there."""
        silent_s = self._loop.time() - self._heard_s
        if self._transport is None or self._transport.is_closing():
            return
        if silent_s > SILENT_S:
            self._transport.abort()
        elif silent_s > HELLO_S and self._is_open and not self._follower.by_events:
            self._transport.write(frame(PING))

    def abort(self) -> None:
        """Break the connection, if there is one."""
        if self._transport is not None:
            self._transport.abort()
        elif not self.closed.done():
            self.closed.set_result(None)


class Crowd:
    """Followers, all in one thread of their own, and what others do meanwhile."""

    def __init__(self, followers: list[Follower], *others: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.followers = followers
        self._others = others
        self._links: dict[Follower, Link] = {}
        self._frames: dict[bytes, Frame] = {}
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    @property
    def job_followers(self) -> list[JobFollower]:
        """Those who watch a job with a key."""
        return [follower for follower in self.followers if isinstance(follower, JobFollower)]

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._everybody())

    def _decode(self, text: bytes) -> Frame:
        found = self._frames.get(text)
        if found is None:
            found = self._frames[text] = json.loads(text)
            if found["type"] == "logs":
                check_lines(found["data"])
        return found

    async def _everybody(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._started.set()
        works = [self._follow(follower) for follower in self.followers] + [other() for other in self._others]
        tasks = [asyncio.create_task(work) for work in works]
        while not self._stop.is_set():
            try:
                await asyncio.wait_for(self._stop.wait(), 1)
            except TimeoutError:
                self._each(Link.tick)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._each(Link.abort)
        await asyncio.sleep(0.05)

    async def _follow(self, follower: Follower) -> None:
        """Connect again and again, until there is no more to come, or something is wrong."""
        while follower.wrong is None and not follower.has_ended:
            self._links[follower] = link = Link(follower, self._decode)
            host, _, port = follower.urls().removeprefix("http://").rpartition(":")
            try:
                async with asyncio.timeout(SILENT_S):
                    await self._loop.create_connection(lambda link=link: link, host, int(port))  # type: ignore[misc]  # of a lambda's default
            except (OSError, TimeoutError):
                link.abort()
            else:
                await link.closed
            await asyncio.sleep(link.pause_s)

    def _each(self, do: Callable[[Link], None]) -> None:
        for link in self._links.values():
            do(link)

    def break_off(self) -> None:
        """Break every connection; followers come back when they can."""
        self._loop.call_soon_threadsafe(self._each, Link.abort)

    def close(self) -> None:
        """Stop following. Doing it again does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(20)


def check_lines(data: Frame) -> None:
    """That a frame has the lines that it says. Raises Wrong."""
    seqs = [entry["seq"] for entry in data["entries"]]
    if seqs != list(range(data["fromSeq"], data["toSeq"] + 1)) or data["inserted"] != len(seqs):
        raise Wrong(f"{data['fromSeq']} to {data['toSeq']} were told, {seqs} came")
