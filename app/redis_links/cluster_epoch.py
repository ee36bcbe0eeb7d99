"""The epochs of a cluster: each primary begins anew by itself, and only what lies there may have lost something.

Owns: asking each primary who it is, before anything else goes over a connection: over each new one, and over one from
before when its server may have been a replica in between (app/redis_links/cluster.py, `_follow`); noting that nobody
has met it in this role, and in which slots that begins an epoch. A run id alone does not tell a primary that was
demoted and promoted again; its replication id does.

A beginning is of slots and not of a server, for slots move: what may have been lost lay in the slots that the server
had, wherever they are later. The numbers of epochs are given out by one hash, so that they have one order. The shard of
that hash may itself lose what it had noted, so whoever meets a primary brings all that is known.

Never: cuts links. Those to other primaries have nothing to do with it, and those to the server before have broken.
Never: waits long for the hash. If its shard is away, the epoch begins without it, and is noted later.
"""

import asyncio
import itertools
import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from app.loop.background import Background
from app.model.errors import Outage, unavailable
from app.model.redis_keys import Keys
from app.redis_links.epoch import Beginning, Epoch, Information, flushes_always, parse, stands_alone
from app.redis_links.info import parse_info
from app.redis_links.link import Link, ServerLink, ServerMoved
from app.redis_links.scripts import SCRIPTS, Scripts
from app.redis_links.topology import SLOTS, slot_of

NOTE_S = 3.0
"""For how long a new connection is tried again while the shard of the hash is away, before the epoch begins without."""

NOTE_AGAIN_S = 1.0

UNNOTED_NUMBERS = 1_000_000
"""Above the newest epoch and the clock, an epoch that is not noted yet takes any of so many numbers: another process,
which meets another primary meanwhile, takes another. One number has one field, and what a second epoch lost would not
be told."""

READ_AGAIN_S = 0.5
"""Between two reads of the hash for positions whose epoch is not known here."""

FAR_MS = 7 * 86_400_000
"""What lies so far beyond the newest epoch and the clock of this host is the number of no epoch."""

KEPT = 1000
"""Beginnings that are remembered; lua/epoch_meet.lua has the same number."""

FIELD = re.compile(rb"began:(\d+)")


class Role(NamedTuple):
    """A primary as it is now: its node id, its run and replication ids, whether a start of it loses nothing, its slots,
    and the time on its clock in ms."""

    node: str
    run: str
    keeps: bool
    slots: str
    at_ms: int


class Known(NamedTuple):
    """A beginning, and the slots that it is of."""

    beginning: Beginning
    slots: str
    ranges: tuple[range, ...]


