"""Peers: one job's life here, and in queues that keep no history, on the same Valkey binary, AOF everysec.

Each has a fresh embedded Valkey of its own. They take turns, round by round; a ratio is that of one round. A life is:
created in bulk, taken, begun, completed. The others run in their own language, in a process of their own, and are told
what to do by a line on stdin (bullmq_queue.js, saq_queue.py). One that is not installed is left out, and said so:

    npm install --prefix .venv/peers bullmq@6.7.0 ioredis@6.0.0
    python3 -m venv .venv/peers/saq
    .venv/peers/saq/bin/pip install 'saq[redis,hiredis]==0.26.4' typing_extensions

Of Valkey's time counts the CPU of all of its threads, what the system does for it included.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec
import redis

from app.local.embedded_valkey import EmbeddedServer
from bench.harness import Figure, Rig, Target, body_of, post
from bench.house import JOB, PAYLOAD
from bench.load import Flow, Load, drive, times
from bench.service import BASE, Service, cpu_s, end

TITLE = "Peers: a job's life here and in queues without history, each on its own embedded Valkey (ratio: by BullMQ's)"

FOLDER = Path(sys.prefix, "peers")
HERE = Path(__file__).parent

JOBS = 10_000
PENDING = 20_000
"""Measured is what so many jobs take behind as many others: any table of theirs is then twice as large as before, and
lists of events, which keep about 10,000, are full."""

BATCH = 500
CREATORS = 4
WORKERS = 32
POLL = 50
RESULT = b'{"width":640}'
MAX_RETRIES = 3
WAIT_S = 300.0


class Queue(Protocol):
    """A queue under measure. `redis` is a connection to its Valkey, whose process is `valkey_pid`."""

    redis: "redis.Redis"
    valkey_pid: int

    def create(self, count: int) -> float:
        """Make so many jobs pending, in bulk; the seconds that it took."""

    def work(self, count: int) -> float:
        """Take, begin and complete so many, which is all there are; the seconds that it took."""

    def tidy(self) -> None:
        """Forget all jobs."""


class Cost(NamedTuple):
    """What a job took: microseconds of Valkey's CPU, and how many jobs a second."""

    valkey_us: float
    rate: float


class Life(NamedTuple):
    """What a queue took in one round."""

    create: Cost
    work: Cost

    @property
    def valkey_us(self) -> float:
        """Of a job's whole life."""
        return self.create.valkey_us + self.work.valkey_us


