"""The server that tests run on: the embedded Valkey, or what SERVER_BINARY names, /usr/bin/redis-server say.

Owns: which it is, and what it lacks. A test of something that not every server has is marked
`since(what, redis=..., valkey=...)`, and is not selected where the server is older.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache

from app.local.embedded_valkey import SETTINGS, embedded_binary
from tests.skipping import skip

BINARY = os.environ.get("SERVER_BINARY") or str(embedded_binary())

Version = tuple[int, ...]


@cache
def name_and_version(binary: str) -> tuple[str, Version]:
    """What a server is, "redis" or "valkey", and its version."""
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"(Redis|Valkey) server v=([\d.]+)", told)
    assert found, told
    return found[1].lower(), tuple(map(int, found[2].split(".")))


def is_since(*, redis: Version | None, valkey: Version | None, binary: str = BINARY) -> bool:
    """Whether a server is no older than that; None is a kind of server that is too old in every version."""
    name, version = name_and_version(binary)
    least = {"redis": redis, "valkey": valkey}[name]
    return least is not None and version >= least


def settings(binary: str = BINARY) -> Mapping[str, str]:
    """The settings of the embedded Valkey that a server knows."""
    unknown = set() if is_since(redis=(7, 4), valkey=(8,), binary=binary) else {"hide-user-data-from-log"}
    return {name: value for name, value in SETTINGS.items() if name not in unknown}


def tls_binary() -> str:
    """A server that can speak TLS: the embedded Valkey cannot. Where there is none, the test is skipped."""
    return shutil.which("redis-server") or skip("there is no redis-server, which can speak TLS")
