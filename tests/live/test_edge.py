"""The edge as clients of every kind meet it: HTTP/1.0, HEAD, keys in any place, long queries, and answers that do not
depend on who asked before."""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from app.api.cors import origin_of
from tests.any_redis import NewRedis
from tests.factories import NO_JOB, Space, refused
from tests.live.raw import WAIT_S, RawSocket, RawStream, handshake
from tests.server import Server
from tests.valkey import until
from tests.viewers import refusal

WATCHED = """
import app.main, atexit, collections, copy, importlib, pkgutil, sys
import app
KINDS = (dict, list, set, bytearray, collections.deque)
found = [importlib.import_module(m.name) for m in pkgutil.walk_packages(app.__path__, "app.")]
def state():
    pairs = ((m.__name__, name, value) for m in found for name, value in vars(m).items() if not name.startswith("__"))
    return {f"{module}.{name}": repr(value) for module, name, value in pairs if isinstance(value, KINDS)}
before = state()
def tell():
    after = state()
    for name in before:
        if after[name] != before[name]:
            print("CHANGED", name, after[name][:300], file=sys.stderr)
    print("COMPARED", len(before), file=sys.stderr, flush=True)
atexit.register(tell)
from jobwire.commands import main
main()
"""


class Watched(Server):
    """A server that tells at its end which values of its modules have changed."""

    program = ("-c", WATCHED)


