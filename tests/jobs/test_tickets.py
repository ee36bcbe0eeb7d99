"""The link that `up` prints: it signs in once, within five minutes, and only a terminal gets it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.jobs.tickets import LIVES_MS
from tests.any_redis import AnyRedis, NewRedis
from tests.factories import refused
from tests.test_processes import environment
from tests.valkey import client_of

pytestmark = pytest.mark.valkey_only("`up` has its own Redis")


def said_by_up(data: Path, valkey: AnyRedis, *, on_terminal: bool) -> tuple[subprocess.Popen[bytes], str]:
    """An `up`, and what it says until its page."""
    ours, theirs = os.openpty() if on_terminal else os.pipe()
    command = [sys.executable, "-m", "jobwire", "up", "--port", "0", "--data", str(data)]
    with (data.parent / "up.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(REDIS_URL=valkey.url), stdout=theirs, stderr=log)
    os.close(theirs)
    with open(ours, "rb", buffering=0) as stream:
        text = b""
        while not re.search(rb"\n  page .*\n", text):
            text += stream.read(4096)
    return process, text.decode()


def test_the_link_of_a_terminal_signs_in_once_and_redis_does_not_know_the_key(
    tmp_path: Path, new_redis: NewRedis
) -> None:
    with new_redis() as valkey:
        process, text = said_by_up(tmp_path / "data", valkey, on_terminal=True)
        try:
            found = re.search(r"page +(\S+)/#/ticket/([\w-]{43})\s", text)
            assert found, text
            url, ticket = found[1], found[2]
            root_key = json.loads((tmp_path / "data" / "credentials.json").read_bytes())["rootKey"]
            with client_of(valkey.url) as client:
                (name,) = client.scan_iter("jw:ticket:*")
            assert ticket.encode() not in name
            assert root_key.encode() not in valkey.cli("GET", name.decode())
            assert 0 < int(valkey.cli("PTTL", name.decode())) <= LIVES_MS
            headers = {"x-ticket": ticket}
            assert httpx.get(f"{url}/tickets/exchange", headers=headers).headers["allow"] == "POST"
            refused(httpx.post(f"{url}/tickets/exchange", headers={"x-ticket": "other"}), 401, "unauthorized")
            with ThreadPoolExecutor(8) as pool:
                calls = [pool.submit(httpx.post, f"{url}/tickets/exchange", headers=headers) for _ in range(8)]
                answers = [call.result() for call in calls]
            assert Counter(answer.status_code for answer in answers) == {200: 1, 401: 7}
            assert [answer.json() for answer in answers if answer.is_success] == [{"key": root_key}]
            assert ticket not in (tmp_path / "up.log").read_text()
        finally:
            process.terminate()
            process.wait(30)


def test_what_is_no_terminal_gets_a_link_that_opens_nothing(tmp_path: Path, new_redis: NewRedis) -> None:
    with new_redis() as valkey:
        process, text = said_by_up(tmp_path / "data", valkey, on_terminal=False)
        process.terminate()
        process.wait(30)
        assert re.search(r"page +http://127\.0\.0\.1:\d+\n", text)
        assert "ticket" not in text
