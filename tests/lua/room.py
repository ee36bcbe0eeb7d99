"""A space on a Redis, and its scripts called as the store calls them, from as many threads as a test likes."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import redis

from app.model.ids import new_job_ids, new_space_id
from app.model.redis_keys import Keys
from app.redis_links.scripts import SCRIPTS, SHARDED, guarded
from tests.valkey import client_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.any_redis import AnyRedis

T = TypeVar("T")
CALLERS = 40
KEEP_MS = 600_000
LATE = 2**52
"""A deadline that no call misses."""


class Room:
    """A fresh space under a prefix of its own."""

    def __init__(self, server: AnyRedis) -> None:
        self.server = server
        self.redis = client_of(server.url, connections=CALLERS * 2)
        self.scripts = SHARDED if isinstance(self.redis, redis.RedisCluster) else SCRIPTS
        self.keys = Keys(f"t{secrets.token_hex(5)}")
        self.space = new_space_id(1_700_000_000_000)
        self.hash = self.keys.space(self.space)
        self._numbers = itertools.count()
        assert self.run("space_create", [self.hash], ["a space", "instance"])[0] == b"ok"

    def run(self, name: str, keys: Sequence[str], args: Sequence[Any] = ()) -> list[Any]:
        """The reply of a script, called by its hash; the text is sent where it is not known yet."""
        keys = guarded(keys)
        try:
            reply = self.redis.evalsha(self.scripts[name].sha, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            reply = self.redis.eval(self.scripts[name].text, len(keys), *keys, *args)
        return list(reply)

    def on(self, name: str, job: str, *args: Any, token: str = "") -> list[Any]:
        """The reply of a script that works on one job of the space."""
        return self.run(name, [self.hash], [job, token, *args])

    def create(
        self,
        *,
        due_ms: Any = "",
        token: str = "",
        retries: int = 3,
        timeout_s: int = 300,
        url: str = "",
        limit_s: Any = "",
    ) -> str:
        """A new job's id."""
        (id_,) = new_job_ids(self.space, 1_700_000_000_000, 1)
        job = [id_, f"n{next(self._numbers) % 3}", '{"a":1}', retries, timeout_s, due_ms, url, "", "", token, limit_s]
        assert self.run("job_create", [self.hash, self.hash], [1, "", 1000, 0, *job])[0] == b"ok"
        return id_

    def job_in(self, status: str, **more: Any) -> str:
        """A job in a status."""
        if status == "scheduled":
            return self.create(due_ms=LATE, **more)
        if status == "pending":
            return self.create(**more)
        id_ = self.create(token="lease", **more)
        verbs: dict[str, tuple[str, list[Any]]] = {
            "running": ("job_ack", []),
            "completed": ("job_complete", ['"done"', KEEP_MS]),
            "dead": ("job_fail", ['"broken"', 0, "0.5", KEEP_MS, "", ""]),
            "killed": ("job_kill", ["null", KEEP_MS]),
        }
        if status in verbs:
            script, args = verbs[status]
            assert self.on(script, id_, *args)[0] == b"ok"
        return id_

    def field(self, job: str, name: str) -> Any:
        """One field of a job's hash."""
        return self.redis.hget(self.keys.job(self.space, job), name)

    def events(self, job: str) -> list[str]:
        """The types of the job's events."""
        items: Any = self.redis.lrange(self.keys.events(self.space, job), 0, -1)
        return [item.split(b'"', 2)[1].decode() for item in items]

    def log_keys(self, job: str) -> list[str]:
        """A job's log, blocks, meta, and the tombstone of its deletion."""
        log = self.keys.log(job)
        return [log, self.keys.log_blocks(job), self.keys.log_meta(job), f"{log}:gone"]

    def append(self, job: str, *parts: str, known: int = 1) -> list[Any]:
        """The reply of an append of JSON arrays of two lines each."""
        words = [word for part in parts for word in (2, part)]
        channel = self.keys.log_live(job)
        return self.run("log_append", self.log_keys(job), [known, channel, 10**6, 10**9, "", "000", len(parts), *words])

    def race(self, call: Callable[[int], T], callers: int = CALLERS) -> list[T]:
        """What each of many callers was answered, all at once."""
        with ThreadPoolExecutor(callers) as threads:
            return list(threads.map(call, range(callers)))

    def snapshot(self) -> dict[bytes, Any]:
        """Every key of the room with its content."""
        names = sorted(self.redis.scan_iter(f"{self.keys.prefix}:*", count=1000))
        return {name: self.redis.dump(name) for name in names}

    @contextmanager
    def at_maxmemory(self) -> Iterator[None]:
        """Redis is full meanwhile."""
        self.server.cli("CONFIG", "SET", "maxmemory", "1")
        try:
            yield
        finally:
            self.server.cli("CONFIG", "SET", "maxmemory", "0")

    def close(self) -> None:
        """Let the connections go."""
        self.redis.close()
