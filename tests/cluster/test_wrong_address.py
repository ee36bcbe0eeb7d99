"""REDIS_URL names a server that is there, and not in the way in which it can be used: the log and /readyz say so."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import redis

from app.local import up
from app.model.errors import Unavailable
from app.redis_links.dialling import connector
from app.redis_links.link import ServerLink
from app.redis_links.reasons import MAY_HAVE_NO_TLS, NO_NODE, NODE_OF_CLUSTER, SILENT
from app.redis_links.topology import UNFORMED
from tests.cluster.cluster import Cluster, Node, free_ports
from tests.room import Room, refusal_of
from tests.server_binary import BINARY
from tests.sweeping import eventually

SECRET = "hunter2"


class Address(NamedTuple):
    """What REDIS_URL is."""

    url: str


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    with Cluster(primaries=2, replicas=0) as running:
        yield running


def new_node(folder: Path, **config: str) -> Node:
    port, bus_port = free_ports(2)
    return Node(folder, port, bus_port, config, BINARY)


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server that is no node of a cluster, and that has one user with a password."""
    node = new_node(tmp_path_factory.mktemp("lone") / "data", **{"cluster-enabled": "no"})
    node.start()
    node.cli("ACL", "SETUSER", "named", "on", f">{SECRET}", "~*", "&*", "+@all")
    yield node
    node.kill()


@contextlib.asynccontextmanager
async def room_at(url: str, **settings: Any) -> AsyncIterator[Room]:
    """A started backend, whether Redis can be used or not."""
    redis_url: Any = Address(url)
    room = Room(redis_url, redis_timeout_s=1.0, **settings)
    await room.backend.start()
    try:
        yield room
    finally:
        await room.backend.close()


async def problems_with(client: httpx.AsyncClient, sentence: str) -> list[str]:
    """The problems of a server that is not ready, once one of them ends with a sentence."""
    problems: list[str] = []

    async def is_told() -> bool:
        answer = await client.get("http://test/readyz")
        problems[:] = answer.json().get("problems", [])
        return answer.status_code == 503 and any(problem.endswith(sentence) for problem in problems)

    await eventually(is_told, within_s=10)
    return problems


async def test_a_plain_address_of_a_node_of_a_cluster_is_told_and_no_call_meets_a_bug(
    running_cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with room_at(f"redis://127.0.0.1:{running_cluster.nodes[0].port}") as room, room.client() as client:
        calls = [await client.get("/spaces"), await client.post("/spaces", json={"name": "x"})]
        assert [(call.status_code, call.json()["code"]) for call in calls] == [(503, "unavailable")] * 2
        await problems_with(client, NODE_OF_CLUSTER)
    assert NODE_OF_CLUSTER in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_node_that_hides_what_it_is_tells_it_by_the_first_call_that_it_redirects(
    running_cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    node = running_cluster.nodes[0]
    elsewhere = next(key for key in map(str, range(100)) if running_cluster.owner(key) is not node)
    link = ServerLink(connector(f"redis://127.0.0.1:{node.port}", 1.0), name="only", timeout_s=1.0)
    link.start()
    try:
        await link.ready(5)
        for outcome in (link.call("GET", elsewhere), link.pipeline(("GET", elsewhere), ("GET", elsewhere))):
            refusal = await refusal_of(outcome)
            assert (refusal.code, refusal.text) == ("unavailable", NODE_OF_CLUSTER)
        assert link.why == NODE_OF_CLUSTER
        assert caplog.messages == [f"no only link to Redis: {NODE_OF_CLUSTER}"]
    finally:
        await link.close()


async def test_up_says_why_it_does_not_begin(running_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "READY_S", 0.5)
    async with room_at(f"redis://127.0.0.1:{running_cluster.nodes[0].port}") as room:
        refusal = await refusal_of(up.until_ready(room.backend))
    assert isinstance(refusal, Unavailable)
    assert refusal.text == f"Redis cannot be reached. {NODE_OF_CLUSTER}"


@pytest.mark.parametrize(
    ("scheme", "login", "sentence"),
    [
        ("redis+cluster", "", NO_NODE),
        ("redis+cluster", f":{SECRET}@", "It has no password, and REDIS_URL has one."),
        ("redis+cluster", f"named:not{SECRET}@", "It does not accept the user and the password in REDIS_URL."),
        ("redis", f"named:not{SECRET}@", "It does not accept the user and the password in REDIS_URL."),
        ("rediss+cluster", "", f"{SILENT} {MAY_HAVE_NO_TLS}"),
    ],
)
async def test_the_reason_is_a_problem_and_stands_in_the_log(
    lone: Node, caplog: pytest.LogCaptureFixture, scheme: str, login: str, sentence: str
) -> None:
    place = f"127.0.0.1:{lone.port}"
    async with room_at(f"{scheme}://{login}{place}") as room, room.client() as client:
        problems = await problems_with(client, sentence)
        assert (await client.get("/spaces")).json()["error"] == "Redis cannot be reached."
    if "cluster" in scheme:
        assert problems == ["Redis cannot be reached.", f"{place}: {sentence}"]
    assert sentence in caplog.text
    assert SECRET not in caplog.text + " ".join(problems)


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_a_password_that_is_missing_is_told(lone: Node, scheme: str) -> None:
    lone.cli("CONFIG", "SET", "requirepass", SECRET)
    try:
        async with room_at(f"{scheme}://127.0.0.1:{lone.port}") as room, room.client() as client:
            await problems_with(client, "Redis wants a password, and REDIS_URL has none.")
    finally:
        with redis.Redis(port=lone.port, password=SECRET) as known:
            known.config_set("requirepass", "")


async def test_nodes_that_are_no_cluster_yet_are_told(tmp_path: Path) -> None:
    node = new_node(tmp_path / "data")
    node.start()
    try:
        async with room_at(f"redis+cluster://127.0.0.1:{node.port}") as room, room.client() as client:
            assert await problems_with(client, UNFORMED) == ["Redis cannot be reached.", UNFORMED]
    finally:
        node.kill()
