"""A cluster of three primaries and three replicas that a test may hurt: kill, stall, fail over, move slots both ways.

    with Cluster() as cluster:
        cluster.cli("SET", "key", "value")
        cluster.owner("key").kill()
        cluster.wait_until_well()

It runs the embedded Valkey, or what SERVER_BINARY names. Every node has a folder of its own: data survive `kill` and
`start`.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.crc import key_slot

from app.local.append_only_files import mend_files
from app.local.cluster_forming import NodePorts, await_well, form
from app.redis_links.cluster_epoch import myself
from app.redis_links.topology import tag_of
from tests.server_binary import BINARY, settings
from tests.valkey import client_of, cut, until

NODE_TIMEOUT_MS = 2000
KEYLESS = ("ACL", "CLIENT", "COMMANDLOG", "CONFIG", "SCRIPT")
KEYS_AT_ONCE = 10
"""How many keys go together where a slot is moved key by key: as many as redis-cli moves."""

FAILOVERS = 4
FAILOVER_S = 6.0
"""How often a replica is told to take over, and how long that is waited for."""


Word = str | bytes | int


class Node:
    """One node: a process, a folder and two ports."""

    def __init__(self, folder: Path, port: int, bus_port: int, config: Mapping[str, str], binary: str) -> None:
        self.port = port
        self._binary = binary
        self.ports = NodePorts(port, bus_port)
        self.tls_port = int(config.get("tls-port", 0))
        self.folder = folder
        folder.mkdir()
        self._settings = {
            **settings(binary),
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "cluster-enabled": "yes",
            "cluster-port": str(bus_port),
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "repl-diskless-sync-delay": "0",
            "aof-load-truncated": "yes",  # a kill may leave half a write, and nobody cuts it off here
            **config,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on the data that it has; returns when it answers."""
        text = "".join(f'{name} "{value}"\n' for name, value in self._settings.items() if name != "unixsocketperm")
        (self.folder / "node.conf").write_text(text)
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen([self._binary, str(self.folder / "node.conf")], stdout=log, stderr=log)
        until(self._answers, 20)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            return bool(self.cli("PING"))
        except redis.RedisError:
            return False

    def cli(self, *command: Word) -> Any:
        """The reply to one command; a refusal raises redis.ResponseError."""
        with redis.Redis(port=self.port, socket_timeout=10) as client:
            return client.execute_command(*command)

    def answer_a_write(self, slot: int) -> None:
        """Return when it has answered a write to a slot, which changes nothing. Whatever it says is an answer."""
        with contextlib.suppress(redis.ResponseError):
            self.cli("DEL", f"nothing:{{{tag_of(slot)}}}")

    @property
    def id(self) -> str:
        """Its name in the cluster."""
        return str(self.cli("CLUSTER", "MYID").decode())

    @property
    def is_primary(self) -> bool:
        """Whether it thinks so itself."""
        return self.cli("ROLE")[0] in (b"master", "master")

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def info(self) -> dict[str, str]:
        """CLUSTER INFO."""
        told = self.cli("CLUSTER", "INFO")
        return dict(told) if isinstance(told, dict) else dict(line.split(":") for line in told.decode().split())

    def kill(self) -> None:
        """SIGKILL; returns when it has gone."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def stop(self) -> None:
        """SIGTERM; returns when it has gone."""
        self.resume()
        self._signal(signal.SIGTERM)
        if self._process is not None:
            self._process.wait(20)

    def stall(self) -> None:
        """It keeps its connections and accepts new ones, and answers nothing, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `stall`."""
        self._signal(signal.SIGCONT)

    def _signal(self, word: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(word)


class Cluster:
    """Six nodes; the first three were made primaries, each of the others is the replica of the one three before it."""

    def __init__(
        self,
        *,
        primaries: int = 3,
        replicas: int = 1,
        config: Mapping[str, str] | None = None,
        binary: str = BINARY,
        tls: bool = False,
    ) -> None:
        """With `tls` each node has a port for that, too."""
        self._config, self._binary = config or {}, binary
        self.folder = Path(tempfile.mkdtemp(prefix="jobwire-cluster-"))
        ports = iter(free_ports(3 * primaries * (1 + replicas)))
        self.nodes = []
        for port, bus_port, tls_port in zip(ports, ports, ports, strict=True):
            own = {**(config or {}), **({"tls-port": str(tls_port)} if tls else {})}
            self.nodes.append(Node(self.folder / str(port), port, bus_port, own, binary))
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        try:
            self._form(primaries)
        except BaseException:
            self.close()
            raise

    def _form(self, primaries: int) -> None:
        for node in self.nodes:
            node.start()
        form([node.ports for node in self.nodes], primaries, 30)

    def wait_until_well(self, within_s: float = 30.0) -> None:
        """Return when every running node says that all slots are served, every replica follows its primary, and every
        primary answers writes: one that has been told to hand over lets them wait, for seconds if nobody takes over."""
        running = [node for node in self.nodes if node.is_running]
        await_well([node.ports for node in running], within_s)
        for node in running:
            if own := slots_of(node):
                node.answer_a_write(min(own))
        await_well([node.ports for node in running], within_s)

    def owner(self, key: str | int) -> Node:
        """The primary of a key, or of a slot, as those that run know it."""
        slot = key if isinstance(key, int) else key_slot(key.encode())
        for node in self.nodes:
            if node.is_running and node.is_primary and slot in slots_of(node):
                return node
        raise AssertionError(f"nobody has slot {slot}")

    def others(self, owner: Node) -> list[Node]:
        """The other primaries."""
        return [node for node in self.nodes if node is not owner and node.is_running and node.is_primary]

    def replica_of(self, primary: Node) -> Node:
        """A node that follows this one."""
        return next(node for node in self.nodes if node.is_running and self._follows(node, primary))

    @staticmethod
    def _follows(node: Node, primary: Node) -> bool:
        role, *place = node.cli("ROLE")
        return role in (b"slave", "slave") and int(place[1]) == primary.port

    def cli(self, *command: Word) -> Any:
        """The reply to one command from the owner of its key; a refusal raises redis.ResponseError.

        A command without a key goes to every node that runs. Lists of theirs are joined; of anything else the first
        node's is the reply.
        """
        if str(command[0]).upper() in KEYLESS:
            replies = [node.cli(*command) for node in self.nodes if node.is_running]
            joined = all(isinstance(reply, list) for reply in replies)
            return [item for reply in replies for item in reply] if joined else replies[0]
        key = command[3 if str(command[0]).upper() in ("EVAL", "EVALSHA") else 1]
        return self.owner(str(key)).cli(*command)

    def publish(self, channel: str, message: bytes) -> int:
        """Tell those who listen to a channel at its shard; how many heard."""
        return int(self.cli("SPUBLISH", channel, message))

    # What befalls all nodes at once

    def kill(self) -> None:
        """SIGKILL; returns when all have gone."""
        for node in self.nodes:
            node.kill()

    def restart(self) -> None:
        """Stop what runs, and start all nodes on their data; returns when the cluster is well."""
        for node in self.nodes:
            node.stop()
        for node in self.nodes:
            node.start()
        self.wait_until_well()

    def lose(self, share: float, key: str = "") -> None:
        """Kill all, cut a share off the end of the append-only files, or of a key's shard alone, and start all."""
        primary = self.owner(key) if key else None
        losers = [primary, self.replica_of(primary)] if primary else self.nodes
        self.kill()
        for node in losers:
            cut(node.folder, share)
            mend_files(node.folder)
        self.restart()

    def stall(self) -> None:
        """All keep their connections and accept new ones, and answer nothing, until `resume`."""
        for node in self.nodes:
            node.stall()

    def resume(self) -> None:
        """Undo `stall`."""
        for node in self.nodes:
            node.resume()

    def client(self) -> Any:
        """The redis package's own client."""
        return client_of(self.url)

    # What an operator does

    def open_slot(self, slot: int, to: Node) -> Node:
        """Begin to move a slot key by key, and leave it half moved; the node that it comes from."""
        source = self.owner(slot)
        to.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
        return source

    def move_keys(self, slot: int, source: Node, to: Node, most: int = 2**31) -> int:
        """Move up to so many keys of an open slot; how many there were."""
        names = source.cli("CLUSTER", "GETKEYSINSLOT", slot, most)
        for at in range(0, len(names), KEYS_AT_ONCE):
            some = names[at : at + KEYS_AT_ONCE]
            source.cli("MIGRATE", "127.0.0.1", to.port, "", 0, 10_000, "KEYS", *some)
        return len(names)

    def close_slot(self, slot: int, source: Node, to: Node) -> None:
        """The rest of the keys, and the end of the move."""
        while self.move_keys(slot, source, to, 100):
            pass
        for node in (to, source, *self.others(to)):
            try:
                node.cli("CLUSTER", "SETSLOT", slot, "NODE", to.id)
            except redis.ResponseError:
                # Whoever has given its last slot away is a replica of the one that has it now.
                assert not node.is_primary

    def move_slot(self, slot: int, to: Node) -> None:
        """All of the above."""
        self.close_slot(slot, self.open_slot(slot, to), to)

    def migrate_slot(self, slot: int, to: Node) -> None:
        """Move a slot in one step, where the server can (Valkey 9); returns when it has moved."""
        source = self.owner(slot)
        source.cli("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", to.id)
        until(lambda: slot in slots_of(to), 20)

    def add_node(self) -> Node:
        """One more primary, without slots; returns when all know it."""
        port, bus_port = free_ports(2)
        node = Node(self.folder / str(port), port, bus_port, self._config, self._binary)
        node.start()
        self.nodes[0].cli("CLUSTER", "MEET", "127.0.0.1", port, bus_port)
        self.nodes.append(node)
        until(lambda: all(known(each) == len(self.nodes) for each in self.nodes), 20)
        self.wait_until_well()
        return node

    def remove_node(self, node: Node) -> None:
        """Stop a node that has no slots, and let the others forget it."""
        name = node.id
        node.stop()
        self.nodes.remove(node)
        for other in self.nodes:
            other.cli("CLUSTER", "FORGET", name)

    def fail_over(self, primary: Node, *how: str) -> Node:
        """Let a replica take over by hand; returns it when it has, and the primary follows it.

        One that Redis 7 had elected shortly before takes itself for elected at once, nobody else does, and the primary
        lets writes wait for 5 s: see docs/cluster.md, "When a primary dies".
        """
        replica = self.replica_of(primary)
        until(lambda: primary.cli("CLUSTER", "REPLICAS", primary.id), FAILOVER_S)  # else it does not listen to it
        for _ in range(FAILOVERS):
            replica.cli("CLUSTER", "FAILOVER", *how)
            with contextlib.suppress(AssertionError):
                until(lambda: replica.is_primary and self._follows(primary, replica), FAILOVER_S)
                return replica
        raise AssertionError("the replica did not take over")

    def close(self) -> None:
        """Kill all nodes, and remove their folders."""
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def slots_of(node: Node) -> set[int]:
    """The slots that a node says are its own."""
    _, told = myself(node.cli("CLUSTER", "NODES").decode())
    edges = [some.split("-") for some in told.split(",") if some]
    return {slot for bounds in edges for slot in range(int(bounds[0]), int(bounds[-1]) + 1)}


def known(node: Node) -> int:
    """How many nodes this one knows, itself among them; those that it has not shaken hands with do not count."""
    told: bytes = node.cli("CLUSTER", "NODES")
    return sum(b"handshake" not in line for line in told.splitlines())


def free_ports(count: int) -> list[int]:
    """So many ports that were free a moment ago."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return ports
