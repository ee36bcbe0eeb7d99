"""The map of a cluster: which primary has which slot.

Owns: the map, and asking the nodes for it, beside the calls: one at a time, at most once a second, any node. A map of
very many pieces costs the node that tells it milliseconds, so it is asked for when the cluster's epoch is another one,
when something contradicted it (whoever meets that calls `doubt`, or `moved` if a node told better), or when it is old:
a slot that is moved key by key to the node with the greatest epoch leaves the epoch as it is.

Never: carries a call. What it knows may be old; whoever sends a command to the wrong node is told so, and nothing ran.
https://valkey.io/topics/cluster-spec/
"""

import asyncio
import contextlib
import itertools
import logging
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any
from zlib import crc32

from redis.asyncio.connection import Connection
from redis.crc import key_slot
from redis.exceptions import RedisError

from app.loop.attempts import BugNotice
from app.loop.background import Background
from app.redis_links.dialling import ByCluster, Connector, Place
from app.redis_links.info import parse_info
from app.redis_links.reasons import by_reason, reason

log = logging.getLogger("jobwire.redis")

SLOTS = 16_384

REFRESH_S = 1.0
"""The shortest time between two questions."""

LOOK_S = 2.0
"""The longest."""

MAP_S = 10.0
"""How old a map becomes at most, but for one of very many pieces."""

JITTER = 0.25
"""The part of these by which processes differ, so that not all ask at the same moment."""

ASK_S = 1.0
"""How long a node may take to tell."""

PIECE_S = 0.0001
"""A map of many pieces is asked for the more seldom: a node takes 2 us to tell a piece, and shall take a fiftieth of
its time for all of that."""


def slot_of(key: bytes | str) -> int:
    """The slot of a key."""
    slot: int = key_slot(key if isinstance(key, bytes) else key.encode())
    return slot


_SHORT: dict[int, int] = {}
"""The first number of up to three digits in a slot, if there is one."""

_ENDS: dict[int, int] = {}
"""The first three digits, zeros included, that lie in a slot behind zero bytes."""

for _number in range(1000):
    _SHORT.setdefault(slot_of(b"%d" % _number), _number)
    _ENDS.setdefault(slot_of(b"%03d" % _number), _number)


@lru_cache(SLOTS)
def tag_of(slot: int) -> str:
    """The first number that, as a hash tag, lies in a slot; it takes some 15 us.

    The CRC of two texts of one length, added bit by bit, is that of their sum. So the last three digits are looked up
    for each beginning, instead of tried: some 16 looks and not some 16,000 tries.
    """
    if slot in _SHORT:
        return str(_SHORT[slot])
    for beginning in itertools.count(1):
        end = _ENDS.get(slot ^ slot_of(b"%d\0\0\0" % beginning))
        if end is not None:
            return str(1000 * beginning + end)
    raise AssertionError


TAG_ORDER = sorted(range(SLOTS), key=lambda slot: crc32(b"%d" % slot))
"""A primary's tag is of the first of its slots in this order, which every process knows.

Slots are moved in the order of their numbers, often one by one. So the tag changes some ten times while a primary is
emptied or filled: a tag of the lowest slot would change each time, and with it the probe, and who sweeps there.
"""


Change = Callable[[int | None], None]


class Node(Connector):
    """Connections to one node of a cluster."""

    def __init__(self, cluster: ByCluster, place: Place) -> None:
        self._cluster = cluster
        self._place = place

    async def connect(self) -> Connection:
        return await self._cluster.connect_to(self._place)


UNREAD = "No node has been asked yet."
UNREADABLE_MAP = "What a node told could not be read: this is a bug in jobwire. It has been logged."
UNFORMED = "The nodes serve no slot: they have not been made a cluster."


