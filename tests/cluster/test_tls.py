"""A cluster that speaks TLS with whoever shows a certificate, and a user who may do what the docs say and no more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
import trustme

from app.backend import Backend
from app.redis_links.server_advice import advise
from app.redis_links.topology import slot_of
from app.settings import Settings
from tests.cluster.cluster import Cluster, Node
from tests.cluster.load import new_space
from tests.room import ROOT_KEY, Room, new_room, refusal_of
from tests.server_binary import tls_binary
from tests.sweeping import eventually, sweeping, truth

HOST = "localhost"
"""What the certificate is for: who takes the nodes at their addresses, 127.0.0.1, does not get on."""

PASSWORD = "p@ss/w:rd%20?#"
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


class TlsCluster(Cluster):
    """Three primaries. By the plain ports the user `default` looks after them, who may touch no key."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self._files = folder
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        trustme.CA().cert_pem.write_to_path(str(folder / "another_ca.pem"))
        authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(str(folder / "node.pem"))
        authority.issue_cert("jobwire").private_key_and_cert_chain_pem.write_to_path(str(folder / "jobwire.pem"))
        super().__init__(
            replicas=0,
            binary=tls_binary(),
            tls=True,
            config={
                "tls-cert-file": str(folder / "node.pem"),
                "tls-key-file": str(folder / "node.pem"),
                "tls-ca-cert-file": str(folder / "ca.pem"),
                "tls-cluster": "yes",
                "tls-replication": "yes",
                "cluster-announce-hostname": HOST,
                "cluster-preferred-endpoint-type": "hostname",
            },
        )
        self.url = self.url_with()
        for node in self.nodes:
            node.cli("ACL", "SETUSER", "jobwire", f">{PASSWORD}", "on", *rules_of_the_docs())
            node.cli("ACL", "SETUSER", "default", "resetkeys", "resetchannels", "-@all", "+cluster", "+ping", "+role")

    def url_with(self, *, password: str = PASSWORD, authority: str = "ca") -> str:
        """The url, with the file of an authority's certificate by its name."""
        places = ",".join(f"{HOST}:{node.tls_port}" for node in self.nodes)
        own = self._files / "jobwire.pem"
        options = {"ssl_ca_certs": self._files / f"{authority}.pem", "ssl_certfile": own, "ssl_keyfile": own}
        return f"rediss+cluster://jobwire:{quote(password, safe='')}@{places}?{urlencode(options)}"


def rules_of_the_docs() -> list[str]:
    """What the docs say that the user must be allowed."""
    (rules,) = re.findall(r"ACL SETUSER jobwire on >PASSWORD ([^`]*)```", OPERATIONS.read_text())
    return str(rules).split()


@pytest.fixture(scope="module")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsCluster]:
    with TlsCluster(tmp_path_factory.mktemp("tls")) as running:
        yield running


@pytest.fixture
async def room(cluster: TlsCluster) -> AsyncIterator[Room]:
    async with new_room(cluster, prefix="jw") as made:
        yield made


async def test_the_user_of_the_docs_is_allowed_all_that_processes_do(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    async with room.client() as client, sweeping(room):
        for _ in range(6):
            space = await new_space(room)
            await client.post(f"/spaces/{space}/jobs", json={"name": "x", "timeoutSeconds": 1})
            ((job,),) = (await client.post(f"/spaces/{space}/jobs/poll", json={})).json().values()
            assert (await client.post(f"/jobs/{job['id']}/logs", json=["one", "two"])).status_code == 200
        await advise(room.backend.control)
        await eventually(lambda: truth(room.backend.relay.live), 10)
    assert "permi" not in caplog.text


def move_behind_its_back(cluster: Cluster, slot: int) -> Node:
    """Give a slot without keys to another primary; the one that had it."""
    before = cluster.owner(slot)
    cluster.move_slot(slot, cluster.others(before)[0])
    return before


async def test_a_redirection_is_followed_by_tls(cluster: TlsCluster, room: Room) -> None:
    key = f"{room.keys.prefix}:{{moved}}"
    assert await room.call("INCR", key) == 1
    await room.call("DEL", key)
    await asyncio.to_thread(move_behind_its_back, cluster, slot_of(key))
    assert await room.call("INCR", key) == 1


async def test_messages_are_heard_by_tls_wherever_their_slot_is(cluster: TlsCluster, room: Room) -> None:
    heard: list[bytes | None] = []
    channel = f"{room.keys.prefix}:{{heard}}:live"
    await room.backend.relay.subscribe(channel, heard.append)
    await room.call("SPUBLISH", channel, "before")
    await eventually(lambda: truth(b"before" in heard))
    await asyncio.to_thread(move_behind_its_back, cluster, slot_of(channel))
    await eventually(lambda: truth(heard[-1] is None))

    async def is_heard() -> bool:
        await room.call("SPUBLISH", channel, "after")
        return b"after" in heard

    await eventually(is_heard)


WRONG = {
    "another password": ({"password": "seekrit"}, "does not accept the user and the password"),
    "an authority that the nodes are not of": ({"authority": "another_ca"}, "certificate verify failed"),
}


@pytest.mark.parametrize(("wrong", "told"), WRONG.values(), ids=WRONG)
async def test_what_is_wrong_is_told_in_a_sentence_without_the_secret(
    cluster: TlsCluster, caplog: pytest.LogCaptureFixture, wrong: dict[str, str], told: str
) -> None:
    backend = Backend(Settings(redis_url=cluster.url_with(**wrong), root_key=ROOT_KEY))
    await backend.start()
    try:
        await eventually(lambda: truth("which slots it has" in caplog.text))
        refused = await refusal_of(backend.control.call("GET", "jw:x"))
        assert refused.code == "unavailable"
    finally:
        await backend.close()
    assert told in caplog.text
    assert "seekrit" not in caplog.text + refused.text
