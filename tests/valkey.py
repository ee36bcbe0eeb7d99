"""A Valkey that a test may hurt: kill it, stall it, start it again on the same folder; and the wait for a condition.

It is the embedded one, or what SERVER_BINARY names.

    with Valkey(appendfsync="always") as valkey:
        valkey.cli("SET", "key", "value")
        valkey.kill()
        valkey.restart()

The folder is a temporary one unless given, and lives as long as the object: data survive `kill` and `restart`, and
`url` stays the same.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.cluster import ClusterNode

from app.local.embedded_valkey import EmbeddedServer
from tests import server_binary


def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Return when `condition` is true; fail the test when it is not within `within_s`."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < within_s, "the condition did not come true in time"
        time.sleep(pause_s(time.monotonic() - begun))


def pause_s(waited_s: float, most_s: float = 0.05) -> float:
    """How long to rest between two looks: a twentieth of the wait, so that waiting costs no processor."""
    return min(max(waited_s / 20, 0.002), most_s)


def cut(data: Path, share: float) -> None:
    """Cut a share off the end of a stopped server's append-only file."""
    newest = sorted(data.rglob("*.incr.aof"))[-1]
    os.truncate(newest, int(newest.stat().st_size * (1 - share)))


def client_of(url: str, *, connections: int = 100) -> Any:
    """The redis package's client of what a url names, with at most so many connections to a server."""
    if not url.startswith("redis+cluster://"):
        return redis.Redis.from_url(url, socket_timeout=10, max_connections=connections)
    places = [place.rpartition(":") for place in url.partition("://")[2].split(",")]
    nodes = [ClusterNode(host, int(port)) for host, _, port in places]  # type: ignore[no-untyped-call]  # untyped there
    return redis.RedisCluster(startup_nodes=nodes, socket_timeout=10, max_connections=connections)


class NamedServer(EmbeddedServer):
    """The server of the tests' choice, looked after as the embedded one is."""

    def binary(self) -> str:
        return server_binary.BINARY

    def settings(self) -> Mapping[str, str]:
        return server_binary.settings()


class Valkey:
    """One running server; `server` is the thing itself."""

    kind: type[EmbeddedServer] = NamedServer

    def __init__(
        self,
        data: Path | None = None,
        *,
        appendfsync: str = "everysec",
        maxmemory_bytes: int = 0,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self._is_temporary = data is None
        self.data = data or Path(tempfile.mkdtemp(prefix="jobwire-"))
        self.server = self.kind(self.data, appendfsync=appendfsync, maxmemory_bytes=maxmemory_bytes, config=config)
        self.server.start()
        self.url = self.server.url

    def cli(self, *args: str | bytes | int) -> Any:
        """The reply to one command, as redis-py gives it; a refusal raises redis.ResponseError."""
        with client_of(self.url) as client:
            return client.execute_command(*args)

    def owner(self, key: str) -> Self:
        """The server that has a key."""
        return self

    def publish(self, channel: str, message: bytes) -> int:
        """Tell those who listen to a channel; how many heard."""
        return int(self.cli("PUBLISH", channel, message))

    def kill(self) -> None:
        """SIGKILL; returns when it has gone. The folder stays taken."""
        killed = self.server.pid
        self._signal(signal.SIGKILL)
        until(lambda: killed is None or self.server.pid != killed)

    def restart(self) -> None:
        """Stop it if it runs, and start it again on the same folder."""
        self.resume()
        self.server.stop()
        self.server.start()

    def lose(self, share: float, key: str = "") -> None:
        """Kill it, cut a share off the end of its append-only file, and start it: a power cut, hours of it at once."""
        self.kill()
        cut(self.data, share)
        self.restart()

    def stall(self) -> None:
        """It keeps its connections and accepts new ones, and answers nothing, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `stall`."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it, and remove the folder if it is a temporary one."""
        self.resume()
        self.server.stop()
        if self._is_temporary:
            shutil.rmtree(self.data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _signal(self, word: signal.Signals) -> None:
        if (pid := self.server.pid) is not None:
            os.kill(pid, word)


class EmbeddedValkey(Valkey):
    """The embedded one, whatever SERVER_BINARY names."""

    kind = EmbeddedServer
