"""404 and 405: what is a path, what is a method, and that every error is JSON."""

from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.factories import NO_JOB, Space, refused
from tests.server import Server

pytestmark = pytest.mark.valkey_only("what it proves is decided before Redis is asked")

ALLOWED = {
    "/jobs/J": {"GET", "HEAD", "DELETE"},
    "/jobs/J/logs": {"GET", "HEAD", "POST"},
    "/jobs/J/progress": {"GET", "HEAD", "POST"},
    "/jobs/J/events": {"GET", "HEAD"},
    **{
        f"/jobs/J/{verb}": {"POST"}
        for verb in ("claim", "ack", "complete", "fail", "kill", "retry", "checkpoint", "event", "keepalive")
    },
    "/spaces": {"GET", "HEAD", "POST"},
    "/spaces/S": {"GET", "HEAD", "DELETE", "PATCH"},
    "/spaces/S/jobs": {"GET", "HEAD", "POST"},
    "/spaces/S/jobs/poll": {"POST"},
    "/spaces/S/jobs/retry": {"POST"},
    "/jobs/J/callback/retry": {"POST"},
    "/whoami": {"GET", "HEAD"},
    "/spaces/S/tokens": {"GET", "HEAD", "POST"},
    "/spaces/S/tokens/T": {"DELETE"},
}


def spelled(path: str, space: Space) -> str:
    parts = {"J": NO_JOB, "S": space.id, "T": NO_JOB}
    return "/".join(parts.get(part, part) for part in path.split("/"))


@pytest.mark.parametrize("path", ALLOWED)
def test_another_method_is_405_and_allow_lists_all_of_the_paths_methods(space: Space, path: str) -> None:
    for method in ("PUT", "PATCH", "DELETE", "GET", "POST", "OPTIONS"):
        if method in ALLOWED[path]:
            continue
        answer = space.server.caller(None).send(method, spelled(path, space))
        refused(answer, 405, "method_not_allowed")
        assert set(answer.headers["allow"].split(", ")) == ALLOWED[path]


