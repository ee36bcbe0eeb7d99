"""/jobwire.js under node, as a program uses it: by an event stream, and by a WebSocket where there is one."""

import contextlib
import http.server
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from app.api.asyncapi import JobEvent
from app.api.static_files import STATIC_FOLDER
from tests.any_redis import AnyRedis
from tests.browser.node import Follower, program
from tests.factories import Space
from tests.live.proxy import Proxy
from tests.server import Server
from tests.skipping import skip
from tests.valkey import until

TYPESCRIPT = "typescript@5.9.3"
TRANSPORTS = {"event stream": (), "websocket": ("--experimental-websocket",)}
MODULE = (STATIC_FOLDER / "jobwire.js").read_text()

PARSE = """
import { EventParser } from "./jobwire.mjs";
import { readFileSync } from "node:fs";
const asked = JSON.parse(readFileSync(0, "utf8"));
const answers = asked.map((pieces) => {
  const parser = new EventParser();
  return pieces.flatMap((piece) => parser.push(Buffer.from(piece, "latin1")));
});
console.log(JSON.stringify(answers));
"""

USED = """
import { follow, type Frame, type JobPosition } from "https://jobwire.example/jobwire.js";

const stream = follow({ job: "01J", key: "emit_", lines: true, after: 0 }, {
  frame(frame: Frame) {
    if (frame.type === "logs") frame.data.entries?.map((line) => line.message.length);
    if (frame.type === "connected") Object.values(frame.counts).map((count) => count + 1);
    if (frame.type === "gap") frame.to - frame.from;
  },
  state(state, detail) {
    if (state === "live") detail.transport === "event stream";
    if (state === "away") detail.error.length;
    if (state === "over" && detail.status === "dead") stream.close();
  },
});
const position: JobPosition = stream.position;
follow({ job: "01J", ...position });
follow({ space: "01J", key: "emit_", since: 7, streamInstanceId: "x", transport: "websocket" });
follow({ realtimeUrl: "wss://jobwire.example/api/v1/realtime/01J" }).close();
// @ts-expect-error  neither a job nor a space
follow({ key: "emit_" });
// @ts-expect-error  both
follow({ job: "01J", space: "01J" });
// @ts-expect-error  a space has no lines
follow({ space: "01J", lines: true });
// @ts-expect-error  no such transport
follow({ job: "01J", transport: "carrier pigeon" });
"""


def cuts(text: bytes) -> list[list[str]]:
    """A text whole, byte by byte, and cut once at each place."""
    whole = text.decode("latin1")
    return [[whole], list(whole), *([whole[:at], whole[at:]] for at in range(1, len(whole)))]


def test_an_event_stream_is_read_as_the_standard_says_wherever_it_is_cut(tmp_path: Path) -> None:
    text = (
        b"\xef\xbb\xbf: a comment\n\nid: 1\r\nevent: end\r\ndata:first\r\ndata:  second\r\n\r\n"
        b"retry: 1500\rretry: soon\rdata\r\rdata: \xc3\xa9\xf0\x9f\x8e\x89 \xe2\x80\xa8:\n\n"
        b"id: 2\x00\nevent: lost\n\nid\ndata: a: b\nunknown: field\n\ndata: never ended"
    )
    (tmp_path / "jobwire.mjs").write_text(MODULE)
    (tmp_path / "parse.mjs").write_text(PARSE)
    asked = json.dumps(cuts(text)).encode()
    run = subprocess.run(
        [program("node"), tmp_path / "parse.mjs"], input=asked, capture_output=True, check=True, timeout=60
    )
    for found in json.loads(run.stdout):
        assert found == [
            {"event": "end", "data": "first\n second", "id": "1"},
            {"retry": 1500},
            {"event": "message", "data": "", "id": "1"},
            {"event": "message", "data": "\u00e9\U0001f389 \u2028:", "id": "1"},
            {"event": "message", "data": "a: b", "id": ""},
        ]


def line_seqs(node: Follower) -> list[int]:
    """The seqs of the lines that have come."""
    return [line["seq"] for frame in node.frames if frame["type"] == "logs" for line in frame["data"]["entries"]]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_job_is_followed_through_a_restart_without_a_loss(valkey: AnyRedis, tmp_path: Path, transport: str) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        server = first.enter_context(Server(valkey.url))
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{server.port}"))
        space = Space(server)
        job = space.create(claim=True)
        module = server.beside("/jobwire.js").text
        base = f"http://127.0.0.1:{proxy.port}"
        options = {"base": base, "job": job["id"], "key": space.all.key, "lines": True, "after": 0, "logsAfter": 0}
        node = stack.enter_context(Follower(tmp_path, module, options, TRANSPORTS[transport]))
        node.until("delivered")
        for number in range(30):
            space.do(job, "event", number)
            space.do(job, "logs", [f"before {number}"])
        until(lambda: sum(frame["type"] == "event" for frame in node.frames) == 30)
        first.close()
        until(lambda: node.states[-1][0] == "away")
        second = stack.enter_context(Server(valkey.url, prefix=server.prefix, root_key=server.root_key))
        space.all = second.caller(space.all.key)
        for number in range(30):
            space.do(job, "event", number)
            space.do(job, "logs", [f"while away {number}"])
        proxy.target = f"127.0.0.1:{second.port}"
        space.do(job, "complete", "done")
        node.until("completed", 40)
        until(lambda: len(line_seqs(node)) >= 60)
        position = node.end()
        events = [frame["seq"] for frame in node.frames if frame["type"] not in ("init", "logs", "progress")]
        assert events == list(range(1, 64))
        assert line_seqs(node) == list(range(1, 61))
        assert (position["after"], position["logsAfter"]) == (63, 60)
        assert [state for state, _ in node.states] == ["live", "away", "live"]
        assert {detail["transport"] for state, detail in node.states if state == "live"} == {transport}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_who_sees_no_more_than_progress_is_told_how_it_ended(valkey: AnyRedis, tmp_path: Path, transport: str) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        job = space.create(claim=True)
        options = {"realtimeUrl": job["realtimeUrl"]}
        with Follower(tmp_path, server.beside("/jobwire.js").text, options, TRANSPORTS[transport]) as node:
            node.until("init")
            space.do(job, "kill", {})
            node.end(by_itself=True)
        over = {"code": 1000, "reason": '{"status":"killed"}', "status": "killed"}
        assert node.states == [("live", {"transport": transport}), ("over", over)]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_refusal_is_over_and_says_why(valkey: AnyRedis, tmp_path: Path, transport: str) -> None:
    with Server(valkey.url) as server:
        options = {"base": server.url, "space": Space(server).id, "key": "emit_wrong"}
        with Follower(tmp_path, MODULE, options, TRANSPORTS[transport]) as node:
            node.end(by_itself=True)
        [(state, detail)] = node.states
        assert (state, detail["status"], detail["code"]) == ("over", 401, "unauthorized")


