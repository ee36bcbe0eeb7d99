"""A real server for tests: `jobwire up` as a process of its own, on a Redis that the test names, and who calls it.

    with Server(redis_url) as server:
        root = server.root
        root.post("/spaces", json={"name": "x"})

Every server has a prefix of its own, so that many share one Redis and none has to flush it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from http.client import HTTPResponse
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import redis

from app.model.redis_keys import Keys
from tests.deploy.releases import THIS, Release
from tests.valkey import client_of

READY_S = 20.0
ANSWER_S = 40.0


class ServerDidNotStart(Exception):
    """The process ended, or said nothing; the text is its log."""


class Caller:
    """Requests with one key. Paths are below /api/v1."""

    def __init__(self, http: httpx.Client, url: str, key: str | None) -> None:
        self._http = http
        self.base = f"{url}/api/v1"
        self.key = key

    def send(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> httpx.Response:
        """One request; `more` as httpx takes it."""
        own = {} if self.key is None else {"x-api-key": self.key}
        return self._http.request(method, self.base + path, headers={**own, **(headers or {})}, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        """GET"""
        return self.send("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        """POST"""
        return self.send("POST", path, **more)

    def delete(self, path: str, **more: Any) -> httpx.Response:
        """DELETE"""
        return self.send("DELETE", path, **more)


class Server:
    """One running `jobwire up`: `url`, `root_key`, `pid`, and `prefix`, which begins each of its keys."""

    program: tuple[str, ...] = ("-m", "jobwire")
    """What the interpreter runs; a test may put another program before the command."""
    release: Release = THIS
    neighbour: Release | None = None
    """Which release answers, and which serves the same Redis beside it as in a rolling deploy: `--deploy` says so."""
    _companion: contextlib.ExitStack | None = None

    def __init__(self, redis_url: str, *, prefix: str = "", root_key: str = "", **environ: str) -> None:
        self.redis_url = redis_url
        self.prefix = prefix or f"t{secrets.token_hex(4)}"
        self.root_key = root_key or f"emit_{secrets.token_urlsafe(32)}"
        self._data = Path(tempfile.mkdtemp(prefix="jobwire-up-"))
        ours = {"REDIS_URL": redis_url, "JOBWIRE_PREFIX": self.prefix, "JOBWIRE_ROOT_KEY": self.root_key}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")}
        self._log = open(self._data / "server.log", "wb")  # noqa: SIM115  # closed with the server
        self._process = subprocess.Popen(
            [sys.executable, *self.program, "up", "--port", "0", "--json", "--data", str(self._data)],
            env=self.release.environ({**inherited, "JOBWIRE_RATE": "0", **ours, **environ}),
            cwd=self.release.folder,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        ready = self._wait_until_ready()
        self.url: str = ready["url"]
        # It speaks plain HTTP; a context that verifies would cost as much as fifty requests to make.
        self._http = httpx.Client(
            timeout=ANSWER_S, limits=httpx.Limits(max_connections=200), trust_env=False, verify=False
        )
        self.root = self.caller(self.root_key)
        if self.neighbour:
            self._companion = contextlib.ExitStack()
            beside = type("Beside", (Server,), {"release": self.neighbour, "neighbour": None})
            same = {"prefix": self.prefix, "root_key": self.root_key}
            self._companion.enter_context(beside(redis_url, **same, **environ))
            self._companion.enter_context(restless_leaders(redis_url, self.prefix))

    def _wait_until_ready(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if selector.select(READY_S) else b""
        if not line:
            self._end()
            raise ServerDidNotStart(self.log())
        ready: dict[str, Any] = json.loads(line)
        return ready

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self.url.rpartition(":")[2])

    @property
    def has_ended(self) -> bool:
        """Whether the process has gone by itself."""
        return self._process.poll() is not None

    def caller(self, key: str | None) -> Caller:
        """Requests with this key, or without any."""
        return Caller(self._http, self.url, key)

    def beside(self, path: str, **more: Any) -> httpx.Response:
        """GET of a path beside the API."""
        return self._http.get(self.url + path, **more)

    def rss_bytes(self) -> int:
        """The memory that the process holds now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def log(self) -> str:
        """What the server has written to its log."""
        return (self._data / "server.log").read_text(errors="replace")

    def redis_keys(self) -> set[str]:
        """Every key of this server's prefix."""
        with client_of(self.redis_url) as client:
            return {key.decode() for key in client.scan_iter(f"{self.prefix}:*", count=1000)}

    def raw(self, request: bytes, *, shut: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Bytes as they are, over a socket of their own: status, headers (lower case) and body of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_S) as sock:
            sock.sendall(request)
            if shut:
                sock.shutdown(socket.SHUT_WR)
            with HTTPResponse(sock) as response:
                response.begin()
                body = response.read()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, body

    def kill(self) -> None:
        """SIGKILL; returns when it has gone."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Stop it. Its keys stay in Redis, which goes with the test session."""
        if self._companion is not None:
            self._companion.close()
        self._http.close()
        self._end()
        shutil.rmtree(self._data)

    def _end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@contextlib.contextmanager
def restless_leaders(redis_url: str, prefix: str) -> Iterator[None]:
    """While the block runs, now this process does what one alone is to do, and now that: who leads is forgotten about
    once a second, and who asks next leads. On a cluster they share it anyway."""
    over, keys = threading.Event(), Keys(prefix)

    def forget() -> None:
        while not over.wait(random.uniform(0.5, 1.5)):
            with contextlib.suppress(redis.RedisError), client_of(redis_url) as client:
                client.delete(keys.sweeper)
                client.delete(keys.pusher)

    forgets = threading.Thread(target=forget, daemon=True)
    forgets.start()
    try:
        yield
    finally:
        over.set()
        forgets.join(ANSWER_S)


PORTS = range(10_000, 32_768)
"""Below those that the kernel gives to whoever asks for any."""
_taken: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody listens on, and that no other process of tests is given while this one lives."""
    while True:
        port = secrets.choice(PORTS)
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0jobwire-tests-port-{port}")
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            mark.close()
        else:
            _taken.append(mark)
            return port


@contextlib.contextmanager
def fake_redis() -> Iterator[str]:
    """The url of a fakeredis that listens on a port, in a process of its own, while the block runs.

    In the tests' process its threads would take turns from them, and random numbers that hypothesis looks after.
    """
    command = [sys.executable, "-m", "tests.fake_redis"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    try:
        yield f"redis://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()
