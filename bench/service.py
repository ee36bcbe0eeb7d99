"""A service to measure: an embedded Valkey of its own, one web process, the bare echo beside it, a space and keys.

Nothing of it is shared with another service, and nothing is left of it. Valkey runs as `jobwire up` runs it, AOF
everysec, but rewrites its file only when told (`tidy`): a rewrite would take the other core in the middle of a window.
"""

import http.client
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import msgspec
import redis

from app.local.embedded_valkey import EmbeddedServer
from app.model.limits import BATCH_CLAIMS

BASE = "/api/v1"
TIDY_S = 60.0


class Cpu(NamedTuple):
    """CPU seconds that a process has used, all its threads, user and system."""

    web_s: float
    valkey_s: float


class Service:
    """Running from `with` to the end of it. `root_key` may do anything; `space` is a fresh space."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are further variables of the web process."""
        self._settings = dict(settings or {})
        self._stack = ExitStack()
        self.root_key = f"emit_{secrets.token_urlsafe(32)}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobwire-bench-")))
            self.redis_url, self.nodes = self.start_redis(stack)
            self.redis = stack.enter_context(redis.Redis.from_url(self.nodes[0].url, socket_timeout=TIDY_S))
            self._web = self.another_web(stack)
            self._echo = self.spawn(stack, "-m", "bench.server", "echo")
            self.web = address(self._web)
            self.echo = address(self._echo)
            made = self.post("/spaces", {"name": "bench"})
            self.space: str = made["id"]
            self.worker_key = self.key("jobs:worker", "jobs:create", "jobs:read", "jobs:kill")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_redis(self, stack: ExitStack) -> tuple[str, list[EmbeddedServer]]:
        """What REDIS_URL shall be, and the servers behind it."""
        valkey = stack.enter_context(EmbeddedServer(self.data, config={"auto-aof-rewrite-percentage": "0"}))
        return valkey.url, [valkey]

    @property
    def socket(self) -> str:
        """The path of the first server's socket."""
        return urlsplit(self.nodes[0].url).path

    @property
    def environment(self) -> dict[str, str]:
        """What every process of this service is started with."""
        ours = {"REDIS_URL": self.redis_url, "JOBWIRE_ROOT_KEY": self.root_key, "JOBWIRE_RATE": "0"}
        return {**os.environ, **ours, **self._settings}

    def another_web(self, stack: ExitStack) -> "subprocess.Popen[str]":
        """One more web process on the same Redis; `address` tells where it is."""
        return self.spawn(stack, "-m", "bench.server", "web")

    def spawn(self, stack: ExitStack, *arguments: str) -> "subprocess.Popen[str]":
        """A Python process with this service's environment, ended with the stack."""
        command = [sys.executable, *arguments]
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        stack.callback(end, process)
        return process

    def key(self, *scopes: str) -> str:
        """A new key of the space."""
        made = self.post(f"/spaces/{self.space}/tokens", {"name": "bench", "scopes": scopes})
        return str(made["key"])

    def post(self, path: str, body: Any) -> Any:
        """The answer to a call with the root key; RuntimeError for a refusal."""
        return self._ask("POST", path, msgspec.json.encode(body))

    def get(self, path: str) -> Any:
        """The same for a GET."""
        return self._ask("GET", path)

    def _ask(self, method: str, path: str, body: bytes = b"") -> Any:
        connection = http.client.HTTPConnection(*self.web, timeout=60)
        try:
            connection.request(method, BASE + path, body, {"x-api-key": self.root_key})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status >= 300:
            raise RuntimeError(f"{method} {path}: {response.status} {text.decode(errors='replace')[:300]}")
        return msgspec.json.decode(text)

    def metric(self, name: str) -> float:
        """What the web process says at `/metrics` of a number without labels."""
        connection = http.client.HTTPConnection(*self.web, timeout=60)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    def cpu(self) -> Cpu:
        """What the web process and all servers have used so far."""
        return Cpu(cpu_s(self._web.pid), sum(cpu_s(node.pid or 0) for node in self.nodes))

    def echo_cpu_s(self) -> float:
        """What the echo has used so far."""
        return cpu_s(self._echo.pid)

    def rss_bytes(self) -> int:
        """The memory that the web process holds now."""
        return self._memory("VmRSS")

    def peak_bytes(self) -> int:
        """The most that it held since `forget_peak`."""
        return self._memory("VmHWM")

    def forget_peak(self) -> None:
        """Begin to look for the most anew (proc(5), clear_refs)."""
        Path(f"/proc/{self._web.pid}/clear_refs").write_text("5")

    def _memory(self, name: str) -> int:
        lines = Path(f"/proc/{self._web.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))

    def claimed(self, count: int) -> list[dict[str, Any]]:
        """Fresh jobs, each with a lease of a day: ids and lease tokens as create answers them."""
        job = {"name": "bench", "claim": True, "timeoutSeconds": 86_400}
        sizes = [min(BATCH_CLAIMS, count - at) for at in range(0, count, BATCH_CLAIMS)]
        return [made for size in sizes for made in self.post(f"/spaces/{self.space}/jobs", [job] * size)]

    def tidy(self) -> None:
        """Forget all jobs and logs, keep space and keys; the append-only file becomes small again."""
        keep = {"space", "tokens"}
        gone = [key for key in self.redis.scan_iter(count=10_000) if key.rpartition(b":")[2].decode() not in keep]
        gone = [key for key in gone if not key.startswith((b"jw:token:", b"jw:spaces"))]
        for at in range(0, len(gone), 10_000):
            self.redis.unlink(*gone[at : at + 10_000])
        self.redis.bgrewriteaof()
        deadline_s = time.monotonic() + TIDY_S
        while self.redis.info("persistence")["aof_rewrite_in_progress"] or self._lazyfree_pending():
            if time.monotonic() > deadline_s:
                raise RuntimeError("Valkey does not finish rewriting its file")
            time.sleep(0.01)

    def _lazyfree_pending(self) -> int:
        return int(self.redis.info("memory")["lazyfree_pending_objects"])


def address(process: "subprocess.Popen[str]") -> tuple[str, int]:
    """Host and port of a process of `bench.server`, once it accepts connections; RuntimeError when it ends instead."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"a server ended at its start, with code {process.wait()}")
    parts = urlsplit(line)
    return parts.hostname or "", parts.port or 0


def end(process: "subprocess.Popen[str]") -> None:
    """Ask a process to leave, then make it."""
    process.terminate()
    try:
        process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, by the clock that Linux has for each (clock_getcpuclockid(3)); NaN elsewhere."""
    if sys.platform != "linux":
        return float("nan")
    return time.clock_gettime(~pid << 3 | 2)
