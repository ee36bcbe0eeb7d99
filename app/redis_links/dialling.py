"""Making connections to Redis by the redis package: its TLS, its authentication, its Sentinel, its nodes.

Owns: what the urls mean. Never: keeps or uses a connection; each that it returns is connected and authenticated.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError

from app.redis_links.reasons import reason
from app.redis_links.tls import TlsConnection

SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
SCHEMES = ("redis", "rediss", "unix", *SENTINEL_SCHEMES, *CLUSTER_SCHEMES)
SENTINEL_PORT = 26379
NODE_PORT = 6379

OURS = ("socket_timeout", "socket_connect_timeout", "protocol", "retry", "decode_responses")
"""Options of a connection that are not the url's to set."""


class Connector:
    """Makes connections to one server, by TLS or not."""

    by_tls = False

    async def connect(self) -> Connection:
        """A connection. Raises RedisError, OSError."""
        raise ConnectionError("no Redis is named")

    async def has_moved(self, connection: Connection) -> bool:
        """Whether the server is another one by now than that of the connection. Raises RedisError, OSError."""
        return False


class Plain(Connector):
    """Connections to what a redis://, rediss:// or unix:// url names."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """ValueError for a url that cannot be used; it never quotes the url, which may have a password."""
        options = parsed(url)
        self._kind: Any = options.pop("connection_class", Connection)
        self.by_tls = self._kind is TlsConnection
        if "path" not in options:
            options.setdefault("socket_keepalive", True)
        self._options = {**options, "protocol": 2, "socket_timeout": timeout_s}
        made(self._kind, self._options)

    async def connect(self) -> Connection:
        return await connected(self._kind(**self._options))


class Place(NamedTuple):
    """Where a server is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class BySentinel(Connector):
    """Connections to the primary of a service, as the Sentinels know it.

    A primary that was replaced goes on taking writes until a Sentinel makes it a replica, ten seconds later: they would
    be lost. So whoever holds a connection asks now and then whether the primary has moved.
    https://redis.io/docs/latest/develop/reference/sentinel-clients/
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        """`url` is redis+sentinel://[[user]:password@]host[:port][,host[:port]...]/service[/db][?option=value...].

        With rediss+sentinel both are spoken to by TLS, the Sentinels and the servers; options are redis-py's, such as
        ssl_ca_certs. User and password may be percent-encoded. ValueError as in `Plain`.
        """
        hosts, path = places_and_path(url)
        service, _, db = path.partition("/")
        if not service or not hosts:
            raise ValueError(
                "it must name the Sentinels and the service, as in redis+sentinel://host:26379,host:26379/mymaster."
            )
        self._kind, self._options = options_of_each(url, db, timeout_s)
        self.by_tls = self._kind is TlsConnection
        places = [place(host, SENTINEL_PORT) for host in hosts.split(",")]
        self._sentinels = Sentinels(places, unquote(service), timeout_s)
        self._sentinels.speak_as(self._kind, self._options)

    async def connect(self) -> Connection:
        host, port = await self._sentinels.primary()
        return await connected(self._kind(host=host, port=port, **self._options))

    async def has_moved(self, connection: Connection) -> bool:
        return await self._sentinels.primary() != (connection.host, connection.port)


class ByCluster(Connector):
    """Connections to the nodes of a cluster."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """`url` is redis+cluster://[[user]:password@]host[:port][,host[:port]...][?option=value...].

        With rediss+cluster all nodes are spoken to by TLS. One node that answers is enough: it knows the others.
        ValueError as in `Plain`.
        """
        hosts, path = places_and_path(url)
        if not hosts:
            raise ValueError("it must name nodes, as in redis+cluster://host:6379,host:6379.")
        if path:
            raise ValueError("a cluster has no database numbers: no / and nothing behind it may follow the nodes.")
        self.seeds = [place(host, NODE_PORT) for host in hosts.split(",")]
        self._kind, self._options = options_of_each(url, "", timeout_s)
        if self._options.get("db"):
            raise ValueError("a cluster has no database numbers: remove the option db.")
        self.by_tls = self._kind is TlsConnection

    async def connect(self) -> Connection:
        """A connection to a node that the url names."""
        return await self.connect_to(random.choice(self.seeds))

    async def connect_to(self, node: Place) -> Connection:
        """A connection to a node. Raises RedisError, OSError."""
        return await connected(self._kind(host=node.host, port=node.port, **self._options))


class Sentinels:
    """The Sentinels of a service.

    Always: the one that answered last is asked first; one that says nothing leaves time for the others.
    """

    def __init__(self, places: list[Place], service: str, timeout_s: float) -> None:
        self._places = places
        self._service = service
        self._options: dict[str, Any] = {
            "socket_timeout": timeout_s / (len(places) + 1),
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
        }
        self._logins: list[dict[str, Any]] = [{}]
        self._by_tls = False

    def speak_as(self, kind: type[Connection], options: Mapping[str, Any]) -> None:
        """Speak by TLS, if the servers are spoken to by it, and say the password that they want.

        Many Sentinels have no users of their own, or no password at all, and refuse whoever names one.
        """
        self._by_tls = kind is TlsConnection
        self._options["connection_class"] = kind
        self._options |= {name: value for name, value in options.items() if name.startswith("ssl_")}
        if "password" in options:
            alone = {"password": options["password"]}
            self._logins = [alone, {}]
            if "username" in options:
                self._logins.insert(0, alone | {"username": options["username"]})

    async def primary(self) -> Place:
        """Where the primary is, as the first Sentinel knows that answers; RedisError if none does."""
        errors = []
        for asked in tuple(self._places):
            try:
                found = await self._told_by(asked)
            except (RedisError, OSError) as error:
                errors.append(f"{asked}: {reason(error, by_tls=self._by_tls).rstrip('.')}")
                continue
            first(self._places, asked)
            return found
        raise RedisError(f"no Sentinel knows the primary of {self._service} ({'; '.join(errors)})")

    async def _told_by(self, asked: Place) -> Place:
        for login in tuple(self._logins):
            client: Any = Redis.from_pool(ConnectionPool(host=asked.host, port=asked.port, **self._options, **login))
            try:
                state = await client.sentinel_master(self._service)
            except AuthenticationError as error:
                refusal = error
                continue
            finally:
                await client.aclose()
            if not state["is_master"] or state["is_sdown"] or state["is_odown"]:
                raise RedisError("it is down")
            first(self._logins, login)
            return Place(state["ip"], state["port"])
        raise refusal


def first(items: list[Any], item: Any) -> None:
    """Put the item at the head of the list that it is in."""
    items.insert(0, items.pop(items.index(item)))


def places_and_path(url: str) -> tuple[str, str]:
    """What a url that names several hosts has between its credentials and its options: the hosts, and the path."""
    hosts, _, path = url.partition("://")[2].rpartition("@")[2].partition("?")[0].partition("/")
    return hosts, path


def options_of_each(url: str, db: str, timeout_s: float) -> tuple[Any, dict[str, Any]]:
    """How each server is connected to that a url with several hosts leads to: a kind of connection, and its options.

    ValueError as in `Plain`.
    """
    scheme, _, rest = url.partition("://")
    credentials, _, rest = rest.rpartition("@")
    user, _, password = map(unquote, credentials.partition(":"))
    plain = "rediss" if scheme.lower().startswith("rediss") else "redis"
    options = parsed(f"{plain}://x/{db}?{rest.partition('?')[2]}")
    kind: Any = options.pop("connection_class", Connection)
    del options["host"]
    options |= {"username": user} if user else {}
    options |= {"password": password} if password else {}
    options |= {"protocol": 2, "socket_timeout": timeout_s, "socket_keepalive": True}
    made(kind, options)
    return kind, options


def place(text: str, port: int) -> Place:
    """Where a server is; `host`, `host:port`, `[ip]:port`; without a port, it is that one. ValueError."""
    at = split(f"//{text}")
    if not at.hostname:
        raise ValueError("it names a server without a host.")
    return Place(at.hostname, port_of(at) or port)


def split(url: str) -> SplitResult:
    """The parts of a url. ValueError, which does not quote them as urllib's does."""
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("its host cannot be read.") from None


