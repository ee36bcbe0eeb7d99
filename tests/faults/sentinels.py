"""A primary, a replica and a Sentinel that watches them: real processes on free ports."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from tests.server import free_port
from tests.server_binary import BINARY
from tests.valkey import until

SERVICE = "jobs"


class Failover:
    """The three, and the ways to make them change places."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.ports = [free_port(), free_port()]
        self._sentinel_port = free_port()
        self.url = f"redis+sentinel://127.0.0.1:{self._sentinel_port}/{SERVICE}"
        first, second = self.ports
        self._server(first, "--port", str(first))
        self._server(second, "--port", str(second), "--replicaof", f"127.0.0.1 {first}")
        until(lambda: self.info(second).get("master_link_status") == "up")
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {self._sentinel_port}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {first} 1\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        self._start(str(config), "--sentinel")
        until(lambda: self.ask(self._sentinel_port, "SENTINEL", "REPLICAS", SERVICE))

    def primary(self) -> int:
        """The port of the primary, as the Sentinel tells."""
        return int(self.ask(self._sentinel_port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def fail_over(self) -> None:
        """Let the replica become the primary. The old one goes on taking writes, for some ten seconds."""
        before = self.primary()
        until(self._asked_for_failover, 20)
        until(lambda: self.primary() != before, 20)

    def _asked_for_failover(self) -> bool:
        try:
            self.ask(self._sentinel_port, "SENTINEL", "FAILOVER", SERVICE)
        except redis.ResponseError:
            return False
        return True

    def info(self, port: int) -> dict[str, Any]:
        """INFO replication, empty while the server is not there."""
        with contextlib.suppress(redis.RedisError):
            return dict(self.ask(port, "INFO", "replication"))
        return {}

    def ask(self, port: int, *command: str) -> Any:
        """The reply to one command."""
        with redis.Redis(port=port, socket_timeout=5, decode_responses=True, protocol=2) as client:
            return client.execute_command(*command)

    def _server(self, port: int, *args: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir()
        self._start("--dir", str(folder), "--save", "", "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0", *args)
        until(lambda: self.info(port))

    def _start(self, *args: str) -> None:
        process = subprocess.Popen([BINARY, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)


@contextlib.contextmanager
def failover() -> Iterator[Failover]:
    """The three, for a block."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobwire-")))
        yield Failover(folder, stack)
