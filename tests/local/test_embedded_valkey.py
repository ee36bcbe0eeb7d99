"""The embedded Valkey: one server a folder, gone when we are, back with its data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from app.local import data_folder as folder
from app.local import embedded_valkey as embedded
from app.local.embedded_valkey import EmbeddedError, EmbeddedServer, FolderInUse
from tests.valkey import EmbeddedValkey, until

SERVE = """
import sys
from pathlib import Path
from app.local.embedded_valkey import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]), appendfsync="always")
server.start()
print(server.pid, flush=True)
"""
UNTIL_KILLED = "sys.stdin.read()"
SAYS_ON_CTRL_C_WHETHER_VALKEY_ANSWERS = """
import signal, sys, time, redis
def interrupted(*_):
    time.sleep(0.3)  # a Valkey that got the signal, too, would be gone by now
    print(redis.Redis.from_url(server.url).ping(), server.pid, flush=True)
    server.stop()
    sys.exit(0)
signal.signal(signal.SIGINT, interrupted)
"""
WITHOUT_KERNEL_HELP = (
    "import app.local.embedded_valkey; app.local.embedded_valkey._terminate_on_close = lambda reader, pid: None\n"
)


def has_no_valkey(data: Path) -> bool:
    """No Valkey and no fork of one works on the folder."""
    with folder.open_private(data / "valkey.lock", os.O_RDWR) as lock:
        return folder.lock_file(lock)


def command(url: str, *args: str) -> Any:
    with redis.Redis.from_url(url, socket_timeout=5) as client:
        return client.execute_command(*args)


@contextmanager
def other_process(code: str, data: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process of its own that serves `data`, and the pid of its Valkey; both are gone at the end."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with child:
        assert child.stdout is not None
        valkey_pid = int(child.stdout.readline())
        try:
            yield child, valkey_pid
        finally:
            child.kill()
            if not has_no_valkey(data):
                with suppress(ProcessLookupError):
                    os.killpg(valkey_pid, signal.SIGKILL)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def quick_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LEAVING_S", 0.05)
    monkeypatch.setattr(embedded, "TERMINATE_S", 0.3)


# Start and stop


def test_start_serves_and_stop_ends_and_both_can_be_repeated(data: Path) -> None:
    server = EmbeddedServer(data)
    server.stop()
    server.start()
    pid = server.pid
    server.start()
    assert (server.alive(), server.pid) == (True, pid)
    assert command(server.url, "PING") is True
    server.stop()
    server.stop()
    assert (server.alive(), server.pid) == (False, None)
    assert has_no_valkey(data)
    server.start()
    assert server.pid not in (None, pid)
    server.stop()


def test_start_takes_a_part_of_the_two_seconds_that_up_has(data: Path) -> None:
    with EmbeddedServer(data):
        pass
    begun = time.monotonic()
    with EmbeddedServer(data):
        assert time.monotonic() - begun < 1.0


def test_clean_stop_keeps_the_last_write_and_syncs_it(data: Path) -> None:
    with EmbeddedValkey(data, appendfsync="everysec") as valkey:
        valkey.cli("SET", "last", "word")
    assert "Calling fsync() on the AOF file" in (data / "valkey.log").read_text()
    with EmbeddedValkey(data) as valkey:
        assert valkey.cli("GET", "last") == b"word"


def test_stop_ends_a_valkey_that_does_not_answer() -> None:
    with EmbeddedValkey() as valkey:
        valkey.stall()
        valkey.server.stop(timeout_s=0.1)
        assert has_no_valkey(valkey.data)


def test_settings_are_in_force_and_ours_can_be_overridden_but_not_the_port(data: Path) -> None:
    extra = {"port": "6379", "list-max-listpack-size": "16", "client-output-buffer-limit": "pubsub 64mb 16mb 60"}
    with EmbeddedValkey(data, appendfsync="always", maxmemory_bytes=123_000_000, config=extra) as valkey:
        found = {
            name: valkey.cli("CONFIG", "GET", name)[name.encode()].decode()
            for name in (*embedded.SETTINGS, *extra, "appendfsync", "maxmemory", "dir")
        }
    assert found.pop("client-output-buffer-limit").endswith("pubsub 67108864 16777216 60")
    assert found == {
        **embedded.SETTINGS,
        "port": "0",
        "list-max-listpack-size": "16",
        "appendfsync": "always",
        "maxmemory": "123000000",
        "dir": str(data),
    }


def test_a_job_hash_with_a_payload_of_a_kilobyte_stays_compact() -> None:
    with EmbeddedValkey() as valkey:
        valkey.cli("HSET", "job", "payload", "x" * 1000, "name", "encode", "status", "pending")
        assert valkey.cli("OBJECT", "ENCODING", "job") == b"listpack"


def test_a_setting_that_valkey_does_not_know_is_said_at_once(data: Path) -> None:
    server = EmbeddedServer(data, config={"no-such-setting": 'a\nb "c'})
    with pytest.raises(EmbeddedError, match="no-such-setting"):
        server.start()
    with EmbeddedValkey(data) as valkey:
        assert valkey.cli("PING")


def test_a_valkey_that_never_gets_ready_is_ended_with_what_it_said(data: Path) -> None:
    server = EmbeddedServer(data, config={"requirepass": "word"})
    with pytest.raises(EmbeddedError, match=r"not ready within 0\.2 s; it said -NOAUTH"):
        server.start(timeout_s=0.2)
    assert has_no_valkey(data)


# One server a folder


def test_second_process_on_a_folder_is_refused_naming_folder_and_holder(data: Path) -> None:
    with other_process(SERVE + UNTIL_KILLED, data) as (child, valkey_pid):
        second = EmbeddedServer(data)
        with pytest.raises(FolderInUse) as refusal:
            second.start()
        second.stop()
        assert str(data) in str(refusal.value)
        assert f"process {child.pid}" in str(refusal.value)
        assert refusal.value.holder_pid == child.pid
        assert command(second.url, "INFO", "server")["process_id"] == valkey_pid


def test_second_server_in_the_same_process_is_refused_too_even_by_another_name(data: Path) -> None:
    with EmbeddedValkey(data):
        alias = data.parent / "alias"
        alias.symlink_to(data)
        with pytest.raises(FolderInUse, match=f"process {os.getpid()}"):
            EmbeddedServer(alias).start()


def test_a_start_that_failed_frees_the_folder(data: Path) -> None:
    with pytest.raises(EmbeddedError):
        EmbeddedServer(data, appendfsync="sometimes").start()
    with EmbeddedValkey(data) as valkey:
        assert valkey.cli("PING")


# It dies with us, and not before


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start ends it")
def test_kill_9_of_our_process_ends_valkey_and_the_next_start_has_the_data(data: Path) -> None:
    with other_process(SERVE + UNTIL_KILLED, data) as (child, _):
        command(EmbeddedServer(data).url, "SET", "answered", "yes")
        child.kill()
        child.wait(10)
        until(lambda: has_no_valkey(data))
    with EmbeddedValkey(data) as valkey:
        assert valkey.cli("GET", "answered") == b"yes"


def test_kill_9_of_both_at_once_loses_no_write_that_was_synced(data: Path) -> None:
    with other_process(SERVE + UNTIL_KILLED, data) as (child, valkey_pid):
        command(EmbeddedServer(data).url, "SET", "answered", "yes")
        os.kill(valkey_pid, signal.SIGKILL)
        child.kill()
        child.wait(10)
        with EmbeddedValkey(data) as valkey:
            assert valkey.cli("GET", "answered") == b"yes"


def test_valkey_outlives_the_thread_that_started_it(data: Path) -> None:
    server = EmbeddedServer(data)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    # The kernel signals at the thread's end; Valkey acts on SIGTERM within 0.1 s.
    with pytest.raises(AssertionError):
        until(lambda: not server.alive(), within_s=0.3)
    server.stop()


def test_ctrl_c_reaches_us_and_leaves_valkey_to_be_stopped_by_us(data: Path) -> None:
    with other_process(SAYS_ON_CTRL_C_WHETHER_VALKEY_ANSWERS + SERVE + UNTIL_KILLED, data) as (child, valkey_pid):
        os.killpg(child.pid, signal.SIGINT)
        assert child.stdout is not None
        assert child.stdout.readline() == f"True {valkey_pid}\n"
        assert child.wait(10) == 0
        assert has_no_valkey(data)


def test_a_configuration_cut_short_by_our_death_starts_nothing(data: Path) -> None:
    data.mkdir()
    run = subprocess.run(
        [embedded.embedded_binary(), "-", "--port", "0"],
        input=f'dir "{data}"\nappendonly yes\n'.encode(),
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert run.returncode == 1
    assert b"not listen anywhere" in run.stdout
    assert not list(data.iterdir())


# Leftovers


def test_a_leftover_is_ended_before_the_folder_is_served_again(data: Path) -> None:
    with other_process(WITHOUT_KERNEL_HELP + SERVE + UNTIL_KILLED, data) as (child, leftover_pid):
        command(EmbeddedServer(data).url, "SET", "answered", "yes")
        child.kill()
        child.wait(10)
        assert not has_no_valkey(data)
        with EmbeddedValkey(data) as valkey:
            assert valkey.server.pid != leftover_pid
            assert valkey.cli("GET", "answered") == b"yes"
        assert (data / "valkey.log").read_text().count("ready to exit") == 2


@pytest.mark.usefixtures("quick_end")
def test_a_leftover_that_ignores_sigterm_is_killed(data: Path) -> None:
    with other_process(WITHOUT_KERNEL_HELP + SERVE + UNTIL_KILLED, data) as (child, leftover_pid):
        command(EmbeddedServer(data).url, "SET", "answered", "yes")
        os.kill(leftover_pid, signal.SIGSTOP)
        child.kill()
        child.wait(10)
        with EmbeddedValkey(data) as valkey:
            assert valkey.cli("GET", "answered") == b"yes"


def test_a_pid_in_a_lock_that_nobody_holds_is_left_in_peace(data: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], stdin=subprocess.PIPE, start_new_session=True
    ) as bystander:
        data.mkdir(mode=0o700)
        (data / "valkey.lock").write_text(f"{bystander.pid}\n")
        with EmbeddedValkey(data):
            assert bystander.poll() is None
        assert bystander.poll() is None
        bystander.kill()


def test_a_fork_left_by_a_crash_does_not_hold_up_the_restart() -> None:
    with EmbeddedValkey(config={"rdb-key-save-delay": "100000"}) as valkey:
        for number in range(200):
            valkey.cli("SET", f"key:{number}", "value")
        valkey.cli("BGREWRITEAOF")
        # The next report, at which the fork would notice, is 1024 keys away; its work takes 20 s.
        until(lambda: valkey.cli("INFO", "persistence")["current_cow_size"] > 0)
        valkey.kill()
        assert not has_no_valkey(valkey.data)
        begun = time.monotonic()
        valkey.server.start()
        assert time.monotonic() - begun < 5.0
        assert valkey.cli("DBSIZE") == 200


# Data


def test_half_a_command_at_the_end_of_the_file_is_cut_off(data: Path) -> None:
    with EmbeddedValkey(data) as valkey:
        valkey.cli("SET", "whole", "1")
    increments = data / "appendonlydir" / "appendonly.aof.1.incr.aof"
    with increments.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nhal")
    with EmbeddedValkey(data) as valkey:
        assert valkey.cli("KEYS", "*") == [b"whole"]


def test_a_file_that_valkey_cannot_read_is_refused_with_the_end_of_the_log(data: Path) -> None:
    with EmbeddedValkey(data):
        pass
    increments = data / "appendonlydir" / "appendonly.aof.1.incr.aof"
    increments.write_bytes(b"*1\r\n$4\r\nNOPE\r\n")
    with pytest.raises(EmbeddedError, match=r"(?s)Valkey ended while starting on .*unknown command 'NOPE'"):
        EmbeddedServer(data).start()
    assert increments.read_bytes() == b"*1\r\n$4\r\nNOPE\r\n"


def test_start_waits_for_data_to_load_beyond_its_timeout_and_can_be_stopped_meanwhile(data: Path) -> None:
    slow = {"key-load-delay": "10000", "loading-process-events-interval-bytes": "1024"}
    with EmbeddedValkey(data) as valkey:
        for number in range(100):
            valkey.cli("SET", f"key:{number}", os.urandom(100))
        valkey.cli("BGREWRITEAOF")
        until(lambda: valkey.cli("INFO", "persistence")["aof_rewrite_in_progress"] == 0)
    begun = time.monotonic()
    server = EmbeddedServer(data, config=slow)
    server.start(timeout_s=0.5)
    assert time.monotonic() - begun > 0.9
    assert command(server.url, "DBSIZE") == 100
    server.stop()
    threading.Timer(0.3, server.stop).start()
    with pytest.raises(EmbeddedError, match="stopped while it started"):
        server.start()
    assert has_no_valkey(data)


def preloads(server: EmbeddedServer) -> bool:
    return "jemalloc" in Path(f"/proc/{server.pid}/maps").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is preloaded elsewhere")
def test_it_allocates_with_jemalloc_where_the_system_has_it_and_without_a_word_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {**os.environ, "LD_PRELOAD": embedded.ALLOCATOR}
    has_it = not subprocess.run(["true"], env=asked, capture_output=True, check=True).stderr
    with EmbeddedServer(tmp_path / "first") as server:
        assert preloads(server) is has_it
    monkeypatch.setattr(embedded, "ALLOCATOR", "libnothing.so.2")
    embedded._environment.cache_clear()
    with EmbeddedServer(tmp_path / "second") as server:
        assert not preloads(server)
    assert "libnothing" not in (tmp_path / "second" / "valkey.log").read_text()
    embedded._environment.cache_clear()


def test_whoever_preloads_a_library_has_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "libc.so.6")
    embedded._environment.cache_clear()
    with EmbeddedServer(tmp_path) as server:
        assert not preloads(server)
    embedded._environment.cache_clear()
