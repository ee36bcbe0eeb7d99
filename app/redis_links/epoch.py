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
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from app.model.errors import Outage, Unavailable, unavailable
from app.model.redis_keys import Keys
from app.redis_links.dialling import Place
from app.redis_links.info import parse_info
from app.redis_links.link import REDIS_REFUSALS, RedisFault, ServerLink
from app.redis_links.reasons import NODE_OF_CLUSTER
from app.redis_links.scripts import SCRIPTS, Scripts

log = logging.getLogger("jobwire.redis")

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
NO_REPLICA = "0" * 40


class Beginning(NamedTuple):
    """An epoch: the number that orders epochs, and the moment at which it began, on the clock of its server, in ms."""

    number: int
    at_ms: int


class Epoch(ABC):
    """The beginnings of the epochs, as far as the store remembers them. A key stands for what lies where it does."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    @abstractmethod
    async def identify(self, link: ServerLink) -> None:
        """Find out, on a new connection, which epoch it is. Raises what the link raises."""

    @abstractmethod
    def _all(self) -> Sequence[Beginning]:
        """All beginnings, oldest first."""

    @abstractmethod
    def _newest_of(self, key: str) -> Beginning | None:
        """The last at which something may have been lost there. Every watch asks for it whenever an epoch begins."""

    @abstractmethod
    def _later_of(self, key: str, number: int) -> Iterable[Beginning]:
        """Those at which something may have been lost there, later than that number."""

    def name_of(self, *keys: str) -> str:
        """The current epoch there, as clients know it; "" before the first connection."""
        newest = max((newest for key in keys if (newest := self._newest_of(key)) is not None), default=None)
        if newest is None:
            newest = next(iter(self._all()), None)
        return "" if newest is None else spell(newest.number)

    async def close(self) -> None:
        """End what runs beside the calls."""
        return

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` when an epoch begins, before anything of it can be read."""
        self._listeners.append(listener)

    async def lost_after(self, name: str, key: str) -> int | None:
        """The moment from which on a position of that epoch may be wrong: 0 for one that is unknown, None if never."""
        number, known = parse(name), self._all()
        if number is None or not known or not known[0].number <= number <= known[-1].number:
            return 0
        return min((later.at_ms for later in self._later_of(key, number)), default=None)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


class ServerEpoch(Epoch):
    """The epochs of one server."""

    def __init__(self, keys: Keys) -> None:
        super().__init__()
        self._key = keys.epoch
        self._beginnings: list[Beginning] = []
        self._links: dict[ServerLink, Beginning] = {}
        self._information = Information()

    def _all(self) -> Sequence[Beginning]:
        return self._beginnings

    def _newest_of(self, key: str) -> Beginning | None:
        return self._beginnings[-1] if self._beginnings else None

    def _later_of(self, key: str, number: int) -> Iterable[Beginning]:
        return (beginning for beginning in self._beginnings if beginning.number > number)

    async def identify(self, link: ServerLink) -> None:
        info = await self._information.ask(link)
        if info.get("cluster_enabled") == "1":
            raise unavailable(NODE_OF_CLUSTER)  # it has some of the slots, and may lose those
        keeps = stands_alone(info) and await flushes_always(link)
        script = SCRIPTS["epoch_mark"]
        (reply,) = await link.at_once(("EVAL", script.text, 1, self._key, info.get("run_id", ""), int(keeps)))
        moments = [int(moment) for moment in Scripts.done("epoch_mark", reply)[0].split()]
        beginnings = [Beginning(moment, moment) for moment in moments]
        self._links[link] = beginnings[-1]
        if not self._beginnings or beginnings[-1] > self._beginnings[-1]:
            self._begin(beginnings)

    def _begin(self, beginnings: list[Beginning]) -> None:
        is_first = not self._beginnings
        self._beginnings = beginnings
        if is_first:
            return
        self._tell()
        for link, seen in self._links.items():
            if seen != beginnings[-1]:
                asyncio.get_running_loop().call_soon(link.reconnect)


class Information:
    """INFO of servers."""

    def __init__(self) -> None:
        self._refused_by: set[Place | None] = set()

    async def ask(self, link: ServerLink) -> dict[str, str]:
        """What INFO tells; nothing when the server keeps it to itself, which then looks as if it never restarted.

        Raises what the link raises, so also any other refusal: the next connection is asked anew.
        """
        try:
            (info,) = await link.at_once(("INFO",))
        except (RedisFault, Unavailable) as refusal:
            if not lasts(refusal):
                raise
            if link.place not in self._refused_by:
                self._refused_by.add(link.place)
                log.warning("%s refuses INFO: whether a restart or a failover lost writes is not noticed", link.name)
            return {}
        self._refused_by.discard(link.place)
        return parse_info(info)


def lasts(refusal: Exception) -> bool:
    """Whether the server will refuse the command until somebody changes its configuration."""
    return str(refusal).startswith("ERR unknown command") or (
        isinstance(refusal, Unavailable) and refusal.why == REDIS_REFUSALS["NOPERM"]
    )


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
