"""Everything of ours is killed at random under load; afterwards every job that was answered has its legal end.

CRASH_SECONDS says how long (12 by default).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import redis
import urllib3

from app.model.job import ENDED
from tests.faults.service import COMMAND
from tests.jobs.test_model import statuses_after
from tests.server import free_port
from tests.valkey import Valkey, until

SECONDS = float(os.environ.get("CRASH_SECONDS", "12"))
KILL_EVERY_S = (0.2, 0.8)
LEASE_S = 2
SETTLE_S = 60.0


class Herd:
    """Processes that are killed at random and started again."""

    def __init__(
        self, commands: Sequence[Sequence[str]], env: dict[str, str], log: Path, ports: Sequence[int] = ()
    ) -> None:
        """`ports` are those on which the first commands listen."""
        self._commands, self._env, self._log = commands, env, log
        self._ports = dict(enumerate(ports))
        self._running: list[subprocess.Popen[bytes]] = [self._start(command) for command in commands]
        self.kills = 0

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as out:
            return subprocess.Popen(command, env=self._env, stdout=out, stderr=out)

    def kill_some_for(self, seconds: float) -> None:
        """SIGKILL one after the other; each is started again at once."""
        over = time.monotonic() + seconds
        while time.monotonic() < over:
            time.sleep(random.uniform(*KILL_EVERY_S))
            victim = random.randrange(len(self._running))
            if not self._has_begun(victim):
                continue
            self._running[victim].kill()
            self._running[victim].wait()
            self._running[victim] = self._start(self._commands[victim])
            self.kills += 1

    def _has_begun(self, number: int) -> bool:
        """Whether a process does its work by now: on a busy machine it takes a while to start."""
        port = self._ports.get(number)
        if port is None:
            return True
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
        return False

    def end(self) -> None:
        """SIGKILL all of them."""
        for process in self._running:
            process.kill()
            process.wait()


class Producer:
    """Creates jobs under Idempotency-Keys, repeating each until it is answered; and asks for what became of them."""

    def __init__(self, urls: Sequence[str], key: str) -> None:
        self._urls, self._key = urls, key
        self._http = urllib3.PoolManager(retries=False, timeout=10.0)
        self.space = ""
        self.answered: list[str] = []

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The body of the first 2xx that comes."""
        sent = None if body is None else json.dumps(body).encode()
        answers: list[Any] = []
        until(lambda: self._try(method, path, sent, headers, answers), 60)
        return answers[0]

    def _try(self, method: str, path: str, body: bytes | None, headers: dict[str, str], answers: list[Any]) -> bool:
        try:
            url = f"{random.choice(self._urls)}/api/v1{path}"
            reply = self._http.request(method, url, body=body, headers={"x-api-key": self._key, **headers})
        except urllib3.exceptions.HTTPError:
            return False
        assert reply.status < 300 or reply.status == 503, reply.data
        if reply.status < 300:
            answers.append(json.loads(reply.data))
        return bool(answers)

    def produce_until(self, over: threading.Event) -> None:
        """Ten jobs at a time, some sixty a second."""
        while not over.is_set():
            jobs = [{"name": "crash", "timeoutSeconds": LEASE_S, "maxRetries": random.randint(0, 3)} for _ in range(10)]
            path, key = f"/spaces/{self.space}/jobs", secrets.token_hex(8)
            self.answered += [job["id"] for job in self.call("POST", path, jobs, **{"Idempotency-Key": key})]
            over.wait(0.15)


@contextlib.contextmanager
def producing(producer: Producer) -> Iterator[None]:
    """Jobs come while the block runs."""
    over = threading.Event()
    thread = threading.Thread(target=producer.produce_until, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_whatever_is_killed_no_answered_job_is_lost_stuck_or_given_a_result_that_nobody_sent(tmp_path: Path) -> None:
    with Valkey() as valkey:
        ports = [free_port(), free_port()]
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        root_key = f"emit_{secrets.token_urlsafe(32)}"
        env = {**os.environ, "REDIS_URL": valkey.url, "JOBWIRE_ROOT_KEY": root_key, "JOBWIRE_RATE": "0"}
        service = [[*COMMAND, "web", "--port", str(port)] for port in ports] + [[*COMMAND, "sweeper"]] * 2
        producer, sent = Producer(urls, root_key), tmp_path / "sent"
        with contextlib.ExitStack() as stack:
            ours = Herd(service, env, tmp_path / "log", ports)
            stack.callback(ours.end)
            producer.space = producer.call("POST", "/spaces", {"name": "crash"})["id"]
            worker = [sys.executable, "-m", "tests.faults.crash_worker", str(sent), root_key, producer.space, *urls]
            workers = Herd([worker] * 4, env, tmp_path / "log")
            stack.callback(workers.end)
            with producing(producer):
                killer = threading.Thread(target=workers.kill_some_for, args=(SECONDS,))
                killer.start()
                ours.kill_some_for(SECONDS)
                killer.join()
            until(lambda: nothing_is_under_way(valkey, producer.space), SETTLE_S)
        assert ours.kills > SECONDS / 4
        assert workers.kills > SECONDS / 2
        assert_every_job_ended_legally(valkey, producer, sent)


def nothing_is_under_way(valkey: Valkey, space: str) -> bool:
    """At one moment: a job that moves meanwhile from one status to another would be in neither."""
    with redis.Redis.from_url(valkey.url) as client, client.pipeline(transaction=True) as together:
        for status in ("scheduled", "pending", "delivered", "running"):
            together.zcard(f"jw:{{{space}}}:jobs:{status}")
        return not any(together.execute())


def assert_every_job_ended_legally(valkey: Valkey, producer: Producer, sent: Path) -> None:
    results: dict[str, set[bytes]] = {}
    for line in sent.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            results.setdefault(json.loads(line)["job"], set()).add(line)
    assert len(producer.answered) > 5 * SECONDS
    completed = 0
    for job in producer.answered:
        key = f"jw:{{{producer.space}}}:job:{job}"
        found = valkey.cli("HGETALL", key)
        assert found, "a job that was answered is lost"
        status = found[b"status"].decode()
        kinds = [json.loads(item)[0] for item in valkey.cli("LRANGE", f"{key}:events", 0, -1)]
        assert status in ENDED
        assert status in statuses_after(kinds)
        assert kinds.count("started") <= int(found[b"maxRetries"]) + 1
        if status == "completed":
            completed += 1
            assert found[b"result"] in results[job]
    assert completed > len(producer.answered) / 2
