"""The shards of a cluster, each with what its primary says of itself.

Owns: asking all of them at once; one that is away, or stands still, delays nobody for longer than LOOK_AT_SHARD_S.
Never: raises because of a shard; what is wrong with it is its `why`.
"""

import asyncio
from typing import NamedTuple

from app.model.errors import Outage
from app.model.redis_keys import Keys
from app.redis_links.info import parse_info
from app.redis_links.link import Link, RedisFault, ServerLink
from app.redis_links.pubsub import Relay
from app.redis_links.scripts import Scripts
from app.redis_links.server_advice import policy_problem
from app.redis_links.topology import Topology

LOOK_AT_SHARD_S = 1.0

DEAF = "Pub/sub does not work: no message comes back from it."

TOLD = ("connected_clients", "used_memory", "maxmemory")
"""What Shard has of INFO."""


class Shard(NamedTuple):
    """One primary, `host:port`: what is wrong with it, or "".

    And whether there is a link to it, whether no message comes from it, and how many slots it has.
    Connections, memory in use and the limit of that (0: none) are None for one that does not tell.
    """

    server: str
    why: str
    is_up: bool
    is_deaf: bool
    slots: int
    connections: int | None
    used_bytes: int | None
    most_bytes: int | None


class ShardHealth:
    """The shards of the cluster that `control` leads to, and whose messages `relay` hears."""

    def __init__(self, control: Link, topology: Topology, relay: Relay, keys: Keys) -> None:
        self._control = control
        self._scripts = Scripts(control)
        self._topology = topology
        self._relay = relay
        self._keys = keys

    async def look(self) -> list[Shard]:
        """Every shard, by its address; none before the map of the cluster is known."""
        tags = self._control.tags()
        return sorted(await asyncio.gather(*map(self._look_at, tags, tags.values())))

    async def _look_at(self, server: ServerLink, tag: str) -> Shard:
        assert server.place is not None
        info: dict[str, str] = {}
        is_deaf = server.place in self._relay.deaf()
        try:
            async with asyncio.timeout(LOOK_AT_SHARD_S):
                info = parse_info(await server.call("INFO", "memory", "clients"))
                await self._scripts.run("ready_probe", [self._keys.ready_probe_of(tag)], [])
            why = policy_problem(info) or (DEAF if is_deaf else "")
        except TimeoutError:
            why = f"Redis did not answer within {LOOK_AT_SHARD_S:g} s."
        except (Outage, RedisFault) as error:
            told = error.why if isinstance(error, Outage) else str(error)
            why = f"A script could not run: {told}" if info else " ".join(filter(None, (told, server.why)))
        numbers = (int(info[name]) if name in info else None for name in TOLD)
        slots = self._topology.slot_count(server.place)
        return Shard(str(server.place), why, server.up, is_deaf, slots, *numbers)
