"""A stand-in for the service that can fail on demand: refuse, stall, lose answers, answer 503, hand the job to others.

Owns a small HTTP server on a free port and a few jobs in memory. It knows only what the client half calls, and
decides nothing that a test does not ask for: it is here for faults of the link, the real service is tested elsewhere.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Reply = tuple[int, dict[str, Any] | list[Any]]

BREAK = "break"
LOSE_ANSWER = "lose the answer"
UNAVAILABLE: Reply = (503, {"error": "Redis is away", "code": "unavailable"})
UNKNOWN: Reply = (503, {"error": "the link broke", "code": "outcome_unknown"})


@dataclass
class Request:
    """What arrived: `verb` is the last word of the path, `create`, `list` and `get` for paths without one."""

    verb: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None


@dataclass
class FakeJob:
    id: str
    name: str
    payload: Any
    max_retries: int
    status: str = "delivered"
    attempt_number: int = 0
    token: str = "token-0"
    claimed: tuple[str, str] | None = None
    result: Any = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    progress: dict[str, Any] | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "spaceId": "space",
            "name": self.name,
            "payload": self.payload,
            "status": self.status,
            "maxRetries": self.max_retries,
            "attemptNumber": self.attempt_number,
            "timeoutSeconds": 300,
            "result": self.result,
            "createdAt": "2026-03-01T09:21:01.120Z",
            "events": self.events,
        }


class FakeService:
    """`faults[verb]` holds what happens to the next requests of a verb, one each; None lets one pass."""

    def __init__(self) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.requests: list[Request] = []
        self.faults: defaultdict[str, deque[str | Reply | threading.Event | None]] = defaultdict(deque)
        self.replays: dict[str, tuple[bytes, Reply]] = {}
        self.timeout_seconds: list[int] = []
        self.changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._server: _Server | None = None
        self._port = 0
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        self._server = _Server(self, self._port)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections from now on, and cut those that are open."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def add_job(self, **fields: Any) -> FakeJob:
        job = FakeJob(id=f"job-{len(self.jobs)}", **{"name": "work", "payload": None, "max_retries": 0, **fields})
        self.jobs[job.id] = job
        return job

    @property
    def job(self) -> FakeJob:
        """The only job there is."""
        (job,) = self.jobs.values()
        return job

    def wait_for(self, condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
        """Wait until something that a request changed is so; fails the test after the deadline."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout_s), "it did not happen in time"

    def seen(self, verb: str) -> list[Request]:
        return [request for request in self.requests if request.verb == verb]

    def messages(self, source: str | None = None) -> list[str]:
        return [line["message"] for line in self.job.lines if source in (None, line.get("source"))]

    # --- answering ---------------------------------------------------------------------------------------------------

    def handle(self, request: Request) -> Reply | str:
        with self.changed:
            self.requests.append(request)
            fault = self.faults[request.verb].popleft() if self.faults[request.verb] else None
            self.changed.notify_all()
        if isinstance(fault, threading.Event):
            fault.wait(20)
            return BREAK
        if fault == BREAK or isinstance(fault, tuple):
            return fault
        with self.changed:
            reply = self._done_once(request)
            self.changed.notify_all()
        return LOSE_ANSWER if fault == LOSE_ANSWER else reply

    def _done_once(self, request: Request) -> Reply:
        key = request.headers.get("idempotency-key")
        if key is None:
            return self._done(request)
        if key in self.replays:
            body, reply = self.replays[key]
            return reply if body == request.body else (422, {"error": "mismatch", "code": "idempotency_mismatch"})
        reply = self._done(request)
        if reply[0] < 300:
            self.replays[key] = (request.body, reply)
        return reply

    def _done(self, request: Request) -> Reply:
        if request.verb == "create":
            return self._create(request.json)
        if request.verb == "list":
            return 200, [job.shown() for job in reversed(self.jobs.values())]
        job = self.jobs.get(request.path.split("/")[4])
        if job is None:
            return 404, {"error": "Job not found", "code": "job_not_found"}
        answer: Callable[[FakeJob, Request], Reply] = getattr(self, f"_{request.verb}")
        return answer(job, request)

    def _create(self, fields: dict[str, Any]) -> Reply:
        job = self.add_job(name=fields["name"], payload=fields.get("payload"), max_retries=fields.get("maxRetries", 3))
        job.status = "delivered" if fields.get("claim") else "pending"
        return 201, {**job.shown(), "leaseToken": job.token, "realtimeUrl": ""}

    def _get(self, job: FakeJob, _: Request) -> Reply:
        return 200, job.shown()

    def _ack(self, job: FakeJob, request: Request) -> Reply:
        return self._held(job, request) or self._moved(job, "running")

    def _keepalive(self, job: FakeJob, request: Request) -> Reply:
        return self._held(job, request) or self._moved(job, job.status)

    def _delete(self, job: FakeJob, _: Request) -> Reply:
        return 200, self.jobs.pop(job.id).shown()

    def _progress(self, job: FakeJob, request: Request) -> Reply:
        if request.body == b"" and not request.headers.get("x-lease-token"):
            timestamp = "2026-03-01T09:21:01.120Z" if job.progress else None
            return 200, {"jobId": job.id, "progress": job.progress, "timestamp": timestamp}
        return self._held(job, request) or self._moved(job, job.status)

    def _complete(self, job: FakeJob, request: Request) -> Reply:
        if job.status == "completed" and job.result == request.json:
            return self._moved(job, "completed")
        refusal = self._held(job, request)
        if refusal is None:
            job.result = request.json
        return refusal or self._moved(job, "completed")

    def _fail(self, job: FakeJob, request: Request) -> Reply:
        claims, token = request.json.get("claim", False), request.headers.get("x-lease-token")
        if claims and token is not None and (token, job.token) == job.claimed:
            return self._failed(job, will_retry=True, claims=True)
        refusal = self._held(job, request)
        if refusal is not None:
            return refusal
        will_retry = job.attempt_number < job.max_retries and request.json.get("retry", True)
        job.attempt_number += will_retry
        job.status = "pending" if will_retry else "dead"
        job.result = None if will_retry else {"error": request.json["error"]}
        if will_retry and claims:
            job.status, job.claimed = "delivered", (job.token, f"token-{job.attempt_number}")
            job.token = job.claimed[1]
        return self._failed(job, will_retry=will_retry, claims=will_retry and claims)

    def _failed(self, job: FakeJob, *, will_retry: bool, claims: bool) -> Reply:
        lease = {"leaseToken": job.token} if claims else {}
        return 200, {"status": job.status, "willRetry": will_retry, "attemptNumber": job.attempt_number, **lease}

    def _claim(self, job: FakeJob, _: Request) -> Reply:
        if job.status != "pending":
            return self._invalid(job)
        job.status, job.token = "delivered", f"token-{job.attempt_number}"
        return 200, {"id": job.id, "attemptNumber": job.attempt_number, "leaseToken": job.token}

    def _kill(self, job: FakeJob, request: Request) -> Reply:
        job.result = {"reason": request.json.get("reason")}
        return self._moved(job, "killed")

    def _retry(self, job: FakeJob, _: Request) -> Reply:
        return self._moved(job, "pending")

    def _append(self, job: FakeJob, request: Request) -> Reply:
        entries = [json.loads(line) for line in request.body.split(b"\n") if line]
        if any("poison" in entry["message"] for entry in entries):
            return 400, {"error": "bad entry", "code": "invalid_entry"}
        first = len(job.lines) + 1
        for seq, entry in enumerate(entries, first):
            job.lines.append({"level": "info", "source": None, "metadata": None, **entry, "seq": seq})
        return 200, {"inserted": len(entries), "fromSeq": first, "toSeq": len(job.lines), "status": job.status}

    def _logs(self, job: FakeJob, request: Request) -> Reply:
        limit = int(request.query.get("limit", ["200"])[0])
        lines, mode = job.lines, "tail"
        if "after" in request.query:
            mode, after = "after", int(request.query["after"][0])
            lines = lines[after:]
            page, more = lines[:limit], len(lines) > limit
        else:
            before = int(request.query.get("before", [str(len(lines) + 1)])[0])
            lines = lines[: before - 1]
            page, more = lines[-limit:], len(lines) > limit
        newest = page[-1]["seq"] if page else request.query.get("after", [None])[0]
        cursor = {"mode": mode, "oldestSeq": page[0]["seq"] if page else None, "newestSeq": newest and int(newest)}
        return 200, {"logs": page, "cursor": {**cursor, "hasMore": more}}

    def _held(self, job: FakeJob, request: Request) -> Reply | None:
        token = request.headers.get("x-lease-token")
        if token is not None and token != job.token:
            return 409, {"error": "the lease was lost", "code": "lease_lost"}
        return None if job.status in ("delivered", "running") else self._invalid(job)

    def _invalid(self, job: FakeJob) -> Reply:
        return 409, {"error": f"the job is {job.status}", "code": "invalid_state", "status": job.status}

    def _moved(self, job: FakeJob, status: str) -> Reply:
        job.status = status
        return 200, {"success": True, "status": status}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, service: FakeService, port: int) -> None:
        self.service = service
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A cut connection is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.server.service._connections.add(self.connection)

    def finish(self) -> None:
        self.server.service._connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        reply = self.server.service.handle(self._request())
        if isinstance(reply, str):
            self.close_connection = True
            return
        status, content = reply
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _request(self) -> Request:
        target = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        return Request(self._verb(target.path), target.path, parse_qs(target.query), headers, body)

    def _verb(self, path: str) -> str:
        if path == "/readyz":
            return "readyz"
        words = path.split("/")[3:]
        if words[0] == "spaces":
            return "create" if self.command == "POST" else "list"
        verb = words[2] if len(words) > 2 else "delete" if self.command == "DELETE" else "get"
        return "append" if (verb, self.command) == ("logs", "POST") else verb

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the tests look at `requests`."""
