"""Clients that stop in the middle: uploads of which the rest never comes, answers that nobody reads."""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import Self

from tests.factories import Space
from tests.server import Caller, Server

MIB = 1 << 20
CREATE_BYTES = 8 * MIB
"""What a create may be at most."""

WAIT_S = 20.0
LINE = "x" * 60_000


class Stalling:
    """A connection with one request, for the test to go on with; a context that ends it."""

    def __init__(self, server: Server, request: bytes, receive_bytes: int = 0) -> None:
        self.sock = socket.socket()
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(("127.0.0.1", server.port))
        self.send(request)

    def send(self, data: bytes) -> None:
        """Bytes as they are; the socket is closed where that fails."""
        try:
            self.sock.sendall(data)
        except ConnectionError:
            self.sock.close()
            raise

    def rest(self) -> bytes:
        """All that comes until the end of the connection."""
        self.sock.settimeout(WAIT_S)
        got = []
        while data := self.sock.recv(1 << 20):
            got.append(data)
        return b"".join(got)

    def is_ended(self, within_s: float) -> bool:
        """Whether the server ends it in time; what comes before is read, and dropped."""
        self.sock.settimeout(within_s)
        until_s = time.monotonic() + within_s
        try:
            while time.monotonic() < until_s:
                if not self.sock.recv(1 << 20):
                    return True
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.sock.close()


def upload(space: Space, caller: Caller, sent: int, size: int = 0) -> Stalling:
    """A create of which `sent` bytes come, out of `size` (one more)."""
    head = f"POST {BASE}{space.jobs} HTTP/1.1\r\nhost: test\r\nx-api-key: {caller.key}\r\n"
    stalling = Stalling(space.server, f"{head}content-length: {size or sent + 1}\r\n\r\n".encode())
    stalling.send(b" " * sent)
    return stalling


def unread(space: Space, caller: Caller, path: str, accept: str = "application/json") -> Stalling:
    """A request whose answer is not read."""
    head = f"GET {BASE}{path} HTTP/1.1\r\nhost: test\r\nx-api-key: {caller.key}\r\naccept: {accept}\r\n"
    return Stalling(space.server, f"{head}connection: close\r\n\r\n".encode(), 4096)


BASE = "/api/v1"
WHOLE_LOG = "logs?after=0&limit=500"


def long_log(space: Space, mebibytes: int = 9) -> str:
    """The path of a job whose log has so many MiB."""
    job = space.create()
    for _ in range(mebibytes):
        space.do(job, "logs", [LINE] * 17)
    return f"/jobs/{job['id']}/"


def number(server: Server, name: str) -> float:
    """What the server shows of a metric, over all labels that begin so."""
    text = server.beside("/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def in_flight(server: Server) -> float:
    """The bytes that the server says it holds."""
    return number(server, "jobwire_inflight_bytes")
