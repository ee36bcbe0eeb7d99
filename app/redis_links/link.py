"""The links of this process to Redis: one connection shared by all calls, and what can go wrong with it.

Owns: one write for all the commands of one turn of the event loop, one parse for all the answers of one read, the order
in which answers come back, connecting anew, and the translation of every failure into an exception.

Never: sends a command twice. Whoever calls learns whether a command was refused (`unavailable`: nothing was done) or
whether nobody knows (`outcome_unknown`: it had been sent when the link broke).

Always: a server that is silent for the timeout while calls wait breaks the link, so that a stalled Redis is a fault of
seconds and not of a kernel's timeout; the link then reconnects by itself. Bytes that arrive are life, however long a
whole answer takes, and time in which this process itself stood still is no silence of the server's.
"""

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import hiredis
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from app.loop.attempts import BugNotice, OutageNotice
from app.loop.background import Background
from app.model.errors import Outage, Unavailable, outcome_unknown, unavailable
from app.redis_links.dialling import Connector, Place
from app.redis_links.reasons import NODE_OF_CLUSTER, reason

log = logging.getLogger("jobwire.redis")

Word = bytes | str | int
Command = tuple[Word, ...]

IN_FLIGHT = 20_000
"""Commands that may wait for an answer on one link; more are refused."""

UNSENT_BYTES = 67_108_864
"""Bytes that may wait for Redis to take them; beyond it calls are refused, so that a stall has bounded memory."""

LONG_WORDS = 32
LONG_BYTES = 1_048_576
"""A command with so many words, of so many bytes, is sent piece by piece: to copy 32 MiB takes a turn of its own."""

MOVE_CHECK_S = 1.0
"""How often to ask whether the server has moved."""

LOOKS = 8
"""Looks at a link within its timeout, of which each must find it silent before it counts as stalled."""

CONNECT_GRACE_S = 0.5
"""How long a call waits for a link that is just being made anew."""

RECONNECT_S = 0.02
RECONNECT_MOST_S = 0.5
"""Pauses before a lost connection is made anew: the first, and the longest of those that double."""

STOOD_S = 1.0
"""After a connection that stood for so long the pause is the first again; else it goes on to grow."""

REDIS_REFUSALS = {
    "OOM": "Redis is out of memory.",
    "READONLY": "Redis is read-only: a failover may be under way.",
    "LOADING": "Redis is loading its data.",
    "MISCONF": "Redis cannot write to its disk.",
    "MASTERDOWN": "Redis has lost its primary.",
    "NOREPLICAS": "Redis has too few replicas.",
    "BUSY": "Redis is busy with a script.",
    "CLUSTERDOWN": "The Redis cluster is down.",
    "NOAUTH": "Redis wants a password, and REDIS_URL has none.",
    "NOPERM": "Redis does not permit this user to do that.",
}
"""First words of Redis's error replies after which nothing was done."""


class ScriptUnknown(Exception):
    """NOSCRIPT: the script's text must be sent first; nothing ran."""


class ServerMoved(Exception):
    """Another server is the primary now."""

    def __str__(self) -> str:
        return super().__str__() or "another server is the primary now"


class RedisFault(Exception):
    """An error reply that no operator's day explains: a bug of ours."""


