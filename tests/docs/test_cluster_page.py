"""docs/cluster.md: its commands, run in order on nodes with its configuration, and what it says of a dead shard."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from app.local.embedded_cluster import EmbeddedCluster, free_port_base
from app.local.embedded_valkey import EmbeddedServer
from app.model.redis_keys import Keys
from app.redis_links.dialling import ByCluster, connector
from app.redis_links.topology import SLOTS, slot_of
from tests.factories import Space, refused
from tests.server import Server, free_port
from tests.skipping import skip
from tests.valkey import until

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
CONFIG = dict(
    line.split(" ", 1)
    for block in re.findall(r"^```conf\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
)
PASSWORD = CONFIG["requirepass"]
MACHINES = 8
BASE = 7100


class Machines:
    """What the page calls 10.0.0.1 to 10.0.0.8: nodes on ports of this machine."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        first = free_port_base(MACHINES)
        self.ports = dict(enumerate(range(first, first + MACHINES), 1))
        self.nodes: dict[int, EmbeddedServer] = {}
        for number, port in self.ports.items():
            config = {**CONFIG, "bind": "127.0.0.1"}
            assert config.pop("port") == "6379"
            login = {name: config.pop(name) for name in ("requirepass", "masterauth")}
            self.nodes[number] = stack.enter_context(EmbeddedServer(folder / str(number), port=port, config=config))
            with redis.Redis(port=port) as client:  # An embedded server has no password while it starts.
                client.config_set(*[word for setting in login.items() for word in setting])

    def run(self, block: str) -> str:
        """What a block of the page prints, once it is about these nodes; a command that fails fails the test."""
        here = re.sub(r"10\.0\.0\.(\d):6379", lambda found: f"127.0.0.1:{self.ports[int(found[1])]}", block)
        here = re.sub(r"10\.0\.0\.(\d) -p 6379", lambda found: f"127.0.0.1 -p {self.ports[int(found[1])]}", here)
        assert "10.0.0." not in here
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", here],
            cwd=self.folder,
            env={**os.environ, "REDISCLI_AUTH": PASSWORD},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "ERR" not in done.stdout, done.stdout
        return done.stdout

    def ask(self, number: int, *words: str | int) -> Any:
        with redis.Redis(port=self.ports[number], password=PASSWORD, socket_timeout=10) as client:
            return client.execute_command(*words)

    def info(self, number: int) -> dict[str, str]:
        told: bytes = self.ask(number, "CLUSTER", "INFO")
        return dict(line.split(":") for line in told.decode().split())

    def slots(self, number: int) -> int:
        """How many slots a node has, by its own map."""
        ranges = [entry for entry in self.ask(number, "CLUSTER", "SLOTS") if entry[2][1] == self.ports[number]]
        return sum(last + 1 - first for first, last, *_ in ranges)

    def agree(self, nodes: int) -> bool:
        """Whether the first so many nodes know each other and that every slot is served, as redis-cli sees it."""
        infos = [self.info(number) for number in range(1, nodes + 1)]
        check = ["redis-cli", "--cluster", "check", f"127.0.0.1:{self.ports[1]}"]
        login = {**os.environ, "REDISCLI_AUTH": PASSWORD}
        if subprocess.run(check, env=login, capture_output=True, timeout=60, check=False).returncode:
            return False
        wanted = {"cluster_state": "ok", "cluster_slots_ok": str(SLOTS), "cluster_known_nodes": str(nodes)}
        return all(wanted.items() <= info.items() for info in infos)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    with ExitStack() as stack:
        yield Machines(tmp_path, stack)


