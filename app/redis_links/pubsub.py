"""The process's pub/sub links: channels in, listeners called.

Owns: which channels this process hears and from which server, subscribing again after a reconnect, and noticing that a
link went deaf. On a cluster app/redis_links/cluster_pubsub.py knows the servers.
Never: trusts a message to arrive. A message is a hint; whoever listens is told `None` when hints may have been lost,
and then reads from the store.
https://redis.io/docs/latest/develop/pubsub/
"""

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any

from app.loop.background import Background
from app.metrics import catalog
from app.model.errors import Outage
from app.redis_links.dialling import Connector, Place
from app.redis_links.link import Link, RedisFault, ServerLink, Word

log = logging.getLogger("jobwire.relay")

Listener = Callable[[bytes | None], None]
OnConnect = Callable[[ServerLink], Awaitable[None]]

PROBE_S = 0.5
SUBSCRIBE_CHANNELS = 500
"""Channels of one SUBSCRIBE."""

MISSES = 2
"""Probes in a row that were published and not heard after which a link counts as deaf."""


class PubSub(ServerLink):
    """A link whose answers are messages. `on_up` runs on each new connection."""

    def __init__(
        self,
        connector: Connector,
        *,
        name: str = "pub/sub",
        timeout_s: float,
        on_up: Callable[[], None],
        on_message: Callable[[list[Any]], None],
        on_refused: Callable[[str], None] = lambda error: log.warning("Redis refused a subscription: %s", error),
        on_connect: OnConnect | None = None,
    ) -> None:
        super().__init__(connector, name=name, timeout_s=timeout_s, on_connect=on_connect)
        self._on_up = on_up
        self._on_message = on_message
        self._on_refused = on_refused

    def answered(self, reply: Any) -> None:
        if not self.up:
            super().answered(reply)
        elif isinstance(reply, list):
            self._on_message(reply)
        else:
            self._on_refused(str(reply))

    def opened(self) -> None:
        self._on_up()

    def post(self, *command: Word) -> None:
        """Send a command whose answer, if any, comes as a message. Nothing happens while no connection stands."""
        if self.up:
            self.write(command)


class Channel:
    """A channel that somebody listens to; `source` is the server that its messages come from, None if none has it."""

    __slots__ = ("confirmed", "listeners", "source")

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.confirmed = asyncio.Event()
        self.source: Source | None = None

    def tell(self, payload: bytes | None) -> None:
        """Call the listeners."""
        for listener in tuple(self.listeners):
            listener(payload)


