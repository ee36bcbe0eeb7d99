"""Viewers by the thousand in one process: they count frames, and note when each reached the last of them."""

import asyncio
import base64
import os
from collections import defaultdict
from typing import cast

from bench.service import BASE


class Viewer(asyncio.Protocol):
    """One WebSocket. After the first frame, which is the position, it counts."""

    __slots__ = ("_crowd", "_head", "_rest", "frames", "transport")

    def __init__(self, crowd: "Crowd", head: bytes) -> None:
        self._crowd = crowd
        self._head = head
        self._rest = b""
        self.frames = -1
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        if self._head:
            data = self._rest + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return
            if b" 101 " not in data[:20]:
                raise RuntimeError(data.decode())
            self._head = self._rest = b""
            data = data[end + 4 :]
        self._crowd.bytes += len(data)
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        while at + 2 <= size:
            length = data[at + 1]
            start = at + (2 if length < 126 else 4 if length == 126 else 10)
            if length >= 126:
                length = int.from_bytes(data[at + 2 : start])
            if start + length > size:
                break
            if data[at] == 0x81:
                self.frames += 1
                self._crowd.count(self.frames)
            at = start + length
        self._rest = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.lost += 1


class Crowd:
    """Viewers of one path. `path` is below the base."""

    def __init__(self, address: tuple[str, int], path: str, key: str) -> None:
        self._address = address
        lines = (
            f"GET {BASE}{path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nx-api-key: {key}\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n"
        )
        self._head = lines.encode()
        self.viewers: list[Viewer] = []
        self.bytes = 0
        self.lost = 0
        self.begun = 0
        self.reached: dict[int, int] = defaultdict(int)
        self.last_s: dict[int, float] = {}
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def count(self, frame: int) -> None:
        """One viewer has got its frame with this number (0: its first)."""
        self.reached[frame] += 1
        if self.reached[frame] == len(self.viewers):
            self.last_s[frame] = self._loop.time()
            self._changed.set()

    async def join(self, count: int, at_once: int = 200) -> None:
        """Let that many come; returns when each has its first frame."""
        for i in range(0, count, at_once):
            made = [self._one() for _ in range(min(at_once, count - i))]
            self.viewers += await asyncio.gather(*made)
        await self.until(0)

    async def _one(self) -> Viewer:
        _, viewer = await self._loop.create_connection(lambda: Viewer(self, self._head), *self._address)
        return viewer

    async def until(self, frame: int, within_s: float = 60.0) -> float:
        """The moment at which everybody had got this frame; TimeoutError when that takes too long."""
        async with asyncio.timeout(within_s):
            while self.reached[frame] < len(self.viewers):
                self._changed.clear()
                if self.reached[frame] < len(self.viewers):
                    await self._changed.wait()
        self.last_s.setdefault(frame, self._loop.time())
        return self.last_s[frame]

    async def until_bytes(self, count: int, within_s: float = 60.0) -> None:
        """Return when that much has come in all; TimeoutError when that takes too long."""
        async with asyncio.timeout(within_s):
            while self.bytes < count:  # noqa: ASYNC110  # an event would be set for each read
                await asyncio.sleep(0.005)

    def leave(self) -> None:
        """Break all connections."""
        for viewer in self.viewers:
            viewer.transport.abort()


class Poster:
    """One connection that POSTs."""

    def __init__(self, address: tuple[str, int], key: str) -> None:
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

    def close(self) -> None:
        """Hang up."""
        if hasattr(self, "_writer"):
            self._writer.close()