def test_the_commands_of_the_page_build_a_cluster_and_change_it(machines: Machines) -> None:
    if shutil.which("redis-cli") is None:
        skip("No redis-cli on this machine: apt-get install redis-tools")
    blocks = iter(BLOCKS)
    assert next(blocks) == f"jobwire cluster up --port-base {BASE}\n"
    assert "jobwire web" in next(blocks)

    build = next(blocks)
    assert f"export REDISCLI_AUTH={PASSWORD}\n" in build
    assert "[OK] All 16384 slots covered." in machines.run(build)
    until(lambda: machines.agree(6), 30)
    assert [machines.slots(number) for number in range(1, 7)] == [5461, 5462, 5461, 0, 0, 0]
    replicas = next(blocks)
    until(lambda: machines.run(replicas).count("master_link_status:up") == 3, 30)

    (url,) = re.findall(r"^export REDIS_URL=(\S+)$", next(blocks), re.MULTILINE)
    named = connector(url, 1.0)
    assert isinstance(named, ByCluster)
    assert [place.host for place in named.seeds] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert f":{PASSWORD}@" in url

    find = next(blocks).replace("SPACE", "01M8DXDAZHHQRPQ0JWER5CN7RF")
    assert int(machines.run(find)) == slot_of(Keys("jw").space("01M8DXDAZHHQRPQ0JWER5CN7RF"))
    machines.ask(1, "SET", "{aeA}", "kept")
    assert key_slot(b"{aeA}") < 100
    moves = next(blocks)
    machines.run(moves)
    until(lambda: machines.slots(2) == 5562, 20)
    assert "success" in machines.run(moves.splitlines()[-1])
    assert machines.ask(2, "GET", "{aeA}") == b"kept"
    until(lambda: machines.agree(6), 30)

    machines.run(next(blocks))
    until(lambda: machines.agree(7), 30)
    machines.run(next(blocks))
    until(lambda: machines.slots(7) == 3 * 1365 and machines.agree(7), 30)
    assert [machines.slots(number) for number in (1, 2, 3)] == [3996, 4197, 4096]
    machines.run(next(blocks))
    until(lambda: machines.ask(8, "ROLE")[1:4:2] == [b"127.0.0.1", b"connected"], 30)
    until(lambda: machines.agree(8), 30)

    ranges = machines.run(next(blocks))
    assert " 0-1464 5461-6725 10923-12287\n" in ranges
    until(lambda: machines.slots(7) == 0 and machines.agree(8), 30)
    machines.run(next(blocks))
    until(lambda: machines.agree(6), 30)
    assert machines.info(7)["cluster_known_nodes"] == "1"

    machines.nodes[6].stop()
    machines.run(next(blocks))
    until(lambda: machines.agree(5), 30)

    machines.run(next(blocks))
    assert len(list((machines.folder / "backup").glob("*.rdb"))) == 3
    assert machines.run(next(blocks)).count("cluster_known_nodes:5") == 5
    assert next(blocks, None) is None


def test_the_first_lines_run_a_job_on_a_cluster(tmp_path: Path) -> None:
    port = free_port()
    lines = BLOCKS[1].replace("jobwire web", f"jobwire web --port {port}").replace(":8080", f":{port}")
    with EmbeddedCluster(tmp_path / "cluster") as cluster:
        lines = lines.replace(f":{BASE}", f":{cluster.ports[0]}")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"trap 'kill $(jobs -p); wait' EXIT\n{lines}"],
            env={"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "it works\n" in done.stdout
        assert all(f"127.0.0.1:{port}" in done.stdout for port in cluster.ports), done.stdout


def test_only_what_lies_on_a_dead_shard_is_away(tmp_path: Path) -> None:
    assert CONFIG["cluster-require-full-coverage"] == "no"
    with EmbeddedCluster(tmp_path / "cluster") as cluster, Server(cluster.url) as server:
        spaces = [Space(server) for _ in range(12)]
        shards = {space.id: key_slot(f"{{{space.id}}}".encode()) * len(cluster.nodes) // SLOTS for space in spaces}
        dead, alive = shards[spaces[0].id], next(shard for shard in shards.values() if shard != shards[spaces[0].id])
        pid = cluster.nodes[dead].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with redis.Redis(port=cluster.ports[alive]) as client:
            until(lambda: b"cluster_slots_fail:0" not in client.execute_command("CLUSTER", "INFO"), 30)
        for space in spaces:
            answer = server.root.post(space.jobs, json={"name": "n"})
            if shards[space.id] == dead:
                refused(answer, 503, "unavailable")
            else:
                assert answer.status_code == 201, answer.text
        cluster.nodes[dead].start()
        until(lambda: server.root.post(spaces[0].jobs, json={"name": "n"}).status_code == 201, 20)