class Source:
    """One server that messages come from: a link to it, and a probe that is published there to be heard over the link.

    The probe is published on `control`, so that it takes the path of real messages, which are sharded if `control` is.
    Other processes may probe on the same channel.
    """

    def __init__(
        self,
        connector: Connector,
        control: Link,
        *,
        name: str,
        timeout_s: float,
        on_up: "Callable[[Source], None]",
        on_message: "Callable[[Source, list[Any]], None]",
        on_refused: "Callable[[Source, str], None]",
        on_connect: OnConnect | None,
    ) -> None:
        self._control = control
        self._on_message = on_message
        self._missed = MISSES
        self._mark = secrets.token_hex(4).encode()
        self._probed_s = 0.0
        self._background = Background()
        self.probe = ""
        """The channel of the probe; "" while there is none."""
        self.link = PubSub(
            connector,
            name=name,
            timeout_s=timeout_s,
            on_up=partial(on_up, self),
            on_message=self._message,
            on_refused=partial(on_refused, self),
            on_connect=on_connect,
        )

    @property
    def live(self) -> bool:
        """Whether messages have come through lately, the probe's included."""
        return self.link.up and self._missed < MISSES

    def start(self) -> None:
        """Connect, and probe from now on."""
        self.link.start()
        self._background.start(self._probe_forever(), "pubsub-probe")

    async def close(self) -> None:
        """End the link."""
        await self._background.close()
        await self.link.close()

    def hear_probe(self, payload: bytes | None) -> None:
        """The listener of the probe's channel."""
        if payload == self._mark:
            catalog.HINT_LAG_SECONDS.observe(asyncio.get_running_loop().time() - self._probed_s)

    def _message(self, reply: list[Any]) -> None:
        self._missed = 0
        self._on_message(self, reply)

    async def _probe_forever(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            if self.link.up and self._missed >= MISSES:
                log.warning("the %s link receives nothing; connecting again", self.link.name)
                self.link.reconnect()
            if self.probe:
                await self._publish()

    async def _publish(self) -> None:
        self._missed += 1
        try:
            self._probed_s = asyncio.get_running_loop().time()
            await self._control.call("SPUBLISH" if self._control.sharded else "PUBLISH", self.probe, self._mark)
        except (Outage, RedisFault):
            self._missed -= 1


class Relay(ABC):
    """Subscriptions of this process."""

    def __init__(self, control: Link, *, timeout_s: float, on_connect: OnConnect | None = None) -> None:
        """Messages are sharded if `control` is. Each new connection is set up as a ServerLink's."""
        self._control = control
        self._timeout_s = timeout_s
        self._on_connect = on_connect
        self._shard = "S" if control.sharded else ""
        self._channels: dict[bytes, Channel] = {}

    @property
    @abstractmethod
    def live(self) -> bool:
        """Whether messages come from every server, as far as is known."""

    @abstractmethod
    def deaf(self) -> Sequence[Place]:
        """The primaries of a cluster from which no message comes; none without a cluster."""

    @abstractmethod
    def start(self) -> None:
        """Connect, and probe from now on."""

    @abstractmethod
    async def close(self) -> None:
        """End the links; listeners hear nothing more."""

    @abstractmethod
    def _source_of(self, name: bytes) -> tuple[Source | None, int]:
        """The server that a channel's messages come from, if any, and a number: one command has channels of one."""

    async def subscribe(self, channel: str, listener: Listener, timeout_s: float = 1.0) -> None:
        """Call `listener` with each message from now on, and with None when messages may have been lost.

        Returns when Redis has confirmed, or after `timeout_s` without: then the listener is told None later.
        """
        name = channel.encode()
        self._listen(name, listener)
        try:
            async with asyncio.timeout(timeout_s):
                await self._channels[name].confirmed.wait()
        except TimeoutError:
            log.warning("Redis did not confirm a subscription within %g s", timeout_s)

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Stop calling `listener`; the last one to go ends the subscription."""
        name = channel.encode()
        known = self._channels.get(name)
        if known is None:
            return
        if listener in known.listeners:
            known.listeners.remove(listener)
        if not known.listeners:
            self._leave(name, self._channels.pop(name))

    def _listen(self, name: bytes, listener: Listener) -> None:
        is_new = name not in self._channels
        self._channels.setdefault(name, Channel()).listeners.append(listener)
        if is_new:
            self._subscribe([name])

    def _subscribe(self, names: Iterable[bytes]) -> None:
        """Subscribe where the messages of these channels come from; nowhere else are they heard any more."""
        wanted: dict[tuple[Source, int], list[bytes]] = {}
        for name in names:
            channel = self._channels[name]
            channel.confirmed.clear()
            source, group = self._source_of(name)
            if channel.source is not source:
                self._leave(name, channel)
                channel.source = source
            if source is not None:
                wanted.setdefault((source, group), []).append(name)
        for (source, _), some in wanted.items():
            for i in range(0, len(some), SUBSCRIBE_CHANNELS):
                source.link.post(f"{self._shard}SUBSCRIBE", *some[i : i + SUBSCRIBE_CHANNELS])

    def _leave(self, name: bytes, channel: Channel) -> None:
        if channel.source is not None:
            channel.source.link.post(f"{self._shard}UNSUBSCRIBE", name)

    def _new_source(self, connector: Connector, name: str) -> Source:
        return Source(
            connector,
            self._control,
            name=name,
            timeout_s=self._timeout_s,
            on_up=self._up,
            on_message=self._message,
            on_refused=self._refused,
            on_connect=self._on_connect,
        )

    def _up(self, source: Source) -> None:
        self._subscribe([name for name, channel in self._channels.items() if channel.source is source])

    def _message(self, source: Source, reply: list[Any]) -> None:
        channel = self._channels.get(reply[1])
        if channel is None or channel.source is not source:
            return
        if reply[0] in (b"message", b"smessage"):
            channel.tell(reply[2])
        elif reply[0] in (b"subscribe", b"ssubscribe"):
            channel.confirmed.set()
            channel.tell(None)
        else:
            self._ended(reply[1], channel)

    def _refused(self, source: Source, error: str) -> None:
        log.warning("Redis refused a subscription: %s", error)

    def _ended(self, name: bytes, channel: Channel) -> None:
        """A server has ended a subscription: somebody listens by now who did not when that was asked for."""
        return


class ServerRelay(Relay):
    """Subscriptions at one server."""

    def __init__(
        self,
        connector: Connector,
        control: Link,
        *,
        probe: str,
        timeout_s: float,
        on_connect: OnConnect | None = None,
    ) -> None:
        super().__init__(control, timeout_s=timeout_s, on_connect=on_connect)
        self._source = self._new_source(connector, "pub/sub")
        self._source.probe = probe

    @property
    def live(self) -> bool:
        return self._source.live

    def deaf(self) -> Sequence[Place]:
        return ()

    def start(self) -> None:
        self._listen(self._source.probe.encode(), self._source.hear_probe)
        self._source.start()

    async def close(self) -> None:
        await self._source.close()

    def _source_of(self, name: bytes) -> tuple[Source | None, int]:
        return self._source, 0
