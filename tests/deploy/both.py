"""Both releases at work on one Redis, as in a rolling deploy: of each a web process, a sweeper and one for callbacks.

with Both(valkey, previous) as both:
    both.call("this", "POST", "/spaces", {"name": "x"})
    both.hand_over()
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import urllib3

from app.model.redis_keys import Keys
from tests.any_redis import AnyRedis
from tests.deploy.releases import THIS, Release
from tests.faults.service import Process
from tests.server import free_port
from tests.valkey import until
from tests.webhooks.receiving import HERE

RELEASES = ("previous", "this")
START_S = 30.0
ANSWER_S = 40.0


class Answer(NamedTuple):
    """A status, and the body."""

    status: int
    body: Any

    @property
    def refusal(self) -> str:
        """The code of a refusal; "" of a call that was done."""
        return "" if self.status < 300 else str(self.body["code"])


class Both:
    """Processes of two releases, named as in RELEASES. `leads` is whose sweeper works."""

    def __init__(self, redis: AnyRedis, previous: Release) -> None:
        self.redis = redis
        self.keys = Keys(f"t{secrets.token_hex(4)}")
        self.root_key = f"emit_{secrets.token_urlsafe(32)}"
        self.releases = {"previous": previous, "this": THIS}
        self.env = {
            "REDIS_URL": redis.url,
            "JOBWIRE_PREFIX": self.keys.prefix,
            "JOBWIRE_ROOT_KEY": self.root_key,
            "JOBWIRE_RATE": "0",
            "JOBWIRE_LOG_HOT_LINES": "200",
            **HERE,
        }
        self._stack = contextlib.ExitStack()
        self._http = urllib3.PoolManager(maxsize=100, block=True, retries=False, timeout=ANSWER_S)
        self._processes: dict[str, contextlib.ExitStack] = {}
        self.urls: dict[str, str] = {}
        self.leads = ""
        with contextlib.ExitStack() as stack:
            self._stack = stack
            for name in RELEASES:
                self.start_web(name)
            for name in RELEASES:
                self._start(name, "callbacks")
            self._start_sweeper("previous")
            self._start_sweeper("this")
            self.never_away()
            self._stack = stack.pop_all()

    # Processes

    def start_web(self, name: str) -> None:
        """Let a release serve; returns when it is ready."""
        port = free_port()
        self.urls[name] = f"http://127.0.0.1:{port}"
        self._start(name, "web", "--port", str(port))
        until(lambda: self._is_ready(name), START_S)

    def stop_web(self, name: str) -> None:
        """Let the web process of a release end as a deploy ends it."""
        self._processes.pop(f"{name} web").close()

    def hand_over(self) -> None:
        """The sweeper that works ends, the other release's works from then on; one of the first is there again."""
        before, ended = self._leader(), self.leads
        self._processes.pop(f"{ended} sweeper").close()
        until(lambda: self._leader() not in (b"", before), START_S)
        (self.leads,) = {*RELEASES} - {ended}
        self._start_sweeper(ended)
        self.never_away()

    def never_away(self) -> None:
        """As if sweepers had always been there: leases that end get no grace for it."""
        mark: dict[str, str | int] = {"at": self.now_ms(), "by": "before", "run": self._run(), "began": 1, "ended": 1}
        self.redis.cli("HSET", self.keys.outage, *(word for pair in mark.items() for word in pair))

    def now_ms(self) -> int:
        """Redis's clock."""
        seconds, micros = self.redis.cli("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def _run(self) -> str:
        return str(self.redis.cli("INFO", "server")["run_id"])

    def _start_sweeper(self, name: str) -> None:
        self._start(name, "sweeper")
        if not self.leads:
            until(self._leader, START_S)
            self.leads = name

    def _start(self, name: str, *command: str) -> None:
        own = self._processes[f"{name} {command[0]}"] = contextlib.ExitStack()
        self._stack.callback(own.close)
        own.enter_context(Process(*command, env=self.env, release=self.releases[name]))

    def _leader(self) -> bytes:
        return bytes(self.redis.cli("GET", self.keys.sweeper) or b"")

    def _is_ready(self, name: str) -> bool:
        try:
            return self._http.request("GET", f"{self.urls[name]}/readyz").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    # Calls

    def call(
        self,
        name: str,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request to the web process of a release, sent once; with the root key."""
        reply = self._http.request(
            method,
            f"{self.urls[name]}/api/v1{path}",
            body=None if body is None else msgspec.json.encode(body),
            headers={"x-api-key": self.root_key, **(headers or {})},
        )
        return Answer(reply.status, json.loads(reply.data) if reply.data else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()