def run(rig: Rig) -> list[Figure]:
    """All figures of the peers that are installed."""
    jobs, pending = (JOBS // 5, PENDING // 2) if rig.quick else (JOBS, PENDING)
    with ExitStack() as stack:
        ours = Ours(rig.service)
        queues: dict[str, Queue] = {"ours": ours}
        for peer in PEERS:
            if why := peer.missing():
                print(f"{peer.name} is left out: {why}.", flush=True)
            else:
                queues[peer.name] = Theirs(peer, stack)
        lives: dict[str, list[Life]] = {name: [] for name in queues}
        steps: dict[str, list[float]] = {}
        for _ in range(rig.rounds):
            for name, queue in queues.items():
                lives[name].append(Life(cost(queue, queue.create, jobs), cost(queue, queue.work, jobs)))
                queue.tidy()
            for name, step in ours.steps().items():
                steps.setdefault(name, []).append(cost(ours, step, jobs).valkey_us)
            ours.tidy()
        held = {name: pending_bytes(queue, pending) for name, queue in queues.items()}
    return [
        *compared(
            "Valkey's CPU for a life",
            "us",
            lives,
            lambda life: life.valkey_us,
            Target(1.0, at_least=False, of_ratio=True),
        ),
        *(Figure(f"of which by {name}", median(taken), "us") for name, taken in steps.items()),
        *compared("taken, begun, completed", "jobs/s", lives, lambda life: life.work.rate, Target(1.0, of_ratio=True)),
        *compared("created in bulk", "jobs/s", lives, lambda life: life.create.rate, Target(3.0, of_ratio=True)),
        *(memory(name, held[name]) for name in queues),
    ]


def cost(queue: Queue, work: Callable[[int], float], count: int) -> Cost:
    """What each of so many jobs takes by a piece of work that answers how many seconds it took."""
    before_s = cpu_s(queue.valkey_pid)
    took_s = work(count)
    return Cost((cpu_s(queue.valkey_pid) - before_s) / count * 1e6, count / took_s)


def compared(
    name: str, unit: str, lives: Mapping[str, Sequence[Life]], value: Callable[[Life], float], target: Target
) -> list[Figure]:
    """A line for each queue: medians of the rounds. Ours has a ratio and a target where there is BullMQ."""
    figures = [Figure(f"{name}: {side}", median(map(value, rounds)), unit) for side, rounds in lives.items()]
    if theirs := lives.get(BULLMQ.name):
        ratio = median(value(own) / value(its) for own, its in zip(lives["ours"], theirs, strict=True))
        figures[0] = figures[0]._replace(ratio=ratio, target=target)
    return figures


def memory(name: str, held: float) -> Figure:
    """What a pending job takes in a queue."""
    target = Target(700, at_least=False) if name == "ours" else None
    return Figure(f"memory of a pending job: {name}", held, "bytes", None, target)


def pending_bytes(queue: Queue, count: int) -> float:
    """Bytes of Valkey's memory for each of so many pending jobs, behind as many others."""
    queue.create(count)
    before = held_bytes(queue.redis)
    queue.create(count)
    taken = held_bytes(queue.redis) - before
    queue.tidy()
    return taken / count


def held_bytes(client: "redis.Redis") -> int:
    """What Valkey holds besides buffers, once no table of its keys is on its way into a larger one."""
    deadline_s = time.monotonic() + WAIT_S
    while (now := client.info("memory"))["mem_overhead_db_hashtable_rehashing"]:
        if time.monotonic() > deadline_s:
            raise RuntimeError("Valkey does not finish rehashing")
        time.sleep(0.01)
    return int(now["used_memory"] - now["mem_aof_buffer"] - now["mem_clients_normal"])


# Ours


class Held(msgspec.Struct, rename="camel"):
    """A job that was polled, as far as its worker needs it."""

    id: str
    lease_token: str


class Polled(msgspec.Struct):
    """An answer to a poll."""

    jobs: list[Held]


class Ours:
    """jobwire over HTTP: polls begin their jobs, and what is held is completed by one request."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.redis = service.redis
        self.valkey_pid = service.nodes[0].pid or 0
        self._space = f"/spaces/{service.space}"
        self._poll = self._post(f"{self._space}/jobs/poll", b'{"count":%d,"ack":true}' % POLL)

    def create(self, count: int) -> float:
        request = self._post(f"{self._space}/jobs", b"[" + b",".join([JOB] * BATCH) + b"]")
        return self._drive([partial(times, request, count // BATCH // CREATORS)] * CREATORS)

    def work(self, count: int) -> float:
        before = self._completed()
        took_s = self._drive([self._worker] * WORKERS)
        if (done := self._completed() - before) != count:
            raise RuntimeError(f"{done} of {count} jobs are completed")
        return took_s

    def tidy(self) -> None:
        self._service.tidy()

    def steps(self) -> dict[str, Callable[[int], float]]:
        """A life by its steps, each of which all jobs take before the next."""
        held: list[list[Held]] = []

        def take() -> Flow:
            while jobs := jobs_of((yield self._poll)):
                held.append(jobs)

        def complete(place: int) -> Flow:
            for jobs in held[place::WORKERS]:
                yield self._complete(jobs)

        return {
            "create": self.create,
            "poll": lambda _: self._drive([take] * WORKERS),
            "calls": lambda _: self._drive([partial(complete, place) for place in range(min(WORKERS, len(held)))]),
        }

    def _worker(self) -> Flow:
        while jobs := jobs_of((yield self._poll)):
            yield self._complete(jobs)

    def _complete(self, jobs: Sequence[Held]) -> bytes:
        result = msgspec.Raw(RESULT)
        calls = [{"verb": "complete", "jobId": job.id, "leaseToken": job.lease_token, "body": result} for job in jobs]
        return self._post(f"{self._space}/calls", msgspec.json.encode(calls))

    def _post(self, path: str, body: bytes) -> bytes:
        return post(BASE + path, self._service.worker_key, body)

    def _drive(self, flows: Sequence[Callable[[], Flow]]) -> float:
        # By this process, not by the rig's client: flows share what they have polled.
        outcome = drive(Load(self._service.web, flows, seconds=WAIT_S, warm_s=0, whole=True))
        if outcome.refused:
            raise RuntimeError(f"{outcome.refused} refused, one with {outcome.refusal!r}")
        return outcome.seconds

    def _completed(self) -> int:
        return int(self._service.get(self._space)["counts"]["completed"])


def jobs_of(answer: bytes) -> list[Held]:
    """The jobs of a poll's answer."""
    return msgspec.json.decode(body_of(answer), type=Polled).jobs


# Theirs


class Peer(NamedTuple):
    """How a queue is run: by `program`, if the file `needs` is there; what its order to create has behind the count."""

    name: str
    program: Sequence[str]
    needs: Path
    create: str
    job: Mapping[str, Any]

    def missing(self) -> str:
        """Why it cannot run, or nothing."""
        if shutil.which(self.program[0]) is None:
            return f"there is no {self.program[0]}"
        return "" if self.needs.exists() else f"there is no {self.needs}"


BULLMQ = Peer(
    "BullMQ",
    ("node", str(HERE / "bullmq_queue.js")),
    FOLDER / "node_modules/bullmq",
    f"{BATCH} {CREATORS}",
    {"name": "resize", "data": PAYLOAD, "opts": {"attempts": MAX_RETRIES + 1}},
)
SAQ = Peer(
    "SAQ",
    (str(FOLDER / "saq/bin/python"), str(HERE / "saq_queue.py")),
    FOLDER / "saq/bin/saq",
    f"{WORKERS}",
    {"job_or_func": "resize", "retries": MAX_RETRIES + 1, **PAYLOAD},
)
PEERS = (BULLMQ, SAQ)


class Theirs:
    """A peer's queue on a server of its own, in a process that is told what to do."""

    def __init__(self, peer: Peer, stack: ExitStack) -> None:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobwire-bench-")))
        server = stack.enter_context(EmbeddedServer(data, config={"auto-aof-rewrite-percentage": "0"}))
        self.redis = stack.enter_context(redis.Redis.from_url(server.url, socket_timeout=WAIT_S))
        self.valkey_pid = server.pid or 0
        self._peer = peer
        self._process = subprocess.Popen(
            [*peer.program, urlsplit(server.url).path, json.dumps(peer.job), RESULT.decode()],
            env={**os.environ, "NODE_PATH": str(FOLDER / "node_modules")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(end, self._process)
        self._order("ready")

    def create(self, count: int) -> float:
        return self._order(f"create {count} {self._peer.create}")

    def work(self, count: int) -> float:
        return self._order(f"work {count} {WORKERS}")

    def tidy(self) -> None:
        self.redis.flushall(asynchronous=False)

    def _order(self, order: str) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            print(order, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._peer.name} ended at `{order}`, with code {self._process.wait()}")
        return float(answer)
