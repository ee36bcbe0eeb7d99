"""The embedded Valkey ends by itself, and is back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
import redis

from app.local import embedded_valkey as embedded
from app.local.embedded_valkey import EmbeddedServer
from tests.valkey import EmbeddedValkey, until


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def test_supervise_brings_a_killed_valkey_back_soon_and_ends_with_stop() -> None:
    with EmbeddedValkey(appendfsync="always") as valkey:
        watch = asyncio.create_task(valkey.server.supervise())
        await asyncio.to_thread(valkey.cli, "SET", "answered", "yes")
        for word in (signal.SIGKILL, signal.SIGSEGV):
            assert await asyncio.to_thread(seconds_away_after, word, valkey) < 2.0
            assert await asyncio.to_thread(valkey.cli, "GET", "answered") == b"yes"
        await asyncio.to_thread(valkey.server.stop)
        await asyncio.wait_for(watch, 5)
        assert not valkey.server.alive()


def seconds_away_after(word: signal.Signals, valkey: EmbeddedValkey) -> float:
    pid, begun = valkey.server.pid, time.monotonic()
    assert pid is not None
    os.kill(pid, word)
    until(lambda: valkey.server.pid not in (None, pid))
    until(lambda: answers(valkey))
    return time.monotonic() - begun


def answers(valkey: EmbeddedValkey) -> bool:
    try:
        return bool(valkey.cli("PING"))
    except redis.RedisError:
        return False


async def test_supervise_says_why_a_restart_failed_and_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    with EmbeddedValkey() as valkey:
        watch = asyncio.create_task(valkey.server.supervise())
        manifest = valkey.data / "appendonlydir" / "appendonly.aof.manifest"
        good = manifest.read_bytes()
        manifest.write_bytes(b"nonsense\n")
        valkey.kill()
        await asyncio.to_thread(until, lambda: caplog.text.count("is damaged: it was not changed") >= 2)
        manifest.write_bytes(good)
        await asyncio.to_thread(until, lambda: answers(valkey))
        watch.cancel()
    assert "The list of files in" in caplog.text


def test_supervise_without_a_start_does_nothing(data: Path) -> None:
    asyncio.run(asyncio.wait_for(EmbeddedServer(data).supervise(), 5))
    assert not data.exists()


async def test_the_log_is_bounded_at_start_and_while_it_runs(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "VALKEY_LOG_BYTES", 100)
    with EmbeddedValkey(data) as valkey:
        watch = asyncio.create_task(valkey.server.supervise())
        await asyncio.to_thread(until, lambda: (data / "valkey.log").stat().st_size == 0)
        watch.cancel()
        assert "Ready to accept connections" in (data / "valkey.log.1").read_text()
        valkey.restart()
        assert (data / "valkey.log").stat().st_size < 5000
        assert "ready to exit" in (data / "valkey.log.1").read_text()
