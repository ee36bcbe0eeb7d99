"""`LogHandler` in children of `multiprocessing` and at the end of programs, on every Python that is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.client.fake import FakeService

PROGRAM = Path(__file__).parent / "children.py"
ROOT = PROGRAM.parents[3]
LINES = 200
METHODS = ("fork", "spawn", "forkserver")
WAYS = ("process", "pool", "executor", "initializer")
OTHERS = ("3.12", "3.13", "3.14")


def others() -> list[str]:
    """Other Pythons of this machine that run."""
    managed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}") for version in OTHERS]
    found += [str(path) for version in OTHERS for path in managed.glob(f"{version}.*/bin/python{version}")]
    return [python for python in found if python and subprocess.run([python, "-c", ""], check=False).returncode == 0]


@pytest.fixture(scope="session", params=["this", *others()], ids=lambda path: Path(path).name)
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has what the client half needs."""
    if request.param == "this":
        return sys.executable
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([request.param, "-m", "venv", folder], check=True)
    pip = [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", "click", "msgspec", "urllib3"]
    subprocess.run(pip, check=True)
    return str(folder / "bin" / "python")


def environment(service: FakeService, environ: dict[str, str]) -> dict[str, str]:
    return {**environ, "JOBWIRE_JOB": service.add_job().id, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", WAYS)
def test_every_line_of_a_child_arrives(
    service: FakeService, environ: dict[str, str], python: str, method: str, way: str
) -> None:
    command = [python, str(PROGRAM), method, way, str(LINES)]
    subprocess.run(command, env=environment(service, environ), check=True, timeout=60)
    assert sorted(service.messages()) == sorted(f"child line {number}" for number in range(LINES))


def test_the_first_record_of_a_program_that_ends_arrives(
    service: FakeService, environ: dict[str, str], python: str
) -> None:
    program = (
        "import atexit, logging, jobwire\n"
        "logging.getLogger().addHandler(jobwire.LogHandler())\n"
        "atexit.register(logging.error, 'last words')"
    )
    subprocess.run([python, "-c", program], env=environment(service, environ), check=True, timeout=60)
    assert service.messages() == ["last words"]


def test_a_program_ends_in_five_seconds_with_the_server_away(
    service: FakeService, environ: dict[str, str], python: str
) -> None:
    service.down()
    program = (
        "import logging, sys, jobwire\nlogging.getLogger().addHandler(jobwire.LogHandler())\nlogging.error('lost')\n"
    )
    environ = {**environ, "JOBWIRE_JOB": "job", "PYTHONPATH": str(ROOT)}
    begun_s = time.monotonic()
    done = subprocess.run([python, "-c", program], env=environ, capture_output=True, text=True, timeout=60, check=True)
    assert 4 < time.monotonic() - begun_s < 8
    assert done.stderr == "jobwire: 1 lines of job job were not sent: no server answered\n"


def test_a_child_of_a_fork_alone_logs_too(service: FakeService, environ: dict[str, str]) -> None:
    program = (
        "import logging, os, jobwire\nlogging.getLogger().addHandler(jobwire.LogHandler())\n"
        "if os.fork():\n os.wait()\nelse:\n logging.error('child')"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(service, environ), check=True, timeout=60)
    assert service.messages() == ["child"]
