"""Scale: the same calls on one server and on clusters of one, two and three primaries, by CPU time of each process.

The costs of one call are those of the cluster of one primary. What they say of two and three stands beside what was
measured there: CPU and memory of each primary, of the web process, and connections.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import NamedTuple

import redis

from app.local.embedded_cluster import EmbeddedCluster, free_port_base
from app.local.embedded_valkey import EmbeddedServer
from app.model.limits import BATCH_CLAIMS
from app.redis_links.topology import SLOTS, slot_of
from bench.capacity import Cost, busiest_share, total
from bench.harness import Figure, Rig, Target, post
from bench.house import JOB, LINES, PROGRESS
from bench.load import Client, Flow, Load
from bench.service import BASE, Service, cpu_s

TITLE = "Scale: one web process on one server and on clusters of 1, 2 and 3 primaries, AOF everysec, CPU time"

PRIMARIES = (0, 1, 2, 3)
"""0 is one server that is no cluster."""

SPACES = 60
LOGS = 100
LINES_A_CALL = 100
CALLS_A_LOG = 5
BULK = 50
POLLED = 10
CONNECTIONS = 32
CALLS_A_CONNECTION = 8
SETTLE_S = 0.1
NDJSON = "application/x-ndjson"

TENTH_MORE = Target(1.1, at_least=False)
SHARE = Target(1.2, at_least=False)
ERROR = Target(20, at_least=False)


class Scaled(Service):
    """A service on TCP: one server (0 primaries) or a cluster, with many spaces, each with a key of its own."""

    def __init__(self, primaries: int) -> None:
        super().__init__({"JOBWIRE_REDIS_TIMEOUT": "20"})
        self.primaries = primaries
        self.spaces: list[str] = []
        self.keys: list[str] = []

    def make_spaces(self, count: int) -> None:
        """The spaces that the calls are about."""
        scopes = ("jobs:worker", "jobs:create", "jobs:read")
        for _ in range(count):
            space = str(self.post("/spaces", {"name": "scale"})["id"])
            self.spaces.append(space)
            self.keys.append(str(self.post(f"/spaces/{space}/tokens", {"name": "scale", "scopes": scopes})["key"]))

    def start_redis(self, stack: ExitStack) -> tuple[str, list[EmbeddedServer]]:
        if self.primaries:
            cluster = stack.enter_context(EmbeddedCluster(self.data, primaries=self.primaries))
            url, nodes = cluster.url, cluster.nodes
        else:
            port = free_port_base(1)
            nodes = [stack.enter_context(EmbeddedServer(self.data, port=port))]
            url = f"redis://127.0.0.1:{port}"
        self._clients = [stack.enter_context(redis.Redis.from_url(node.url)) for node in nodes]
        for client in self._clients:
            client.config_set("auto-aof-rewrite-percentage", 0)
        return url, nodes

    def used(self) -> "Used":
        """What all processes have used so far."""
        return Used(
            self.cpu().web_s,
            [cpu_s(node.pid or 0) for node in self.nodes],
            [int(client.info("memory")["used_memory"]) for client in self._clients],
        )

    def connections(self) -> int:
        """Connections of the web process to the server that has the most of them; ours does not count."""
        return max(len(client.client_list()) for client in self._clients) - 1

    def node_of(self, tag: str) -> int:
        """The number of the server that has a space or the log of a job."""
        nodes = len(self.nodes)
        slot = slot_of(f"jw:{{{tag}}}:")
        return next(at for at in range(nodes) if slot < round(SLOTS * (at + 1) / nodes))


class Used(NamedTuple):
    """CPU seconds of the web process and of each server, and the bytes that each of them holds."""

    web_s: float
    redis_s: list[float]
    held: list[int]


class Call(NamedTuple):
    """A request, how many units of work it is, and the space or job whose primary does it."""

    request: bytes
    units: int
    tag: str


class Sample(NamedTuple):
    """What one kind of work took in one round; `units` by server."""

    units: list[float]
    used: Used


Samples = dict[str, list[Sample]]


def run(rig: Rig) -> list[Figure]:
    """All figures of Scale."""
    samples: dict[int, Samples] = {}
    with ExitStack() as stack:
        fleets = [stack.enter_context(Scaled(primaries)) for primaries in PRIMARIES]
        for fleet in fleets:
            fleet.make_spaces(12 if rig.quick else SPACES)
            round_of(fleet, rig.client, {})  # Links are opened and scripts loaded before the first round that counts.
        for number in range(rig.rounds):
            for fleet in fleets[:: -1 if number % 2 else 1]:
                round_of(fleet, rig.client, samples.setdefault(fleet.primaries, {}))
        connections = {fleet.primaries: fleet.connections() for fleet in fleets}
    costs = {name: cost_of(taken) for name, taken in samples[1].items()}
    figures = [cost_figure(name, cost) for name, cost in costs.items()]
    figures += [over_one_server(samples, primaries) for primaries in PRIMARIES[1:]]
    figures += [over_one_server(samples, PRIMARIES[-1], kind) for kind in costs]
    for primaries in PRIMARIES[2:]:
        figures += busiest(samples[primaries], primaries)
        figures += predicted(costs, samples[primaries], primaries)
    return figures + [
        Figure(f"connections of a web process to a primary, {primaries or 'no cluster'}", count, "")
        for primaries, count in connections.items()
    ]


def round_of(fleet: Scaled, client: Client, samples: Samples) -> None:
    """One round of every kind of work."""
    jobs = claimed(fleet, 2 * LOGS)
    kinds = {
        "create": creates(fleet),
        "poll": polls(fleet),
        "progress": of_jobs(fleet, jobs * 5, "progress", PROGRESS),
        "line": appends(fleet, jobs[:LOGS]),
    }
    for name, calls in kinds.items():
        samples.setdefault(name, []).append(measured(fleet, client, calls))
    with watching(fleet, jobs[LOGS:]):
        watched = measured(fleet, client, appends(fleet, jobs[LOGS:]))
    samples.setdefault("watched line", []).append(watched)
    samples.setdefault("complete", []).append(measured(fleet, client, of_jobs(fleet, jobs, "complete", b"{}")))


def measured(fleet: Scaled, client: Client, calls: Sequence[Call]) -> Sample:
    """Make the calls, all of them; RuntimeError when one was refused."""
    waiting = iter([call.request for call in calls])
    before = fleet.used()
    flows = [partial(drain, waiting)] * min(CONNECTIONS, -(-len(calls) // CALLS_A_CONNECTION))
    outcome = client.run(Load(fleet.web, flows, seconds=600, warm_s=0))
    time.sleep(SETTLE_S)
    after = fleet.used()
    if outcome.refused:
        raise RuntimeError(f"{outcome.refused} refused, one with {outcome.refusal!r}")
    units = [0.0] * len(fleet.nodes)
    for call in calls:
        units[fleet.node_of(call.tag)] += call.units
    redis_s = [own - then for own, then in zip(after.redis_s, before.redis_s, strict=True)]
    held = [own - then for own, then in zip(after.held, before.held, strict=True)]
    return Sample(units, Used(after.web_s - before.web_s, redis_s, held))


def drain(waiting: Iterator[bytes]) -> Flow:
    """Requests from a stock that all conversations share."""
    for request in waiting:
        _ = yield request


class Held(NamedTuple):
    """A job with a lease, and the key of its space."""

    id: str
    lease: str
    key: str


def claimed(fleet: Scaled, count: int) -> list[Held]:
    """So many jobs with a lease, spread over the spaces."""
    job = {"name": "scale", "claim": True, "timeoutSeconds": 86_400}
    each = min(BATCH_CLAIMS, -(-count // len(fleet.spaces)))
    made = [
        Held(job_["id"], job_["leaseToken"], key)
        for space, key in zip(fleet.spaces, fleet.keys, strict=True)
        for job_ in fleet.post(f"/spaces/{space}/jobs", [job] * each)
    ]
    return made[:: len(made) // count][:count]


def creates(fleet: Scaled) -> list[Call]:
    """BULK jobs for each space."""
    body = b"[" + b",".join([JOB] * BULK) + b"]"
    each = zip(fleet.spaces, fleet.keys, strict=True)
    return [Call(post(f"{BASE}/spaces/{space}/jobs", key, body), BULK, space) for space, key in each]


def polls(fleet: Scaled) -> list[Call]:
    """All jobs that `creates` made, POLLED at a time."""
    body = b'{"count":%d}' % POLLED
    each = [*zip(fleet.spaces, fleet.keys, strict=True)] * (BULK // POLLED)
    return [Call(post(f"{BASE}/spaces/{space}/jobs/poll", key, body), POLLED, space) for space, key in each]


def of_jobs(fleet: Scaled, jobs: Sequence[Held], verb: str, body: bytes) -> list[Call]:
    """One call of a worker for each job."""
    spaces = dict(zip(fleet.keys, fleet.spaces, strict=True))
    return [Call(post(f"{BASE}/jobs/{id_}/{verb}", key, body, lease), 1, spaces[key]) for id_, lease, key in jobs]


def appends(fleet: Scaled, jobs: Sequence[Held]) -> list[Call]:
    """LINES_A_CALL lines to each job, CALLS_A_LOG times; a unit is a line."""
    body = b"\n".join(LINES[:LINES_A_CALL])
    return [
        Call(post(f"{BASE}/jobs/{id_}/logs", key, body, kind=NDJSON), LINES_A_CALL, id_) for id_, _, key in jobs
    ] * CALLS_A_LOG


@contextlib.contextmanager
def watching(fleet: Scaled, jobs: Sequence[Held]) -> Iterator[None]:
    """A viewer for each job, with its log, while the block runs: server-sent events, read and thrown away."""
    done = threading.Event()
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for id_, _, key in jobs:
            viewer = stack.enter_context(socket.create_connection(fleet.web))
            head = f"GET {BASE}/realtime/{id_}?logs=true HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {key}\r\n"
            viewer.sendall(f"{head}accept: text/event-stream\r\n\r\n".encode())
            answer = viewer.recv(65_536)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"a viewer was refused: {answer!r}")
            selector.register(viewer, selectors.EVENT_READ)
        reader = threading.Thread(target=read_away, args=(selector, done))
        reader.start()
        try:
            yield
        finally:
            done.set()
            reader.join()


def read_away(selector: selectors.BaseSelector, done: threading.Event) -> None:
    """Read what comes to all sockets until it is enough."""
    while not done.is_set():
        for ready, _ in selector.select(0.05):
            sock = ready.fileobj
            assert isinstance(sock, socket.socket)
            sock.recv(262_144)


def cost_of(taken: Sequence[Sample]) -> Cost:
    """The cost of a unit, over all rounds: as `predicted` compares it."""
    units = sum(sum(sample.units) for sample in taken)
    return Cost(
        sum(sample.used.web_s for sample in taken) / units * 1e6,
        sum(sum(sample.used.redis_s) for sample in taken) / units * 1e6,
        sum(sum(sample.used.held) for sample in taken) / units,
    )


def cost_figure(name: str, cost: Cost) -> Figure:
    """A cost on one primary, as a line of the table."""
    detail = {"web_us": cost.web_us, "valkey_us": cost.redis_us, "redis_bytes": cost.memory_bytes}
    return Figure(f"cost of one: {name}", cost.memory_bytes, "bytes", None, None, detail)


def over_one_server(samples: Mapping[int, Samples], primaries: int, kind: str = "") -> Figure:
    """CPU of the web process for the same calls, over that on one server. The bound is for all kinds of work."""
    ratio = typical_web_s(samples[primaries], kind) / typical_web_s(samples[0], kind)
    name = f"web CPU a call on {primaries}, over one server"
    return Figure(f"{name}: {kind}" if kind else name, ratio, "times", None, None if kind else TENTH_MORE)


def typical_web_s(samples: Samples, kind: str) -> float:
    """CPU seconds of the web process in a round: of each kind of work, or of one kind, the median of the rounds."""
    kinds = [samples[kind]] if kind else samples.values()
    return sum(median(sample.used.web_s for sample in taken) for taken in kinds)


def busiest(samples: Samples, primaries: int) -> list[Figure]:
    """CPU of the busiest primary for lines of LOGS logs, over an equal share: the median round, and the worst."""
    rounds = [max(used.redis_s) / sum(used.redis_s) * primaries for _, used in samples["line"]]
    name = f"busiest of {primaries}, lines of {LOGS} logs (model: at most {busiest_share(LOGS, primaries):.2f})"
    return [
        Figure(name, median(rounds), "shares", None, SHARE),
        Figure(f"busiest of {primaries}, worst round of {len(rounds)}", max(rounds), "shares"),
    ]


def predicted(costs: dict[str, Cost], samples: Samples, primaries: int) -> list[Figure]:
    """What was measured in all rounds, what the costs say of it, and by how much they are wrong at most."""
    figures, errors = [], []
    for at in range(primaries):
        work = {name: sum(sample.units[at] for sample in taken) for name, taken in samples.items()}
        used = [sample.used for taken in samples.values() for sample in taken]
        told = total(costs, work)
        cpu = sum(one.redis_s[at] for one in used)
        held = sum(one.held[at] for one in used) / 2**20
        name = f"primary {at + 1} of {primaries}"
        figures.append(Figure(f"{name}: CPU (model: {told.redis_us / 1e6:.2f} s)", cpu, "s"))
        figures.append(Figure(f"{name}: memory (model: {told.memory_bytes / 2**20:.1f} MiB)", held, "MiB"))
        errors.append((abs(told.redis_us / 1e6 / cpu - 1), abs(told.memory_bytes / 2**20 / held - 1)))
    work = {name: sum(sum(sample.units) for sample in taken) for name, taken in samples.items()}
    told_s, web = (
        total(costs, work).web_us / 1e6,
        sum(sample.used.web_s for taken in samples.values() for sample in taken),
    )
    figures.append(Figure(f"web on {primaries}: CPU (model: {told_s:.2f} s)", web, "s"))
    worst = {
        "CPU of a primary": max(cpu for cpu, _ in errors),
        "memory of a primary": max(held for _, held in errors),
        "CPU of web": abs(told_s / web - 1),
    }
    return figures + [
        Figure(f"error of the model on {primaries}, {name}", 100 * error, "%", None, ERROR)
        for name, error in worst.items()
    ]
