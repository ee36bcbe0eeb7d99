"""The start of `up` and `web`: what is told to the operator, and the credentials file, whatever became of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.local.credentials import salvage
from app.redis_links.server_advice import policy_problem, version_problem
from tests.server import free_port
from tests.test_processes import answers, environment, start_up, up_arguments
from tests.valkey import Valkey, until

ROOT_KEY = "emit_" + "r" * 43


@contextmanager
def started(log: Path, *arguments: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """`jobwire ARGUMENTS`, with its log in a file; told to end, and ended."""
    command = [sys.executable, "-m", "jobwire", *arguments]
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, env=environment(**env), stdout=subprocess.PIPE, stderr=stderr)
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)


def upped(data: Path, **env: str) -> tuple[dict[str, Any], str]:
    """What `up --json` said, whether all keys work that it said, and its log."""
    log = data.parent / "up.log"
    with started(log, *up_arguments(data), **env) as process:
        ready = start_up(process)
        for key in (ready["rootKey"], *ready["keys"].values()):
            seen = httpx.get(f"{ready['url']}/api/v1/whoami", headers={"x-api-key": key})
            assert seen.status_code == 200, seen.text
            assert seen.json().get("spaceId") in (None, ready["spaceId"])
    return ready, log.read_text()


# Credentials


@pytest.mark.parametrize("way", ["empty", "NULs", "cut early", "cut late", "no object", "wrong types", "not UTF-8"])
def test_damaged_credentials_are_made_anew_for_the_same_space(tmp_path: Path, way: str) -> None:
    data = tmp_path / "data"
    before, log = upped(data)
    assert "damaged" not in log
    path = data / "credentials.json"
    text = path.read_bytes()
    damaged = {
        "empty": b"",
        "NULs": bytes(len(text)),
        "cut early": text[:30],
        "cut late": text[:-40],
        "no object": b"[]",
        "wrong types": b'{"rootKey": 7, "keys": []}',
        "not UTF-8": text[:200] + b"\xff\xfe",
    }[way]
    path.write_bytes(damaged)
    after, log = upped(data)
    assert after["spaceId"] == before["spaceId"]
    assert after["keys"].keys() == before["keys"].keys()
    assert log.count("credentials.json was damaged") == 1
    assert path.with_name("credentials.json.damaged").read_bytes() == damaged
    assert path.stat().st_mode & 0o777 == 0o600
    again, log = upped(data)
    assert again | {"url": ""} == after | {"url": ""}
    assert "damaged" not in log


def test_whatever_of_a_cut_file_is_whole_is_kept() -> None:
    whole = {"url": "http://x", "rootKey": ROOT_KEY, "spaceId": "S", "keys": {"producer": "emit_p", "worker": "emit_w"}}
    text = json.dumps(whole, indent=2).encode()
    for size in range(len(text)):
        found = salvage(text[:size] + bytes(9))
        assert found.root_key in ("", ROOT_KEY)
        assert found.space_id in ("", "S")
        assert found.keys.items() <= {"producer": "emit_p", "worker": "emit_w"}.items()
    assert salvage(text[:-2]).keys == whole["keys"]


@pytest.mark.parametrize("root_key", ["short", "emit_with blanks in it"])
def test_a_root_key_in_the_file_that_can_be_guessed_is_refused(tmp_path: Path, root_key: str) -> None:
    (tmp_path / "credentials.json").write_text(json.dumps({"rootKey": root_key}))
    said = refusal(tmp_path)
    assert said == (
        f"jobwire: The rootKey in {tmp_path / 'credentials.json'} is no root key: "
        "it has at least 16 characters, all of ASCII, and no blanks."
    )


def test_credentials_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").mkdir()
    assert refusal(tmp_path) == f"jobwire: {tmp_path / 'credentials.json'} cannot be read: Is a directory."


def refusal(data: Path) -> str:
    """The last line of an `up` that did not start."""
    data.chmod(0o700)
    command = [sys.executable, "-m", "jobwire", *up_arguments(data)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 69
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


# What the operator is told


def test_a_wrong_eviction_policy_is_told_at_the_start(tmp_path: Path) -> None:
    with Valkey(config={"maxmemory-policy": "allkeys-lru"}) as valkey:
        log, port = tmp_path / "log", free_port()
        for arguments in (up_arguments(tmp_path / "data"), ["web", "--port", str(port)]):
            with started(log, *arguments, REDIS_URL=valkey.url, JOBWIRE_ROOT_KEY=ROOT_KEY):
                until(lambda: "Redis's eviction policy is allkeys-lru: it may drop jobs." in log.read_text(), 20)
            assert "Traceback" not in log.read_text()


def test_web_without_a_root_key_says_so_and_serves(tmp_path: Path, valkey: Valkey) -> None:
    log, port = tmp_path / "log", free_port()
    with started(log, "web", "--port", str(port), REDIS_URL=valkey.url):
        until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 20)
    assert log.read_text().count("JOBWIRE_ROOT_KEY is not set: nobody can make spaces and keys.") == 1
    with started(log, "web", "--port", str(port), REDIS_URL=valkey.url, JOBWIRE_ROOT_KEY=ROOT_KEY):
        until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 20)
    assert "WARNING" not in log.read_text()


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({"redis_version": "6.2.14"}, "Redis 6.2.14 is too old"),
        ({"redis_version": "7.0.15"}, ""),
        ({"redis_version": "8.2.1"}, ""),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.2.9"}, "Valkey 7.2.9 is too old"),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"}, ""),
        ({"redis_version": "", "server_name": "valkey"}, ""),
        ({}, ""),
    ],
)
def test_a_server_that_is_too_old_is_named(info: dict[str, str], said: str) -> None:
    assert version_problem(info).startswith(said)
    assert bool(version_problem(info)) == bool(said)


def test_a_policy_that_is_not_told_is_no_problem() -> None:
    assert policy_problem({}) == policy_problem({"maxmemory_policy": "noeviction"}) == ""
