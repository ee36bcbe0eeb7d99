"""Viewers by the thousand in one process: they check that nothing is missing or doubled, and note when all were there.

Never: decodes a frame; the position of one is found in its bytes, for what a viewer costs is taken from the server.
Always: the first fault that any viewer saw is raised by whoever waits for the crowd.
"""

import asyncio
import base64
import os
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TypeVar, cast

import msgspec

from app.serve import run_process as run_loop
from bench.service import BASE

Address = tuple[str, int]
T = TypeVar("T")

EVENT_S = 0.02
"""From one event of `Poster.events` to the next."""

SMALL_WINDOW_BYTES = 16 * 1024
SMALL_SEGMENT_BYTES = 1400
"""What a viewer far away has: with the loopback's own segments of 64 KB the kernel holds 2.5 MB for a connection."""

POLL_S = 0.002


class Viewer(asyncio.Protocol):
    """One WebSocket that counts its frames: its first has the number 0, and is its position then."""

    __slots__ = ("_crowd", "_rest", "_upgraded", "connected", "epoch", "line", "position", "transport")

    transport: asyncio.Transport

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self.epoch = ""
        self.connected = False
        self.position = -1
        self.line = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._rest = b""
        self._upgraded = self.connected = False
        self.transport.write(self._crowd.request(self))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        if not self._upgraded:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self._rest = data
                return
            self._upgraded = True
            if b" 101 " not in data[:20]:
                self._crowd.fault(f"refused: {data!r}")
        while at + 2 <= size:
            length = data[at + 1]
            start = at + (2 if length < 126 else 4 if length == 126 else 10)
            if length >= 126:
                length = int.from_bytes(data[at + 2 : start])
            if start + length > size:
                break
            if data[at] == 0x81:
                self.on_text(data, start, start + length)
            at = start + length
        self._rest = data[at:]

    def on_text(self, data: bytes, start: int, end: int) -> None:
        """The text of a frame has come."""
        self.position += 1
        self._crowd.count(self.position)
        if not self.connected:
            self.on_first_frame()

    def on_first_frame(self) -> None:
        """The first frame of this connection has come."""
        self.connected = True
        self._crowd.connected()

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.lost(self)


class Follower(Viewer):
    """A viewer of a job: its positions are seqs. With `logs=true` it checks the lines, too."""

    __slots__ = ()

    def on_text(self, data: bytes, start: int, end: int) -> None:
        if not self.connected:
            self._begin(data[start:end])
        elif data.startswith(b'{"type":"logs"', start):
            self._check_lines(data, start, end)
        else:
            at = data.rfind(b',"seq":', start, end)
            seq = number(data, at + 7, b",") if at > 0 else -1
            if seq != self.position + 1:
                self._crowd.fault(f"after event {self.position} came {data[start : start + 300]!r}")
            self.position = seq
            self._crowd.count(seq)

    def _begin(self, text: bytes) -> None:
        init = msgspec.json.decode(text)
        if self.position not in (-1, init["seq"]):
            self._crowd.fault(f"asked for what comes after event {self.position}, got {text!r}")
        self.position, self.epoch = init["seq"], init["epoch"]
        self.on_first_frame()

    def _check_lines(self, data: bytes, start: int, end: int) -> None:
        first = number(data, data.index(b'"fromSeq":', start, end) + 10, b",")
        last = number(data, data.index(b'"toSeq":', start, end) + 8, b",")
        if first != self.line + 1 or data.count(b'"seq":', start, end) != last + 1 - first:
            self._crowd.fault(f"after line {self.line} came {data[start : start + 300]!r}")
        self.line = last


def number(data: bytes, at: int, end: bytes) -> int:
    """The digits from a place up to `end`."""
    return int(data[at : data.index(end, at)])


