"""The process's one pub/sub link: channels in, listeners called.

Owns: which channels this process hears, subscribing again after a reconnect, and noticing that the link went deaf.
Never: trusts a message to arrive. A message is a hint; whoever listens is told `None` when hints may have been lost,
and then reads from the store.
https://redis.io/docs/latest/develop/pubsub/
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from app.loop.background import Background
from app.metrics import catalog
from app.model.errors import Outage
from app.redis_links.dialling import Connector
from app.redis_links.link import Link, RedisFault, ServerLink, Word

log = logging.getLogger("jobwire.relay")

Listener = Callable[[bytes | None], None]

PROBE_S = 0.5
SUBSCRIBE_CHANNELS = 500
"""Channels of one SUBSCRIBE after a reconnect."""

MISSES = 2
"""Probes in a row that were published and not heard after which the link counts as deaf."""


class PubSub(ServerLink):
    """A link whose answers are messages. `on_up` runs on each new connection, `on_message` for each message."""

    def __init__(
        self,
        connector: Connector,
        *,
        timeout_s: float,
        on_up: Callable[[], None],
        on_message: Callable[[list[Any]], None],
        on_connect: Callable[[ServerLink], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(connector, name="pub/sub", timeout_s=timeout_s, on_connect=on_connect)
        self._on_up = on_up
        self._on_message = on_message

    def answered(self, reply: Any) -> None:
        if not self.up:
            super().answered(reply)
        elif isinstance(reply, list):
            self._on_message(reply)
        else:
            log.warning("Redis refused a subscription: %s", reply)

    def opened(self) -> None:
        self._on_up()

    def post(self, *command: Word) -> None:
        """Send a command whose answer, if any, comes as a message. Nothing happens while no connection stands."""
        if self.up:
            self.write(command)


class Relay:
    """Subscriptions of this process. The probe is published on `control`, so that it takes the path of real messages,
    which are sharded if `control` is.
    """

    def __init__(
        self,
        connector: Connector,
        control: Link,
        *,
        probe: str,
        timeout_s: float,
        on_connect: Callable[[ServerLink], Awaitable[None]] | None = None,
    ) -> None:
        self._control = control
        self._shard = "S" if control.sharded else ""
        self._probe = probe
        self._listeners: dict[bytes, list[Listener]] = {}
        self._confirmed: dict[bytes, asyncio.Event] = {}
        self._link = PubSub(
            connector, timeout_s=timeout_s, on_up=self._up, on_message=self._message, on_connect=on_connect
        )
        self._missed = MISSES
        self._name = secrets.token_hex(4).encode()
        self._probed_s = 0.0
        self._background = Background()

    @property
    def live(self) -> bool:
        """Whether messages have come through lately, the probe's included."""
        return self._link.up and self._missed < MISSES

    def start(self) -> None:
        """Connect, and probe from now on."""
        self._listeners[self._probe.encode()] = [self._hear_probe]
        self._confirmed[self._probe.encode()] = asyncio.Event()
        self._link.start()
        self._background.start(self._probe_forever(), "pubsub-probe")

    async def close(self) -> None:
        """End the link; listeners hear nothing more."""
        await self._background.close()
        await self._link.close()

    async def subscribe(self, channel: str, listener: Listener, timeout_s: float = 1.0) -> None:
        """Call `listener` with each message from now on, and with None when messages may have been lost.

        Returns when Redis has confirmed, or after `timeout_s` without: then the listener is told None later.
        """
        name = channel.encode()
        if name not in self._listeners:
            self._listeners[name] = []
            self._confirmed[name] = asyncio.Event()
            self._link.post(f"{self._shard}SUBSCRIBE", channel)
        self._listeners[name].append(listener)
        try:
            async with asyncio.timeout(timeout_s):
                await self._confirmed[name].wait()
        except TimeoutError:
            log.warning("Redis did not confirm a subscription within %g s", timeout_s)

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        """Stop calling `listener`; the last one to go ends the subscription."""
        name = channel.encode()
        listeners = self._listeners.get(name, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners and name in self._listeners:
            del self._listeners[name], self._confirmed[name]
            self._link.post(f"{self._shard}UNSUBSCRIBE", channel)

    def _up(self) -> None:
        for confirmed in self._confirmed.values():
            confirmed.clear()
        names = tuple(self._listeners)
        for i in range(0, len(names), SUBSCRIBE_CHANNELS):
            self._link.post(f"{self._shard}SUBSCRIBE", *names[i : i + SUBSCRIBE_CHANNELS])

    def _message(self, reply: list[Any]) -> None:
        kind, channel = reply[0], reply[1]
        self._missed = 0
        if kind in (b"message", b"smessage"):
            self._tell(channel, reply[2])
        elif kind in (b"subscribe", b"ssubscribe") and channel in self._confirmed:
            self._confirmed[channel].set()
            self._tell(channel, None)

    def _tell(self, channel: bytes, payload: bytes | None) -> None:
        for listener in tuple(self._listeners.get(channel, ())):
            listener(payload)

    def _hear_probe(self, payload: bytes | None) -> None:
        """Other processes probe on the same channel."""
        if payload == self._name:
            catalog.HINT_LAG_SECONDS.observe(asyncio.get_running_loop().time() - self._probed_s)

    async def _probe_forever(self) -> None:
        while True:
            await asyncio.sleep(PROBE_S)
            if self._link.up and self._missed >= MISSES:
                log.warning("the pub/sub link receives nothing; connecting again")
                self._link.reconnect()
            self._missed += 1
            try:
                self._probed_s = asyncio.get_running_loop().time()
                await self._control.call(f"{self._shard}PUBLISH", self._probe, self._name)
            except (Outage, RedisFault):
                self._missed -= 1