@pytest.mark.parametrize("path", ALLOWED)
def test_a_trailing_slash_is_another_path(space: Space, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        refused(space.all.send(method, spelled(path, space) + "/"), 404, "not_found")


@pytest.mark.parametrize(
    "path", ["", "/", "/nothing", "/jobs", "/jobs/J/nothing", "/spaces/S/nothing", "/jobs/J/ack/x"]
)
def test_an_unknown_path_is_404_whatever_else_is_wrong(space: Space, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "PATCH"):
        for caller in (space.server.caller(None), space.server.root):
            refused(caller.send(method, spelled(path, space)), 404, "not_found")


def test_outside_of_the_base_path_there_is_nothing_of_the_api(server: Server) -> None:
    for path in ("/jobs", "/api", "/api/v1", "/api/v2/spaces", "/spaces", "/api/v1x/spaces"):
        assert server.beside(path).status_code == 404
        assert server.beside(path).json()["code"] == "not_found"


def tricks() -> Iterator[tuple[str, str]]:
    yield "an encoded slash is no separator", "/api/v1/jobs%2FJ"
    yield "an encoded slash in an id", "/api/v1/jobs/J%2Fack"
    yield "an encoded slash before a verb", "/api/v1/spaces/S%2fjobs"
    yield "dots are no way up", "/api/v1/jobs/../spaces"
    yield "encoded dots are no way up", "/api/v1/jobs/%2e%2e/spaces"
    yield "two slashes are not one", "/api/v1//spaces"
    yield "two slashes at the start", "//api/v1/spaces"
    yield "a line feed at the end", "/api/v1/spaces%0A"
    yield "a line feed after a word", "/api/v1/spaces/S/jobs%0A"
    yield "a line feed after a health route", "/healthz%0A"
    yield "a NUL at the end", "/api/v1/spaces%00"
    yield "a backslash", "/api/v1%5Cspaces"
    yield "a semicolon", "/api/v1/spaces;x=1"
    yield "other letters", "/api/v1/Spaces"
    yield "a very long path", "/api/v1/" + "x" * 50_000
    yield "many segments", "/api/v1" + "/x" * 10_000


@pytest.mark.parametrize("path", [pytest.param(path, id=name) for name, path in tricks()])
def test_a_path_trick_is_404(space: Space, path: str) -> None:
    text = path.replace("/J", f"/{NO_JOB}").replace("/S", f"/{space.id}").replace("%2FJ", f"%2F{NO_JOB}")
    if "Spaces" in path:
        text = path
    for method in ("GET", "POST"):
        request = (
            f"{method} {text} HTTP/1.1\r\nhost: x\r\nx-api-key: {space.server.root_key}\r\ncontent-length: 0\r\n\r\n"
        )
        status, headers, body = space.server.raw(request.encode())
        assert status == 404, body
        assert headers["content-type"] == "application/json"
        assert b'"not_found"' in body


@pytest.mark.parametrize(
    "job", ["..", "x", "%00", "%ff", "J%00", "j", "J%20", "*", "{J}", "0" * 26, "Z" * 26, "J" * 999]
)
def test_a_string_that_is_no_id_is_job_not_found(space: Space, job: str) -> None:
    mine = space.create()["id"]
    text = job.replace("J", mine).replace("j", mine.lower())
    for method, verb in (("GET", ""), ("POST", "/ack"), ("POST", "/kill"), ("GET", "/progress"), ("GET", "/events")):
        request = (
            f"{method} /api/v1/jobs/{text}{verb} HTTP/1.1\r\nhost: x\r\n"
            f"authorization: Bearer {space.all.key}\r\ncontent-length: 0\r\n\r\n"
        )
        status, _, body = space.server.raw(request.encode())
        assert status == 404, body
        assert b"Job not found" in body
        assert b'"job_not_found"' in body


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/", "/api/v1/realtime", "/api/v1/realtime/", "/api/v1/spaces"])
def test_an_unknown_websocket_path_is_404_before_the_upgrade(server: Server, path: str) -> None:
    with pytest.raises(InvalidStatus) as refusal, connect(server.url.replace("http", "ws") + path):
        raise AssertionError("it was accepted")
    answer = refusal.value.response
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert b'"not_found"' in (answer.body or b"")


@pytest.mark.parametrize(
    "request_",
    [b"GARBAGE\r\n\r\n", b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"],
)
def test_what_is_not_http_is_400_in_json(server: Server, request_: bytes) -> None:
    status, headers, body = server.raw(request_)
    assert status == 400
    assert headers["content-type"] == "application/json"
    assert b'"invalid_request"' in body


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz"])
def test_what_stands_beside_the_api_refuses_other_methods_in_json_too(server: Server, path: str) -> None:
    for method in ("POST", "DELETE", "PUT"):
        status, headers, body = server.raw(f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())
        assert status == 405
        assert "GET" in headers["allow"]
        assert b'"method_not_allowed"' in body


@pytest.mark.parametrize(
    "name", ["", "nothing", "..", "..%2f..%2fsettings.py", "%2e%2e/settings.py", "%00", "index.html/"]
)
def test_a_file_that_is_not_there_is_404_in_json(server: Server, name: str) -> None:
    status, headers, body = server.raw(f"GET /static/{name} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    assert status == 404
    assert headers["content-type"] == "application/json"
    assert b'"not_found"' in body


def test_head_is_answered_like_get_without_a_body(space: Space) -> None:
    job = space.create()
    answer = space.all.send("HEAD", f"/jobs/{job['id']}")
    assert answer.status_code == 200
    assert answer.content == b""
    assert space.all.send("HEAD", f"/jobs/{NO_JOB}").status_code == 404


def test_endless_headers_and_urls_are_refused_before_they_are_held(server: Server) -> None:
    before = server.rss_bytes()
    post = f"POST /api/v1/jobs/{NO_JOB}/ack HTTP/1.1\r\nhost: x\r\nx-api-key: {server.root_key}\r\n".encode()
    chunked = post + b"transfer-encoding: chunked\r\n\r\n"
    heads = [b"GET /api/v1/", b"GET / HTTP/1.1\r\nx: ", chunked + b"1;x=", chunked + b"0\r\nx: "]
    for head in (head + b"x" * 8_000_000 for head in heads):
        for _ in range(3):
            try:
                status, headers, _ = server.raw(head)
            except (ConnectionError, BrokenPipeError):
                continue
            assert status == 413
            assert headers["content-type"] == "application/json"
    assert server.rss_bytes() - before < 8_000_000
    assert server.beside("/healthz").status_code == 200
