"""How all spaces stand together, and Redis itself: what /metrics shows beside what this process counted.

Owns: adding up, a stride of spaces at a time, when somebody asks and the last sum is old. Never: makes who asks wait
for a long walk; they get the last sums, and how old these are. Spaces on a server of a cluster that is away are left
out of the sums, and that server says itself that it is away.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from app.jobs.space_stats import OTHERS, Ends, EndsReader, fold_steps
from app.loop.attempts import BugNotice
from app.loop.background import Background
from app.loop.turns import in_turns
from app.metrics import catalog
from app.metrics.catalog import Reading
from app.model.errors import Outage
from app.model.job import Status
from app.model.redis_keys import Keys
from app.redis_links.clock import RedisClock
from app.redis_links.info import parse_info
from app.redis_links.link import Link
from app.redis_links.scripts import Scripts
from app.redis_links.shard_health import Shard, ShardHealth

log = logging.getLogger("jobwire.jobs")

SUMS_FRESH_S = 5.0
"""How old sums may be before they are made anew."""

SUMS_WAIT_S = 0.01
"""How long who asks waits for new sums."""

SPACES_PER_CALL = 100

BUSIEST = 20
"""How many names of jobs are shown: a name comes from outside, and each is some series."""


class ServiceGauges:
    """The sums of one process."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        clock: RedisClock,
        ends: EndsReader,
        *,
        list_ids: Callable[[], Awaitable[list[str]]],
        shards: ShardHealth | None,
    ) -> None:
        """`list_ids` knows the spaces, `shards` those of a cluster."""
        self._link = link
        self._scripts = Scripts(link)
        self._keys = keys
        self._clock = clock
        self._ends = ends
        self._list_ids = list_ids
        self._shards = shards
        self._readings: list[Reading] = []
        self._shard_readings: list[Reading] = []
        self._made_s = -SUMS_FRESH_S
        self._background = Background()
        self._bugs = BugNotice(
            log, "the gauges of all spaces cannot be read", "the gauges of all spaces are read again"
        )
        self._refreshing: asyncio.Task[None] | None = None

    async def collect(self) -> list[Reading]:
        """The newest sums; none before the first are made, which takes a moment when there are many spaces."""
        now_s = asyncio.get_running_loop().time
        if self._refreshing is None and now_s() - self._made_s >= SUMS_FRESH_S:
            self._refreshing = self._background.start(self._refresh(), "service-gauges")
        if self._refreshing is not None:
            await asyncio.wait([self._refreshing], timeout=SUMS_WAIT_S)
        is_up = self._link.up if self._shards is None else any(server.up for server in self._link.servers())
        up = Reading(catalog.REDIS_UP, (), float(is_up))
        if not self._readings:
            return [up, *self._shard_readings]
        return [
            up,
            *self._shard_readings,
            *self._readings,
            Reading(catalog.OVERVIEW_AGE_SECONDS, (), now_s() - self._made_s),
        ]

    async def close(self) -> None:
        """Add up no more."""
        await self._background.close()

    async def _refresh(self) -> None:
        try:
            shards = await self._shards.look() if self._shards is not None else []
            self._shard_readings = list(_of_shards(shards))
            memory = _sum_memory(shards) if shards else await self._memory()
            readings = [*await self._spaces(), *_of_memory(*memory)]
            self._readings, self._made_s = readings, asyncio.get_running_loop().time()
            self._bugs.over()
        except Outage:
            pass
        except Exception as error:
            self._bugs.failed(error)
        finally:
            self._refreshing = None

    async def _spaces(self) -> list[Reading]:
        spaces = await self._list_ids()
        jobs, age_ms, callbacks = [0] * len(Status), 0, 0
        ended: dict[str, Ends] = {}
        for start in range(0, len(spaces), SPACES_PER_CALL):
            keys = [self._keys.space(space) for space in spaces[start : start + SPACES_PER_CALL]]
            read = await self._scripts.read_many_by_server("space_stats", [([key], ()) for key in keys])
            for key, stats in zip(keys, read, strict=True):
                if isinstance(stats, Outage):
                    continue
                counts, since_ms, waiting = stats
                jobs = [so_far + count for so_far, count in zip(jobs, counts, strict=True)]
                if since_ms:
                    age_ms = max(age_ms, self._clock.now_ms(key) - since_ms)
                callbacks += waiting
            await in_turns(fold_steps(ended, await self._ends.read_all(spaces[start : start + SPACES_PER_CALL])))
        return [
            Reading(catalog.SPACES, (), len(spaces)),
            *(Reading(catalog.JOBS, (status,), count) for status, count in zip(Status, jobs, strict=True)),
            Reading(catalog.QUEUE_AGE_SECONDS, (), age_ms / 1000),
            Reading(catalog.CALLBACKS_WAITING, (), callbacks),
            *_busiest(ended),
        ]

    async def _memory(self) -> tuple[int, int]:
        """Used, and the limit."""
        infos = [parse_info(await server.call("INFO", "memory")) for server in self._link.servers()]
        used, most = (sum(int(info.get(name, 0)) for info in infos) for name in ("used_memory", "maxmemory"))
        return used, most


def _sum_memory(shards: Sequence[Shard]) -> tuple[int, int]:
    """As _memory, of those that tell."""
    return sum(shard.used_bytes or 0 for shard in shards), sum(shard.most_bytes or 0 for shard in shards)


def _of_memory(used_bytes: int, most_bytes: int) -> Iterator[Reading]:
    yield Reading(catalog.REDIS_MEMORY_BYTES, ("used",), used_bytes)
    yield Reading(catalog.REDIS_MEMORY_BYTES, ("limit",), most_bytes)


def _of_shards(shards: Iterable[Shard]) -> Iterator[Reading]:
    for shard in shards:
        yield Reading(catalog.SHARD_UP, (shard.server,), shard.is_up)
        yield Reading(catalog.SHARD_OK, (shard.server,), not shard.why)
        yield Reading(catalog.SHARD_DEAF, (shard.server,), shard.is_deaf)
        yield Reading(catalog.SHARD_SLOTS, (shard.server,), shard.slots)
        if shard.connections is not None:
            yield Reading(catalog.SHARD_CONNECTIONS, (shard.server,), shard.connections)
        for kind, size_bytes in (("used", shard.used_bytes), ("limit", shard.most_bytes)):
            if size_bytes is not None:
                yield Reading(catalog.SHARD_MEMORY_BYTES, (shard.server, kind), size_bytes)


def _busiest(ends: Mapping[str, Ends]) -> Iterator[Reading]:
    """How the jobs of the busiest names ended, and how long they took."""
    named = [name for name in ends if name != OTHERS]
    for name in sorted(named, key=lambda name: (-ends[name].outcomes.total(), name))[:BUSIEST]:
        for outcome, count in sorted(ends[name].outcomes.items()):
            yield Reading(catalog.ENDED_JOBS, (name, outcome), count)
        for share in (0.5, 0.95):
            if (duration_ms := ends[name].quantile_ms(share)) is not None:
                yield Reading(catalog.JOB_DURATION_SECONDS, (name, str(share)), duration_ms / 1000)
