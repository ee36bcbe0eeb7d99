"""Fixtures of the client half's tests: a service that can fail, and the ways to call it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobwire import Jobs

from .fake import FakeService

Cli = Callable[..., "subprocess.Popen[bytes]"]


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
    return {**kept, **ours, "XDG_STATE_HOME": str(tmp_path / "state")}


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
