"""Expired lease keys, as Redis tells of them: a hint that makes the sweeper look earlier.

Redis deletes expired keys when they are touched or when its sampling finds them, and tells of them only then: the
message may come late. Every node of a cluster tells of its own keys.
https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/
"""

import asyncio
import contextlib
import logging
import re
from collections import defaultdict
from typing import Any

from app.loop.attempts import OutageNotice
from app.loop.background import Background
from app.model.errors import Outage
from app.model.redis_keys import Keys
from app.redis_links.link import Link, RedisFault, ServerLink
from app.redis_links.pubsub import PubSub
from app.redis_links.topology import Topology

log = logging.getLogger("jobwire.sweeper")

FLAGS = "Kx"


class LeaseNotifications:
    """Spaces in which a lease key expired, as Redis told of them."""

    def __init__(self, control: Link, keys: Keys, topology: Topology | None = None) -> None:
        """Listens to each server that `control` leads to; to those of a cluster, as its topology changes."""
        self._control = control
        self._topology = topology
        self._keys = keys
        self._pattern = f"__keyspace@*__:{keys.lease('*', '*')}"
        self._space = re.compile(rb":\{(\w+)\}:lease:")
        self._links: dict[ServerLink, PubSub] = {}
        self._leaving: set[PubSub] = set()
        self._spaces: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._heard: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._background = Background()

    def start(self) -> None:
        """Listen from now on."""
        if self._topology is not None:
            self._topology.on_change(self._follow)
        self._follow()

    async def close(self) -> None:
        """Listen no more."""
        if self._topology is not None:
            self._topology.stop_telling(self._follow)
        links, self._links = [*self._links.values(), *self._leaving], {}
        await asyncio.gather(*(link.close() for link in links))
        await self._background.close()

    def pop_spaces(self, tag: str = "") -> list[str]:
        """The spaces of the server with that tag in which a lease key expired since this was last asked."""
        self._heard[tag].clear()
        return list(self._spaces.pop(tag, ()))

    async def wait_for_one(self, tag: str, most_s: float) -> None:
        """Return when a lease key expired on the server with that tag, at the latest after `most_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._heard[tag].wait()

    def _follow(self, slot: int | None = None) -> None:
        """Listen to the servers that there are now, and to no others."""
        servers = self._control.servers()
        for server in servers:
            if server not in self._links:
                self._listen(server)
        for gone in self._links.keys() - set(servers):
            self._leaving.add(link := self._links.pop(gone))
            self._background.start(self._leave(link), "lease-notifications-close")

    async def _leave(self, link: PubSub) -> None:
        await link.close()
        self._leaving.discard(link)

    def _listen(self, server: ServerLink) -> None:
        name = f"lease notifications {server.place}" if server.place else "lease notifications"
        sends = f"{server.place}: Redis sends" if server.place else "Redis sends"
        notice = OutageNotice(
            log,
            f"{sends} no notifications of expired leases (%s); the sweeper uses the deadlines instead",
            f"{sends} notifications of expired leases again",
        )

        def up() -> None:
            link.post("PSUBSCRIBE", self._pattern)
            self._background.start(self._switch_on(server, notice), "lease-notifications-switch")

        link = PubSub(server.connector, name=name, timeout_s=server.timeout_s, on_up=up, on_message=self._message)
        self._links[server] = link
        link.start()

    def _message(self, reply: list[Any]) -> None:
        if reply[0] != b"pmessage" or reply[3] != b"expired":
            return
        match = self._space.search(reply[2])
        if match:
            space = match[1].decode()
            tag = self._control.tag_of(self._keys.space(space))
            self._spaces[tag][space] = None
            self._heard[tag].set()

    async def _switch_on(self, server: ServerLink, notice: OutageNotice) -> None:
        """Add our flags to the server's own; where CONFIG is forbidden, say so once and go on without."""
        try:
            reply = await server.call("CONFIG", "GET", "notify-keyspace-events")
            flags = reply[1].decode()
            missing = [flag for flag in FLAGS if flag not in flags and not (flag == "x" and "A" in flags)]
            if missing:
                await server.call("CONFIG", "SET", "notify-keyspace-events", flags + "".join(missing))
        except (Outage, RedisFault) as error:
            notice.away(error)
        else:
            notice.back()