class Redirected(RedisFault):
    """A node of a cluster did not run the command: the slot is another's (MOVED), is half moved (ASK, TRYAGAIN)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.word, *rest = text.split(" ")
        self.to = rest[1] if self.word in ("MOVED", "ASK") else ""


class ClusterDown(Unavailable):
    """A node of a cluster did not run the command, for the cluster does not work at the moment."""

    word, to = "CLUSTERDOWN", ""


REDIRECTION = re.compile(r"(?:MOVED|ASK) \d{1,5} \S*:\d{1,5}$|TRYAGAIN\b")


def failure(text: str) -> Exception:
    """The exception that an error reply stands for."""
    word = text.split(" ", 1)[0]
    if word == "NOSCRIPT":
        return ScriptUnknown(text)
    if REDIRECTION.match(text):
        return Redirected(text)
    if word == "CLUSTERDOWN":
        return ClusterDown("unavailable", REDIS_REFUSALS[word], headers={"retry-after": "1"})
    if word in REDIS_REFUSALS:
        return unavailable(REDIS_REFUSALS[word])
    return RedisFault(text)


class Link(Protocol):
    """What carries commands to Redis: a ServerLink, or a ClusterLink, which has one of those for each primary.

    Raises Outage (Unavailable, OutcomeUnknown), ScriptUnknown, RedisFault.
    """

    name: str
    sharded: bool
    timeout_s: float

    @property
    def up(self) -> bool:
        """Whether calls can be sent at this moment."""

    def start(self) -> None:
        """Begin to connect, and to connect again whenever a connection is lost."""

    async def close(self) -> None:
        """End all connections; calls in flight fail with OutcomeUnknown."""

    async def ready(self, timeout_s: float) -> None:
        """Return once calls can be sent; Unavailable if they cannot in time."""

    async def call(self, *command: Word) -> Any:
        """Send one command and return its reply."""

    async def pipeline(self, *commands: Command) -> list[Any]:
        """Send commands that need not wait for each other, and return their replies in order, or raise a failure."""

    async def pipeline_by_server(self, *commands: Command) -> list[Any]:
        """As `pipeline`, for commands that only read: those of each server by themselves.

        Where one server fails and another does not, its Outage stands in the place of its replies.
        """

    def cast(self, *command: Word) -> None:
        """Send one command whose outcome nobody waits for."""

    def server_of(self, key: str) -> "ServerLink":
        """The link to the server that has a key. Raises Unavailable if none has."""

    def tag_of(self, key: str) -> str:
        """The tag (see `tags`) of the server that has a key; "" if none has."""

    def servers(self) -> "Sequence[ServerLink]":
        """A link to each server that has keys. Commands without a key go over one of these."""

    def tags(self) -> "Mapping[ServerLink, str]":
        """For each of them a hash tag whose keys lie there now; "" where there is only one server."""


class ServerLink(asyncio.Protocol):
    """One connection to one server. `call` returns the reply (bytes, int, None, or lists of them) or raises.

    Raises Outage (Unavailable, OutcomeUnknown), ScriptUnknown, RedisFault.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        name: str,
        timeout_s: float,
        setup: Sequence[Command] = (),
        on_connect: Callable[["ServerLink"], Awaitable[None]] | None = None,
        sharded: bool = False,
        place: Place | None = None,
    ) -> None:
        """On every new connection the commands of `setup` are sent and `on_connect` runs, before any call of others.

        `sharded` says which way messages go: by sharded pub/sub or by the plain one. `place` is where a primary of a
        cluster is; the only server has none.
        """
        self.place = place
        self.name = name
        self.sharded = sharded
        self.timeout_s = timeout_s
        self.connector = connector
        self._setup = setup
        self._on_connect = on_connect
        self._connection: Connection | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._out: list[list[bytes]] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._heard = 0
        self._up = asyncio.Event()
        self._is_role_new = False
        self._lost: asyncio.Future[None] | None = None
        self._background = Background()
        self.why = ""
        """Why no connection stands, a sentence; "" while one does, and until it has been tried."""
        self._notice = OutageNotice(log, f"no {name} link to Redis: %s", f"the {name} link to Redis is back")
        self._bugs = BugNotice(
            log, f"the {name} link to Redis failed; connecting again", f"the {name} link to Redis works again"
        )

    @property
    def up(self) -> bool:
        """Whether a connection stands at this moment, and is set up."""
        return self._up.is_set()

    def start(self) -> None:
        """Begin to connect, and to connect again whenever the connection is lost."""
        self._background.start(self._keep(), f"redis-{self.name}")

    def reconnect(self) -> None:
        """Give the connection up, and what waits on it; a new one is made."""
        self._drop()

    def identify_again(self) -> None:
        """Run `on_connect` as on a new connection, since the server may be in another role. Calls of others wait."""
        self._is_role_new = True
        if self._on_connect is not None and self._up.is_set():
            self._up.clear()
            self._background.start(self._ask_again(self._on_connect), f"redis-{self.name}-again")

    async def close(self) -> None:
        """End the connection; calls in flight fail with `outcome_unknown`."""
        await self._background.close()
        self._drop()

    async def ready(self, timeout_s: float) -> None:
        """Return once a connection stands; Unavailable if none does in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            raise unavailable("Redis cannot be reached.") from None

    async def call(self, *command: Word) -> Any:
        """Send one command and return its reply."""
        if not self._up.is_set():
            await self.ready(CONNECT_GRACE_S)
        self.admit(1)
        return await self.send(command)

    async def pipeline(self, *commands: Command) -> list[Any]:
        """Send commands in one write and return their replies in order; the first failure is raised after all came."""
        if not self._up.is_set():
            await self.ready(CONNECT_GRACE_S)
        self.admit(len(commands))
        return await self.at_once(*commands)

    async def pipeline_by_server(self, *commands: Command) -> list[Any]:
        """As `pipeline`: there is one server."""
        return await self.pipeline(*commands)

    async def at_once(self, *commands: Command) -> list[Any]:
        """As `pipeline`, for those who set a connection up: others have to wait until that is done."""
        if self._transport is None:  # it went between two questions; the next connection's answers are not for this one
            raise unavailable("Redis has gone away.")
        return await all_of([self.send(command) for command in commands])

    def cast(self, *command: Word) -> None:
        """Send one command whose outcome nobody waits for, if a connection stands."""
        with contextlib.suppress(Outage):
            self.admit(1)
            self.send(command).add_done_callback(look_away)

    def server_of(self, key: str) -> "ServerLink":
        """This one."""
        return self

    def tag_of(self, key: str) -> str:
        """None."""
        return ""

    def servers(self) -> Sequence["ServerLink"]:
        """This one."""
        return (self,)

    def tags(self) -> Mapping["ServerLink", str]:
        """This one, and no tag."""
        return {self: ""}

    async def drain(self) -> None:
        """Return when each command that was sent by now has been answered, or has failed."""
        if self._waiting:
            await asyncio.wait(tuple(self._waiting))

    def admit(self, commands: int) -> None:
        """Refuse before anything is sent. The connection may have gone since the caller saw it stand."""
        if self._transport is None or not self._up.is_set():
            raise unavailable("Redis has gone away.")
        if len(self._waiting) + commands > IN_FLIGHT or self._transport.get_write_buffer_size() > UNSENT_BYTES:
            raise unavailable("Too many calls wait for Redis.")

    def send(self, command: Command) -> asyncio.Future[Any]:
        """The reply to come of a command that was admitted."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.write(command)
        self._waiting.append(future)
        return future

    def write(self, command: Command) -> None:
        """Send a command in the write that ends this turn of the event loop."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(packed(command))

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and out:
            pieces = out[0] if len(out) == 1 else [piece for command in out for piece in command]
            if len(pieces) > len(out):
                self._transport.writelines(pieces)
            else:
                self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def data_received(self, data: bytes) -> None:
        self._heard += 1
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not Ellipsis:
            self.answered(reply)

    def answered(self, reply: Any) -> None:
        """One answer has come: it belongs to the call that waits longest."""
        if not self._waiting:
            self._drop()
            return
        future = self._waiting.popleft()
        if isinstance(reply, hiredis.ReplyError):
            self._fail(future, reply)
        elif not future.done():
            future.set_result(reply)

    def opened(self) -> None:
        """A new connection stands."""

    def _fail(self, future: asyncio.Future[Any], reply: hiredis.ReplyError) -> None:
        if not future.done():
            error = failure(str(reply))
            if self.place is None and isinstance(error, Redirected):
                self.why = NODE_OF_CLUSTER
                self._notice.away(self.why)
                error = unavailable(self.why)
            future.set_exception(error)
        if str(reply).startswith("READONLY"):
            asyncio.get_running_loop().call_soon(self._drop)

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop()

    def _drop(self) -> None:
        """Fail whatever waits and wake `_keep`. What was never written is `unavailable`, the rest is unknown."""
        transport, self._transport = self._transport, None
        self._up.clear()
        unwritten, self._out = len(self._out), []
        waiting, self._waiting = self._waiting, deque()
        sent = len(waiting) - unwritten
        for index, future in enumerate(waiting):
            if not future.done():
                future.set_exception(outcome_unknown() if index < sent else unavailable("Redis has gone away."))
                future.exception()
        if transport is not None:
            transport.abort()
        if self._connection is not None:
            self._connection._writer = self._connection._reader = None
            self._connection = None
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(None)

    async def _keep(self) -> None:
        pause_s, now_s = RECONNECT_S, asyncio.get_running_loop().time
        while True:
            opened_s = float("inf")
            try:
                await self._open()
                opened_s = now_s()
                self.why = ""
                self._notice.back()
                self._bugs.over()
                await self._watch()
            except (RedisError, RedisFault, Outage, ServerMoved, OSError) as error:
                self.why = reason(error, by_tls=self.connector.by_tls)
                self._notice.away(self.why)
            except Exception as error:
                self.why = "The link failed by a bug in jobwire. It has been logged."
                self._bugs.failed(error)
            self._drop()
            if now_s() - opened_s >= STOOD_S:
                pause_s = RECONNECT_S
            await asyncio.sleep(pause_s)
            pause_s = min(RECONNECT_MOST_S, pause_s * 2)

    async def _open(self) -> None:
        """Connect by the redis package, then take its transport over: from here on, answers come to us."""
        async with asyncio.timeout(self.timeout_s):
            connection = await self.connector.connect()
            writer = connection._writer
            if writer is None:
                raise ConnectionError("the connection closed while it was made")
            self._reader = hiredis.Reader(notEnoughData=Ellipsis)
            self._lost = asyncio.get_running_loop().create_future()
            self._connection = connection
            self._transport = writer.transport
            self._transport.set_protocol(self)
            if self._setup:
                await self.at_once(*self._setup)
            if self._on_connect is not None:
                await self._identify(self._on_connect)
        self._up.set()
        self.opened()

    async def _identify(self, on_connect: Callable[["ServerLink"], Awaitable[None]]) -> None:
        """Run `on_connect`, once more if the server may have got another role meanwhile; on this connection only."""
        connection = self._connection
        self._is_role_new = True
        while self._is_role_new and self._connection is connection:
            self._is_role_new = False
            await on_connect(self)

    async def _ask_again(self, on_connect: Callable[["ServerLink"], Awaitable[None]]) -> None:
        connection = self._connection
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._identify(on_connect)
        except Exception as error:
            if not isinstance(error, (RedisFault, Outage, ServerMoved, TimeoutError)):
                self._bugs.failed(error)
            if self._connection is connection:
                self._drop()
        else:
            if self._connection is connection:
                self._up.set()

    async def _watch(self) -> None:
        """Return when the connection is lost; raise when it is of no more use: no answer comes, or the server moved."""
        assert self._lost is not None
        loop = asyncio.get_running_loop()
        asked_s, silent, heard = loop.time(), 0, self._heard
        pause_s = min(self.timeout_s / LOOKS, MOVE_CHECK_S)
        while not self._lost.done():
            await asyncio.wait([self._lost], timeout=pause_s)
            before, heard = heard, self._heard
            silent = silent + 1 if self._waiting and heard == before else 0
            if (silent - 1) * pause_s >= self.timeout_s:
                raise TimeoutError(f"no answer for {self.timeout_s:g} s")
            if loop.time() - asked_s >= MOVE_CHECK_S and self._connection is not None:
                asked_s = loop.time()
                await self._ask_whether_moved(self._connection)

    async def _ask_whether_moved(self, connection: Connection) -> None:
        with contextlib.suppress(RedisError, OSError):
            if await self.connector.has_moved(connection):
                raise ServerMoved


def is_away(link: Link, key: str) -> bool:
    """Whether the server of a cluster that has a key is away, while others may work; never so of the only server."""
    try:
        server = link.server_of(key)
    except Unavailable:
        return True
    return server.place is not None and not server.up


def packed(command: Command) -> list[bytes]:
    """The bytes of a command, in one piece; of a long one in several, its words as they are."""
    if len(command) < LONG_WORDS or sum(len(word) for word in command if isinstance(word, bytes)) < LONG_BYTES:
        return [hiredis.pack_command(command)]  # type: ignore[arg-type]  # its stub narrows tuples
    pieces = [b"*%d" % len(command)]
    for word in command:
        text = word if isinstance(word, bytes) else str(word).encode()
        pieces += (b"\r\n$%d\r\n" % len(text), text)
    return [*pieces, b"\r\n"]


async def all_of(futures: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """The replies in order; the first failure is raised after all came. Cancelled, it leaves none of them waiting.

    Replies come in the order of their commands, so that whoever has waited for the first waits little for the others:
    a gather would watch each of them.
    """
    failed = None
    try:
        for future in futures:
            try:
                await future
            except Exception as error:
                failed = failed or error
    except asyncio.CancelledError:
        for future in futures:
            future.cancel()
        raise
    if failed is not None:
        raise failed
    return [future.result() for future in futures]


def look_away(future: asyncio.Future[Any]) -> None:
    """What became of a cast: nobody asks, and asyncio shall not complain that nobody did."""
    if not future.cancelled():
        future.exception()