class ClusterEpoch(Epoch):
    """The epochs of all primaries. `marker` is a link to the cluster that does not call `identify` itself."""

    def __init__(self, keys: Keys, marker: Link) -> None:
        super().__init__()
        self._key = keys.epoch
        self._marker = marker
        self._known: dict[int, Known] = {}
        """By number, oldest first."""
        self._newest: list[Beginning | None] = [None] * SLOTS
        """By slot."""
        self._is_whole = False
        self._met: set[str] = set()
        self._waits_since_s: dict[str, float] = {}
        self._information = Information()
        self._next_read: asyncio.Task[None] | None = None
        self._reading = asyncio.Lock()
        self._read_again_s = 0.0
        self._background = Background()

    async def close(self) -> None:
        """Note nothing more."""
        await self._background.close()

    def _all(self) -> Sequence[Beginning]:
        return [known.beginning for known in self._known.values()]

    def _newest_of(self, key: str) -> Beginning | None:
        newest = self._newest[slot_of(key)]
        return newest if newest is not None and newest.number in self._known else None

    def _later_of(self, key: str, number: int) -> Iterable[Beginning]:
        slot = slot_of(key)
        later = itertools.takewhile(lambda known: known.beginning.number > number, reversed(self._known.values()))
        return (known.beginning for known in later if any(slot in some for some in known.ranges))

    async def lost_after(self, name: str, key: str) -> int | None:
        """As everywhere. The hash is read if the position is of an epoch that only another process knows so far.

        Raises Unavailable if that could be, and the shard of the hash is away: to call it lost may be wrong.
        """
        number, newest = parse(name), max(self._known, default=0)
        if number is not None and newest < number < max(newest, int(time.time() * 1000)) + FAR_MS:
            await self._read_anew()
        if number is not None and number < min(self._known, default=0) and not self._is_whole:
            return min((later.at_ms for later in self._later_of(key, number)), default=None)
        return await super().lost_after(name, key)

    async def _read_anew(self) -> None:
        """Learn what the hash has at this moment or later: one read at a time, shared by all who ask before it."""
        if self._next_read is None:
            self._next_read = self._background.start(self._read(), "epoch-read")
        await asyncio.shield(self._next_read)

    async def _read(self) -> None:
        now_s = asyncio.get_running_loop().time
        async with self._reading:
            await asyncio.sleep(self._read_again_s - now_s())
            self._next_read = None  # who asks from now on may be ahead of what this one finds
            try:
                self._learn(await self._marker.call("HGETALL", self._key))
            finally:
                self._read_again_s = now_s() + READ_AGAIN_S

    async def identify(self, link: ServerLink) -> None:
        info = await self._information.ask(link)
        if info.get("role", "master") != "master":
            raise ServerMoved("it is a replica now, and has no slots of its own")
        run = f"{info.get('run_id', '')}.{info.get('master_replid', '')}"
        if info and run in self._met:
            return
        role = await self._role(link, run, info)
        now_s = asyncio.get_running_loop().time()
        if now_s - self._waits_since_s.setdefault(run, now_s) < NOTE_S:
            await self._note(role)
        else:
            self._begin_unnoted(role)
        self._waits_since_s.pop(run, None)
        self._met.add(run)

    async def _role(self, link: ServerLink, run: str, info: Mapping[str, str]) -> Role:
        """A node that has just started may not know yet that another one has its slots: then its cluster is not ok."""
        keeps = stands_alone(info) and await flushes_always(link)
        state, nodes, (seconds, micros) = await link.at_once(("CLUSTER", "INFO"), ("CLUSTER", "NODES"), ("TIME",))
        if parse_info(state)["cluster_state"] != "ok":
            raise unavailable("The Redis cluster is down.")
        node, slots = myself(nodes.decode())
        return Role(node, run, keeps, slots, int(seconds) * 1000 + int(micros) // 1000)

    async def _note(self, role: Role) -> None:
        known = [word for number, one in self._known.items() for word in (number, f"{one.beginning.at_ms} {one.slots}")]
        reply = await self._marker.call(
            "EVAL",
            SCRIPTS["epoch_meet"].text,
            1,
            self._key,
            *(role.node, role.run, int(role.keeps), role.slots, role.at_ms),
            *known,
        )
        self._learn(Scripts.done("epoch_meet", reply))

    def _begin_unnoted(self, role: Role) -> None:
        if role.slots and not role.keeps:
            number = max([role.at_ms, *self._known]) + random.randint(1, UNNOTED_NUMBERS)
            self._take({number: known_from(number, f"{role.at_ms} {role.slots}")})
        self._background.start(self._note_later(role._replace(slots="")), "epoch-note")

    async def _note_later(self, role: Role) -> None:
        """Without its slots, the role begins no epoch: that which has begun is among those that are known."""
        while True:
            await asyncio.sleep(NOTE_AGAIN_S)
            try:
                return await self._note(role)
            except Outage:
                continue

    def _learn(self, flat: Sequence[Any]) -> None:
        """What the hash has: names of fields, each with its value behind it."""
        told = {int(found[1]): value for field, value in paired(flat) if (found := FIELD.fullmatch(field))}
        self._is_whole = len(told) < KEPT
        self._take(
            {number: known_from(number, value.decode()) for number, value in told.items() if number not in self._known}
        )

    def _take(self, more: Mapping[int, Known]) -> None:
        if not more:
            return
        is_first = not self._known
        is_in_order = min(more) > max(self._known, default=0)
        self._known = dict(sorted({**self._known, **more}.items())[-KEPT:])
        for number, known in self._known.items():
            for some in known.ranges if number in more or not is_in_order else ():
                self._newest[some.start : some.stop] = [known.beginning] * len(some)
        if not is_first:
            self._tell()


def paired(flat: Sequence[Any]) -> Sequence[tuple[Any, Any]]:
    """Items that come one after the other, two by two."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def known_from(number: int, text: str) -> Known:
    """What a field says, `<ms> <first>-<last>,...`."""
    moment, _, slots = text.partition(" ")
    bounds = [some.split("-") for some in slots.split(",")]
    ranges = tuple(range(int(b[0]), min(int(b[-1]) + 1, SLOTS)) for b in bounds)
    return Known(Beginning(number, int(moment)), slots, ranges)


def myself(nodes: str) -> tuple[str, str]:
    """Of CLUSTER NODES, the id of the node that told it, and its slots as `<first>-<last>,...`; "" if it has none.

    https://valkey.io/commands/cluster-nodes/
    """
    words = next(line.split() for line in nodes.splitlines() if "myself" in line.split()[2])
    return words[0], ",".join(word for word in words[8:] if not word.startswith("["))
