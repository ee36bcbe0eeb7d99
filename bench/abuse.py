"""Abuse: what other callers notice while one caller does its worst, and what the worst may cost.

Each load is one caller's, with a key that has the default rate. Others are four connections of another key that repeat
a keepalive, before the load and meanwhile. Who abuses has a process of its own, on the same cores as all the others.
"""

import contextlib
import gzip
import json
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.synchronize import Event
from typing import NamedTuple

from bench.callbacks import callbacks, receivers
from bench.harness import JSON, Figure, Rig, Target, post
from bench.load import Load, repeat
from bench.service import BASE
from bench.stalls import stalls
from bench.time import end_all, sweeper, until

TITLE = "Abuse: one web process, JOBWIRE_RATE as by default, AOF everysec"

SETTINGS = {"JOBWIRE_RATE": "1000", "JOBWIRE_CALLBACK_ALLOW": "127.0.0.0/8"}
MIB = 1_048_576
NDJSON = "application/x-ndjson"
LINES = 70_000
BIG_JOBS = 100
PARKED = 800
LEASES = 24_000
CALLBACKS = 12_000
STALLED = 100
WINDOW_S = 3.0
CALM_S = 2.0
TIMES = 3
MOST_MS = 250
OTHERS = 4


class Abuse(NamedTuple):
    """A load: `prepare` makes the requests, of which `clients` connections send one after the other."""

    name: str
    prepare: Callable[[Rig], Sequence[bytes]]
    clients: int


