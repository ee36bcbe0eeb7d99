"""One request is one request, whatever it offers to upgrade to, however it is cut, and whatever its body looks like."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.factories import Space
from tests.live.raw import WAIT_S
from tests.server import Server

JDK = (
    "POST {path} HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\n{length}Host: {host}\r\n"
    "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\r\n{chunked}Upgrade: h2c\r\n"
    "User-Agent: Java-http-client/17.0.15\r\nContent-Type: application/json\r\nx-api-key: {key}\r\n\r\n"
)
"""What java.net.http.HttpClient of JDK 17 sends, byte by byte; the body comes in further packets."""

CURL = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    "x-api-key: {key}\r\n{length}{chunked}Content-Type: application/json\r\n\r\n"
)
"""What `curl --http2` sends; the body comes in the same packet."""

POST = "POST {path} HTTP/1.1\r\nHost: {host}\r\nx-api-key: {key}\r\n{length}{chunked}%s\r\n\r\n"
GET = "GET {path} HTTP/1.1\r\nHost: {host}\r\n{length}{chunked}%s\r\n\r\n"
OPENING = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13"

OFFERS = {
    "jdk": JDK,
    "curl": CURL,
    "another protocol": POST % "Connection: Upgrade\r\nUpgrade: foo/2",
    "a websocket": POST % f"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n{OPENING}",
    "a websocket among others": POST % "Connection: upgrade\r\nUpgrade: h2c, websocket",
    "two": POST % "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c",
    "nothing": POST % "Connection: upgrade\r\nUpgrade:",
    "padded": POST % f"Connection: upgrade\r\nUpgrade: h2c\r\nx: {'p' * 60_000}",
}

CUTS = ("whole", "after the head", "within the body", "byte by byte at its end")


class Wire:
    """A connection on which each packet is the test's."""

    def __init__(self, server: Server) -> None:
        self._sock = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in = self._sock.makefile("rb")

    def send(self, *pieces: bytes) -> None:
        """Pieces, one after the other; the kernel may still join some of them on the other side."""
        for piece in pieces:
            self._sock.sendall(piece)

    def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next answer, their names in lower case."""
        lines: list[str] = []
        while (line := self._in.readline()) != b"\r\n":
            assert line, "the connection ended where an answer was to come"
            lines.append(line.decode("latin-1").strip())
        headers = dict(line.split(": ", 1) for line in lines[1:])
        return int(lines[0].split(" ")[1]), {name.lower(): value for name, value in headers.items()}

    def answer(self) -> tuple[int, Any]:
        """Status and JSON body of the next answer."""
        status, headers = self.head()
        body = self._in.read(int(headers["content-length"]))
        return status, json.loads(body) if body else None

    def rest(self) -> bytes:
        """Whatever still comes until the other side ends the connection."""
        got = b""
        try:
            while data := self._in.read1(65_536):
                got += data
        except ConnectionError:
            pass
        return got

    def close(self) -> None:
        """Hang up."""
        self._in.close()
        self._sock.close()


@pytest.fixture
def wire(socket_space: Space) -> Iterator[Wire]:
    with contextlib.closing(Wire(socket_space.server)) as made:
        yield made


def request(template: str, space: Space, path: str, body: bytes, *, chunked: bool) -> tuple[bytes, bytes]:
    """A head, and its body as it goes over the wire."""
    head = template.format(
        path=f"/api/v1{path}",
        host=f"127.0.0.1:{space.server.port}",
        key=space.all.key,
        length="" if chunked else f"Content-Length: {len(body)}\r\n",
        chunked="Transfer-encoding: chunked\r\n" if chunked else "",
    )
    return head.encode(), b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body


def cut(head: bytes, body: bytes, how: str) -> list[bytes]:
    """A request in packets."""
    if how == "whole":
        return [head + body]
    if how == "after the head":
        return [head, body]
    if how == "within the body":
        return [head + body[:5], body[5:]]
    whole = head + body
    return [whole[:-100], *(whole[i : i + 1] for i in range(len(whole) - 100, len(whole)))]


def last_word(space: Space) -> bytes:
    """What tells that nothing of a request before is left on a connection."""
    return f"GET /api/v1/whoami HTTP/1.1\r\nHost: x\r\nx-api-key: {space.all.key}\r\n\r\n".encode()


every_form = pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])


@every_form
@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("offer", OFFERS)
def test_the_body_behind_an_offer_is_the_requests(
    socket_space: Space, wire: Wire, offer: str, how: str, chunked: bool
) -> None:
    job = socket_space.job_in("running")
    path = f"/jobs/{job['id']}/complete"
    wire.send(*cut(*request(OFFERS[offer], socket_space, path, b'{"width": 640}', chunked=chunked), how))
    assert wire.answer() == (200, {"success": True, "status": "completed"})
    assert socket_space.get(job)["result"] == {"width": 640}
    wire.send(last_word(socket_space))
    assert wire.answer()[0] == 200


@every_form
@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("key", ["all", "none"])
def test_a_request_in_a_body_is_never_run(
    socket_space: Space, wire: Wire, *, offer: str, how: str, chunked: bool, key: str
) -> None:
    job, victim = socket_space.job_in("running"), socket_space.job_in("running")
    head, inner = request(POST % "x: y", socket_space, f"/jobs/{victim['id']}/kill", b"{}", chunked=False)
    template = OFFERS[offer] if key == "all" else OFFERS[offer].replace("{key}", "emit_nobody")
    wire.send(*cut(*request(template, socket_space, f"/jobs/{job['id']}/event", head + inner, chunked=chunked), how))
    assert wire.answer()[0] == (400 if key == "all" else 401)
    wire.send(last_word(socket_space))
    assert wire.answer()[0] == 200
    assert socket_space.status(victim) == "running"


def test_what_a_worker_says_behind_an_offer_counts(socket_space: Space, wire: Wire) -> None:
    job = socket_space.job_in("running")
    wire.send(*request(JDK, socket_space, f"{socket_space.jobs}/poll", b'{"names": ["nobody"]}', chunked=False))
    assert wire.answer() == (200, {"jobs": []})
    wire.send(*request(JDK, socket_space, f"/jobs/{job['id']}/fail", b'{"retry": false}', chunked=True))
    assert wire.answer()[1]["status"] == "dead"


def test_a_pipeline_of_offers_is_answered_in_order(socket_space: Space, wire: Wire) -> None:
    job = socket_space.job_in("running")
    offers = [*OFFERS.values(), POST % "x: y"] * 3
    path = f"/jobs/{job['id']}/event"
    sent = [request(offer, socket_space, path, b"%d" % i, chunked=i % 2 == 0) for i, offer in enumerate(offers)]
    wire.send(b"".join(b"".join(one) for one in sent) + last_word(socket_space))
    assert [wire.answer()[0] for _ in offers] == [200] * len(offers)
    assert "scopes" in wire.answer()[1]
    events = [event for event in socket_space.get(job)["events"] if event["type"] == "event"]
    assert [event["data"] for event in events] == list(range(len(offers)))


@every_form
@pytest.mark.parametrize("how", CUTS)
def test_what_stands_behind_a_long_body_is_the_next_request(
    socket_space: Space, wire: Wire, how: str, chunked: bool
) -> None:
    job = socket_space.job_in("running")
    path = f"/jobs/{job['id']}/logs"
    template = (POST % "x: y").replace("{length}", "{length}Content-Type: application/x-ndjson\r\n")
    bodies = [b'"%d %b"\n' % (number, b"x" * 60_000) * 3 for number in range(3)]
    for body in bodies:
        head, sent = request(template, socket_space, path, body, chunked=chunked)
        wire.send(*cut(head, sent + last_word(socket_space) * 20, how))
    for number in range(len(bodies)):
        assert wire.answer()[1]["toSeq"] == 3 * number + 3
        assert all("scopes" in wire.answer()[1] for _ in range(20))


@every_form
@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("path", ["/realtime/J", "/jobs/J", "/nothing"])
@pytest.mark.parametrize("opening", [OPENING, "Sec-WebSocket-Version: 8", "x: y"], ids=["right", "old", "broken"])
def test_a_websocket_with_a_body_ends_the_connection(
    socket_space: Space, wire: Wire, *, path: str, opening: str, how: str, chunked: bool
) -> None:
    job, victim = socket_space.create(), socket_space.job_in("running")
    inner = b"".join(request(POST % "x: y", socket_space, f"/jobs/{victim['id']}/kill", b"{}", chunked=False))
    template = GET % f"Connection: Upgrade\r\nUpgrade: websocket\r\n{opening}"
    head, body = request(template, socket_space, path.replace("J", job["id"]), inner, chunked=chunked)
    with contextlib.suppress(ConnectionError):
        wire.send(*cut(head, body, how))
    assert wire.rest().count(b"HTTP/1.1 ") <= 1
    assert socket_space.status(victim) == "running"


def test_a_websocket_behind_a_request_in_work_is_answered_after_it(socket_space: Space, wire: Wire) -> None:
    poll = b"".join(
        request(POST % "x: y", socket_space, f"{socket_space.jobs}/poll", b'{"name": "nobody"}', chunked=False)
    )
    opening = (
        f"GET /api/v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{OPENING}\r\n\r\n"
    )
    wire.send(poll + opening.encode())
    assert wire.answer() == (200, {"jobs": []})
    assert wire.answer()[0] == 401


HANDSHAKES = {
    "no key": ["Sec-WebSocket-Version: 13"],
    "a key that is none": ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x"],
    "two keys": [OPENING, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
    "no version": ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
    "an old version": ["Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="],
    "a body": [OPENING, "Content-Length: 3"],
    "too many headers": [OPENING, *(f"x-{i}: y" for i in range(200))],
    "too long a header": [OPENING, f"x: {'y' * 20_000}"],
}


@pytest.mark.parametrize("lines", HANDSHAKES.values(), ids=HANDSHAKES.keys())
def test_a_broken_handshake_is_refused_in_json(socket_space: Space, wire: Wire, lines: list[str]) -> None:
    job = socket_space.create()
    first = f"GET /api/v1/realtime/{job['id']} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    wire.send("\r\n".join([first + lines[0], *lines[1:], "", ""]).encode())
    head, _, body = wire.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head.lower()
    assert b"sec-websocket-version: 13" in head.lower()
    refusal = json.loads(body)
    assert refusal["code"] == "invalid_request"
    assert refusal["error"]


HEAD = "POST /api/v1/jobs/J/kill HTTP/1.1\r\nHost: x\r\nx-api-key: KEY\r\n"
CHUNKS = "Transfer-Encoding: chunked\r\n\r\n"
UNREADABLE = {
    "a length and chunks": HEAD + "Content-Length: 5\r\n" + CHUNKS + "0\r\n\r\n",
    "chunks and a length": HEAD + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "no length and chunks": HEAD + "Content-Length: 0\r\n" + CHUNKS + "0\r\n\r\n",
    "a length twice": HEAD + "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": HEAD + "Content-Length: 2, 2\r\n\r\n{}",
    "a signed length": HEAD + "Content-Length: +2\r\n\r\n{}",
    "a negative length": HEAD + "Content-Length: -2\r\n\r\n{}",
    "an empty length": HEAD + "Content-Length:\r\n\r\n{}",
    "a hexadecimal length": HEAD + "Content-Length: 0x2\r\n\r\n{}",
    "a length beyond 64 bits": HEAD + "Content-Length: 18446744073709551618\r\n\r\n{}",
    "a blank before the colon": HEAD + "Content-Length : 2\r\n\r\n{}",
    "a control before a length": HEAD + "Content-Length: \x0b2\r\n\r\n{}",
    "an unknown coding": HEAD + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding after chunks": HEAD + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a coding before chunks": HEAD + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "nothing before chunks": HEAD + "Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n",
    "a coding in another line": HEAD + "Transfer-Encoding: gzip\r\n" + CHUNKS + "0\r\n\r\n",
    "chunks twice": HEAD + "Transfer-Encoding: chunked\r\n" + CHUNKS + "0\r\n\r\n",
    "identity": HEAD + "Transfer-Encoding: identity\r\n\r\n",
    "an empty coding": HEAD + "Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "a quoted coding": HEAD + 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a coding with a parameter": HEAD + "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "a NUL in a coding": HEAD + "Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n",
    "a folded coding": HEAD + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a folded header": HEAD + "x: a\r\n b\r\n\r\n",
    "a folded first line": "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "a bare line feed": HEAD + "x: a\ny: b\r\n\r\n",
    "bare line feeds at the end": HEAD + "x: a\n\n",
    "a bare carriage return": HEAD + "x: a\ry: b\r\n\r\n",
    "two carriage returns": HEAD + "x: a\r\r\n\r\n",
    "a NUL in a header": HEAD + "x: a\0b\r\n\r\n",
    "a name with a blank": HEAD + "x y: a\r\n\r\n",
    "no name": HEAD + ": a\r\n\r\n",
    "no colon": HEAD + "x\r\n\r\n",
    "a bare line feed behind a chunk's size": HEAD + CHUNKS + "2\n{}\r\n0\r\n\r\n",
    "a bare line feed in a chunk's extension": HEAD + CHUNKS + "2;x\n{}\r\n0\r\n\r\n",
    "a bare carriage return in a chunk's extension": HEAD + CHUNKS + "2;x\r{}\r\n0\r\n\r\n",
    "a blank behind a chunk's size": HEAD + CHUNKS + "2 \r\n{}\r\n0\r\n\r\n",
    "a blank before a chunk's size": HEAD + CHUNKS + " 2\r\n{}\r\n0\r\n\r\n",
    "a prefix of a chunk's size": HEAD + CHUNKS + "0x2\r\n{}\r\n0\r\n\r\n",
    "a negative chunk": HEAD + CHUNKS + "-2\r\n{}\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": HEAD + CHUNKS + "10000000000000002\r\n{}\r\n0\r\n\r\n",
    "nothing behind a chunk": HEAD + CHUNKS + "2\r\n{}0\r\n\r\n",
    "no size of a chunk": HEAD + CHUNKS + "\r\n{}\r\n0\r\n\r\n",
    "a length in a trailer": HEAD + CHUNKS + "0\r\nContent-Length: 2\r\n\r\n",
    "a coding in a trailer": HEAD + CHUNKS + "0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "another version": HEAD.replace("1.1", "1.2") + "\r\n",
    "a tunnel": "CONNECT /api/v1/jobs/J/kill HTTP/1.1\r\nHost: x\r\nx-api-key: KEY\r\nContent-Length: 2\r\n\r\n{}",
    "HTTP/2 at once": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("offer", ["", "Connection: upgrade\r\nUpgrade: h2c\r\n"], ids=["plain", "offering"])
@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_as_one_request_ends_the_connection(
    socket_space: Space, wire: Wire, text: str, offer: str
) -> None:
    job = socket_space.job_in("running")
    text = text.replace("Host: x\r\n", f"Host: x\r\n{offer}")
    sent = text.replace("/J/", f"/{job['id']}/").replace("KEY", str(socket_space.all.key)).encode("latin-1")
    wire.send(sent + last_word(socket_space))
    got = wire.rest()
    assert got.count(b"HTTP/1.1 ") <= 1
    assert got == b"" or got.startswith(b"HTTP/1.1 400 ")
    assert socket_space.status(job) == "running"


READABLE = {
    "an extension of a chunk": CHUNKS + "2;a=b\r\n{}\r\n0;c\r\n\r\n",
    "zeros before a size": CHUNKS + "002\r\n{}\r\n000\r\n\r\n",
    "capitals": "TRANSFER-ENCODING: CHUNKED\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "blanks around a length": "Content-Length: \t2 \r\n\r\n{}",
    "an offer in a trailer": CHUNKS + "2\r\n{}\r\n0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
}


@pytest.mark.parametrize("rest", READABLE.values(), ids=READABLE.keys())
def test_what_can_be_read_is_one_request(socket_space: Space, wire: Wire, rest: str) -> None:
    job = socket_space.job_in("running")
    head = HEAD.replace("/J/", f"/{job['id']}/").replace("KEY", str(socket_space.all.key))
    wire.send((head + rest).encode() + last_word(socket_space))
    assert wire.answer()[1]["status"] == "killed"
    assert "scopes" in wire.answer()[1]


def test_what_a_trailer_has_is_no_header(socket_space: Space, wire: Wire) -> None:
    job = socket_space.job_in("running")
    head = f"POST /api/v1/jobs/{job['id']}/kill HTTP/1.1\r\nHost: x\r\n{CHUNKS}2\r\n{{}}\r\n0\r\n"
    wire.send(f"{head}x-api-key: {socket_space.all.key}\r\n\r\n".encode())
    assert wire.answer()[0] == 401
    assert socket_space.status(job) == "running"


def test_who_is_answered_instead_of_told_to_continue_is_read_no_further(socket_space: Space, wire: Wire) -> None:
    head = "POST /api/v1/spaces HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"
    wire.send(head.encode())
    got = wire.rest()
    assert got.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in got


def test_who_is_told_to_continue_goes_on(socket_space: Space, wire: Wire) -> None:
    job = socket_space.job_in("running")
    head, body = request(JDK, socket_space, f"/jobs/{job['id']}/event", b"[1]", chunked=False)
    wire.send(head.replace(b"Host", b"Expect: 100-continue\r\nHost"))
    assert wire.head() == (100, {})
    wire.send(body)
    assert wire.answer()[0] == 200
    wire.send(last_word(socket_space))
    assert wire.answer()[0] == 200


@pytest.mark.valkey_only("what is measured is the process, which is the same")
def test_a_pipeline_without_end_is_read_as_fast_as_it_is_answered(server: Server) -> None:
    one, answered = b"GET /none HTTP/1.1\r\n\r\n", 0
    before_bytes = server.rss_bytes()
    with socket.create_connection(("127.0.0.1", server.port), timeout=1) as sock, contextlib.suppress(TimeoutError):
        for _ in range(20):
            sock.sendall(one * 20_000)
            answered += len(sock.recv(65_536))
    assert answered
    assert server.rss_bytes() - before_bytes < 50 * 2**20


def test_thousands_of_requests_in_one_packet_are_answered_in_order(server: Server) -> None:
    paths = [f"/{number}" for number in range(3000)]
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as sock:
        sock.sendall("".join(f"OPTIONS {path} HTTP/1.1\r\n\r\n" for path in paths[:-1]).encode())
        sock.sendall(f"OPTIONS {paths[-1]} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        got = b""
        while piece := sock.recv(1_000_000):
            got += piece
    assert got.count(b"HTTP/1.1 ") == len(paths)
