"""`jobwire cluster up`: nodes of one folder that find each other again, and none that outlives the command."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from app.local.data_folder import lock_file, open_private, read_pid
from app.local.embedded_cluster import BUS_OFFSET, EmbeddedCluster, free_port_base
from app.local.embedded_valkey import EmbeddedError, EmbeddedServer, FolderInUse
from app.redis_links.topology import SLOTS
from tests.server import free_port
from tests.test_processes import ROOT_KEY, answers, environment, running
from tests.valkey import until

URL = re.compile(r"^REDIS_URL=redis\+cluster://((?:127\.0\.0\.1:\d+,?)+)$", re.MULTILINE)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "cluster"


@contextmanager
def command_up(data: Path, *options: str) -> Iterator[tuple["subprocess.Popen[bytes]", list[int]]]:
    """A running `jobwire cluster up`, and the ports that it told."""
    command = [sys.executable, "-m", "jobwire", "cluster", "up", "--data", str(data), *options]
    with (
        log_of(data).open("ab") as log,
        subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=log) as process,
        ended(process),
    ):
        assert process.stdout is not None
        told = b""
        while not told.rstrip().endswith(b"jobwire callbacks"):
            line = process.stdout.readline()
            assert line, told
            told += line
        found = URL.search(told.decode())
        assert found, told
        yield process, [int(place.partition(":")[2]) for place in found[1].split(",")]


@contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """The process is told to end after."""
    try:
        yield
    finally:
        process.terminate()


def log_of(data: Path) -> Path:
    """What the command has logged."""
    return data.with_suffix(".log")


def refused_up(data: Path, *options: str, files: int = 0, code: int = 69) -> str:
    """What a `jobwire cluster up` says that does not start."""

    def limit_files() -> None:
        if files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    done = subprocess.run(
        [sys.executable, "-m", "jobwire", "cluster", "up", "--data", str(data), *options],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=limit_files,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    return done.stderr


def ask(port: int, *words: str | int) -> Any:
    with redis.Redis(port=port, socket_timeout=5) as client:
        return client.execute_command(*words)


def at_owner(ports: list[int], *words: str) -> Any:
    """The reply to a command from whichever node has its key."""
    for port in ports:
        try:
            return ask(port, *words)
        except redis.exceptions.MovedError:
            continue
    raise AssertionError("no node has the key")


def nodes_left(data: Path) -> list[Path]:
    """The folders on which a Valkey works."""
    left = []
    for folder in data.glob("node-*"):
        with open_private(folder / "valkey.lock", os.O_RDWR) as lock:
            if not lock_file(lock):
                left.append(folder)
    return left


def is_whole(port: int) -> bool:
    """Whether a node answers and says that every slot has its primary."""
    try:
        told = ask(port, "CLUSTER", "INFO").decode()
    except redis.RedisError:
        return False
    return f"cluster_slots_ok:{SLOTS}" in told and "cluster_state:ok" in told


def test_up_gives_three_primaries_that_keep_nodes_ports_and_keys_over_a_restart(data: Path) -> None:
    with command_up(data) as (process, ports):
        assert len(ports) == 3
        assert all(is_whole(port) for port in ports)
        assert [ask(port, "ROLE")[0] for port in ports] == [b"master"] * 3
        ids = [ask(port, "CLUSTER", "MYID") for port in ports]
        for number in range(20):
            at_owner(ports, "SET", f"key{number}", "kept")
        assert all(ask(port, "DBSIZE") for port in ports)
        process.terminate()
        assert process.wait(20) == 0
        assert not nodes_left(data)
    with command_up(data) as (process, again):
        assert again == ports
        assert [ask(port, "CLUSTER", "MYID") for port in ports] == ids
        assert {at_owner(ports, "GET", f"key{number}") for number in range(20)} == {b"kept"}
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert not nodes_left(data)


@pytest.mark.alone("it measures time")
def test_the_first_start_and_every_other_take_two_seconds_and_a_little(data: Path) -> None:
    for _ in range(2):
        begun = time.monotonic()
        with EmbeddedCluster(data):
            assert time.monotonic() - begun < 4.0


def test_each_primary_has_a_replica_that_may_take_over_and_the_next_start_finds_it_so(data: Path) -> None:
    with EmbeddedCluster(data, replicas=1) as cluster:
        assert [ask(port, "ROLE")[0] for port in cluster.ports] == [b"master"] * 3 + [b"slave"] * 3
        ask(cluster.ports[3], "CLUSTER", "FAILOVER")
        until(lambda: ask(cluster.ports[0], "ROLE")[0] == b"slave")
        until(lambda: all(is_whole(port) for port in cluster.ports))
    with EmbeddedCluster(data) as cluster:
        roles = [ask(port, "ROLE")[0] for port in cluster.ports]
        assert roles == [b"slave", b"master", b"master", b"master", b"slave", b"slave"]


def test_a_node_that_is_killed_is_told_of_and_started_again(data: Path) -> None:
    with command_up(data) as (_, ports):
        at_owner(ports, "SET", "key", "kept")
        number = 1 + next(at for at, port in enumerate(ports) if ask(port, "DBSIZE"))
        killed = pid_of(data, number)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        until(lambda: pid_of(data, number) not in (None, killed), 20)
        until(lambda: all(is_whole(port) for port in ports), 20)
        assert at_owner(ports, "GET", "key") == b"kept"
    told = f"The embedded Valkey on {data}/node-{number} has ended; it is started again."
    assert log_of(data).read_text().count(told) == 1


def pid_of(data: Path, number: int) -> int | None:
    """The process of a node."""
    with open_private(data / f"node-{number}" / "valkey.lock", os.O_RDWR) as lock:
        return read_pid(lock)


def test_nothing_runs_on_when_the_command_is_killed_and_the_next_start_finds_all(data: Path) -> None:
    with command_up(data) as (process, ports):
        at_owner(ports, "SET", "key", "kept")
        assert len(nodes_left(data)) == 3
        process.kill()
        process.wait()
        until(lambda: not nodes_left(data))
    with command_up(data) as (_, again):
        assert again == ports
        assert at_owner(ports, "GET", "key") == b"kept"


@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.4])
def test_a_start_that_was_cut_short_leaves_a_folder_that_can_be_used(data: Path, after_s: float) -> None:
    with pytest.raises(EmbeddedError, match=f"not all nodes agree, after {after_s:g} s"):
        EmbeddedCluster(data).start(after_s)
    assert not nodes_left(data)
    with EmbeddedCluster(data, primaries=2) as cluster:
        assert all(is_whole(port) for port in cluster.ports)


def test_stop_cuts_a_start_short(data: Path) -> None:
    with running("cluster", "up", "--data", str(data), env=environment()) as process:
        until((data / "node-1" / "valkey.lock").exists, 20)
        process.terminate()
        assert process.wait(20) == 0
        assert not nodes_left(data)


# What is refused, in one sentence


def test_a_second_command_on_a_folder_is_refused_and_the_first_goes_on(data: Path) -> None:
    with command_up(data) as (process, ports):
        assert refused_up(data) == (
            f"jobwire: The data folder {data} is in use by process {process.pid}. "
            "Stop that one first, or give another folder.\n"
        )
        assert is_whole(ports[0])
        with pytest.raises(FolderInUse):
            EmbeddedCluster(data).start()


@pytest.mark.parametrize("offset", [0, BUS_OFFSET])
def test_a_port_that_is_taken_is_named(data: Path, offset: int) -> None:
    base = free_port_base(3)
    with socket.create_server(("127.0.0.1", base + 1 + offset)):
        assert refusal(data, port_base=base) == (
            f"Port {base + 1 + offset} is taken by another program: stop that one, or give other ports."
        )
    assert not nodes_left(data)
    with EmbeddedCluster(data, port_base=base) as cluster:
        assert cluster.ports == [base, base + 1, base + 2]


def refusal(data: Path, **options: int) -> str:
    """What an operator is told of a cluster that does not start."""
    with pytest.raises(EmbeddedError) as told:
        EmbeddedCluster(data, **options).start()  # type: ignore[arg-type]  # options are all of them numbers
    return str(told.value)


def test_the_folder_of_up_is_refused_by_cluster_up_and_the_other_way_round(tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    with EmbeddedServer(one):
        pass
    assert refusal(one) == f"The data folder {one} holds the one server of `jobwire up`. Give another folder."
    with EmbeddedCluster(many, primaries=1):
        pass
    with pytest.raises(EmbeddedError, match="holds a cluster of `jobwire cluster up`"), EmbeddedServer(many):
        pass
    assert not (many / "valkey.lock").exists()


def test_too_few_open_files_are_said(data: Path) -> None:
    assert refused_up(data, files=100) == (
        "jobwire: A process may have 100 open files here (`ulimit -Hn`), and each node needs 256.\n"
    )


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cluster"
    assert refusal(folder).startswith(f"No cluster can be started in {folder}: ")


def test_a_folder_keeps_its_nodes_and_says_so_to_whoever_asks_for_others(data: Path) -> None:
    with EmbeddedCluster(data, primaries=2) as cluster:
        ports = cluster.ports
    has = (
        f"The cluster in {data} has 2 primaries with 0 replicas each, at the ports from {ports[0]} on, and stays so: "
        "ask for nothing else, or give another folder."
    )
    for options in ({"primaries": 3}, {"replicas": 1}, {"port_base": ports[0] + 1}):
        assert refusal(data, **options) == has
    others = ("--primaries", "3", "--replicas", "1", "--port-base", "7001")
    assert refused_up(data, *others, code=78) == f"jobwire: {has}\n"
    with EmbeddedCluster(data, primaries=2, replicas=0, port_base=ports[0]) as cluster:
        assert cluster.ports == ports


@pytest.mark.parametrize("text", ["", "{", "[]", '{"primaries": 0, "ports": [1]}', '{"primaries": 1, "ports": []}'])
def test_a_damaged_list_of_nodes_is_said_and_nothing_is_changed(data: Path, text: str) -> None:
    data.mkdir(mode=0o700)
    (data / "cluster.json").write_text(text)
    assert "cluster.json is damaged: put back a copy" in refusal(data)
    assert (data / "cluster.json").read_text() == text


def test_a_node_that_was_lost_is_said(data: Path) -> None:
    with EmbeddedCluster(data, primaries=2):
        pass
    (data / "node-2" / "nodes.conf").unlink()
    assert "node-2 is no node any more: put back a copy" in refusal(data)


def test_keys_are_not_dropped_where_the_list_of_nodes_is_lost(data: Path) -> None:
    with EmbeddedCluster(data, primaries=1) as cluster:
        ask(cluster.ports[0], "SET", "key", "kept")
    listed = (data / "cluster.json").read_text()
    (data / "cluster.json").unlink()
    assert "does not work: a node says: " in refusal(data, primaries=1)
    (data / "cluster.json").write_text(listed)
    with EmbeddedCluster(data) as cluster:
        assert ask(cluster.ports[0], "GET", "key") == b"kept"


# With the commands that it names


def test_web_and_sweeper_serve_a_job_on_it_and_a_restart_of_the_cluster_keeps_it(data: Path) -> None:
    port = free_port()
    headers = {"x-api-key": ROOT_KEY}
    with command_up(data, "--replicas", "0") as (process, ports):
        env = environment(
            REDIS_URL="redis+cluster://" + ",".join(f"127.0.0.1:{each}" for each in ports), JOBWIRE_ROOT_KEY=ROOT_KEY
        )
        with (
            running("web", "--port", str(port), env=env),
            running("sweeper", env=env),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as http,
        ):
            until(lambda: answers(f"{http.base_url}/readyz"), 20)
            space = http.post("/api/v1/spaces", json={"name": "s"}).json()["id"]
            job = http.post(f"/api/v1/spaces/{space}/jobs", json={"name": "n", "timeoutSeconds": 1}).json()["id"]
            assert [j["id"] for j in http.post(f"/api/v1/spaces/{space}/jobs/poll").json()["jobs"]] == [job]
            until(lambda: http.get(f"/api/v1/jobs/{job}").json()["status"] == "pending")
            process.terminate()
            process.wait()
            with command_up(data):
                until(lambda: answers(f"{http.base_url}/readyz"), 20)
                until(lambda: http.get(f"/api/v1/jobs/{job}").json().get("status") == "pending")