def ask(server: Server, text: str) -> tuple[bytes, bytes]:
    """Head and body of an answer that ends with its connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as sock:
        sock.sendall(text.encode())
        got = b""
        while data := sock.recv(65_536):
            got += data
    head, _, body = got.partition(b"\r\n\r\n")
    return head.lower(), body


def old(space: Space, path: str, *more: str, key: str | None = "") -> str:
    """A GET of HTTP/1.0."""
    lines = [f"GET /api/v1{path} HTTP/1.0", *more, *([f"x-api-key: {key or space.all.key}"] if key is not None else [])]
    return "\r\n".join([*lines, "", ""])


# HTTP/1.0


@pytest.mark.parametrize("kept", [[], ["Connection: keep-alive"]], ids=["closing", "keeping"])
def test_a_download_to_http_1_0_ends_with_its_connection(socket_space: Space, kept: list[str]) -> None:
    job = socket_space.create()
    socket_space.do(job, "logs", [f"line {i}" for i in range(3000)])
    text = old(socket_space, f"/jobs/{job['id']}/logs?after=0", "accept: application/x-ndjson", *kept)
    head, body = ask(socket_space.server, text)
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert [json.loads(line)["seq"] for line in body.splitlines()] == list(range(1, 3001))


def test_an_event_stream_to_http_1_0_has_no_chunks_and_ends_with_its_connection(socket_space: Space) -> None:
    job = socket_space.job_in("completed")
    head, body = ask(socket_space.server, old(socket_space, f"/realtime/{job['id']}", key=None))
    assert b"transfer-encoding" not in head
    events = [event for event in body.split(b"\n\n") if event]
    assert all(
        line.split(b":")[0] in (b"", b"data", b"id", b"retry", b"event") for e in events for line in e.split(b"\n")
    )
    data = [line for event in events for line in event.split(b"\n") if line.startswith(b"data: ")]
    assert json.loads(data[0].removeprefix(b"data: "))["type"] == "init"


class OldEvents(RawStream):
    """An event stream of HTTP/1.0."""

    expected = b" 200 "

    def line(self) -> bytes:
        """The next line."""
        got = b""
        while not got.endswith(b"\n"):
            got += self._take(1)
        return got


def test_http_1_0_and_1_1_watch_the_same_job(socket_space: Space) -> None:
    job = socket_space.create(claim=True)
    text = old(socket_space, f"/realtime/{job['id']}?after=0")
    with (
        OldEvents(socket_space.server, text.encode()) as stream,
        RawSocket(socket_space.server, f"/realtime/{job['id']}?after=0", socket_space.all.key) as other,
    ):
        socket_space.do(job, "complete", {"ok": 1})
        while b'"type":"completed"' not in (line := stream.line()):
            assert line.split(b":")[0] in (b"\n", b"", b"data", b"id", b"retry")
        while b'"type":"completed"' not in other.read().payload:
            pass


def test_a_list_to_http_1_0_has_its_length(socket_space: Space) -> None:
    socket_space.create()
    head, body = ask(socket_space.server, old(socket_space, socket_space.jobs, "Connection: keep-alive"))
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)


def test_http_1_0_may_not_open_a_websocket(socket_space: Space) -> None:
    job = socket_space.job_in("completed")
    opening = handshake(f"/realtime/{job['id']}").replace(b"HTTP/1.1", b"HTTP/1.0").decode()
    head, _ = ask(socket_space.server, opening)
    assert head.startswith(b"http/1.1 200 ")
    assert b"text/event-stream" in head


# HEAD


def test_head_is_answered_wherever_get_is(socket_space: Space) -> None:
    server, job = socket_space.server, socket_space.create()
    described = server.beside("/openapi.json").json()["paths"]
    paths = [f"/api/v1{path}" for path, methods in described.items() if "get" in methods]
    assert len(paths) >= 9
    beside = ["/", "/docs", "/jobwire.js", "/healthz", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json"]
    streams = [f"/api/v1/realtime/{job['id']}", f"/api/v1/realtime/spaces/{socket_space.id}"]
    for path in [*paths, *beside, *streams, f"/api/v1/realtime/{NO_JOB}"]:
        full = path.replace("{job_id}", job["id"]).replace("{space_id}", socket_space.id)
        head, body = ask(
            server, f"HEAD {full} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: {server.root_key}\r\n\r\n"
        )
        assert body == b"", full
        assert int(head.split(b" ")[1]) in ({404} if NO_JOB in full else {200}), (full, head)
        if "realtime" in full and NO_JOB not in full:
            assert b"content-type: text/event-stream" in head


def test_head_of_a_stream_is_refused_as_get_is(socket_space: Space) -> None:
    path = f"/realtime/spaces/{socket_space.id}"
    assert socket_space.server.caller(None).send("HEAD", path).status_code == 401
    assert socket_space.public.send("HEAD", path).status_code == 403


# Keys


def basic(key: str | None, user: str = "whoever") -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(f'{user}:{key}'.encode()).decode()}"}


@pytest.mark.parametrize("user", ["", "whoever", "emit_other"])
def test_the_password_of_http_basic_is_the_key(socket_space: Space, user: str) -> None:
    nobody = socket_space.server.caller(None)
    key = socket_space.all.key
    assert nobody.get(socket_space.jobs, headers=basic(key, user)).status_code == 200
    assert nobody.post(socket_space.jobs, json={"name": "x"}, headers=basic(key, user)).status_code == 201
    with httpx.stream("GET", f"{nobody.base}/realtime/spaces/{socket_space.id}", headers=basic(key, user)) as answer:
        assert answer.status_code == 200


@pytest.mark.parametrize("sent", ["Basic", "Basic !!!", "Basic /w==", f"Basic {base64.b64encode(b'x').decode()}"])
def test_what_is_no_http_basic_is_no_key(socket_space: Space, sent: str) -> None:
    nobody = socket_space.server.caller(None)
    refused(nobody.get(socket_space.jobs, headers={"authorization": sent}), 401, "unauthorized")


def named(key: str) -> str:
    return f"jobwire.key.{base64.urlsafe_b64encode(key.encode()).decode().rstrip('=')}"


@pytest.mark.parametrize("order", [1, -1])
def test_a_browser_names_its_key_in_the_subprotocols(socket_space: Space, order: int) -> None:
    key = str(socket_space.all.key)
    url = f"ws://127.0.0.1:{socket_space.server.port}/api/v1/realtime/spaces/{socket_space.id}"
    protocols: Any = ["jobwire", named(key)][::order]
    with connect(url, subprotocols=protocols) as viewer:
        assert viewer.subprotocol == "jobwire"
        assert json.loads(viewer.recv(WAIT_S))["type"] == "connected"
    assert key not in socket_space.server.log()
    assert named(key) not in socket_space.server.log()


@pytest.mark.parametrize("name", [named("emit_wrong"), "jobwire.key.!", "jobwire.key.A", "jobwire.key._w"])
def test_a_wrong_key_in_the_subprotocols_is_refused(socket_space: Space, name: str) -> None:
    job = socket_space.create()
    for path in (f"/realtime/{job['id']}", f"/realtime/spaces/{socket_space.id}"):
        found = refusal(socket_space.server, path, **{"sec-websocket-protocol": f"jobwire, {name}"})
        assert (found[0], found[1]["code"]) == (401, "unauthorized")


def test_without_a_key_in_the_subprotocols_a_viewer_is_anonymous(socket_space: Space) -> None:
    job = socket_space.create()
    url = f"ws://127.0.0.1:{socket_space.server.port}/api/v1/realtime/{job['id']}"
    protocols: Any = ["jobwire"]
    with connect(url, subprotocols=protocols) as viewer:
        assert viewer.subprotocol == "jobwire"
        assert json.loads(viewer.recv(WAIT_S))["seq"] is None


def test_a_key_in_the_address_wins_over_a_password_that_a_proxy_asked_for(socket_space: Space) -> None:
    path = f"/realtime/spaces/{socket_space.id}?token={socket_space.all.key}"
    answer = socket_space.server.caller(None).send("HEAD", path, headers=basic("of-the-proxy"))
    assert answer.status_code == 200


# Queries


@pytest.mark.parametrize("path", ["/nothing", f"/jobs/{NO_JOB}", "/realtime/spaces/x", "/whoami"])
def test_a_query_of_many_fields_costs_nothing_before_the_key_is_known(socket_space: Space, path: str) -> None:
    server = socket_space.server
    request = f"GET /api/v1{path}?token=x{'&a' * 30_000} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    before_s = cpu_s(server)
    for _ in range(50):
        assert server.raw(request)[0] in (400, 401, 404)
    assert cpu_s(server) - before_s < 1.5, "to read each field takes 0.1 s a request"


def cpu_s(server: Server) -> float:
    """The time that the process has worked."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def test_a_query_has_at_most_a_hundred_fields(socket_space: Space) -> None:
    job = socket_space.create()
    for path in (socket_space.jobs, f"/jobs/{job['id']}/logs"):
        assert socket_space.all.get(f"{path}?limit=1{'&a' * 99}").status_code == 200
        refused(socket_space.all.get(f"{path}?limit=1{'&a' * 100}"), 400, "invalid_request")
    stream = f"/realtime/{job['id']}?token={socket_space.all.key}"
    assert socket_space.server.caller(None).send("HEAD", f"{stream}{'&a' * 99}").status_code == 200
    refused(socket_space.server.caller(None).get(f"{stream}{'&a' * 100}"), 400, "invalid_request")


