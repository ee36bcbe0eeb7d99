"""Making connections to Redis by the redis package: its TLS, its authentication, its Sentinel.

Owns: what the urls mean. Never: keeps or uses a connection; each that it returns is connected and authenticated.
"""

from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.sentinel import Sentinel

SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")


class Connector:
    """Makes connections to one server."""

    async def connect(self) -> Connection:
        """A connection. Raises RedisError, OSError."""
        raise ConnectionError("no Redis is named")

    async def has_moved(self, connection: Connection) -> bool:
        """Whether the server is another one by now than that of the connection. Raises RedisError, OSError."""
        return False


class Plain(Connector):
    """Connections to what a redis://, rediss:// or unix:// url names."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._options = dict(parse_url(url))
        self._kind: Any = self._options.pop("connection_class", Connection)
        for ours in ("socket_timeout", "socket_connect_timeout", "protocol", "retry", "decode_responses"):
            self._options.pop(ours, None)
        if "path" not in self._options:
            self._options.setdefault("socket_keepalive", True)
        self._timeout_s = timeout_s

    async def connect(self) -> Connection:
        return await connected(self._kind(protocol=2, socket_timeout=self._timeout_s, **self._options))


class BySentinel(Connector):
    """Connections to the primary of a service, as the Sentinels know it.

    A primary that was replaced goes on taking writes until a Sentinel makes it a replica, ten seconds later: they would
    be lost. So whoever holds a connection asks now and then whether the primary has moved.
    https://redis.io/docs/latest/develop/reference/sentinel-clients/
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        """`url` is redis+sentinel://[[user]:password@]host[:port][,host[:port]...]/service[/db]."""
        scheme, rest = url.split("://", 1)
        credentials, _, rest = rest.rpartition("@")
        hosts, _, path = rest.partition("/")
        self._service, _, db = path.partition("/")
        if not self._service:
            raise ValueError(
                "a Sentinel url ends in the name of the service, as in redis+sentinel://host:26379/mymaster"
            )
        user, _, password = credentials.partition(":")
        self._places = [
            (host.rpartition(":")[0] or host, int(host.rpartition(":")[2]) if ":" in host else 26379)
            for host in hosts.split(",")
        ]
        self._kind: Any = SSLConnection if scheme == "rediss+sentinel" else Connection
        self._timeout_s = timeout_s
        self._options = {
            "db": int(db or 0),
            "username": user or None,
            "password": password or None,
            "protocol": 2,
            "socket_timeout": timeout_s,
            "socket_keepalive": True,
        }

    async def connect(self) -> Connection:
        host, port = await primary(self._places, self._service, self._timeout_s)
        return await connected(self._kind(host=host, port=port, **self._options))

    async def has_moved(self, connection: Connection) -> bool:
        host, port = await primary(self._places, self._service, self._timeout_s)
        return (host, port) != (connection.host, connection.port)


async def connected(made: Connection) -> Connection:
    """The connection, connected; whatever goes wrong meanwhile, a cancellation too, leaves nothing open."""
    try:
        await made.connect()  # type: ignore[no-untyped-call]  # untyped there
    except BaseException:
        await made.disconnect(nowait=True)
        raise
    return made


async def primary(places: Sequence[tuple[str, int]], service: str, timeout_s: float) -> tuple[str, int]:
    """Where the service's primary is, as the first Sentinel that answers knows; RedisError if none does."""
    sentinel: Any = Sentinel(places, socket_timeout=timeout_s)  # type: ignore[no-untyped-call]  # untyped there
    try:
        found: tuple[str, int] = await sentinel.discover_master(service)
        return found
    finally:
        for client in sentinel.sentinels:
            await client.aclose()


def connector(url: str, timeout_s: float) -> Connector:
    """The connector of what `url` names; ValueError for a bad url."""
    return (BySentinel if url.partition("://")[0] in SENTINEL_SCHEMES else Plain)(url, timeout_s)
