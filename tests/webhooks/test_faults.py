"""Bad days: the callbacks process and Redis are killed midway, and every ended job's callback arrives all the same."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3

from tests.any_redis import AnyRedis, NewRedis
from tests.faults.service import Process, Reply, Service
from tests.server import free_port
from tests.valkey import until
from tests.webhooks.receiving import HERE, Receiving, tries

JOBS = 300
CLAIMS = 100
ROOT_KEY = "emit_" + "k" * 43


class Apart(Service):
    """The service as the Procfile has it, without the sweeper: `web`, and as many `callbacks` as a test starts.

    A receiver has `answer_s` for its answer; where each try must be answered, so long that a busy machine is in time.
    """

    def __init__(self, valkey: AnyRedis, answer_s: float = 0.5) -> None:
        port = free_port()
        self.env = {
            **HERE,
            "REDIS_URL": valkey.url,
            "JOBWIRE_ROOT_KEY": ROOT_KEY,
            "JOBWIRE_RATE": "0",
            "JOBWIRE_REDIS_TIMEOUT": "1",
            "JOBWIRE_CALLBACK_TIMEOUT": str(answer_s),
            "JOBWIRE_CALLBACK_SCHEDULE": ",".join(["0"] + ["0.2"] * 30),
        }
        Process.__init__(self, "web", "--port", str(port), env=self.env)
        self.url, self.root_key = f"http://127.0.0.1:{port}", ROOT_KEY
        self._http = urllib3.PoolManager(maxsize=64, retries=False)
        until(self.ready, 30)
        self.space = self.new_space()

    def ready(self) -> bool:
        """Whether it answers and is ready."""
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            return self.probe("/readyz").status == 200
        return False

    def callbacks(self) -> Process:
        """One more callbacks process."""
        return Process("callbacks", env=self.env)


@pytest.fixture
def valkey(new_redis: NewRedis) -> Iterator[AnyRedis]:
    with new_redis(appendfsync="always") as server:
        yield server


@pytest.fixture
def service(valkey: AnyRedis) -> Iterator[Apart]:
    with Apart(valkey) as service:
        yield service


@pytest.fixture
def receiver() -> Iterator[Receiving]:
    with Receiving() as receiving:
        yield receiving


def delivered(service: Service, receiver: Receiving, *paths: str) -> list[str]:
    """Delivered jobs that call back these paths in turn; without any, every other one fails once."""
    turns = paths or ("/ok", "/flaky/1")
    urls = [receiver.url(turns[number % len(turns)]) for number in range(JOBS)]
    jobs = [{"name": "n", "claim": True, "maxRetries": 0, "callbackUrl": url} for url in urls]
    made: list[str] = []
    for at in range(0, JOBS, CLAIMS):
        reply = service.call("POST", f"/spaces/{service.space}/jobs", jobs[at : at + CLAIMS])
        assert reply.status == 201
        made += (job["id"] for job in reply.body)
    return made


def ending(service: Service, jobs: list[str], between: Callable[[], Any], rounds: int) -> None:
    """Complete all jobs, over and over until each is, while `between` happens `rounds` times."""
    over = threading.Event()

    def complete(job: str) -> None:
        while not over.wait(0.005):
            reply: Reply = service.call("POST", f"/jobs/{job}/complete", {"of": job})
            if reply.status == 200:
                return
            assert reply.status == 503, reply

    with ThreadPoolExecutor(8) as threads:
        ends = [threads.submit(complete, job) for job in jobs]
        try:
            for _ in range(rounds):
                between()
            for end in ends:
                end.result(30)
        finally:
            over.set()


def check(service: Service, receiver: Receiving, jobs: list[str]) -> int:
    """Every callback came and is noted; each event is a try, and no try is without one. How many were cut off."""
    until(lambda: all(said and said[-1][0] == "callback_sent" for said in (tries(service, job) for job in jobs)), 60)
    came: dict[str, int] = {}
    for path_and_job, times in receiver.count()["times"].items():
        came[path_and_job.split()[1]] = times
    cut_off = 0
    for job in jobs:
        said = tries(service, job)
        answered = [data for _, data in said if data["statusCode"] is not None]
        assert 1 <= len(answered) <= came[job] <= len(said), (job, came[job], said)
        assert [kind for kind, _ in said].count("callback_sent") == 1
        assert [data["retryAttempt"] for _, data in said] == list(range(len(said)))
        assert all(data["willRetry"] for kind, data in said if kind == "callback_failed")
        cut_off += len(said) - len(answered)
    return cut_off


def test_callbacks_processes_that_are_killed_lose_nothing(service: Apart, receiver: Receiving) -> None:
    jobs = delivered(service, receiver, "/ok", "/flaky/1", "/late")

    def live_and_die() -> None:
        with service.callbacks() as process:
            before = sum(receiver.count()["times"].values())
            until(lambda: sum(receiver.count()["times"].values()) > before + 5, 20)
            process.kill()

    ending(service, jobs, live_and_die, 4)
    with service.callbacks(), service.callbacks():
        cut_off = check(service, receiver, jobs)
    assert cut_off > 0, "no try was cut off: this test has shown nothing"


def test_a_redis_that_is_killed_loses_nothing(valkey: AnyRedis, service: Apart, receiver: Receiving) -> None:
    jobs = delivered(service, receiver)

    def die_and_come_back() -> None:
        before = sum(receiver.count()["times"].values())
        until(lambda: sum(receiver.count()["times"].values()) > before + 5, 20)
        valkey.kill()
        valkey.restart()
        until(service.ready, 20)

    with service.callbacks():
        ending(service, jobs, die_and_come_back, 4)
        check(service, receiver, jobs)


def test_a_redis_that_stalls_delays_and_loses_nothing(valkey: AnyRedis, service: Apart, receiver: Receiving) -> None:
    jobs = delivered(service, receiver)

    def stall() -> None:
        before = sum(receiver.count()["times"].values())
        until(lambda: sum(receiver.count()["times"].values()) > before + 5, 20)
        valkey.stall()
        assert service.call("GET", f"/jobs/{jobs[0]}").status == 503
        valkey.resume()

    with service.callbacks():
        ending(service, jobs, stall, 2)
        check(service, receiver, jobs)


def test_a_redis_without_memory_ends_jobs_and_sends_when_it_has_some(receiver: Receiving, new_redis: NewRedis) -> None:
    with new_redis() as valkey, Apart(valkey) as service:
        jobs = delivered(service, receiver)
        valkey.cli("CONFIG", "SET", "maxmemory", "1mb")
        ending(service, jobs, lambda: None, 1)
        with service.callbacks():
            server = valkey.owner(f"{{{service.space}}}")
            until(lambda: server.cli("INFO", "errorstats").get("errorstat_OOM"))
            assert receiver.count()["times"] == {}
            valkey.cli("CONFIG", "SET", "maxmemory", "0")
            assert check(service, receiver, jobs) == 0


def test_a_process_that_is_told_to_leave_gives_back_what_it_has(valkey: AnyRedis, receiver: Receiving) -> None:
    with Apart(valkey, answer_s=5) as service:
        jobs = delivered(service, receiver)
        with service.callbacks() as process:
            ending(service, jobs, lambda: until(lambda: receiver.count()["times"], 20), 1)
            process.popen.terminate()
            assert process.popen.wait(20) == 0
        with service.callbacks():
            assert check(service, receiver, jobs) == 0
