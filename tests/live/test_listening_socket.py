"""Too many connections for the files that a process may have: who waits, who goes, and that it is told."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from tests.any_redis import AnyRedis
from tests.factories import Space
from tests.live.stalling import number
from tests.live.test_workers import Web
from tests.server import Server
from tests.valkey import until
from tests.viewers import SocketViewer

FILES = 200
IDLE = 400
SOON_S = 20.0
PAUSES = "jobwire_accept_pauses_total"
WARNING = "new connections wait"


class Cramped(Server):
    """A server that may have 200 files open, and gives heads three seconds."""

    program = (
        "-c",
        "import resource, app.wire.http_protocol; app.wire.http_protocol.HEAD_S = 3.0; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, {FILES})); "
        "from jobwire.commands import main; main()",
    )


@pytest.fixture
def server(valkey: AnyRedis) -> Iterator[Server]:
    with Cramped(valkey.url) as made:
        yield made


def idle(server: Server, count: int, sent: bytes = b"") -> contextlib.ExitStack:
    """Connections that sent this, and nothing more; the stack closes them."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=SOON_S))
            sock.sendall(sent)
        return stack.pop_all()


def answered(server: Server, within_s: float = SOON_S) -> float:
    """How long it takes until somebody new is answered, in seconds."""
    begun_s = time.monotonic()
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=within_s)) as connection:
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
    return time.monotonic() - begun_s


def test_idle_connections_keep_nobody_waiting_and_the_operator_is_told_once(server: Server) -> None:
    with idle(server, IDLE):
        answered(server)
        until(lambda: number(server, PAUSES) > 0)
    assert server.log().count(WARNING) == 1
    assert f"of the {FILES} files" in server.log()
    assert answered(server) < SOON_S


def test_heads_that_never_end_keep_nobody_waiting_for_long(server: Server) -> None:
    with idle(server, IDLE, b"GET / HTTP/1.1\r\nhost: "):
        answered(server)


def test_who_has_been_idle_longest_goes_and_who_is_at_work_stays(server: Server) -> None:
    space = Space(server)
    job = space.create(claim=True)
    with SocketViewer(server, f"/realtime/{job['id']}", space.all.key) as viewer, contextlib.ExitStack() as stack:
        upload = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=SOON_S))
        head = f"POST /api/v1/jobs/{job['id']}/event HTTP/1.1\r\nhost: test\r\nx-api-key: {space.all.key}\r\n"
        upload.sendall(f"{head}content-length: 4\r\n\r\n[1".encode())
        kept = [HTTPConnection("127.0.0.1", server.port, timeout=SOON_S) for _ in range(IDLE)]
        for connection in kept:
            stack.callback(connection.close)
            connection.request("GET", "/healthz")
            connection.getresponse().read()
        assert number(server, PAUSES) > 0
        assert [has_ended(connection) for connection in kept[:10]] == [True] * 10
        assert [has_ended(connection) for connection in kept[-10:]] == [False] * 10
        upload.sendall(b"2]")
        assert upload.recv(1000).startswith(b"HTTP/1.1 200 ")
        viewer.until(lambda frame: frame["data"] == [12])


def has_ended(connection: HTTPConnection) -> bool:
    """Whether the server has ended a connection on which nothing is to come."""
    sock: socket.socket = connection.sock
    sock.settimeout(0.05)
    try:
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_with_files_enough_an_idle_connection_stays(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        kept = HTTPConnection("127.0.0.1", server.port, timeout=SOON_S)
        with contextlib.closing(kept):
            kept.request("GET", "/healthz")
            kept.getresponse().read()
            with idle(server, IDLE):
                for _ in range(3):
                    answered(server)
            assert not has_ended(kept)
        assert number(server, PAUSES) == 0


def test_it_leaves_in_time_while_it_accepts_nobody(valkey: AnyRedis) -> None:
    with Cramped(valkey.url) as server, idle(server, IDLE, b"G"):
        until(lambda: WARNING in server.log(), SOON_S)
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: ended(server.pid), 8)


def ended(pid: int) -> bool:
    """Whether a child of ours has ended; it is left to whoever waits for it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def test_workers_share_what_comes(valkey: AnyRedis) -> None:
    with Web(valkey.url) as web:
        for worker in web.workers():
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (FILES, FILES))
        with idle(web, 2 * IDLE):
            answered(web)
            assert WARNING in web.log()
