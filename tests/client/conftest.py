"""Fixtures of the client half's tests: a service that can fail, and the ways to call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jobwire import Jobs
from tests.client.fake import FakeService

Cli = Callable[..., "subprocess.Popen[bytes]"]


def as_raw(value: Any) -> msgspec.Raw:
    """JSON that belongs to a user, as a record holds it."""
    return msgspec.Raw(msgspec.json.encode(value))


@pytest.fixture
def service() -> Iterator[FakeService]:
    service = FakeService()
    yield service
    service.down()


@pytest.fixture
def jobs(service: FakeService) -> Jobs:
    return Jobs(service.url, "emit_test", "space")


@pytest.fixture
def environ(service: FakeService, tmp_path: Path) -> dict[str, str]:
    """An environment in which the commands find the fake service and nothing of the machine's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")}
    ours = {"JOBWIRE_URL": service.url, "JOBWIRE_KEY": "emit_test", "JOBWIRE_SPACE": "space"}
    homes = {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    return {**kept, **ours, **homes}


@pytest.fixture
def cli(environ: dict[str, str]) -> Iterator[Cli]:
    """Starts `jobwire ARGUMENTS` with piped stdout and stderr; what still runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options = {**streams, "env": environ, **options}
        process = subprocess.Popen([sys.executable, "-m", "jobwire", *arguments], **options)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


class Up:
    """A real `jobwire up` on a folder and port of its own, that can be killed and started again."""

    def __init__(self, folder: Path, redis_environ: dict[str, str]) -> None:
        self._redis_environ = redis_environ
        self._data = folder / "data"
        self._port = "0"
        self.environ: dict[str, str] = {}
        self.start()

    def start(self) -> None:
        """Start on the same folder and port as before, and wait until it answers."""
        command = [sys.executable, "-m", "jobwire", "up", "--json", "--port", self._port, "--data", str(self._data)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBWIRE_")}
        kept.pop("REDIS_URL", None)
        kept |= {**self._redis_environ, "XDG_CONFIG_HOME": str(self._data.parent / "config")}
        self._process = subprocess.Popen(
            command, env=kept, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        assert self._process.stdout is not None
        found = json.loads(self._process.stdout.readline())
        self._port = found["url"].rpartition(":")[2]
        ours = {"JOBWIRE_URL": found["url"], "JOBWIRE_KEY": found["rootKey"], "JOBWIRE_SPACE": found["spaceId"]}
        self.environ = {**kept, **ours, "JOBWIRE_DATA": str(self._data)}

    def kill(self) -> None:
        """End it as a power cut would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=30)

    @property
    def jobs(self) -> Jobs:
        return Jobs.from_env(environ=self.environ)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, redis_environ: dict[str, str]) -> Iterator[Up]:
    up = Up(tmp_path_factory.mktemp("up"), redis_environ)
    yield up
    up.stop()
