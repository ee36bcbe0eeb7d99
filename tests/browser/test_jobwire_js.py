"""/jobwire.js in a real browser, on a page of another origin: it follows through a restart of the server."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.any_redis import AnyRedis
from tests.browser.chromium import Chromium, Page
from tests.factories import Space
from tests.live.checker import Check, Truth
from tests.live.followers import JobFollower
from tests.live.proxy import Proxy
from tests.server import Server
from tests.valkey import Valkey, until

FOLLOW = """
(async () => {
  const { follow } = await import(%(base)s + "/jobwire.js");
  window.frames_ = [];
  window.states = [];
  window.stream = follow(%(options)s, {
    frame: (frame) => frames_.push(frame),
    state: (state, detail) => states.push([state, detail]),
  });
})()
"""


class Blank(http.server.BaseHTTPRequestHandler):
    """Somebody's page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><link rel=icon href=data:,><title>elsewhere</title>")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The address of a page of another origin."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blank) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture
def page(chromium: Chromium, elsewhere: str) -> Iterator[Page]:
    opened = chromium.page()
    opened.goto(elsewhere)
    yield opened
    opened.close()


def follow(page: Page, base: str, **options: Any) -> None:
    page.js(FOLLOW % {"base": json.dumps(base), "options": json.dumps(options)})


def test_a_browser_follows_a_job_through_a_restart_of_the_server(valkey: AnyRedis, page: Page) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        server = first.enter_context(Server(valkey.url))
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{server.port}"))
        space = Space(server)
        job = space.create(claim=True)
        follow(page, f"http://127.0.0.1:{proxy.port}", job=job["id"], key=space.all.key, lines=True, after=0)
        page.until("frames_.some((frame) => frame.type === 'delivered')")
        for number in range(50):
            space.do(job, "event", number)
            space.do(job, "logs", [f"before {number}"])
        page.until("stream.position.after === 52")
        first.close()
        page.until("stream.state === 'away'")
        second = stack.enter_context(Server(valkey.url, prefix=server.prefix, root_key=server.root_key))
        space.all = second.caller(space.all.key)
        for number in range(50):
            space.do(job, "event", number)
            space.do(job, "logs", [f"while away {number}"])
        proxy.target = f"127.0.0.1:{second.port}"
        space.do(job, "complete", "done")
        page.until("frames_.some((frame) => frame.type === 'completed')", 30)
        seqs = page.js("frames_.filter((f) => !['init', 'logs', 'progress'].includes(f.type)).map((f) => f.seq)")
        lines = page.js(
            "frames_.filter((f) => f.type === 'logs').flatMap((f) => f.data.entries).map((line) => line.seq)"
        )
        assert seqs == list(range(1, 104))
        assert lines == list(range(1, 101))
        assert page.js("states.map(([state]) => state)") == ["live", "away", "live"]


def test_a_browser_is_told_what_the_store_has_lost(page: Page) -> None:
    with Valkey() as valkey, Server(valkey.url) as server, Proxy(f"127.0.0.1:{server.port}") as proxy:
        space = Space(server)
        job = space.create(claim=True)
        key = str(space.all.key)
        follow(page, f"http://127.0.0.1:{proxy.port}", job=job["id"], key=key, lines=True, after=0, logsAfter=0)
        for is_away in (False, True):
            for number in range(30):
                space.do(job, "event", number)
                space.do(job, "logs", [f"{is_away} {number}"])
            newest = space.all.get(f"/jobs/{job['id']}/logs?limit=1").json()["cursor"]["newestSeq"]
            page.until(f"stream.position.logsAfter === {newest}")
            if is_away:
                proxy.stall()
            valkey.lose(0.3)
            until(lambda: space.call(job, "event", "after").is_success)
            if is_away:
                proxy.cut()
                proxy.flow()
            page.until("frames_.at(-1).data === 'after'", 20)
        truth = Truth(valkey.url, server.prefix, space.id, [job["id"]])
        follower = JobFollower(lambda: server.url, job["id"], key)
        for frame in page.js("frames_"):
            follower.take(frame)
        Check(truth).look_at(follower)
        assert len(follower.lines.gaps) == 2
        assert page.js("stream.position") == {
            "after": follower.events.position,
            "logsAfter": follower.lines.position,
            "epoch": follower.epoch,
        }


def test_a_browser_follows_a_space_and_stops_when_told(valkey: AnyRedis, page: Page) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        follow(page, server.url, space=space.id, key=space.all.key)
        page.until("states.length === 1")
        space.create()
        page.until("frames_.some((frame) => frame.type === 'created')")
        page.js("stream.close()")
        space.create()
        assert page.js("new Promise((resolve) => setTimeout(() => resolve(frames_.length), 300))") == 2


def test_an_ended_job_and_a_refusal_are_over(valkey: AnyRedis, page: Page) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        job = space.create(claim=True)
        follow(page, server.url, job=job["id"])
        page.until("states.length === 1")
        space.do(job, "complete", "secret")
        page.until("stream.state === 'over'")
        assert page.js("states.at(-1)[1]") == {"code": 1000, "reason": '{"status":"completed"}', "status": "completed"}
        assert page.js("frames_.map((frame) => frame.type)") == ["init", "completed"]
        follow(page, server.url, job=job["id"], key="emit_wrong")
        page.until("stream.state === 'over'")
        assert page.js("states.at(-1)[1].code") == "unauthorized"
