"""The House: a job's calls against the bare echo, log appends against raw XADD, queue depth, memory, bulk creates
of all in one process, and the start."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import redis

from bench.ceilings import ECHO, XADD, echo, xadd
from bench.harness import Figure, Rig, Target, Trial, body_of, post
from bench.load import Flow, Load, repeat, times
from bench.service import BASE, cpu_s

TITLE = "House: one web process, auth and validation on, JOBWIRE_RATE=0, AOF everysec"

CONNECTIONS = 32
APPENDERS = 8
PAYLOAD = {"image": "s3://bucket/2026/03/01/IMG_000001.jpeg", "width": 64}
"""60 bytes of JSON."""
JOB = json.dumps({"name": "resize", "payload": PAYLOAD}, separators=(",", ":")).encode()
PROGRESS = b'{"percent":42,"message":"scaling image 7 of 19"}'
BULK = 500
LINES = [
    b'{"level":"info","message":"GET /images/%06d.jpeg answered 200 with %d bytes after %d ms","source":"stdout"}'
    % (i * 7919 % 1_000_000, i * 104_729 % 5_000_000, i * 31 % 900)
    for i in range(1000)
]
DEPTHS = (1_000, 1_000_000)
POLLS = 100
MEMORY_JOBS = 50_000
THERE = 200_000
FLOWS = 4


def run(rig: Rig) -> list[Figure]:
    """All figures of the House."""
    return [
        *rig.interleave(calls(rig)),
        *rig.interleave(appends(rig)),
        *memory(rig),
        *depth(rig),
        *all_in_one(rig),
        start(rig),
    ]


def calls(rig: Rig) -> list[Trial]:
    """One call after the other on each connection, and the echo beside them."""
    space = f"/spaces/{rig.service.space}/jobs"
    bulk = b"[" + b",".join([JOB] * BULK) + b"]"
    half, some = Target(0.5, of_ratio=True), Target(0.4, of_ratio=True)
    return [
        echo(rig, PROGRESS, CONNECTIONS),
        Trial("progress", "requests/s", partial(_on_claimed, rig, "progress", PROGRESS), 1, ECHO, half, tidy=True),
        Trial("keepalive", "requests/s", partial(_on_claimed, rig, "keepalive", b""), 1, ECHO, half, tidy=True),
        Trial("create", "requests/s", partial(_same, rig, space, JOB, CONNECTIONS), 1, ECHO, some, tidy=True),
        Trial("create 500", "jobs/s", partial(_same, rig, space, bulk, 4), BULK, "", Target(30_000), tidy=True),
        Trial(
            "create, poll, ack, complete",
            "jobs/s",
            partial(_lifecycles, rig),
            1 / 4,
            ECHO,
            Target(0.10, of_ratio=True),
            tidy=True,
        ),
    ]


def appends(rig: Rig) -> list[Trial]:
    """NDJSON appends, each connection to a job of its own, and raw XADD of the same lines."""
    batches = [(1, None), (100, None), (1000, Target(0.8, of_ratio=True))]
    return [
        xadd(rig, LINES),
        *[
            Trial(f"append {lines}", "lines/s", partial(_appends, rig, lines), lines, XADD, target, tidy=True)
            for lines, target in batches
        ],
    ]


def _same(rig: Rig, path: str, body: bytes, connections: int) -> Load:
    return Load(rig.service.web, [partial(repeat, (rig.request(path, body),))] * connections)


def _on_claimed(rig: Rig, verb: str, body: bytes) -> Load:
    jobs = rig.service.claimed(CONNECTIONS)
    requests = [rig.request(f"/jobs/{job['id']}/{verb}", body, job["leaseToken"]) for job in jobs]
    return Load(rig.service.web, [partial(repeat, (request,)) for request in requests])


def _appends(rig: Rig, lines: int) -> Load:
    connections = CONNECTIONS if lines < 100 else APPENDERS
    body = b"\n".join(LINES[:lines])
    jobs = rig.service.claimed(connections)
    requests = [rig.request(f"/jobs/{job['id']}/logs", body, kind="application/x-ndjson") for job in jobs]
    return Load(rig.service.web, [partial(repeat, (request,)) for request in requests])


def _lifecycles(rig: Rig) -> Load:
    flow = partial(lifecycle, rig.service.space, rig.service.worker_key)
    return Load(rig.service.web, [flow] * CONNECTIONS)


def lifecycle(space: str, key: str) -> Flow:
    """Create a job, take the oldest one, begin it, end it; again and again."""
    create = post(f"{BASE}/spaces/{space}/jobs", key, JOB)
    poll = post(f"{BASE}/spaces/{space}/jobs/poll", key, b'{"count":1}')
    while True:
        yield create
        answer = yield poll
        for job in msgspec.json.decode(body_of(answer))["jobs"]:
            yield post(f"{BASE}/jobs/{job['id']}/ack", key, b"", job["leaseToken"])
            yield post(f"{BASE}/jobs/{job['id']}/complete", key, b'{"width":640}', job["leaseToken"])


def memory(rig: Rig) -> list[Figure]:
    """What Redis needs in all for a pending job."""
    service = rig.service
    service.tidy()
    before = int(service.redis.info("memory")["used_memory"])
    _fill(rig, service.space, MEMORY_JOBS // (10 if rig.quick else 1))
    used = int(service.redis.info("memory")["used_memory"]) - before
    jobs: Any = service.redis.zcard(f"jw:{{{service.space}}}:pending")
    service.tidy()
    return [Figure("memory of a pending job", used / jobs, "bytes", None, Target(1536, at_least=False))]


def depth(rig: Rig) -> list[Figure]:
    """What a poll costs Redis, by Redis's own count of script time, in two spaces: with few and with many jobs pending.

    The two take turns, POLLS polls each, so that both meet the same neighbours and the same caches.
    """
    depths = (DEPTHS[0], DEPTHS[1] // (10 if rig.quick else 1))
    spaces = [rig.service.post("/spaces", {"name": "deep"})["id"] for _ in depths]
    for space, deep in zip(spaces, depths, strict=True):
        _fill(rig, space, deep)
    rounds = [[_poll_us(rig, space) for space in spaces] for _ in range(4 * rig.rounds)]
    rig.service.tidy()
    figures = [
        Figure(f"poll's script, {deep:,} pending", median(took[i] for took in rounds), "us")
        for i, deep in enumerate(depths)
    ]
    ratio = median(deep / shallow for shallow, deep in rounds)
    return [*figures, Figure("many by few", ratio, "times", None, Target(1.2, at_least=False))]


def _fill(rig: Rig, space: str, count: int) -> None:
    """Make jobs pending, about so many; at most a thousand in a call."""
    each = min(1000, count)
    create = post(f"{BASE}/spaces/{space}/jobs", rig.service.root_key, b"[" + b",".join([JOB] * each) + b"]")
    flows = min(4, count // each)
    rig.client.run(
        Load(rig.service.web, [partial(times, create, count // each // flows)] * flows, seconds=600, warm_s=0)
    )


def _poll_us(rig: Rig, space: str) -> float:
    """Microseconds of one poll's script, over POLLS polls of one job each; as many jobs are pending after as before."""
    poll = post(f"{BASE}/spaces/{space}/jobs/poll", rig.service.root_key, b'{"count":1}')
    before = _script_time(rig)
    rig.client.run(Load(rig.service.web, [partial(times, poll, POLLS)], seconds=60, warm_s=0))
    calls_, us = (after - then for after, then in zip(_script_time(rig), before, strict=True))
    _fill(rig, space, POLLS)
    return us / calls_


