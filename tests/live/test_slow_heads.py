"""Connections on which no request ever becomes whole: they are ended, and no others are."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse

import pytest

import app.wire.http_protocol
import app.wire.stalled_requests
from tests.any_redis import NewRedis
from tests.factories import Space
from tests.server import Server
from tests.viewers import EventViewer, SocketViewer

HEAD_S = 1.0
BODY_S = 2.0
ENDED_S = 8.0


class Hasty(Server):
    """A server that looks at its connections twice a second, and waits a second for a head, two for some of a body."""

    program = (
        "-c",
        "import app.wire.http_protocol, app.serve; app.serve.STALL_CHECK_TICKS = 5; "
        f"app.wire.http_protocol.HEAD_S = {HEAD_S}; app.wire.http_protocol.BODY_S = {BODY_S}; "
        "from jobwire.commands import main; main()",
    )


@pytest.fixture(scope="module")
def server(new_redis: NewRedis) -> Iterator[Server]:
    with new_redis() as valkey, Hasty(valkey.url) as made:
        yield made


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=ENDED_S)


def answer(sock: socket.socket) -> int:
    """The status of an answer, which is read to its end."""
    response = HTTPResponse(sock)
    response.begin()
    response.read()
    return response.status


def is_ended(sock: socket.socket, piece: bytes) -> bool:
    """Whether the server hangs up, though another piece comes ever and ever again, without one word."""
    sock.settimeout(0.05)
    until_s = time.monotonic() + ENDED_S
    while time.monotonic() < until_s:
        try:
            sock.sendall(piece)
            return sock.recv(1000) == b""
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


def wait_longer_than_a_head_may_take(server: Server) -> None:
    for _ in range(3):
        with connected(server) as sock:
            assert sock.recv(1) == b""


def test_by_default_a_head_has_10_s_a_body_may_stop_for_30_s_and_an_answer_lie_for_60_s() -> None:
    protocol, stalled = app.wire.http_protocol, app.wire.stalled_requests
    assert (protocol.HEAD_S, protocol.BODY_S, stalled.ANSWER_S) == (10, 30, 60)


def test_a_connection_that_sends_nothing_is_ended(server: Server) -> None:
    with connected(server) as sock:
        assert sock.recv(1) == b""


@pytest.mark.parametrize("begin", [b"GET /", b"GET /healthz HTTP/1.1\r\nhost: test\r\nx-slow: "])
def test_a_head_that_never_ends_is_ended(server: Server, begin: bytes) -> None:
    with connected(server) as sock:
        sock.sendall(begin)
        assert is_ended(sock, b"a")


def test_a_second_head_that_never_ends_is_ended(server: Server) -> None:
    with connected(server) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n")
        assert answer(sock) == 200
        sock.sendall(b"GET /")
        assert is_ended(sock, b"a")


def test_a_body_that_goes_on_for_ever_after_the_answer_is_ended(server: Server) -> None:
    with connected(server) as sock:
        sock.sendall(b"POST /api/v1/spaces HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\n")
        assert answer(sock) == 401
        assert is_ended(sock, b"a")


def event_begun(space: Space, size: int) -> HTTPConnection:
    """A connection on which the head of an event with a body of this size was sent."""
    job = space.create(claim=True)
    connection = HTTPConnection("127.0.0.1", space.server.port, timeout=ENDED_S)
    connection.putrequest("POST", f"/api/v1/jobs/{job['id']}/event")
    connection.putheader("x-api-key", str(space.all.key))
    connection.putheader("content-length", str(size))
    connection.endheaders()
    return connection


def test_a_body_that_comes_slowly_is_waited_for(server: Server) -> None:
    with closing(event_begun(Space(server), 14)) as connection:
        begun_s = time.monotonic()
        for _ in range(12):
            connection.send(b" ")
            time.sleep(BODY_S / 4)  # the pace of this sender, not a wait
        assert time.monotonic() - begun_s > 2 * BODY_S
        connection.send(b"12")
        assert connection.getresponse().status == 200


@pytest.mark.parametrize("begin", [b"", b"[1"])
def test_a_body_that_stops_coming_ends_its_connection(server: Server, begin: bytes) -> None:
    with closing(event_begun(Space(server), 4)) as connection:
        connection.send(begin)
        begun_s = time.monotonic()
        with pytest.raises(ConnectionError):
            connection.getresponse()
        assert time.monotonic() - begun_s > BODY_S / 2
    assert 'jobwire_stalled_connections_total{what="body"}' in server.beside("/metrics").text


def test_an_idle_connection_that_once_sent_a_blank_line_is_ended(server: Server) -> None:
    with connected(server) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n")
        assert answer(sock) == 200
        sock.sendall(b"\r\n")
        assert sock.recv(1) == b""


def test_who_waits_for_an_answer_or_watches_is_left_alone(server: Server) -> None:
    space = Space(server)
    job = space.create(claim=True)
    path, key = f"/realtime/{job['id']}?after=0", space.all.key
    with (
        ThreadPoolExecutor() as threads,
        SocketViewer(server, path, key) as socket_viewer,
        EventViewer(server, path, key) as event_viewer,
        closing(HTTPConnection("127.0.0.1", server.port, timeout=ENDED_S)) as idle,
    ):
        polling = threads.submit(space.poll, waitSeconds=20)
        idle.request("GET", "/healthz")
        idle.getresponse().read()
        opened = idle.sock
        wait_longer_than_a_head_may_take(server)
        idle.request("GET", "/healthz")
        assert idle.getresponse().status == 200
        assert idle.sock is opened
        space.do(job, "event", "late")
        for viewer in (socket_viewer, event_viewer):
            viewer.until(lambda frame: frame["data"] == "late")
        other = space.create()
        assert [found["id"] for found in polling.result(ENDED_S)] == [other["id"]]
