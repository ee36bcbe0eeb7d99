"""What lies on two servers of a cluster and has lost one of its halves: found, and made whole or removed.

Each server has an order of writes of its own. After a failover in which the last writes of one are lost, two servers
may say different things of the same space, key or log. Nobody else would ever look there again.

- A key whose space does not list it is removed; it has not worked since (app/jobs/keys_and_scopes.py).
- A space that is not in the list of spaces, or with webhooks not in the list of those, is listed again by its hash.
- A space that is listed and has no hash, and what is left of one, is removed as spaces are, once it has been so for
  MISSING_MS: whoever puts a backup of its primary back in that time has lost nothing else.
- A log whose job has gone, has ended or runs again, and which does not stand accordingly, is put on the space's list of
  logs to look at. A log of a space that nobody knows gets the time to live that it would have after its job's end.

Owns: the walk through all names of one server, a few at a time, from where it was left. Never: takes a server that does
not answer for one that has nothing, nor touches what is younger than FRESH_MS: its other half may be on its way.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from app.jobs.deletion_and_retention import Deletion
from app.jobs.job_store import JobStore
from app.model.errors import Outage
from app.model.ids import encode_ulid, space_tag_of
from app.model.job import ENDED
from app.model.redis_keys import Keys
from app.redis_links.clock import RedisClock
from app.redis_links.link import Command, Link

log = logging.getLogger("jobwire.sweeper")

LOOK_KEYS = 500
"""Names that Redis goes through in one look: 0.3 ms of its time."""

LOOK_PAUSE_S = 0.5
ROUND_PAUSE_S = 60.0
"""Between two walks through all names."""

FRESH_MS = 60_000
MISSING_MS = 86_400_000
"""How long the hash of a space may be missing before what other servers have of the space goes, too: a day."""

LISTED_PER_CALL = 100


class _Seen(NamedTuple):
    """What servers say of a space: which is listed under its tag, which is removed, whether it is in `hooks`.

    `missing` is since when its hash is known to be missing, in ms.
    """

    space: str
    has_hash: bool
    has_hooks: bool
    listed: bytes | None
    removed: bytes | None
    hooked: int
    missing: bytes | None


class Mender:
    """The walk through the server with a tag. `look` raises what the link raises, and may be repeated without harm."""

    def __init__(
        self, link: Link, keys: Keys, clock: RedisClock, *, tag: str, store: JobStore, deletion: Deletion
    ) -> None:
        self._link = link
        self._keys = keys
        self._clock = clock
        self._tag = tag
        self._store = store
        self._deletion = deletion
        ulid, prefix = "([0-9A-Z]{26})", re.escape(keys.prefix)
        self._token = re.compile(f"{prefix}:token:([0-9a-f]{{64}})")
        self._of_space = re.compile(f"{prefix}:{{{ulid}}}:(?:space|tokens|jobs|feed|log_work)")
        self._log = re.compile(f"{prefix}:{{{ulid}}}:log:meta")

    async def look(self) -> float:
        """Mend what some more names show; seconds until the next look."""
        server = next((server for server, tag in self._link.tags().items() if tag == self._tag), None)
        if server is None:
            return LOOK_PAUSE_S
        place = self._keys.mending_of(self._tag)
        cursor = await self._link.call("GET", place) or b"0"
        if cursor == b"0":
            await self._mend_listed_spaces()
        cursor, found = await server.call("SCAN", cursor, "MATCH", f"{self._keys.prefix}:*", "COUNT", LOOK_KEYS)
        names = [name.decode(errors="replace") for name in found]
        await self._mend_tokens(sorted(_matches(self._token, names)))
        await self._mend_spaces(sorted(_matches(self._of_space, names)))
        await self._mend_logs(sorted(_matches(self._log, names)))
        await self._link.call("SET", place, cursor)
        return LOOK_PAUSE_S if cursor != b"0" else ROUND_PAUSE_S

    async def _mend_tokens(self, digests: Sequence[str]) -> None:
        hashes = await self._read(("HMGET", self._keys.token(digest), "id", "space") for digest in digests)
        tokens = [
            (digest, fields[0].decode(), fields[1].decode())
            for digest, fields in zip(digests, hashes, strict=True)
            if not isinstance(fields, Outage) and None not in fields and self._is_old(fields[0].decode())
        ]
        listed = await self._read(("HGET", self._keys.tokens(space), id_) for _, id_, space in tokens)
        for (digest, id_, space), lists in zip(tokens, listed, strict=True):
            if not isinstance(lists, Outage) and lists != digest.encode():
                log.warning("key %s of space %s is not listed there: removed", id_, space)
                await self._link.call("DEL", self._keys.token(digest))

    async def _mend_spaces(self, spaces: Sequence[str]) -> None:
        """Look at spaces of which there are keys on this server."""
        spaces = [space for space in spaces if self._is_old(space)]
        for seen in await self._look_up(spaces):
            space, listed = seen.space, seen.listed
            if seen.has_hash and seen.missing is not None:
                await self._link.call("HDEL", self._keys.missing, space)
            if seen.has_hash and listed is None and seen.removed is None:
                log.warning("space %s was not in the list of spaces: listed again", space)
                await self._link.call("HSETNX", self._keys.spaces, space_tag_of(space), space)
            elif seen.has_hash and listed is not None and listed != space.encode():
                log.error("space %s has the tag of space %s, which is listed", space, listed.decode())
            elif not seen.has_hash and seen.removed is None:
                await self._remove_missing_space(seen)
            if seen.has_hooks and not seen.hooked:
                await self._link.call("SADD", self._keys.hooks, space)

    async def _mend_listed_spaces(self) -> None:
        """Look at the spaces that should be on this server."""
        listed = [space.decode() for space in await self._link.call("HVALS", self._keys.spaces)]
        here = [space for space in listed if self._link.tag_of(self._keys.space(space)) == self._tag]
        spaces = [space for space in here if self._is_old(space)]
        for start in range(0, len(spaces), LISTED_PER_CALL):
            for seen in await self._look_up(spaces[start : start + LISTED_PER_CALL]):
                if not seen.has_hash:
                    await self._remove_missing_space(seen)

    async def _look_up(self, spaces: Sequence[str]) -> "list[_Seen]":
        """Those of these spaces of which no server that is asked is away."""
        replies = await self._read(
            command
            for space in spaces
            for command in (
                ("HMGET", self._keys.space(space), "createdAt", "push", "slack"),
                ("HGET", self._keys.spaces, space_tag_of(space)),
                ("HGET", self._keys.deleting, space_tag_of(space)),
                ("SISMEMBER", self._keys.hooks, space),
                ("HGET", self._keys.missing, space),
            )
        )
        looked_up = zip(spaces, *(replies[at::5] for at in range(5)), strict=True)
        return [
            _Seen(space, fields[0] is not None, any(fields[1:]), *others)
            for space, fields, *others in looked_up
            if not any(isinstance(reply, Outage) for reply in (fields, *others))
        ]

    async def _remove_missing_space(self, seen: _Seen) -> None:
        """Remember since when its hash is missing, and after MISSING_MS begin as Spaces.delete does."""
        now_ms = self._clock.now_ms(self._keys.missing)
        if seen.missing is None:
            log.warning("space %s has lost its hash: what is left is removed in %d s", seen.space, MISSING_MS // 1000)
            await self._link.call("HSETNX", self._keys.missing, seen.space, now_ms)
        if now_ms - int(seen.missing or now_ms) >= MISSING_MS:
            await self._remove_space(seen.space)
            await self._link.call("HDEL", self._keys.missing, seen.space)

    async def _remove_space(self, space: str) -> None:
        """As Spaces.delete begins; the sweeper goes on with it."""
        log.warning("space %s has lost its hash: what is left of it is removed", space)
        await self._link.call("HSET", self._keys.deleting, space_tag_of(space), space)
        if await self._link.call("HGET", self._keys.spaces, space_tag_of(space)) == space.encode():
            await self._link.call("HDEL", self._keys.spaces, space_tag_of(space))

    async def _mend_logs(self, jobs: Sequence[str]) -> None:
        try:
            spaces = [(job, await self._store.space_of(job)) for job in jobs if self._is_old(job)]
        except Outage:
            return  # the list of spaces is away: the next walk sees these logs again
        replies = await self._read(
            command
            for job, space in spaces
            for command in (
                ("PTTL", self._keys.log_meta(job)),
                ("HGET", self._keys.job(space or job, job), "status"),
                ("ZSCORE", self._keys.log_work(space or job), job),
                ("EXISTS", self._keys.space(space or job)),
            )
        )
        for (job, space), *seen in zip(spaces, *(replies[at::4] for at in range(4)), strict=True):
            if any(isinstance(reply, Outage) for reply in seen):
                continue
            ttl_ms, status, work, has_space = seen
            if space is None:
                if ttl_ms == -1:
                    log.warning("the log of job %s is of no space that is known: it will lapse", job)
                    await self._deletion.let_log_lapse(job)
            elif has_space and work is None and not _stands(ttl_ms, status):
                index = self._keys.log_work(space)
                await self._link.call("ZADD", index, "NX", self._clock.now_ms(index), job)

    async def _read(self, commands: Iterable[Command]) -> list[Any]:
        """The replies; an Outage in the place of those that cannot be had."""
        every = tuple(commands)
        return await self._link.pipeline_by_server(*every) if every else []

    def _is_old(self, ulid: str) -> bool:
        return ulid < encode_ulid(self._clock.now_ms() - FRESH_MS, bytes(10))


def _matches(pattern: re.Pattern[str], names: Iterable[str]) -> set[str]:
    return {found[1] for name in names if (found := pattern.fullmatch(name))}


def _stands(ttl_ms: int, status: bytes | None) -> bool:
    """Whether a log that lives so long (-1: without end, -2: it has gone) is as its job wants it."""
    if status is None:
        return ttl_ms == -2
    return ttl_ms == -2 or (ttl_ms >= 0) == (status.decode() in ENDED)
