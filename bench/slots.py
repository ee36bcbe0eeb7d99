"""Slots: for how long nodes answer nothing while the slot of a large log moves, key by key and in one step.

A log here is a stream of batches of 100 lines, as it is before it is sealed. It moves to and fro between two nodes.
Both are sent PINGs meanwhile, one after the other; the longest that one of them took is how long that node stood still.
"""

import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import redis

from app.local.embedded_cluster import EmbeddedCluster
from app.model.redis_keys import Keys
from app.redis_links.topology import slot_of
from bench.harness import Figure, Rig
from bench.house import LINES

TITLE = "Slots: a node's longest silence while a slot moves between two nodes on this machine, AOF everysec"

JOB = "01M8DXDAZHHQRPQ0JWER5CN7RF"
LINES_A_BATCH = 100
SMALL_KEYS = 500
PIPELINED = 100
MOVE_S = 120.0
NODE_TIMEOUT_MS = 120_000
"""No node is taken for dead, however long it stands still."""

ASK_S = 0.005
NODES = 2


class Node(NamedTuple):
    """A node: who sends it commands, and its address and id."""

    client: Any
    port: int
    id: str


def run(rig: Rig) -> list[Figure]:
    """All figures of Slots: medians of the rounds."""
    rounds = 1 if rig.quick else 3
    figures = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobwire-bench-")))
        cluster = stack.enter_context(EmbeddedCluster(folder, primaries=NODES))
        nodes = [node_at(stack, port) for port in cluster.ports]
        for node in nodes:
            node.client.config_set("cluster-node-timeout", NODE_TIMEOUT_MS)
        log = Keys("jw").log(JOB)
        slot = slot_of(log)
        if slot * NODES // 16_384:
            nodes.reverse()  # The first one has the slot.
        for mib in (4, 8) if rig.quick else (64, 256):
            fill(nodes[0].client, log, mib << 20)
            for name, move in (("key by key", by_keys), ("in one step", at_once)):
                silences = [silence(partial(there_and_back, move, slot, *nodes), nodes) for _ in range(rounds)]
                figures.append(Figure(f"a log of {mib} MiB, {name}: the longest silence", median(silences) * 1e3, "ms"))
            nodes[0].client.delete(log)
        for number in range(SMALL_KEYS):
            nodes[0].client.set(f"{log}:{number}", b"x" * 300)
        took_s = timed(partial(by_keys, slot, *nodes))
        return [*figures, Figure(f"{SMALL_KEYS} small keys, key by key: the whole move", took_s * 1e3, "ms")]


def node_at(stack: ExitStack, port: int) -> Node:
    """The node that listens on a port of this machine."""
    client: Any = stack.enter_context(redis.Redis(port=port, socket_timeout=MOVE_S))
    return Node(client, port, client.execute_command("CLUSTER", "MYID").decode())


def fill(client: Any, log: str, size: int) -> None:
    """Append batches of lines until so many bytes of JSON are there."""
    batch = b"[" + b",".join(LINES[:LINES_A_BATCH]) + b"]"
    left = -(-size // len(batch))
    while left > 0:
        with client.pipeline(transaction=False) as pipe:
            for _ in range(min(PIPELINED, left)):
                pipe.xadd(log, {"lines": batch})
            pipe.execute()
        left -= PIPELINED


def by_keys(slot: int, source: Node, to: Node) -> None:
    """Move a slot as `redis-cli --cluster reshard` of Redis 7 does."""
    to.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)
    while names := source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1):
        source.client.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, round(MOVE_S * 1e3), "KEYS", *names)
    for node in (to, source):
        node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", to.id)


def at_once(slot: int, source: Node, to: Node) -> None:
    """Move a slot with all of its keys in one step, as Valkey 9 can."""
    source.client.execute_command("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", to.id)
    deadline = time.monotonic() + MOVE_S
    while not (owns(to, slot) and not owns(source, slot)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"slot {slot} did not move within {MOVE_S:g} s")
        time.sleep(ASK_S)


def owns(node: Node, slot: int) -> bool:
    """Whether a node has a slot, by its own map."""
    ranges: Any = node.client.execute_command("CLUSTER", "SLOTS")
    return any(first <= slot <= last and owner[1] == node.port for first, last, owner, *_ in ranges)


def there_and_back(move: Callable[[int, Node, Node], None], slot: int, one: Node, other: Node) -> None:
    """Two moves, after which all is as it was."""
    move(slot, one, other)
    move(slot, other, one)


def timed(work: Callable[[], None]) -> float:
    """How many seconds it takes."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def silence(work: Callable[[], None], nodes: list[Node]) -> float:
    """The longest that a PING to one of the nodes takes, in seconds, while the work is done."""
    done = threading.Event()
    longest = [0.0] * len(nodes)

    def ask(at: int, port: int) -> None:
        with redis.Redis(port=port, socket_timeout=MOVE_S) as client:
            client.ping()
            while not done.is_set():
                longest[at] = max(longest[at], timed(client.ping))
                time.sleep(ASK_S)

    threads = [threading.Thread(target=ask, args=(at, node.port)) for at, node in enumerate(nodes)]
    for thread in threads:
        thread.start()
    try:
        work()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    return max(longest)