def test_an_event_stream_without_even_a_ping_is_left_and_goes_on_elsewhere(valkey: AnyRedis, tmp_path: Path) -> None:
    module = MODULE.replace("SILENT_MS = 60_000", "SILENT_MS = 3_000")
    assert module != MODULE
    with Server(valkey.url) as server, Proxy(f"127.0.0.1:{server.port}") as proxy:
        space = Space(server)
        job = space.create(claim=True)
        options = {"base": f"http://127.0.0.1:{proxy.port}", "job": job["id"], "key": space.all.key, "after": 0}
        with Follower(tmp_path, module, options) as node:
            node.until("delivered")
            proxy.swallow()
            space.do(job, "event", "while nothing comes through")
            until(lambda: node.states[-1][0] == "away", 20)
            assert node.states[-1][1]["error"].startswith("Nothing comes through")
            proxy.flow()
            assert node.until("event", 30)["data"] == "while nothing comes through"
            node.end()
        assert [frame["seq"] for frame in node.frames if frame["type"] != "init"] == [1, 2, 3]


class Passing(http.server.BaseHTTPRequestHandler):
    """What stands before a service that is busy: refusals that pass, one after the other, then a stream."""

    protocol_version = "HTTP/1.1"
    asked_at_s: ClassVar[list[float]] = []
    refusals: ClassVar[list[tuple[int, str, str]]] = [
        (429, "application/json", '{"error": "Too many.", "code": "rate_limited"}'),
        (503, "application/json", '{"error": "Busy.", "code": "unavailable"}'),
        (404, "text/html", "<h1>not yet</h1>"),
        (200, "text/html", "<h1>Sign in to the network</h1>"),
    ]

    def do_GET(self) -> None:
        turn = len(self.asked_at_s)
        self.asked_at_s.append(time.monotonic())
        asked = (self.headers["x-api-key"], self.headers["accept"], "emit_" in self.path)
        assert asked == ("emit_key", "text/event-stream", False), asked
        frame = 'retry: 3000\n\ndata: {"type":"init","jobId":"x","seq":1,"logSeq":0,"epoch":"1-a"}\n\n'
        status, kind, body = (*self.refusals, (200, "text/event-stream; charset=utf-8", frame))[turn]
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if body.startswith("{"):
            self.send_header("retry-after", "1")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def passing() -> Iterator[str]:
    """The address of what refuses, and then does not."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Passing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_what_passes_is_waited_for_as_long_as_it_asks(passing: str, tmp_path: Path) -> None:
    with Follower(tmp_path, MODULE, {"base": passing, "job": "x", "key": "emit_key"}) as node:
        assert node.until("init")["seq"] == 1
        away, live = node.states[:2]
        assert (away[0], away[1]["status"], away[1]["error"]) == ("away", 429, "Too many.")
        assert live == ("live", {"transport": "event stream"})
    first, second, third = Passing.asked_at_s[:3]
    assert second - first >= 1.0
    assert third - second >= 1.0


def test_the_types_say_what_the_module_does(tmp_path: Path) -> None:
    install = ["install", "--no-audit", "--no-fund", "--silent", "--prefer-offline", "--prefix", str(tmp_path)]
    if subprocess.run([program("npm"), *install, TYPESCRIPT], check=False, timeout=300).returncode:
        skip(f"npm cannot install {TYPESCRIPT}")
    (tmp_path / "jobwire.d.ts").write_text((STATIC_FOLDER / "jobwire.d.ts").read_text())
    (tmp_path / "used.ts").write_text(USED)
    paths = {"https://jobwire.example/jobwire.js": ["./jobwire.d.ts"]}
    options = {"strict": True, "noEmit": True, "target": "es2022", "module": "es2022", "moduleResolution": "bundler"}
    config = {
        "compilerOptions": {**options, "lib": ["es2022", "dom"], "types": [], "paths": paths},
        "files": ["used.ts"],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))
    tsc = [str(tmp_path / "node_modules" / ".bin" / "tsc"), "-p", str(tmp_path)]
    run = subprocess.run(tsc, check=False, capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stdout) == (0, "")


def test_the_types_name_every_event() -> None:
    types = (STATIC_FOLDER / "jobwire.d.ts").read_text()
    listed = types.partition("export interface JobEvent {")[2].partition(";")[0]
    named = {part.strip().strip('"') for part in listed.split("|")[1:]}
    assert named == set(JobEvent.__annotations__["type"].__args__)
