"""The outbox of callbacks on Redis: what is due, whose it is for the moment, and how each try went.

Owns: the calls of the scripts, the hint of which space has something due. Never: sends anything. Always: a callback
that was taken and not brought to its end is due again when its lease is over, whatever happens to those who took it.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from app.jobs.due_index import DueIndex
from app.model.redis_keys import Keys
from app.model.times import rfc3339
from app.redis_links.clock import RedisClock
from app.redis_links.link import Link, Word
from app.redis_links.scripts import Scripts
from app.redis_links.shards import ForShard, ShardLog, run_on_each

DUE_SPACES_MOST = 64


def host_of(url: str) -> str:
    """Host and port of a URL as it stands there, in lower case."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


class LeasedCallback(NamedTuple):
    """A callback that is ours until `lease_end_ms`."""

    space: str
    job: str
    url: str
    lease_end_ms: int

    @property
    def host(self) -> str:
        """Host and port, by which deliveries are kept fair."""
        return host_of(self.url)


class CallbackRequest(NamedTuple):
    """What one try sends."""

    id: str
    number: int
    url: str
    headers: dict[str, str]
    body: bytes
    secrets: list[str]


class CallbackBody(Struct, rename="camel"):
    """The body of a callback."""

    job_id: str
    space_id: str
    name: str
    status: str
    attempt_number: int
    result: Raw
    timestamp: str


HEADERS_DECODER = msgspec.json.Decoder(dict[str, str])


class Outbox:
    """The callbacks of all spaces. `bulk` carries what is sent: results may be large."""

    def __init__(
        self,
        control: Link,
        bulk: Link,
        keys: Keys,
        clock: RedisClock,
        list_spaces: Callable[[], Awaitable[list[str]]],
    ) -> None:
        """`list_spaces` tells the ids of all spaces."""
        self._control = control
        self._keys = keys
        self._due = DueIndex(control, keys, keys.due_callbacks_of)
        self._clock = clock
        self._list_spaces = list_spaces
        self._scripts = Scripts(control)
        self._bulk_scripts = Scripts(bulk)

    async def on_each_server(self, work: ForShard, leave: ForShard) -> None:
        """As run_on_each (app/redis_links/shards.py)."""
        await run_on_each(self._control, work, leave)

    def shard_log(self, log: logging.Logger, tag: str) -> ShardLog:
        """The log of what is done for the server with that tag."""
        return ShardLog(log, self._control, tag)

    async def due_spaces(self, more: int = 0, tag: str = "") -> list[str]:
        """Spaces of the server with that tag whose hint says that something is due, the longest due first.

        `more` than else are looked at.
        """
        now_ms = self._clock.now_ms(self._due.key_of(tag))
        return [space for space, at_ms in await self._due.first(tag, DUE_SPACES_MOST + more) if at_ms <= now_ms]

    async def drop_hint(self, space: str, tag: str = "") -> None:
        """Remove the hint, before looking: whoever makes something due from now on adds a new one."""
        await self._due.drop(tag, [space])

    async def leave(self, tag: str) -> None:
        """Give the hints under a tag that is no server's any more to those that have its spaces."""
        await self._due.disband(tag)

    async def add_hint(self, space: str, due_ms: int | None) -> None:
        """Hint that something is due in the space then, if not earlier; None adds nothing."""
        if due_ms is not None:
            await self._due.hint([(space, due_ms)])

    async def rebuild_hints(self, tag: str = "") -> None:
        """Look at every space of the server with that tag, for hints that were lost."""
        known = await self._list_spaces()
        spaces = [space for space in known if self._control.tag_of(self._keys.space(space)) == tag]
        for at in range(0, len(spaces), DUE_SPACES_MOST):
            step = spaces[at : at + DUE_SPACES_MOST]
            heads = await self._control.pipeline(
                *(("ZRANGE", self._keys.callbacks(space), 0, 0, "WITHSCORES") for space in step)
            )
            for space, head in zip(step, heads, strict=True):
                if head:
                    await self.add_hint(space, int(float(head[1])))

    async def lease_callbacks(self, space: str, most: int, lease_ms: int) -> tuple[list[LeasedCallback], int | None]:
        """Up to `most` callbacks that are due, and when the next one is, leases included."""
        lease_end, next_due, *items = await self._scripts.run(
            "callback_take", [self._keys.space(space)], [most, lease_ms]
        )
        leased = [LeasedCallback(space, id_.decode(), url.decode(), lease_end) for id_, url in items]
        return leased, None if next_due is None else int(float(next_due))

    async def begin_try(self, leased: LeasedCallback, token: str, wait_ms: int, most: int) -> CallbackRequest | None:
        """Begin a try: what to send; None when the lease is over, or after `most` tries."""
        args: list[Word] = [leased.job, leased.lease_end_ms, token, wait_ms, most]
        reply = await self._bulk_scripts.raw("callback_begin", [self._keys.space(leased.space)], args)
        if reply[0] != b"ok":
            return None
        number, name, status, attempt, result, completed, url, headers, secrets = reply[1:]
        body = CallbackBody(
            leased.job,
            leased.space,
            name.decode(),
            status.decode(),
            int(attempt),
            Raw(result),
            rfc3339(int(completed)),
        )
        return CallbackRequest(
            f"msg_{leased.job}_{int(completed)}",
            number,
            url.decode(),
            HEADERS_DECODER.decode(headers) if headers else {},
            msgspec.json.encode(body),
            secrets.decode().split() if secrets else [],
        )

    async def note_try(self, leased: LeasedCallback, token: str, kind: str, data: bytes, delay_ms: int | None) -> None:
        """A try is over: its event, and the next try after `delay_ms`, if there is one. To repeat it is safe."""
        again: Word = "" if delay_ms is None else delay_ms
        args: list[Word] = [leased.job, token, kind, data[:-1], again]
        reply = await self._scripts.raw("callback_note_try", [self._keys.space(leased.space)], args)
        if reply[0] == b"ok":
            await self.add_hint(leased.space, reply[1])

    async def postpone_callbacks(self, space: str, items: Sequence[tuple[LeasedCallback, int]]) -> None:
        """Give callbacks back untried, each due again after so many ms."""
        args: list[Word] = []
        for leased, delay_ms in items:
            args += (leased.job, leased.lease_end_ms, delay_ms)
        (earliest,) = await self._scripts.run("callback_postpone", [self._keys.space(space)], args)
        await self.add_hint(space, earliest)