# Who asked before


def test_no_request_changes_what_others_are_answered(new_redis: NewRedis) -> None:
    with new_redis() as valkey, Watched(valkey.url, JOBWIRE_ORIGINS="https://a.example, https://b.example") as server:
        space = Space(server)
        job = space.create()
        heads = set()
        for i in range(200):
            origin = ["", "Origin: https://a.example\r\n", "Origin: https://b.example\r\n"][i % 3]
            for path in (f"/realtime/{job['id']}", f"/realtime/spaces/{space.id}", space.jobs, "/spaces", "/nothing"):
                head, _ = stream_head(server, path, f"{origin}x-api-key: {server.root_key}\r\n")
                origins = [line for line in head if line.startswith("access-control-allow-origin")]
                wanted = [f"access-control-allow-origin: {origin.strip().removeprefix('Origin: ')}"] if origin else []
                assert origins == wanted
                heads.add((path, origin, tuple(sorted(line for line in head if not line.startswith(OWN)))))
        assert len(heads) == 15
        for verb in ("GET", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "PUT"):
            for path in server.beside("/openapi.json").json()["paths"]:
                server.caller("emit_wrong").send(verb, path)
        server._end()
        assert "COMPARED" in server.log()
        assert "CHANGED" not in server.log()


OWN = ("date", "x-request-id", "content-length")


