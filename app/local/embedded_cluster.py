"""The embedded cluster: nodes of the embedded Valkey on ports of this machine, in one folder.

Owns `jobwire.lock` and `cluster.json` in the folder. Beside them `node-1`, `node-2`, ... each belong to an
EmbeddedServer, and `nodes.conf` in each of these to Valkey. Never: leaves a node running, or changes a cluster that has
been formed: what an operator has done to it (slots, replicas) is what the next start finds.

Always: `cluster.json` is there once the cluster has worked, and not before. Without it nobody was told of the cluster,
and the next start forms it anew on the same folders.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from app.local.cluster_forming import HOST, ClusterError, NodePorts, await_well, form
from app.local.data_folder import CLUSTER, open_private
from app.local.embedded_valkey import AskedOtherwise, EmbeddedError, EmbeddedServer, folder_held

CLUSTER_FILE = "cluster.json"

BUS_OFFSET = 10_000
"""What Valkey adds to a port for the one on which nodes speak to each other."""

FREE_PORTS = range(7000, 17_000)
"""Where free ports are looked for: below those that systems give to outgoing connections, so that a restart finds them
free again."""

MOST_NODES = 100
LAST_PORT_BASE = 65_535 - BUS_OFFSET - MOST_NODES

ATTEMPTS = 100
FILES_A_NODE = 256
"""Open files that a node needs, with some room for clients."""

NODE_TIMEOUT_MS = 5000
NODE_SETTINGS: Mapping[str, str] = {
    "bind": HOST,
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    "cluster-node-timeout": str(NODE_TIMEOUT_MS),
    # One node that is down takes only its own slots along.
    "cluster-require-full-coverage": "no",
    "repl-diskless-sync-delay": "0",
}


class Layout(msgspec.Struct):
    """What `cluster.json` says: the first `primaries` of the nodes were made primaries."""

    primaries: int
    ports: list[int]

    @property
    def replicas(self) -> int:
        """Replicas of each primary."""
        return len(self.ports) // self.primaries - 1


class EmbeddedCluster:
    """The cluster of one data folder: at most one process serves a folder.

    `start` and `stop` block and may be called from any thread; `supervise` belongs to one event loop. Without `stop`,
    the nodes end when this process does.
    """

    def __init__(
        self,
        data: Path,
        *,
        primaries: int | None = None,
        replicas: int | None = None,
        port_base: int | None = None,
        appendfsync: str = "everysec",
        maxmemory_bytes: int = 0,
    ) -> None:
        """Nothing is touched yet. None is what the folder has or, for a new one: 3 primaries, no replicas, any ports
        that are free. With `port_base` the nodes have that port and the next ones. Memory is that of each node."""
        self.data = data.expanduser().resolve()
        self.nodes: list[EmbeddedServer] = []
        self.ports: list[int] = []
        self._wanted = (primaries, replicas, port_base)
        self._appendfsync = appendfsync
        self._maxmemory_bytes = maxmemory_bytes
        self._turn = threading.Lock()
        self._down = threading.Event()
        self._held = ExitStack()

    @property
    def url(self) -> str:
        """What REDIS_URL is for this cluster, once it has started."""
        return "redis+cluster://" + ",".join(f"{HOST}:{port}" for port in self.ports)

    def start(self, timeout_s: float = 30.0) -> None:
        """Return when all nodes agree that every slot is served. While they already run, do nothing.

        FolderInUse when another process serves the folder. EmbeddedError when the folder or the ports cannot be used,
        when a node gives up or the nodes do not agree in time. Then nothing stays running.
        """
        with self._turn:
            if self.nodes:
                return
            self._down.clear()
            try:
                self._bring_up(timeout_s)
            except BaseException as error:
                self._end_nodes()
                if isinstance(error, ClusterError):
                    raise EmbeddedError(f"The cluster in {self.data} does not work: {error}.") from None
                if isinstance(error, OSError):
                    raise EmbeddedError(f"No cluster can be started in {self.data}: {error}.") from error
                raise

    def stop(self) -> None:
        """End all nodes and free the folder; `supervise` returns. All that was answered is on disk."""
        self._down.set()
        for_each(self.nodes, EmbeddedServer.stop)
        with self._turn:
            self._end_nodes()

    async def supervise(self) -> None:
        """Start each node again whenever it ends by itself, until `stop` or cancellation."""
        await asyncio.gather(*(node.supervise() for node in self.nodes))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _bring_up(self, timeout_s: float) -> None:
        self._held.enter_context(folder_held(self.data, CLUSTER))
        found = self._found()
        layout = found or self._new_layout()
        check_files()
        self.ports = layout.ports
        self.nodes = [self._node(number, port) for number, port in enumerate(layout.ports, 1)]
        for_each(self.nodes, EmbeddedServer.start)
        ports = [NodePorts(port, port + BUS_OFFSET) for port in layout.ports]
        if found:
            await_well(ports, timeout_s, self._down)
        else:
            form(ports, layout.primaries, timeout_s, self._down)
            self._save(layout)

    def _node(self, number: int, port: int) -> EmbeddedServer:
        return EmbeddedServer(
            self._folder(number),
            appendfsync=self._appendfsync,
            maxmemory_bytes=self._maxmemory_bytes,
            port=port,
            config=NODE_SETTINGS,
        )

    def _folder(self, number: int) -> Path:
        return self.data / f"node-{number}"

    def _end_nodes(self) -> None:
        for_each(self.nodes, EmbeddedServer.stop)
        self.nodes = []
        self._held.close()

    # Layout

    def _found(self) -> Layout | None:
        """What an earlier start has formed here. EmbeddedError if it is not what is wanted, or not whole."""
        path = self.data / CLUSTER_FILE
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Layout)
            has = (found.primaries, found.replicas, found.ports[0])
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError, ZeroDivisionError, IndexError):
            raise EmbeddedError(f"{path} is damaged: put back a copy of {self.data}, or give another folder.") from None
        if any(wanted not in (None, had) for wanted, had in zip(self._wanted, has, strict=True)):
            raise AskedOtherwise(
                f"The cluster in {self.data} has {described(found)}, and stays so: ask for nothing else, "
                f"or give another folder."
            )
        for number in range(1, len(found.ports) + 1):
            if not (self._folder(number) / "nodes.conf").exists():
                raise EmbeddedError(f"{self._folder(number)} is no node any more: put back a copy of {self.data}.")
        return found

    def _new_layout(self) -> Layout:
        primaries, replicas, port_base = self._wanted
        primaries = 3 if primaries is None else primaries
        count = primaries * (1 + (replicas or 0))
        first = free_port_base(count) if port_base is None else port_base
        return Layout(primaries, list(range(first, first + count)))

    def _save(self, layout: Layout) -> None:
        draft = self.data / f".{CLUSTER_FILE}"
        with open_private(draft, os.O_WRONLY | os.O_TRUNC) as file:
            os.write(file, msgspec.json.encode(layout) + b"\n")
            os.fsync(file)
        draft.replace(self.data / CLUSTER_FILE)


def described(layout: Layout) -> str:
    """Its size and its ports, for a person."""
    return f"{layout.primaries} primaries with {layout.replicas} replicas each, at the ports from {layout.ports[0]} on"


def for_each(nodes: Sequence[EmbeddedServer], act: Callable[[EmbeddedServer], None]) -> None:
    """Do it with all nodes at the same time; when all have ended, what the first one raised is raised."""
    with ThreadPoolExecutor(max(1, len(nodes))) as pool:
        for done in [pool.submit(act, node) for node in nodes]:
            done.result()


def check_files() -> None:
    """EmbeddedError unless the system grants the open files that a node needs."""
    _, granted = resource.getrlimit(resource.RLIMIT_NOFILE)
    if granted != resource.RLIM_INFINITY and granted < FILES_A_NODE:
        raise EmbeddedError(
            f"A process may have {granted} open files here (`ulimit -Hn`), and each node needs {FILES_A_NODE}."
        )


def free_port_base(count: int) -> int:
    """The first of so many ports in a row that are free, with those of their buses. EmbeddedError if none are found."""
    for _ in range(ATTEMPTS):
        first = random.choice(FREE_PORTS[: -count or None])
        if all(is_free(port) and is_free(port + BUS_OFFSET) for port in range(first, first + count)):
            return first
    raise EmbeddedError(f"There are no {count} free ports in a row from {FREE_PORTS.start} to {FREE_PORTS.stop}.")


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of this machine."""
    with suppress(OSError), socket.create_server((HOST, port)):
        return True
    return False
