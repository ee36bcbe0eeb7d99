"""The client half beside a foreign package called `app`: the name is common, and must never be in the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest
import urllib3

import jobwire
from jobwire import exit_codes
from tests.client.fake import FakeService

CLIENT = Path(jobwire.__file__).parent
STRANGER = "raise SystemExit('a stranger was imported')\n"


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A folder with somebody else's `app`, which must not even be imported."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text(STRANGER)
    (tmp_path / "app" / "cli.py").write_text(STRANGER)
    return tmp_path


def python(folder: Path, environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=30, check=False
    )


def test_library_and_commands_work_beside_a_stranger(
    service: FakeService, environ: dict[str, str], stranger: Path
) -> None:
    job = service.add_job()
    program = (
        "import jobwire, logging, sys; jobs = jobwire.Jobs.from_env(); jobs.get('job-0');"
        "logging.getLogger().addHandler(jobwire.LogHandler('job-0')); logging.error('seen');"
        "assert 'app' not in sys.modules"
    )
    assert python(stranger, environ, "-c", program).returncode == 0
    assert service.messages() == ["seen"]
    listed = python(stranger, environ, "-m", "jobwire", "jobs", "list", "--json")
    assert [found["id"] for found in json.loads(listed.stdout)] == [job.id]
    assert python(stranger, environ, "-m", "jobwire", "run", "--", "true").returncode == 0


def test_our_own_server_half_is_found_in_front_of_a_stranger(environ: dict[str, str], stranger: Path) -> None:
    helped = python(stranger, environ, "-m", "jobwire", "up", "--help")
    assert (helped.returncode, helped.stderr) == (0, "")


@pytest.mark.parametrize(
    ("entry_points", "trouble"),
    [
        ("", "the server half is not installed here"),
        ("[jobwire.commands]\nserver = app.cli:commands\n", "it was installed without its package `app`"),
    ],
)
def test_a_client_without_its_server_half_works_and_says_so(
    service: FakeService, environ: dict[str, str], stranger: Path, entry_points: str, trouble: str
) -> None:
    for module in (jobwire, click, msgspec, urllib3):
        (stranger / module.__name__).symlink_to(Path(module.__file__ or "").parent)
    installed = stranger / "jobwire-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: jobwire\nVersion: 0\n")
    (installed / "entry_points.txt").write_text(entry_points)
    assert python(stranger, environ, "-S", "-m", "jobwire", "jobs", "list").returncode == 0
    up = python(stranger, environ, "-S", "-m", "jobwire", "up")
    assert up.returncode == exit_codes.NOT_CONFIGURED
    assert up.stderr.startswith("jobwire: `up` is no command of the client, and ")
    assert trouble in up.stderr


def test_the_client_half_never_imports_the_server() -> None:
    sources = [path.read_text() for path in CLIENT.rglob("*.py")]
    assert sources
    assert not [text for text in sources if "import app" in text or "from app" in text]
