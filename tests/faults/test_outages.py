"""Leases of four seconds and outages of seven: whoever still works goes on, and whoever has gone loses the job."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
import urllib3

from tests.faults.service import Process, Service
from tests.server import free_port
from tests.valkey import Valkey, until

LEASE_S = 4
OUTAGE_S = 7.0
LATE_S = 4.0
"""How much later than its grace a job may be taken away, on a busy machine."""

ROOT_KEY = "emit_" + "k" * 43


class Apart(Service):
    """`web` and `sweeper`, each a process of its own."""

    def __init__(self, valkey: Valkey) -> None:
        port = free_port()
        self.env = {"REDIS_URL": valkey.url, "JOBWIRE_ROOT_KEY": ROOT_KEY, "JOBWIRE_RATE": "0"}
        Process.__init__(self, "web", "--port", str(port), env=self.env)
        self.url, self.root_key = f"http://127.0.0.1:{port}", ROOT_KEY
        self._http = urllib3.PoolManager(maxsize=64, retries=False)
        self.sweeper = Process("sweeper", env=self.env)
        until(self.ready, 30)
        self.space = self.new_space()
        until(lambda: valkey.cli("EXISTS", "jw:outage"), 30)

    def ready(self) -> bool:
        """Whether it answers and is ready."""
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            return self.probe("/readyz").status == 200
        return False

    def close(self) -> None:
        self.sweeper.close()
        super().close()


@pytest.fixture
def own() -> Iterator[Valkey]:
    with Valkey(appendfsync="always") as server:
        yield server


@pytest.fixture
def service(own: Valkey) -> Iterator[Apart]:
    with Apart(own) as service:
        yield service


def running(service: Service) -> str:
    """A job that runs under a lease of four seconds."""
    job = str(service.create(timeoutSeconds=LEASE_S, claim=True)["id"])
    assert service.call("POST", f"/jobs/{job}/ack").status == 200
    return job


def costs_nothing(service: Service, outage: Callable[[], None]) -> None:
    """Two jobs run, an outage comes and goes; the worker of one is there again after a second, the other's is not."""
    working, gone = running(service), running(service)
    begun = time.monotonic()
    outage()
    assert time.monotonic() - begun > OUTAGE_S
    until(lambda: answers(service), 20)
    back = time.monotonic()
    time.sleep(1)
    assert service.call("POST", f"/jobs/{working}/keepalive").status == 200
    assert service.job(working)["attemptNumber"] == 0

    def handed_on() -> bool:
        assert service.call("POST", f"/jobs/{working}/keepalive").status == 200
        return bool(service.job(gone)["attemptNumber"] == 1)

    until(handed_on, LEASE_S + LATE_S)
    assert time.monotonic() - back > LEASE_S - 2, "it has its grace, too, for nobody knows that its worker has gone"
    job = service.job(working)
    assert (job["status"], job["attemptNumber"]) == ("running", 0)
    assert service.call("POST", f"/jobs/{working}/complete").status == 200


def answers(service: Service) -> bool:
    """Whether a job can be read."""
    with contextlib.suppress(urllib3.exceptions.HTTPError):
        return service.call("GET", f"/spaces/{service.space}").status == 200
    return False


def test_redis_killed_and_restarted_after_a_while_costs_no_attempt(own: Valkey, service: Apart) -> None:
    def outage() -> None:
        own.kill()
        time.sleep(OUTAGE_S)
        own.restart()

    costs_nothing(service, outage)


def test_redis_stalled_for_a_while_costs_no_attempt(own: Valkey, service: Apart) -> None:
    def outage() -> None:
        own.stall()
        time.sleep(OUTAGE_S)
        own.resume()

    costs_nothing(service, outage)


def test_a_sweeper_that_is_killed_and_replaced_after_a_while_costs_no_attempt(own: Valkey, service: Apart) -> None:
    def outage() -> None:
        service.sweeper.kill()
        time.sleep(OUTAGE_S)
        assert not own.cli("EXISTS", "jw:sweeper")
        service.sweeper.close()
        service.sweeper = Process("sweeper", env=service.env)
        until(lambda: own.cli("EXISTS", "jw:sweeper"), 30)

    costs_nothing(service, outage)


def test_a_sweeper_that_stands_still_for_a_while_costs_no_attempt(service: Apart) -> None:
    def outage() -> None:
        os.kill(service.sweeper.popen.pid, signal.SIGSTOP)
        time.sleep(OUTAGE_S)
        os.kill(service.sweeper.popen.pid, signal.SIGCONT)

    costs_nothing(service, outage)


def test_everything_killed_and_started_again_after_a_while_costs_no_attempt(own: Valkey) -> None:
    with Apart(own) as before:
        job, space = running(before), before.space
        before.sweeper.kill()
        before.kill()
        own.kill()
        time.sleep(OUTAGE_S)
        own.restart()
        with Apart(own) as service:
            service.space = space
            assert service.call("POST", f"/jobs/{job}/keepalive").status == 200
            assert service.job(job)["attemptNumber"] == 0
            until(lambda: service.job(job)["attemptNumber"] == 1, LEASE_S + LATE_S)
