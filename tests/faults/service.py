"""The whole service as processes of their own, on a Redis that a test may hurt; and calls to it over HTTP.

with Service(valkey.url) as service:
    job = service.create(name="echo")
    assert service.call("POST", f"/jobs/{job['id']}/kill").status == 200
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import urllib3

from tests.deploy.releases import THIS, Release
from tests.valkey import until

COMMAND = (sys.executable, "-m", "jobwire")


class Reply(NamedTuple):
    """A status, and a JSON body (None when empty)."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        """The refusal's code, or ""."""
        return str(self.body.get("code", "")) if isinstance(self.body, dict) else ""


class Process:
    """One command of ours, with its stderr kept in a file."""

    def __init__(self, *args: str, env: Mapping[str, str] | None = None, release: Release = THIS) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="jobwire-")
        self.folder = Path(self._folder.name)
        self._log = self.folder / "log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOBWIRE_", "REDIS_"))}
        with self._log.open("wb") as out:
            self.popen = subprocess.Popen(
                [*COMMAND, *args, *(("--data", str(self.folder / "data")) if args[0] == "up" else ())],
                stdout=subprocess.PIPE,
                stderr=out,
                env=release.environ({**kept, **(env or {})}),
                cwd=release.folder,
            )

    @property
    def log(self) -> str:
        """What it has said on stderr."""
        return self._log.read_text(errors="replace")

    def line(self) -> bytes:
        """The next line on stdout."""
        assert self.popen.stdout is not None
        line: bytes = self.popen.stdout.readline()
        assert line, self.log
        return line

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.popen.kill()
        self.popen.wait()

    def close(self) -> None:
        """SIGTERM, and wait; after ten seconds SIGKILL."""
        self.popen.terminate()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        if self.popen.stdout is not None:
            self.popen.stdout.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Service(Process):
    """`jobwire up`: web and sweeper in one process, on the Redis of `redis_url` ("": on its own)."""

    def __init__(self, redis_url: str = "", *, env: Mapping[str, str] | None = None) -> None:
        settings = {"JOBWIRE_RATE": "0", **(env or {})}
        if redis_url:
            settings["REDIS_URL"] = redis_url
        super().__init__("up", "--json", "--port", "0", env=settings)
        said = json.loads(self.line())
        self.url, self.root_key, self.space = said["url"], said["rootKey"], said["spaceId"]
        self._http = urllib3.PoolManager(maxsize=64, retries=False)

    def call(self, method: str, path: str, body: Any = None, *, timeout_s: float = 15.0, **headers: str) -> Reply:
        """One request with the root key, sent once; `path` is below /api/v1, `headers` with _ for -."""
        sent = {"x-api-key": self.root_key, **{name.replace("_", "-"): value for name, value in headers.items()}}
        reply = self._http.request(
            method,
            f"{self.url}/api/v1{path}",
            body=None if body is None else msgspec.json.encode(body),
            headers=sent,
            timeout=timeout_s,
            redirect=False,
        )
        return Reply(reply.status, json.loads(reply.data) if reply.data else None, reply.headers)

    def probe(self, path: str) -> Reply:
        """GET /healthz or /readyz."""
        reply = self._http.request("GET", f"{self.url}{path}", timeout=15.0)
        return Reply(reply.status, json.loads(reply.data), reply.headers)

    def create(self, **fields: Any) -> dict[str, Any]:
        """A job, created now."""
        reply = self.call("POST", f"/spaces/{self.space}/jobs", {"name": "echo", **fields})
        assert reply.status == 201, reply
        return dict(reply.body)

    def poll(self, wait_s: float = 0, *, space: str = "", **fields: Any) -> list[dict[str, Any]]:
        """Jobs taken; the poll must answer 200."""
        path = f"/spaces/{space or self.space}/jobs/poll"
        reply = self.call("POST", path, {"waitSeconds": wait_s, **fields}, timeout_s=wait_s + 15)
        assert reply.status == 200, reply
        return list(reply.body["jobs"])

    def job(self, id_: str) -> dict[str, Any]:
        """The job as it is now."""
        reply = self.call("GET", f"/jobs/{id_}")
        assert reply.status == 200, reply
        return dict(reply.body)

    def new_space(self) -> str:
        """Another space."""
        return str(self.call("POST", "/spaces", {"name": "another"}).body["id"])

    def works(self) -> bool:
        """Whether it is ready and a job goes its way from created to completed."""
        try:
            if self.probe("/readyz").status != 200:
                return False
            made = self.call("POST", f"/spaces/{self.space}/jobs", {"name": "works", "claim": True})
            return made.status == 201 and self.call("POST", f"/jobs/{made.body['id']}/complete").status == 200
        except urllib3.exceptions.HTTPError:
            return False


class Parked:
    """A long poll that waits in a thread of its own."""

    def __init__(self, service: Service, wait_s: float = 30.0, **fields: Any) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.failure: BaseException | None = None
        self._args = (service, wait_s, fields)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        service, wait_s, fields = self._args
        try:
            self.jobs = service.poll(wait_s, **fields)
        except BaseException as failure:
            self.failure = failure

    @property
    def parked(self) -> bool:
        """Whether it still waits."""
        return self._thread.is_alive()

    def result(self, within_s: float) -> list[dict[str, Any]]:
        """What it got, within some seconds."""
        self._thread.join(within_s)
        assert not self.parked, "the poll is still parked"
        if self.failure is not None:
            raise self.failure
        return self.jobs


@contextlib.contextmanager
def hammering(service: Service, threads: int = 4) -> Iterator[list[Reply]]:
    """Creates of jobs named `hammer`, as fast as threads go, while the block runs; yields their answers so far."""
    replies: list[Reply] = []
    over = threading.Event()

    def hammer() -> None:
        while not over.is_set():
            replies.append(service.call("POST", f"/spaces/{service.space}/jobs", {"name": "hammer"}))

    running = [threading.Thread(target=hammer, daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        until(lambda: len(replies) > threads)
        yield replies
    finally:
        over.set()
        for thread in running:
            thread.join()


def works_again_within(service: Service, seconds: float) -> None:
    """Fail unless the service works within so many seconds."""
    begun = time.monotonic()
    until(service.works, within_s=seconds)
    assert time.monotonic() - begun < seconds


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, and wait."""
    process.send_signal(signal.SIGKILL)
    process.wait()