class MapUnknown(Exception):
    """No node tells the map; `problems` has a sentence for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


class Topology:
    """The map as this process knows it."""

    def __init__(self, cluster: ByCluster) -> None:
        self._cluster = cluster
        self._owners: list[Place | None] = [None] * SLOTS
        self._tags: dict[Place, str] = {}
        self._news = 0
        self._led_away: set[Place] = set()
        self._led_back: Counter[Place] = Counter()
        self._nodes: list[Place] = []
        self._epoch = -1
        self._taken_s = 0.0
        self._doubt = asyncio.Event()
        self._pieces = 0
        self._changed = asyncio.Event()
        self._listeners: list[Change] = []
        self._background = Background()
        self.primaries: tuple[Place, ...] = ()
        self.problems = [UNREAD]
        """Why the map is not known, or was not told the last time that it was asked for; none if all is well."""

    def start(self) -> None:
        """Ask for the map, and keep it up to date from now on."""
        self._background.start(self._follow(), "cluster-topology")

    async def close(self) -> None:
        """Ask no more."""
        await self._background.close()

    def owner(self, slot: int) -> Place | None:
        """The primary of a slot; None if the slot has none, or before the map is known."""
        return self._owners[slot]

    def tag_on(self, place: Place) -> str:
        """A hash tag whose keys lie on a primary, the same for as long as possible; "" if it has no slots."""
        if place not in self._tags:
            slot = next((slot for slot in TAG_ORDER if self._owners[slot] == place), None)
            self._tags[place] = "" if slot is None else tag_of(slot)
        return self._tags[place]

    def term(self, place: Place) -> int:
        """A number, another one whenever a node may have been made a replica and a primary again since before."""
        return self._news + self._led_back[place]

    def slot_count(self, place: Place) -> int:
        """How many slots a primary has."""
        return self._owners.count(place)

    def node(self, place: Place) -> Connector:
        """Connections to one node."""
        return Node(self._cluster, place)

    def on_change(self, listener: Change) -> None:
        """Call `listener` whenever slots have another owner than before: with the slot, or with None if any may."""
        self._listeners.append(listener)

    def stop_telling(self, listener: Change) -> None:
        """Undo `on_change`; nothing happens if that was not called."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def changed(self) -> Coroutine[Any, Any, object]:
        """Wait until slots have another owner than at this moment, also if the waiting begins later."""
        return self._changed.wait()

    def doubt(self) -> None:
        """Something contradicts the map: ask for it soon."""
        self._doubt.set()

    def moved(self, slot: int, place: Place, by: Place) -> None:
        """A node, `by`, has told who owns a slot.

        A primary that was a replica in between has led away before others lead to it again. One that is only given
        slots has not: while thousands of them move, its role is in no doubt.
        """
        self.doubt()
        self._led_away.add(by)
        before = self._owners[slot]
        if before != place:
            self._owners[slot] = place
            self._tags.pop(place, None)
            if before is not None:
                self._tags.pop(before, None)
            if place in self._led_away or place not in self.primaries:
                self._led_away.discard(place)
                self._led_back[place] += 1
            if place not in self.primaries:
                self.primaries = (*self.primaries, place)
            self._tell(slot)

    def _tell(self, slot: int | None) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for listener in tuple(self._listeners):
            listener(slot)

    # Asking

    async def _follow(self) -> None:
        """Ask at once, then now and then, and soon when there is doubt."""
        loop, told = asyncio.get_running_loop(), False
        bugs = BugNotice(
            log,
            "reading the map of the Redis cluster failed; it is tried again",
            "the map of the Redis cluster is read again",
        )
        while True:
            begun_s = loop.time()
            try:
                await self._refresh()
                told, self.problems = False, [] if self.primaries else [UNFORMED]
                bugs.over()
            except MapUnknown as unknown:
                if not told:
                    log.warning("no node of the Redis cluster tells which slots it has: %s", unknown)
                told, self.problems = True, unknown.problems
                self._doubt.set()
            except Exception as error:
                self.problems = [UNREADABLE_MAP]
                bugs.failed(error)
                self._doubt.set()
            if loop.time() - self._taken_s > max(MAP_S, 100 * PIECE_S * self._pieces):
                self._doubt.set()
            least_s = max(REFRESH_S, PIECE_S * self._pieces) if self.primaries else REFRESH_S / 4
            await asyncio.sleep(jittered(begun_s + least_s - loop.time()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(jittered(LOOK_S - REFRESH_S)):
                    await self._doubt.wait()
                    await asyncio.sleep(random.uniform(0, JITTER / 4))

    async def _refresh(self) -> None:
        """Ask one node after the other until one tells that is not behind. Raises MapUnknown, or a bug."""
        behind: list[tuple[int, Place]] = []
        failures: dict[str, list[Place]] = {}
        bug: Exception | None = None
        doubted = self._doubt.is_set()
        for place in self._in_any_order():
            try:
                async with asyncio.timeout(ASK_S):
                    epoch = await self._ask(place, least=self._epoch)
            except Exception as error:  # whatever one node tells, another one may tell better
                if isinstance(error, (RedisError, OSError)):
                    failures.setdefault(reason(error, by_tls=self._cluster.by_tls), []).append(place)
                else:
                    bug = error
                if doubted:
                    self._doubt.set()
                continue
            if epoch >= self._epoch:
                self._epoch = epoch
                return
            behind.append((epoch, place))
        if not behind:
            raise bug or MapUnknown(by_reason(failures))
        # All are behind: this is another cluster than it was.
        self._epoch = max(epoch for epoch, _ in behind) - 1
        self._doubt.set()

    def _in_any_order(self) -> list[Place]:
        known = list(dict.fromkeys([*self._nodes, *self._cluster.seeds]))
        return random.sample(known, len(known))

    async def _ask(self, place: Place, *, least: int) -> int:
        """The epoch that a node knows; its map is taken if that is worth it: see above."""
        connection = await self._cluster.connect_to(place)
        try:
            info = parse_info(await ask(connection, "INFO"))
            epoch = int(info["cluster_current_epoch"])
            if info["cluster_state"] != "ok" and self.primaries:
                raise RedisError("it says that the cluster does not work")
            if epoch > least or (epoch == least and self._doubt.is_set()):
                self._doubt.clear()
                slots = await ask(connection, "SLOTS")
                self._pieces, self._taken_s = len(slots), asyncio.get_running_loop().time()
                self._take(place, slots, is_news=epoch > least)
            return epoch
        finally:
            await connection.disconnect(nowait=True)

    def _take(self, told_by: Place, slots: list[Any], *, is_news: bool) -> None:
        """When the cluster's epoch is another one, any node may have been in another role in between."""
        owners: list[Place | None] = [None] * SLOTS
        nodes: dict[Place, None] = {}
        primaries: dict[Place, None] = {}
        for first, last, *held_by in slots:
            if not 0 <= first <= last < SLOTS:
                raise ValueError(f"there are no slots {first} to {last}")
            primary, *_ = places = [place_told(node[0], node[1], told_by) for node in held_by]
            nodes.update(dict.fromkeys(places))
            primaries[primary] = None
            owners[first : last + 1] = [primary] * (last + 1 - first)
        self._nodes = list(nodes)
        if is_news:
            self._news += 1
        if is_news or owners != self._owners or set(primaries) != set(self.primaries):
            self._owners, self.primaries = owners, tuple(primaries)
            self._tags.clear()
            self._tell(None)


async def ask(connection: Connection, what: str) -> Any:
    """The reply to CLUSTER INFO, CLUSTER SLOTS. Raises RedisError, OSError."""
    await connection.send_command("CLUSTER", what)
    return await connection.read_response()


def place_told(host: bytes | str | None, port: int, told_by: Place) -> Place:
    """Where a node says that a node is. A host that it does not know, or keeps to itself, is the one that was asked."""
    name = host.decode() if isinstance(host, bytes) else host or ""
    return Place(told_by.host if name in ("", "?") else name, port)


def place_led_to(text: str, told_by: Place) -> Place:
    """Where a redirection leads to, `host:port`."""
    host, _, port = text.rpartition(":")
    return place_told(host.strip("[]"), int(port), told_by)


def jittered(pause_s: float) -> float:
    """About that long."""
    return max(0.0, pause_s) * random.uniform(1, 1 + JITTER)