def run(rig: Rig) -> list[Figure]:
    """All figures of Abuse."""
    some = 10 if rig.quick else 1
    log_scripts(rig)
    figures = [figure for load in LOADS for figure in beside(rig, load)]
    figures.append(longest_script(rig))
    figures += parked(rig, PARKED // some)
    rig.service.tidy()
    figures.append(lease_of_another(rig, LEASES // some))
    figures.append(callback_of_another(rig, CALLBACKS // some))
    rig.service.tidy()
    figures += stalls(rig, STALLED // some)
    return figures


def beside(rig: Rig, load: Abuse) -> list[Figure]:
    """Other calls' p99 during a load, of that before it."""
    own = rig.service.claimed(1)[0]["id"]
    keepalive = post(f"{BASE}/jobs/{own}/keepalive", rig.service.root_key)
    calm = Load(rig.service.web, [partial(repeat, (keepalive,))] * OTHERS)
    requests = load.prepare(rig)
    alone = rig.client.run(calm._replace(seconds=CALM_S))
    with sending(rig, requests, load.clients):
        meanwhile = rig.client.run(calm._replace(seconds=WINDOW_S))
    if meanwhile.refused:
        raise RuntimeError(f"{load.name}: another's call was refused with {meanwhile.refusal!r}")
    rig.service.tidy()
    ratio = meanwhile.p99_ms / alone.p99_ms
    detail = {"before_p99_ms": alone.p99_ms, "p99_ms": meanwhile.p99_ms}
    target = Target(TIMES, at_least=False, of_ratio=True)
    return [
        Figure(f"others' p99 beside {load.name}", meanwhile.p99_ms, "ms", ratio, target, detail),
        Figure("  the same, at most", meanwhile.p99_ms, "ms", None, Target(MOST_MS, at_least=False)),
    ]


@contextlib.contextmanager
def sending(rig: Rig, requests: Sequence[bytes], clients: int) -> Iterator[None]:
    """Connections of a process of its own that send these requests in turn while the block runs."""
    context = multiprocessing.get_context("spawn")
    over, begun = context.Event(), context.Event()
    process = context.Process(target=abuse, args=(rig.service.web, list(requests), clients, begun, over))
    process.start()
    try:
        if not begun.wait(30):
            raise RuntimeError("the abuse did not begin")
        yield
    finally:
        over.set()
        process.join(30)
        process.kill()


def abuse(address: tuple[str, int], requests: list[bytes], clients: int, begun: Event, over: Event) -> None:
    """The process that sends: a thread for each connection, which begins again when it is hung up on."""

    def one(number: int) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), socket.create_connection(address, 60) as sock:
                while not over.is_set():
                    sock.sendall(requests[number % len(requests)])
                    begun.set()
                    swallow(sock)

    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    over.wait()


def swallow(sock: socket.socket) -> None:
    """Read one whole answer, of whatever length, and keep nothing."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(65_536)
        if not data:
            raise ConnectionError
        head += data
    head, _, body = head.partition(b"\r\n\r\n")
    if b"content-length: " not in head:
        last = body
        while not last.endswith(b"0\r\n\r\n"):
            data = sock.recv(MIB)
            if not data:
                raise ConnectionError
            last = (last + data)[-7:]
        return
    left = int(head.partition(b"content-length: ")[2].split(b"\r")[0]) - len(body)
    while left > 0:
        data = sock.recv(min(left, MIB))
        if not data:
            raise ConnectionError
        left -= len(data)


def get(rig: Rig, path: str, accept: str = JSON) -> bytes:
    """The bytes of a GET with the worker's key."""
    lines = [f"GET {BASE}{path} HTTP/1.1", "host: 127.0.0.1", f"x-api-key: {rig.service.worker_key}"]
    return "\r\n".join([*lines, f"accept: {accept}", "", ""]).encode()


def logged(rig: Rig) -> str:
    """A job with many lines; its id."""
    job = str(rig.service.claimed(1)[0]["id"])
    for at in range(0, LINES, 5000):
        lines = [f"GET /images/{at + i:06d}.jpeg answered 200 after {i * 31 % 900} ms" for i in range(5000)]
        rig.service.post(f"/jobs/{job}/logs", lines)
    return job


def searches(rig: Rig) -> list[bytes]:
    """Searches for sixteen words that nearly every line has, and one that none has."""
    words = "+".join(["answered", "images", "jpeg", "after", *(f"{i}" for i in range(11)), "nowhere"])
    job = logged(rig)
    return [get(rig, f"/jobs/{job}/logs?after=0&q={words}"), get(rig, f"/jobs/{job}/logs?after=0&q=nowhere")]


def downloads(rig: Rig) -> list[bytes]:
    """Downloads of a whole log, with and without a search."""
    job = logged(rig)
    return [get(rig, f"/jobs/{job}/logs?after=0{q}", NDJSON) for q in ("", "&q=nowhere", "&q=answered+after+ms")]


def nested(rig: Rig) -> list[bytes]:
    """Small gzip bodies of nothing but brackets."""
    job = rig.service.claimed(1)[0]["id"]
    body = gzip.compress(b"[" + b",".join([b"[" * 62 + b"]" * 62] * 2000) + b"]")
    path = f"{BASE}/jobs/{job}/event"
    return [post(path, rig.service.worker_key, body, more="content-encoding: gzip")]


def lists(rig: Rig) -> list[bytes]:
    """Lists of a hundred jobs with a mebibyte each, and polls for fifty of them."""
    payload = "x" * (MIB - 100)
    for _ in range(BIG_JOBS // 5):
        rig.service.post(f"/spaces/{rig.service.space}/jobs", [{"name": "big", "payload": payload}] * 5)
    poll = rig.request(f"/spaces/{rig.service.space}/jobs/poll", b'{"count":50}')
    return [*[get(rig, f"/spaces/{rig.service.space}/jobs?limit=100")] * 9, poll]


def claims(rig: Rig) -> list[bytes]:
    """Small gzip bodies of as many claimed jobs as one create may have, and of as many jobs."""
    path, key = f"{BASE}/spaces/{rig.service.space}/jobs", rig.service.worker_key
    claimed, plain = {"name": "x", "claim": True}, {"name": "x"}
    bodies = [gzip.compress(json.dumps([job] * count).encode()) for job, count in ((claimed, 100), (plain, 1000))]
    return [post(path, key, body, more="content-encoding: gzip") for body in bodies]


LOADS = (
    Abuse("searches in 70,000 lines", searches, 2),
    Abuse("downloads of 70,000 lines", downloads, 3),
    Abuse("nested bodies", nested, 4),
    Abuse("lists of 100 MiB", lists, 10),
    Abuse("gzip creates of 100 claimed and 1,000 jobs", claims, 4),
)


def log_scripts(rig: Rig) -> None:
    """Begin to note how long scripts take."""
    rig.service.redis.config_set("slowlog-log-slower-than", 1000)
    rig.service.redis.config_set("slowlog-max-len", 100_000)
    rig.service.redis.slowlog_reset()


def longest_script(rig: Rig) -> Figure:
    """The longest call of a script since they are noted."""
    calls = [entry["duration"] for entry in rig.service.redis.slowlog_get(100_000) if b"EVALSHA" in entry["command"]]
    return Figure(
        "longest script under all of these", max(calls, default=0) / 1000, "ms", None, Target(10, at_least=False)
    )


def parked(rig: Rig, polls: int) -> list[Figure]:
    """Parked polls of fifty names each and one job that nobody wants: scripts that run without any request."""
    names = [f"name-{i}" for i in range(50)]
    body = json.dumps({"waitSeconds": 30, "names": names}).encode()
    request = rig.request(f"/spaces/{rig.service.space}/jobs/poll", body)
    with contextlib.ExitStack() as stack:
        for _ in range(polls):
            stack.enter_context(socket.create_connection(rig.service.web)).sendall(request)
            time.sleep(0.002)  # within the key's rate
        until(lambda: rig.service.metric("jobwire_parked_polls") >= polls)
        rig.service.post(f"/spaces/{rig.service.space}/jobs", {"name": "nobody"})
        scripts, begun = evals(rig), time.perf_counter()
        time.sleep(WINDOW_S)
        rate = (evals(rig) - scripts) / (time.perf_counter() - begun)
    until(lambda: rig.service.metric("jobwire_parked_polls") == 0)
    return [
        Figure(f"scripts of {polls:,} parked polls with 50 names", rate, "a second", None, Target(20, at_least=False))
    ]


def evals(rig: Rig) -> int:
    """How many scripts Valkey has run."""
    return int(rig.service.redis.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"])


def lease_of_another(rig: Rig, leases: int) -> Figure:
    """Many leases of one space and one of another that end at once: how late the other's is acted on."""
    other = rig.service.post("/spaces", {"name": "other"})["id"]
    job = rig.service.post(f"/spaces/{other}/jobs", {"name": "x", "claim": True, "timeoutSeconds": 1})["id"]
    claimed = [rig.service.claimed(100) for _ in range(leases // 100)]
    index = f"jw:{{{other}}}:jobs:pending"
    with sweeper(rig):
        end_all(rig, [one["id"] for some in claimed for one in some])
        rig.service.redis.delete(f"jw:{{{other}}}:lease:{job}")
        now_ms = int(time.time() * 1000)
        rig.service.redis.zadd(f"jw:{{{other}}}:deadlines", {job: now_ms})
        rig.service.redis.zadd("jw:due", {other: now_ms})
        begun = time.perf_counter()
        until(lambda: rig.service.redis.zscore(index, job) is not None)
        late_s = time.perf_counter() - begun
    name = f"another space's lease beside {leases:,}"
    return Figure(name, late_s, "s late", None, Target(1, at_least=False))


def callback_of_another(rig: Rig, count: int) -> Figure:
    """Callbacks of one space to hosts that hang: how late another's to a host that answers is."""
    other = rig.service.post("/spaces", {"name": "called"})["id"]
    with receivers() as at, callbacks(rig.service):
        for first in range(0, count, 100):
            jobs = [
                {"name": "hang", "claim": True, "callbackUrl": at.hanging(first + i)} for i in range(min(100, count))
            ]
            made = rig.service.post(f"/spaces/{rig.service.space}/jobs", jobs)
            for job in made:
                rig.service.post(f"/jobs/{job['id']}/complete", None)
        fine = {"name": "fine", "claim": True, "callbackUrl": at.healthy(0)}
        job = rig.service.post(f"/spaces/{other}/jobs", fine)["id"]
        at.told()
        rig.service.post(f"/jobs/{job}/complete", None)
        begun = time.perf_counter()
        events = f"jw:{{{other}}}:job:{job}:events"
        until(lambda: any(b"callback_sent" in item for item in rig.service.redis.lrange(events, 0, -1)))
        late_s = time.perf_counter() - begun
    name = f"another space's callback beside {count:,} that hang"
    return Figure(name, late_s, "s late", None, Target(5, at_least=False))
