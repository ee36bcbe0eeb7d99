"""The Redis that tests are on: one Valkey, or with `--redis cluster` three primaries and three replicas.

    def test_a_rule(new_redis: NewRedis) -> None:
        with new_redis(appendfsync="always") as redis:
            redis.cli("SET", "key", "value")

Both can be hurt in the same way. What is said of one server holds of all nodes at once. A test that asks for neither
`new_redis` nor what is made of it is not on a Redis of the run, and is not selected with `--redis cluster`. One that
would mean nothing there says so: `@pytest.mark.one_server("why")`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self

from tests.cluster.cluster import Cluster
from tests.valkey import Valkey


class OneServer(Protocol):
    """A Valkey, or the primary of a shard."""

    def cli(self, *command: str | bytes | int) -> Any:
        """The reply to one command."""


class AnyRedis(Protocol):
    """What a Valkey and a cluster have in common; data survive everything but `close`, and `url` stays the same."""

    url: str

    def cli(self, *command: str | bytes | int) -> Any:
        """The reply to one command; of a cluster, the owner of its key is asked, or every node if it has no key."""

    def owner(self, key: str) -> OneServer:
        """The server that has a key."""

    def publish(self, channel: str, message: bytes) -> int:
        """Tell those who listen to a channel, as scripts do; how many heard."""

    def kill(self) -> None:
        """SIGKILL; returns when it has gone."""

    def restart(self) -> None:
        """Stop it if it runs, and start it again; returns when it serves."""

    def lose(self, share: float, key: str = "") -> None:
        """Kill it, cut a share off the end of its append-only files, of a cluster the key's shard's, and start it."""

    def stall(self) -> None:
        """It keeps its connections and accepts new ones, and answers nothing, until `resume`."""

    def resume(self) -> None:
        """Undo `stall`."""

    def close(self) -> None:
        """Stop it, and remove its data."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class NewRedis(Protocol):
    """Starts a Redis of a test's own."""

    def __call__(self, *, appendfsync: str = "everysec", maxmemory_bytes: int = 0) -> AnyRedis: ...


def new_valkey(*, appendfsync: str = "everysec", maxmemory_bytes: int = 0) -> AnyRedis:
    """One server."""
    return Valkey(appendfsync=appendfsync, maxmemory_bytes=maxmemory_bytes)


def new_cluster(*, appendfsync: str = "everysec", maxmemory_bytes: int = 0) -> AnyRedis:
    """Six nodes; the bound of memory is that of each."""
    return Cluster(config={"appendfsync": appendfsync, "maxmemory": str(maxmemory_bytes)})
