"""Nodes that answer become one cluster.

Owns: which node gets which slots, and when all of them agree. Never: starts or stops a node, or changes a cluster that
has been formed. https://valkey.io/topics/cluster-spec/
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import redis

from app.redis_links.topology import SLOTS

HOST = "127.0.0.1"
NODE_ANSWER_S = 5.0
POLL_S = 0.02

NEVER = threading.Event()
"""What nobody sets."""


class ClusterError(Exception):
    """There is no cluster that works; the text is a sentence for the operator."""


class NodePorts(NamedTuple):
    """Where a node of this machine listens: to clients, and to other nodes."""

    port: int
    bus_port: int


def form(nodes: Sequence[NodePorts], primaries: int, within_s: float, stopped: threading.Event = NEVER) -> None:
    """Make one cluster of nodes without keys: slots in equal parts, the nodes behind the primaries are replicas.

    What they knew of each other before is forgotten. Returns when the cluster works; may be repeated if it was cut
    short. Raises ClusterError.
    """
    with said_as_cluster_error(), ExitStack() as links:
        clients = [links.enter_context(client_of(node)) for node in nodes]
        for at, client in enumerate(clients):
            client.execute_command("CLUSTER", "RESET", "HARD")
            if at < primaries:
                first, beyond = (round(SLOTS * edge / primaries) for edge in (at, at + 1))
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, beyond - 1)
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
        for node in nodes[1:]:
            clients[0].execute_command("CLUSTER", "MEET", HOST, node.port, node.bus_port)
        wait_until(lambda: all(known(client) == len(nodes) for client in clients), within_s, stopped)
        ids = [client.execute_command("CLUSTER", "MYID") for client in clients[:primaries]]
        for at, client in enumerate(clients[primaries:]):
            client.execute_command("CLUSTER", "REPLICATE", ids[at % primaries])
        wait_until(lambda: all(map(is_well, clients)), within_s, stopped)


def await_well(nodes: Sequence[NodePorts], within_s: float, stopped: threading.Event = NEVER) -> None:
    """Return when every node says that all slots are served, and every replica follows its primary.

    Raises ClusterError.
    """
    with said_as_cluster_error(), ExitStack() as links:
        clients = [links.enter_context(client_of(node)) for node in nodes]
        wait_until(lambda: all(map(is_well, clients)), within_s, stopped)


def client_of(node: NodePorts) -> Any:
    """A redis.Redis of one node alone; its execute_command has no types."""
    return redis.Redis(HOST, node.port, socket_timeout=NODE_ANSWER_S)


def known(client: Any) -> int:
    """How many nodes this one knows, itself among them; those that it has not shaken hands with do not count."""
    told: bytes = client.execute_command("CLUSTER", "NODES")
    return sum(b"handshake" not in line for line in told.splitlines())


def is_well(client: Any) -> bool:
    """Whether a node says that the cluster works and that every slot has its primary, and follows its own if it has."""
    info: bytes = client.execute_command("CLUSTER", "INFO")
    role: list[Any] = client.execute_command("ROLE")
    told = dict(line.split(b":") for line in info.split())
    follows = role[0] == b"master" or role[3] == b"connected"
    return follows and told[b"cluster_state"] == b"ok" and int(told[b"cluster_slots_ok"]) == SLOTS


def wait_until(condition: Callable[[], bool], within_s: float, stopped: threading.Event) -> None:
    """Return when the condition holds; a node that does not answer, or is loading, holds it up.

    ClusterError when that is not in time, or somebody sets `stopped`.
    """
    deadline = time.monotonic() + within_s
    while True:
        why = "not all nodes agree"
        try:
            if condition():
                return
        except redis.RedisError as error:
            why = f"a node says: {error}"
        if time.monotonic() > deadline:
            raise ClusterError(f"{why}, after {within_s:g} s")
        if stopped.wait(POLL_S):
            raise ClusterError("it was stopped while it started")


@contextmanager
def said_as_cluster_error() -> Iterator[None]:
    """What Redis refuses, or does not answer, is a ClusterError."""
    try:
        yield
    except redis.RedisError as error:
        raise ClusterError(f"a node says: {error}") from None
