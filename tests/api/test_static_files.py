"""The dashboard's files: how they are served, and the rules that their source keeps."""

import re
from pathlib import Path

import httpx
import pytest

from app.api.static_files import STATIC_FOLDER, TYPES
from tests.factories import Space, refused
from tests.server import Server

MODULES = sorted(STATIC_FOLDER.glob("*.js"))
LINES_MOST = 400
SPECIFICATIONS = {
    "http://www.w3.org",
    "https://html.spec.whatwg.org",
    "https://spec.openapis.org",
    "https://www.rfc-editor.org",
}


def directives(answer: httpx.Response) -> dict[str, str]:
    """The Content-Security-Policy, by directive."""
    parts = [part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";")]
    return {name: value for name, _, value in parts}


@pytest.mark.valkey_only("no Redis is asked")
def test_every_file_is_served_with_the_same_strict_policy(server: Server) -> None:
    paths = ["/", *(f"/static/{path.name}" for path in STATIC_FOLDER.iterdir() if path.suffix in TYPES)]
    for path in paths:
        answer = server.beside(path)
        assert answer.status_code == 200, path
        policy = directives(answer)
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert policy["trusted-types"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert (
            answer.content == (STATIC_FOLDER / (path.removeprefix("/static/").strip("/") or "index.html")).read_bytes()
        )


@pytest.mark.valkey_only("no Redis is asked")
def test_a_kept_file_is_asked_after_and_not_sent_again(server: Server) -> None:
    first = server.beside("/static/main.js", headers={"accept-encoding": "gzip"})
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["content-encoding"] == "gzip"
    again = server.beside("/static/main.js", headers={"if-none-match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert "content-security-policy" in again.headers
    assert server.beside("/static/main.js", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.valkey_only("no Redis is asked")
def test_only_files_that_were_there_at_the_start_are_found(server: Server) -> None:
    for path in (
        "/static/nothing.js",
        "/static/..%2fmain.py",
        "/static/%2e%2e/main.py",
        "/static/",
        "/static/index.htm",
    ):
        refused(server.beside(path), 404, "not_found")
    status, headers, body = server.raw(b"GET /static/../settings.py HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert (status, b"not_found" in body) == (404, True)
    assert headers["content-type"] == "application/json"


@pytest.mark.valkey_only("no Redis is asked")
def test_another_method_than_get_is_refused_in_json(server: Server) -> None:
    for path in ("/", "/static/main.js", "/healthz"):
        status, headers, body = server.raw(f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        assert (status, headers["allow"], b"method_not_allowed" in body) == (405, "GET, HEAD", True), path


def test_whoami_says_what_a_key_is_for(space: Space) -> None:
    root = space.server.root.get("/whoami").json()
    assert (root["space"], root["spaceName"], root["root"]) == (None, None, True)
    assert "jobs:retry" in root["scopes"]
    assert "root" not in root["scopes"]
    assert space.public.get("/whoami").json() == {
        "space": space.id,
        "spaceName": "test",
        "scopes": ["jobs:read:progress"],
        "root": False,
    }
    assert "jobs:poll" in space.caller("jobs:worker").get("/whoami").json()["scopes"]
    refused(space.server.caller(None).get("/whoami"), 401, "unauthorized")
    refused(space.server.caller("emit_wrong").get("/whoami"), 401, "unauthorized")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_says_what_it_is_for_and_makes_no_markup(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("// ")
    assert len(text.splitlines()) <= LINES_MOST
    assert not re.search(r"(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser", text)
    assert not re.search(r"setAttribute\(\"style\"|srcdoc|createContextualFragment", text)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_what_a_module_gives_away_has_a_comment(path: Path) -> None:
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith(("export function", "export async function", "export class")):
            assert lines[number - 1].rstrip().endswith("*/"), f"{path.name}:{number + 1}"


def test_nothing_is_asked_from_elsewhere_or_from_a_root_with_a_key_and_every_module_is_named_ahead() -> None:
    index = (STATIC_FOLDER / "index.html").read_text()
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", index)
    for path in STATIC_FOLDER.iterdir():
        found = set(re.findall(r"https?://[\w.-]+", path.read_text())) - SPECIFICATIONS - {"https://jobwire.example"}
        assert not found, f"{path.name} names {found}"
        if path.suffix != ".svg":
            assert not re.search(r"""(href|src)="/|url\("?/|fetch\(["'`]/|[?&]token=""", path.read_text()), path.name
    ahead = set(re.findall(r'modulepreload" href="static/(\w+\.js)"', index))
    assert ahead == {path.name for path in MODULES} - {"main.js", "docs.js"}
