"""Streams by hand: every byte that goes out is the test's, every frame that comes in is seen as it is.

https://www.rfc-editor.org/rfc/rfc6455
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
from types import TracebackType
from typing import NamedTuple, Self

from tests.server import Server

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
WAIT_S = 10.0


class RawFrame(NamedTuple):
    """One frame as it came."""

    first: int
    payload: bytes

    @property
    def opcode(self) -> int:
        """What it is."""
        return self.first & 0x0F

    @property
    def code(self) -> int:
        """The code of a close; 1005 without one."""
        return int.from_bytes(self.payload[:2]) if len(self.payload) >= 2 else 1005


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    """A frame as a client sends it, unless told to do it wrong."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mask = os.urandom(4) if masked else b""
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 65_536:
        head = bytes((first, bit | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8)
    return head + mask + (_masked(payload, mask) if masked else payload)


def _masked(payload: bytes, mask: bytes) -> bytes:
    """The payload, each of its bytes with the one of the mask that is its turn."""
    repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(len(payload))


def handshake(path: str, key: str | None = None) -> bytes:
    """The request that opens a WebSocket."""
    lines = [
        f"GET /api/v1{path} HTTP/1.1",
        "Host: test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
        *([] if key is None else [f"x-api-key: {key}"]),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class RawStream:
    """A connection after its request and the head of the answer. `receive_bytes` bounds what the kernel takes in."""

    expected = b""
    """What the head of the answer contains."""

    def __init__(self, server: Server, request: bytes, receive_bytes: int = 0) -> None:
        self.sock = socket.socket()
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(("127.0.0.1", server.port))
        self.sock.sendall(request)
        self._in = b""
        while b"\r\n\r\n" not in self._in:
            self.sip(65_536)
        self.head, _, self._in = self._in.partition(b"\r\n\r\n")
        assert self.expected in self.head, self.head

    def sip(self, most_bytes: int) -> None:
        """Take in what has come, up to so much; EOFError when nothing will come any more."""
        data = self.sock.recv(most_bytes)
        if not data:
            raise EOFError
        self._in += data

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.sock.sendall(data)

    def _take(self, size: int) -> bytes:
        while len(self._in) < size:
            self.sip(65_536)
        taken, self._in = self._in[:size], self._in[size:]
        return taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.sock.close()


class RawSocket(RawStream):
    """A WebSocket after its handshake."""

    expected = b" 101 "

    def __init__(self, server: Server, path: str, key: str | None = None, receive_bytes: int = 0) -> None:
        super().__init__(server, handshake(path, key), receive_bytes)

    def read(self) -> RawFrame:
        """The next frame; EOFError when there is none any more."""
        first, size = self._take(2)
        assert not size & 0x80, "a server masks nothing"
        if size >= 126:
            size = int.from_bytes(self._take(2 if size == 126 else 8))
        return RawFrame(first, self._take(size))

    def until(self, opcode: int) -> RawFrame:
        """The next frame of this kind."""
        while (got := self.read()).opcode != opcode:
            pass
        return got

    def closes(self) -> int:
        """The code with which the server closes; then nothing more may come."""
        code = self.until(CLOSE).code
        try:
            self.read()
        except (EOFError, ConnectionError):
            return code
        raise AssertionError("a frame came after the close")

    def hears(self, *sent: bytes) -> list[bytes | int]:
        """What comes in answer until the server ends it: payloads of pongs, and the code of the close, the last."""
        self.send(b"".join(sent))
        heard: list[bytes | int] = []
        while (got := self.read()).opcode != CLOSE:
            if got.opcode == PONG:
                heard.append(got.payload)
        with contextlib.suppress(EOFError, ConnectionError):
            raise AssertionError(f"{self.read()} came after the close")
        return [*heard, got.code]


class RawEvents(RawStream):
    """An event stream after the head of its answer. A chunk is an event."""

    expected = b" 200 "

    def __init__(self, server: Server, path: str, key: str | None = None, receive_bytes: int = 0) -> None:
        lines = [f"GET /api/v1{path} HTTP/1.1", "Host: test", *([] if key is None else [f"x-api-key: {key}"])]
        super().__init__(server, "\r\n".join([*lines, "", ""]).encode(), receive_bytes)

    def read(self) -> bytes:
        """The next event, b"" when the body ends as it should; EOFError when it ends otherwise."""
        size = b""
        while not size.endswith(b"\r\n"):
            size += self._take(1)
        event = self._take(int(size, 16) + 2)
        return event[:-2]