def stream_head(server: Server, path: str, lines: str) -> tuple[list[str], bytes]:
    """The head of an answer, whatever its body does."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as sock:
        sock.sendall(f"GET /api/v1{path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode())
        got = b""
        while b"\r\n\r\n" not in got:
            got += sock.recv(65_536)
    head, _, rest = got.partition(b"\r\n\r\n")
    return head.decode().lower().split("\r\n"), rest


# The origin of the public URL


@pytest.fixture(scope="module")
def public(new_redis: NewRedis) -> Iterator[Space]:
    with (
        new_redis() as valkey,
        Server(
            valkey.url, JOBWIRE_ORIGINS="https://a.example", JOBWIRE_PUBLIC_URL="https://Jobs.Example:443/x/"
        ) as server,
    ):
        yield Space(server)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://jobs.example", True),
        ("https://a.example", True),
        ("http://inside:8080", True),
        ("http://jobs.example", False),
        ("https://jobs.example:8443", False),
        ("https://jobs.example.evil", False),
        ("null", False),
    ],
)
def test_the_origin_of_the_public_url_is_the_servers_own(public: Space, origin: str, *, allowed: bool) -> None:
    job = public.create()
    opening = handshake(f"/realtime/{job['id']}").replace(
        b"Host: test", f"Host: inside:8080\r\nOrigin: {origin}".encode()
    )
    with socket.create_connection(("127.0.0.1", public.server.port), timeout=WAIT_S) as sock:
        sock.sendall(opening)
        got = sock.recv(65_536)
    assert got.startswith(b"HTTP/1.1 101 " if allowed else b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://a", "http://a"),
        ("HTTP://A.Example:80/x?y", "http://a.example"),
        ("https://a:443", "https://a"),
        ("https://a:444/", "https://a:444"),
        ("http://a:443", "http://a:443"),
        ("http://[2001:DB8::1]:8080/", "http://[2001:db8::1]:8080"),
        ("https://user:word@bücher.example/", "https://xn--bcher-kva.example"),
        ("", ""),
        ("a.example", ""),
        ("ftp://a", ""),
        ("http://", ""),
        ("http://a:99999", ""),
        ("http://[", ""),
    ],
)
def test_an_origin_is_written_as_browsers_do(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_a_preflight_is_answered_without_a_body(socket_space: Space) -> None:
    asked = {"origin": "https://a.example", "access-control-request-method": "POST"}
    answer = httpx.options(f"{socket_space.server.url}/api/v1/spaces", headers=asked)
    assert answer.status_code == 204
    assert answer.content == b""
    assert "content-type" not in answer.headers


# The log


@pytest.fixture(scope="module")
def logging(new_redis: NewRedis) -> Iterator[Server]:
    with new_redis() as valkey, Server(valkey.url, JOBWIRE_LOG="json") as server:
        yield server


@pytest.mark.parametrize("sent", ['"', '1.2.3.4"x', "\\", '";"level":"error', "\x80ä\xad", "emit_" + "S" * 43])
def test_every_value_of_a_line_is_encoded(logging: Server, sent: str) -> None:
    marked, name = f"{secrets.token_hex(8)}", sent.replace('"', "%22").replace("\\", "%5C")
    lines = f"x-forwarded-for: {sent}\r\ntraceparent: {sent}\r\nx-request-id: {sent}\r\nuser-agent: {sent}"
    path = f"/{marked}%22%5C%0a/{name if name.isascii() else ''}"
    logging.raw(f"GET {path} HTTP/1.1\r\nhost: x\r\n{lines}\r\n\r\n".encode("latin-1"))
    until(lambda: marked in logging.log())
    (line,) = (json.loads(line) for line in logging.log().splitlines() if marked in line)
    shown = "emit_***" if "emit_" in sent else sent
    assert (line["level"], line["client"]) == ("info", shown)
    assert line["path"] == f'/{marked}"\\\n/{shown if name.isascii() else ""}'
    assert "traceparent" not in line
    assert [json.loads(line) for line in logging.log().splitlines() if line]
