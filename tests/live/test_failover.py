"""A replica takes over that had fallen behind: what viewers had seen of the lost part is told to each of them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.factories import Space
from tests.live.checker import Truth, Writer, settle
from tests.live.crowd import Crowd
from tests.live.followers import JobFollower
from tests.live.proxy import Proxy
from tests.server import Server, free_port
from tests.server_binary import BINARY
from tests.valkey import until


@contextlib.contextmanager
def primary_and_replica(folder: Path) -> Iterator[tuple[int, int]]:
    """Two servers, the second a replica of the first that is in step with it: their ports."""
    with contextlib.ExitStack() as stack:
        ports = free_port(), free_port()
        roles: list[tuple[str, ...]] = [(), ("--replicaof", f"127.0.0.1 {ports[0]}")]
        for port, more in zip(ports, roles, strict=True):
            own = folder / str(port)
            own.mkdir()
            command = [
                BINARY,
                "--port",
                str(port),
                "--bind",
                "127.0.0.1",
                "--dir",
                str(own),
                "--save",
                "",
                *more,
            ]
            process = subprocess.Popen([*command, "--repl-diskless-sync-delay", "0"], stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            until(lambda port=port: answers(port))  # type: ignore[misc]  # of a lambda's default
        until(lambda: info(ports[1])["master_link_status"] == "up", 20)
        yield ports


def answers(port: int) -> bool:
    with redis.Redis(port=port, socket_timeout=2) as client, contextlib.suppress(redis.RedisError):
        return bool(client.ping())
    return False


def info(port: int) -> dict[str, str]:
    with redis.Redis(port=port, socket_timeout=2) as client:
        return dict(client.info("replication"))


@pytest.mark.one_server("the replica is made a primary by hand; in a cluster that is tests/cluster/test_faults.py")
@pytest.mark.parametrize("while_away", [False, True])
def test_a_replica_that_lagged_takes_over(tmp_path: Path, while_away: bool) -> None:
    with contextlib.ExitStack() as stack:
        first, second = stack.enter_context(primary_and_replica(tmp_path))
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{first}"))
        server = stack.enter_context(Server(f"redis://127.0.0.1:{proxy.port}"))
        space = Space(server)
        job = space.create(claim=True, timeoutSeconds=3600)
        away = [False]

        def url() -> str:
            return "http://127.0.0.1:1" if away[0] else server.url

        followers = [JobFollower(url, job["id"], str(space.all.key), by_events=i % 2 == 1) for i in range(10)]
        crowd = Crowd([*followers])
        stack.callback(crowd.close)
        writer = Writer(lambda: server.url, [job["id"]], str(space.all.key))
        stack.callback(writer.close)
        until(lambda: all(follower.lines.position > 100 for follower in followers), 20)
        with redis.Redis(port=second, socket_timeout=2) as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        seen = max(follower.lines.position for follower in followers)
        until(lambda: all(follower.lines.position > seen + 200 for follower in followers), 20)
        if while_away:
            away[0] = True
            crowd.break_off()
        proxy.target = f"127.0.0.1:{second}"
        proxy.cut()

        def truth() -> Truth:
            return Truth(f"redis://127.0.0.1:{second}", server.prefix, space.id, [job["id"]])

        stood = max(follower.lines.position for follower in followers)
        until(lambda: truth().line_seqs[job["id"]] > stood + 200, 30)
        away[0] = False
        writer.close()
        settle(crowd, truth)
        assert all(follower.lines.gaps for follower in followers)
