"""How the jobs of a space ended lately, by name: well, badly, killed, and how long those took that ended well.

Owns: reading what lua/include/end_stats.lua counts, and putting it together. Hours make a day, spans of ten minutes an
hour; the newest of either has only begun, so that "the last hour" is 60 to 70 minutes and "the last day" 24 to 25
hours.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from app.loop.turns import in_turns
from app.model.errors import Outage
from app.model.redis_keys import Keys
from app.model.steps import Steps, exhaust
from app.redis_links.clock import RedisClock
from app.redis_links.link import Link

HOUR_MS = 3_600_000
SPAN_MS = 600_000
HOURS = 25
SPANS = 7
GROWTH = 1.25
"""Each bucket of durations ends at so many times of where it begins: a quantile is right within 12 percent."""

PENDING_LOOKED_AT = 100
"""How many of the oldest pending jobs are asked for their names."""

OUTCOMES = {"c": "completed", "d": "dead", "k": "killed"}
OTHERS = ""
"""The name of those that a full hash counted without their names, and of those beyond NAMES_MOST."""

NAMES_MOST = 200
"""How many names are answered by themselves."""

FIELDS_A_STEP = 256

FlatHash = Sequence[bytes]
"""A hash as Redis answers it: field, value, field, value."""


@dataclass
class Ends:
    """Ends by outcome, and the durations of those that completed, by bucket."""

    outcomes: Counter[str] = field(default_factory=Counter)
    durations: Counter[int] = field(default_factory=Counter)

    def quantile_ms(self, share: float) -> int | None:
        """The duration that such a share of the completed stayed within; None where none is known."""
        left = share * self.durations.total()
        for bucket in sorted(self.durations):
            left -= self.durations[bucket]
            if left <= 0:
                return int(GROWTH ** (bucket + 0.5) + 0.5)
        return None


class NameStats(NamedTuple):
    """One name's last hour and day, how many of it are pending, and since when the oldest."""

    name: str
    hour: Ends
    day: Ends
    pending: int
    oldest_ms: int | None


def by_name(hashes: Iterable[FlatHash]) -> dict[str, Ends]:
    """What some hashes say together."""
    ends: dict[str, Ends] = {}
    exhaust(fold_steps(ends, hashes))
    return ends


def fold_steps(found: dict[str, Ends], hashes: Iterable[FlatHash]) -> Steps[None]:
    """Add what some hashes say, a few hundred fields a step. A field that is none of ours is passed over."""
    for hash_ in hashes:
        for place, (name_, count) in enumerate(zip(hash_[::2], hash_[1::2], strict=True)):
            if place % FIELDS_A_STEP == FIELDS_A_STEP - 1:
                yield
            kind, _, name = name_.decode(errors="replace").partition(":")
            outcome, bucket = OUTCOMES.get(kind[:1]), kind[1:]
            if outcome is None or not (bucket == "-" or bucket.isdecimal()):
                continue
            ends = found.setdefault(name, Ends())
            ends.outcomes[outcome] += int(count)
            if outcome == "completed" and bucket != "-":
                ends.durations[int(bucket)] += int(count)
        yield


def keep_busiest(found: dict[str, Ends], most: int) -> dict[str, Ends]:
    """The names that ended most often; all others together are OTHERS."""
    named = sorted((name for name in found if name != OTHERS), key=lambda name: (-found[name].outcomes.total(), name))
    kept = {name: found[name] for name in named[:most]}
    rest = [found[name] for name in (*named[most:], *([OTHERS] if OTHERS in found else []))]
    if rest:
        kept[OTHERS] = Ends()
        for ends in rest:
            kept[OTHERS].outcomes.update(ends.outcomes)
            kept[OTHERS].durations.update(ends.durations)
    return kept


def hour_names(now_ms: int, count: int) -> list[str]:
    """The newest hours, as the names of their hashes end."""
    return [f"h{now_ms // HOUR_MS - back}" for back in range(count)]


def span_names(now_ms: int, count: int) -> list[str]:
    """The newest spans of ten minutes, likewise."""
    return [f"m{now_ms // SPAN_MS - back}" for back in range(count)]


def _unnamed(hour: dict[str, Ends], day: dict[str, Ends]) -> dict[str, Ends]:
    """What the hour has of names that the day does not tell by themselves."""
    rest = {name: ends for name, ends in hour.items() if name == OTHERS or name not in day}
    return keep_busiest(rest, 0)


class EndsReader:
    """Reads it for one space, or for all of them together."""

    def __init__(self, link: Link, keys: Keys, clock: RedisClock) -> None:
        self._link = link
        self._keys = keys
        self._clock = clock

    async def read_space(self, space: str) -> list[NameStats]:
        """Every name that ended in the last day or is among the oldest that are pending; the busiest first."""
        now_ms = self._clock.now_ms(self._keys.space(space))
        keys = [self._keys.ends(space, at) for at in (*hour_names(now_ms, HOURS), *span_names(now_ms, SPANS))]
        *hashes, oldest = await self._link.pipeline(
            *(("HGETALL", key) for key in keys),
            ("ZRANGE", self._keys.pending(space), 0, PENDING_LOOKED_AT - 1),
        )
        day: dict[str, Ends] = {}
        hour: dict[str, Ends] = {}
        await in_turns(fold_steps(day, hashes[:HOURS]))
        await in_turns(fold_steps(hour, hashes[HOURS:]))
        day = keep_busiest(day, NAMES_MOST)
        hour = {name: hour[name] for name in day if name in hour} | _unnamed(hour, day)
        jobs = [("HGET", self._keys.job(space, id_.decode()), "name") for id_ in oldest]
        pending = {name.decode() for name in await self._link.pipeline(*jobs) if name is not None}
        names = sorted({*day, *pending}, key=lambda name: (-day[name].outcomes.total() if name in day else 0, name))
        waiting = await self._waiting(space, [name for name in names if name != OTHERS])
        return [
            NameStats(name, hour.get(name, Ends()), day.get(name, Ends()), *waiting.get(name, (0, None)))
            for name in names
        ]

    async def _waiting(self, space: str, names: Sequence[str]) -> Mapping[str, tuple[int, int | None]]:
        """For each name: how many are pending, and since when (ms) the oldest."""
        queues = [self._keys.pending(space, name) for name in names]
        counts = await self._link.pipeline(*(("ZCARD", queue) for queue in queues))
        firsts = await self._link.pipeline(*(("ZRANGE", queue, 0, 0) for queue in queues))
        ids = [first[0].decode() if first else "" for first in firsts]
        since = await self._link.pipeline(*(("HGET", self._keys.job(space, id_), "updatedAt") for id_ in ids))
        return {
            name: (count, None if at is None else int(at)) for name, count, at in zip(names, counts, since, strict=True)
        }

    async def read_all(self, spaces: Sequence[str]) -> list[FlatHash]:
        """The hashes of this hour and of the one before, of each of these spaces whose server is not away."""
        now_ms = self._clock.now_ms
        keys = [self._keys.ends(space, at) for space in spaces for at in hour_names(now_ms(self._keys.space(space)), 2)]
        hashes = await self._link.pipeline_by_server(*(("HGETALL", key) for key in keys))
        return [hash_ for hash_ in hashes if not isinstance(hash_, Outage)]
