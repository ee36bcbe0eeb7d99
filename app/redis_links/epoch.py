"""Which history of the store this is: an epoch begins when the store may have lost writes that it had answered.

Owns: asking, on every new connection and before anything else goes over it, which server answers; beginning a new
epoch when it is another one than before, or the same one started anew; telling those who watch, and making every link
that still speaks of the old one connect again.

A store that is restarted comes back with what its disk had, a replica that is promoted with what had reached it. What
is missing cannot be seen from what is there: later writes take the same seqs. But the moment at which the new server
was first spoken to lies between the two: what is older survived, what is younger is new. So a position that was given
out in an epoch is good as far as what lies below it is older than the beginning of the next.
A restart after which nothing can be missing, because the append-only file is flushed at every write and there never was
a replica, begins no epoch.
"""

import asyncio
from collections.abc import Callable, Mapping

from app.model.errors import Outage
from app.model.redis_keys import Keys
from app.redis_links.info import parse_info
from app.redis_links.link import Link, RedisFault, ServerLink
from app.redis_links.scripts import SCRIPTS, Scripts

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
NO_REPLICA = "0" * 40


class Epoch:
    """The beginnings of the epochs, in ms on Redis's clock, as far as the store remembers them."""

    def __init__(self, keys: Keys, cluster: Link | None = None) -> None:
        """With a cluster there is one epoch for all of it, which begins when any primary is another one than before.

        It is noted over a link to the cluster that calls nothing of this.
        """
        self._key = keys.epoch
        self._cluster = cluster
        self._began: list[int] = []
        self._is_reticent = False
        self._links: dict[ServerLink, int] = {}
        self._listeners: list[Callable[[], None]] = []

    @property
    def name(self) -> str:
        """The current epoch, as clients know it; "" before the first connection."""
        return spell(self._began[-1]) if self._began else ""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when an epoch begins, before anything of it can be read."""
        self._listeners.append(listener)

    def lost_after(self, name: str) -> int | None:
        """The moment from which on a position of that epoch may be wrong: 0 for one that is unknown, None if never."""
        began = parse(name)
        if began is None or not self._began or began > self._began[-1]:
            return 0
        if began == self._began[-1]:
            return None
        if began < self._began[0]:
            return 0
        return min(moment for moment in self._began if moment > began)

    async def identify(self, link: ServerLink) -> None:
        """Find out, on a new connection, which epoch it is. Raises what the link raises."""
        info = await self._information(link)
        if self._cluster is not None:
            await self._meet(self._cluster, link, info)
            return
        keeps = stands_alone(info) and await flushes_always(link)
        script = SCRIPTS["epoch_mark"]
        (reply,) = await link.at_once(("EVAL", script.text, 1, self._key, info.get("run_id", ""), int(keeps)))
        began = [int(moment) for moment in Scripts.done("epoch_mark", reply)[0].split()]
        self._links[link] = began[-1]
        if not self._began or began[-1] > self._began[-1]:
            self._begin(began)

    async def _meet(self, cluster: Link, link: ServerLink, info: Mapping[str, str]) -> None:
        """A run id alone does not tell a primary that was demoted and promoted again; replication ids do."""
        if info.get("role", "master") != "master":
            return
        keeps = stands_alone(info) and await flushes_always(link)
        run = f"{info.get('run_id', '')}.{info.get('master_replid', '')}"
        reply = await cluster.call("EVAL", SCRIPTS["epoch_meet"].text, 1, self._key, run, int(keeps))
        began = [int(moment) for moment in Scripts.done("epoch_meet", reply)[0].split()]
        if not self._began or began[-1] > self._began[-1]:
            self._begin(began)

    async def _information(self, link: ServerLink) -> dict[str, str]:
        """What INFO tells; nothing when the server keeps it to itself, which then looks as if it never restarted."""
        if self._is_reticent:
            return {}
        try:
            (info,) = await link.at_once(("INFO",))
        except RedisFault:
            self._is_reticent = True
            return {}
        return parse_info(info)

    def _begin(self, began: list[int]) -> None:
        is_first = not self._began
        self._began = began
        if is_first:
            return
        for listener in self._listeners:
            listener()
        for link, seen in self._links.items():
            if seen != began[-1]:
                asyncio.get_running_loop().call_soon(link.reconnect)


def stands_alone(info: Mapping[str, str]) -> bool:
    """Whether the server has an append-only file, and no other could have taken or could take its place."""
    is_primary = info.get("connected_slaves") == "0" and info.get("master_replid2") == NO_REPLICA
    return is_primary and info.get("aof_enabled") == "1"


async def flushes_always(link: ServerLink) -> bool:
    """Whether the append-only file is flushed at every write, as far as the server tells."""
    try:
        (policy,) = await link.at_once(("CONFIG", "GET", "appendfsync"))
    except (Outage, RedisFault):
        return False
    return bool(policy[1:] == [b"always"])


def spell(moment_ms: int) -> str:
    """An epoch as clients know it."""
    text = ""
    while moment_ms:
        moment_ms, digit = divmod(moment_ms, 36)
        text = DIGITS[digit] + text
    return text


def parse(name: str) -> int | None:
    """The beginning that a name stands for; None for a text that is none."""
    if not 1 <= len(name) <= 12 or not name.isascii() or not name.isalnum() or name != name.lower():
        return None
    return int(name, 36)