def port_of(parts: SplitResult) -> int | None:
    """The port of a url that was split; ValueError."""
    try:
        port: int | None = parts.port
    except ValueError:
        raise ValueError(
            "its port is not a number from 0 to 65535 (in a password, percent-encode /, ?, # and @)."
        ) from None
    return port


def parsed(url: str) -> dict[str, Any]:
    """What a redis://, rediss:// or unix:// url says, as arguments of a connection. ValueError."""
    parts = split(url)
    if parts.scheme == "unix":
        if parts.hostname or len(parts.path) < 2:
            raise ValueError("after unix:// the whole path of a socket must stand, as in unix:///run/redis.sock.")
    else:
        port_of(parts)
        if not (db := unquote(parts.path).strip("/")).isdigit() and db:
            raise ValueError("behind the host may stand / and the number of a database, and nothing else.")
    options: dict[str, Any] = dict(parse_url(url))
    if options.get("connection_class") is SSLConnection:
        options["connection_class"] = TlsConnection
    return {name: value for name, value in options.items() if name not in OURS}


def made(kind: Any, options: Mapping[str, Any]) -> None:
    """Make a connection, which connects to nothing yet: ValueError for options that it does not have."""
    try:
        kind(**options)
    except (TypeError, RedisError) as error:
        raise ValueError(
            f"its options cannot be used: {str(error).rpartition('__init__() ')[2].rstrip('.')}."
        ) from None


async def connected(made: Connection) -> Connection:
    """The connection, connected; whatever goes wrong meanwhile, a cancellation too, leaves nothing open.

    The redis package may swallow a cancellation that comes while it shakes hands: whoever cancels would wait for ever.
    """
    try:
        await made.connect()  # type: ignore[no-untyped-call]  # untyped there
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise asyncio.CancelledError
    except BaseException:
        await made.disconnect(nowait=True)
        raise
    return made


def connector(url: str, timeout_s: float) -> Connector:
    """The connector of what `url` names; ValueError, with a sentence without the url, for one that cannot be used."""
    scheme, colon, _ = url.partition("://")
    if not colon or scheme.lower() not in SCHEMES:
        raise ValueError(f"it must begin with one of {', '.join(f'{known}://' for known in SCHEMES)}.")
    if scheme.lower() in CLUSTER_SCHEMES:
        return ByCluster(url, timeout_s)
    return (BySentinel if scheme.lower() in SENTINEL_SCHEMES else Plain)(url, timeout_s)
