"""What tests below HTTP share: one Redis for all of them, and rooms with links, a space and a prefix of their own.

async def test_a_rule(room: Room) -> None: ...

async def test_a_rule_under_a_setting(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, log_lines=1000) as room: ...
"""

import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import Any

import httpx
import msgspec
import pytest

from app.backend import Backend
from app.logs.intake import Batch, decode_batch_steps
from app.logs.lines import Row
from app.logs.log_store import Appended, BatchKey, LogStore
from app.logs.page_scan import LinePage, PageQuery
from app.logs.search import LineFilter
from app.main import build_web
from app.model.errors import ApiError
from app.model.ids import new_job_ids
from app.model.redis_keys import Keys
from app.model.steps import exhaust
from app.redis_links.link import Word
from app.settings import Settings
from tests.any_redis import AnyRedis

ROOT_KEY = "emit_root_of_the_tests"
EVERYTHING = LineFilter()


class Room:
    """A started backend under a prefix of its own."""

    def __init__(self, redis: AnyRedis, **settings: Any) -> None:
        settings.setdefault("prefix", f"t{secrets.token_hex(6)}")
        settings.setdefault("rate", 0)
        self.settings = Settings(redis_url=redis.url, root_key=ROOT_KEY, **settings)
        self.backend = Backend(self.settings)
        self.keys: Keys = self.backend.keys
        self.logs: LogStore = self.backend.logs
        self.call = self.backend.control.call
        self.space = ""

    @property
    def tag(self) -> str:
        """The tag of the cluster's server that has the space; "" where there is one server."""
        return self.backend.control.tag_of(self.keys.space(self.space))

    async def ask(self, *command: Word) -> Any:
        """The reply of the server that has the space, to a command without a key."""
        return await self.backend.control.server_of(self.keys.space(self.space)).call(*command)

    async def ask_all(self, *command: Word) -> list[Any]:
        """The replies of all servers that have keys, to a command without one."""
        return [await server.call(*command) for server in self.backend.control.servers()]

    async def names(self, pattern: str = "*") -> set[str]:
        """Every key of the prefix that matches, of all servers."""
        found: set[str] = set()
        for server in self.backend.control.servers():
            cursor = None
            while cursor != b"0":
                words = ("MATCH", f"{self.keys.prefix}:{pattern}", "COUNT", 10_000)
                cursor, some = await server.call("SCAN", cursor or 0, *words)
                found |= {key.decode() for key in some}
        return found

    async def new_job(self, status: str = "running") -> str:
        """A job as far as logs see one: its id and its status."""
        if not self.space:
            made, _ = await self.backend.spaces.create("tests")
            self.space = made.id
        (job,) = new_job_ids(self.space, self.backend.clock.now_ms(), 1)
        await self.call("HSET", self.keys.job(self.space, job), "status", status)
        return job

    async def append(self, job: str, *messages: str, key: BatchKey | None = None) -> Appended:
        """Append plain messages."""
        return await self.logs.append(self.space, job, await batch_of(*messages), key)

    async def page(
        self, job: str, mode: Any = "tail", position: int = 0, limit: int = 500, wanted: LineFilter = EVERYTHING
    ) -> LinePage:
        """One page."""
        return await self.logs.read_page(self.space, job, PageQuery(mode, position, limit, wanted))

    async def every_line(self, job: str, limit: int = 500) -> list[Row]:
        """All lines, by paging forwards."""
        rows: list[Row] = []
        for _ in itertools.count():
            page = await self.page(job, "after", rows[-1].seq if rows else 0, limit)
            rows += page.rows
            if not page.cursor.more:
                return rows
        raise AssertionError

    def client(self) -> httpx.AsyncClient:
        """An HTTP client of the whole application, with the root key."""
        transport = httpx.ASGITransport(build_web(self.backend))
        return httpx.AsyncClient(
            transport=transport, base_url="http://test/api/v1", headers={"x-api-key": ROOT_KEY}, timeout=30
        )


async def batch_of(*messages: str) -> Batch:
    """The batch of plain messages."""
    return exhaust(decode_batch_steps(msgspec.json.encode(messages), ndjson=False))


@contextlib.asynccontextmanager
async def new_room(redis: AnyRedis, **settings: Any) -> AsyncIterator[Room]:
    """A fresh Room, started while the block runs."""
    room = Room(redis, **settings)
    await room.backend.start()
    try:
        await room.backend.control.ready(10)
        await room.backend.bulk.ready(10)
        yield room
    finally:
        await room.backend.close()


async def refusal_of(awaitable: Awaitable[Any]) -> ApiError:
    """The refusal or outage that a call ends with."""
    with pytest.raises(ApiError) as caught:
        await awaitable
    return caught.value


def messages(rows: Iterable[Row]) -> list[str]:
    """The texts of lines."""
    return [row.message for row in rows]