def _script_time(rig: Rig) -> tuple[int, int]:
    """Calls of scripts so far, and the microseconds that they took."""
    stats: dict[str, Any] = rig.service.redis.info("commandstats").get("cmdstat_evalsha", {"calls": 0, "usec": 0})
    return int(stats["calls"]), int(stats["usec"])


def all_in_one(rig: Rig) -> list[Figure]:
    """Bulk creates by `web` onto no jobs at all, and by `jobwire up` onto many that are there; in turns.

    Beside the rates stand the CPU microseconds that the Valkey of each took for a job: the memory of a Valkey that has
    many jobs is in pieces, and what a script needs for a moment costs more there.
    """
    there = THERE // (10 if rig.quick else 1)
    with tempfile.TemporaryDirectory(prefix="jobwire-bench-") as folder, _running_up(Path(folder)) as up:
        up.create(rig, there // 1000 // FLOWS, 1000)
        rounds = []
        for _ in range(rig.rounds):
            rig.service.tidy()
            rounds.append([maker.create(rig, 4, BULK) for maker in (_web_maker(rig), up)])
    rig.service.tidy()
    names = ("create 500, no jobs there", f"the same, by jobwire up, {there:,} there")
    none, many = (
        Figure(
            name,
            median(took[i].rate for took in rounds),
            "jobs/s",
            detail={"valkey_us": median(took[i].valkey_us for took in rounds)},
        )
        for i, name in enumerate(names)
    )
    ratio = median(many.rate / none.rate for none, many in rounds)
    return [none, many._replace(ratio=ratio, target=Target(0.9, of_ratio=True))]


class _Made(NamedTuple):
    """What a load of bulk creates was like: jobs a second, and CPU microseconds of Valkey for a job."""

    rate: float
    valkey_us: float


class _Maker(NamedTuple):
    """A place to create jobs in: the service's address, a key, the space, and the path of Valkey's socket."""

    address: tuple[str, int]
    key: str
    space: str
    socket: str

    def create(self, rig: Rig, requests: int, each: int) -> _Made:
        """Create jobs on FLOWS connections, so many requests of so many jobs on each."""
        bulk = post(f"{BASE}/spaces/{self.space}/jobs", self.key, b"[" + b",".join([JOB] * each) + b"]")
        flows = [partial(times, bulk, requests)] * FLOWS
        with redis.Redis(unix_socket_path=self.socket) as valkey:
            pid: int = valkey.info("server")["process_id"]
        before_s = cpu_s(pid)
        outcome = rig.client.run(Load(self.address, flows, seconds=600, warm_s=0, whole=True))
        if outcome.refused:
            raise RuntimeError(f"{outcome.refused} refused, one with {outcome.refusal!r}")
        return _Made(outcome.rate * each, (cpu_s(pid) - before_s) * 1e6 / (FLOWS * requests * each))


def _web_maker(rig: Rig) -> _Maker:
    """The service's web process and its space."""
    return _Maker(rig.service.web, rig.service.root_key, rig.service.space, rig.service.socket)


@contextmanager
def _running_up(data: Path) -> Iterator[_Maker]:
    """`jobwire up` on a folder, with its first space."""
    environment = {**os.environ, "JOBWIRE_RATE": "0"}
    command = _up_command(data)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        try:
            said = msgspec.json.decode(process.stdout.readline())
            where = urlsplit(said["url"])
            assert where.hostname is not None
            assert where.port is not None
            socket = str(data / "valkey.sock")
            yield _Maker((where.hostname, where.port), said["rootKey"], said["spaceId"], socket)
        finally:
            process.terminate()


def start(rig: Rig) -> Figure:
    """How long `jobwire up` takes on a fresh folder, to its line on stdout: the median of some starts."""
    seconds = [_up_s() for _ in range(2 if rig.quick else 5)]
    return Figure("jobwire up answers", median(seconds), "s", None, Target(2, at_least=False))


def _up_s() -> float:
    with tempfile.TemporaryDirectory(prefix="jobwire-bench-") as folder:
        begun_s = time.perf_counter()
        process = subprocess.Popen(_up_command(Path(folder)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - begun_s
        process.terminate()
        process.communicate(timeout=30)
    if not line.startswith(b"{"):
        raise RuntimeError("jobwire up did not come up")
    return seconds


def _up_command(data: Path) -> Sequence[str]:
    return [sys.executable, "-m", "jobwire", "up", "--json", "--port", "0", "--data", str(data)]