class Crowd:
    """Viewers of one path below the base, which may have a query; RuntimeError when one of them is not served right."""

    def __init__(self, address: Address, path: str, key: str, kind: type[Viewer] = Follower) -> None:
        self._address = address
        self._path = path
        self._key = key
        self._kind = kind
        self.viewers: list[Viewer] = []
        self.reached: dict[int, int] = defaultdict(int)
        self.last_s: dict[int, float] = {}
        """When the last of them got the frame at a position, by perf_counter."""
        self.start = 0
        """The position of all when they had joined."""
        self._connected = 0
        self._fault = ""
        self._home: Address | None = None
        self._leaving = False
        self._changed = asyncio.Event()
        self._coming: set[asyncio.Task[None]] = set()

    # What viewers tell

    def request(self, viewer: Viewer) -> bytes:
        """The head of its handshake: one that was there before goes on from its position."""
        path = self._path
        if viewer.epoch:
            path += f"{'&' if '?' in path else '?'}after={viewer.position}&epoch={viewer.epoch}"
        return (
            f"GET {BASE}{path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nx-api-key: {self._key}\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n"
        ).encode()

    def count(self, position: int) -> None:
        """One viewer has got the frame at this position."""
        self.reached[position] += 1
        if self.reached[position] == len(self.viewers):
            self.last_s[position] = perf_counter()
            self._changed.set()

    def connected(self) -> None:
        """One viewer has got the first frame of its connection."""
        self._connected += 1
        self._changed.set()

    def fault(self, text: str) -> None:
        """One viewer was not served right."""
        self._fault = self._fault or text
        self._changed.set()

    def lost(self, viewer: Viewer) -> None:
        """One viewer has lost its connection; it comes back at once if it knows where to."""
        if self._leaving:
            return
        if self._home is None:
            self.fault("a connection was cut")
            return
        task = asyncio.create_task(self._connect(viewer, self._home))
        self._coming.add(task)
        task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._coming.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fault(f"no connection: {error}")

    # What the bench does with them

    async def join(self, count: int, at_once: int = 200, *, small: bool = False) -> None:
        """Let that many come, with small windows if asked; returns when each has its first frame."""
        for i in range(0, count, at_once):
            more = [self._kind(self) for _ in range(min(at_once, count - i))]
            self.viewers += more
            await asyncio.gather(*(self._connect(viewer, self._address, small=small) for viewer in more))
        await self.all_connected()
        self.start = self.viewers[0].position

    async def _connect(self, viewer: Viewer, address: Address, *, small: bool = False) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW_BYTES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SMALL_SEGMENT_BYTES)
        await loop.sock_connect(sock, address)
        await loop.create_connection(lambda: viewer, sock=sock)

    async def all_connected(self, within_s: float = 60.0) -> None:
        """Return when each has the first frame of its connection."""
        async with asyncio.timeout(within_s):
            while self._connected < len(self.viewers):
                await self._change()
        self.check()

    async def until(self, position: int, within_s: float = 60.0) -> float:
        """The moment at which everybody had got the frame at this position; TimeoutError when that takes too long."""
        async with asyncio.timeout(within_s):
            while position not in self.last_s:
                await self._change()
        self.check()
        return self.last_s[position]

    async def _change(self) -> None:
        self.check()
        self._changed.clear()
        await self._changed.wait()

    async def until_line(self, line: int, within_s: float = 60.0) -> None:
        """Return when everybody has got this line; TimeoutError when that takes too long."""
        async with asyncio.timeout(within_s):
            while min(viewer.line for viewer in self.viewers) < line:
                await asyncio.sleep(POLL_S)
                self.check()

    def check(self) -> None:
        """RuntimeError if a viewer was not served right."""
        if self._fault:
            raise RuntimeError(self._fault)

    def stall(self) -> None:
        """Read nothing more."""
        for viewer in self.viewers:
            viewer.transport.pause_reading()

    def read_on(self) -> None:
        """Read again."""
        for viewer in self.viewers:
            viewer.transport.resume_reading()

    def expect_kick(self, home: Address) -> None:
        """Whoever loses its connection from now on comes back there; `all_connected` waits for everybody anew."""
        self._home = home
        self._connected = 0

    def hang_up(self) -> None:
        """Break all connections."""
        for viewer in self.viewers:
            viewer.transport.abort()

    def leave(self) -> None:
        """Go for good; RuntimeError if a viewer was not served right."""
        self._leaving = True
        self.hang_up()
        self.check()


class Poster:
    """One connection that POSTs."""

    def __init__(self, address: Address, key: str) -> None:
        self._address = address
        self._key = key
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def post(self, path: str, body: bytes) -> None:
        """One request; RuntimeError for a refusal."""
        if not hasattr(self, "_writer"):
            self._reader, self._writer = await asyncio.open_connection(*self._address)
        head = (
            f"POST {BASE}{path} HTTP/1.1\r\nHost: bench\r\nx-api-key: {self._key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        size = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        text = await self._reader.readexactly(size)
        if not answer.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(text.decode())

    async def events(self, job: str, count: int, begun_s: list[float], pad: int = 0) -> None:
        """POST so many events of about `pad` bytes, 50 a second; notes when each began, by perf_counter."""
        start_s = perf_counter() + EVENT_S
        for number in range(count):
            await asyncio.sleep(max(0.0, start_s + number * EVENT_S - perf_counter()))
            begun_s.append(perf_counter())
            await self.post(f"/jobs/{job}/event", b'{"n":%d,"pad":"%b"}' % (number, b"x" * pad))

    def close(self) -> None:
        """Hang up."""
        if hasattr(self, "_writer"):
            self._writer.close()


def on_loop(work: Callable[[], Awaitable[T]]) -> T:
    """The result of an async function, on the loop that the server runs on, too."""
    results: list[T] = []

    async def keep() -> None:
        results.append(await work())

    run_loop(keep())
    return results[0]
