"""Time: how late a lease's end is acted on, what many ends at once cost others, what waiting and idling cost."""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median, quantiles
from typing import Any

import msgspec

from bench.ceilings import ECHO, echo
from bench.harness import Figure, Rig, Target, Trial, body_of, post
from bench.house import CONNECTIONS, PROGRESS, lifecycle
from bench.load import Load, repeat
from bench.service import BASE, cpu_s

TITLE = "Time: one web process, one sweeper process, AOF everysec"

OTHER_KEYS = 100_000
LEASES = 200
AT_ONCE = 10_000
PARKED_FOR_LATENCY = 200
PARKED = 1_000
SPACES = 10_000
JOBS_TO_PARKED = 300
WATCH_S = 20.0
NOTIFY = "notify-keyspace-events"


def run(rig: Rig) -> list[Figure]:
    """All figures of Time."""
    some = 10 if rig.quick else 1
    figures = rig.interleave([echo(rig, PROGRESS, CONNECTIONS), lifecycles(rig)])
    with sweeper(rig):
        for others in (0, OTHER_KEYS // some):
            for notified in (True, False):
                figures.append(lateness(rig, others, notified))
        figures += burst(rig, AT_ONCE // some)
        figures += parked_latency(rig)
    figures.append(parked_cost(rig, PARKED // some))
    figures.append(idle_cost(rig, SPACES // some))
    return figures


def lifecycles(rig: Rig) -> Trial:
    """Create, poll, ack, complete as single calls, against the echo."""
    flow = partial(lifecycle, rig.service.space, rig.service.worker_key)
    load = Load(rig.service.web, [flow] * CONNECTIONS)
    target = Target(0.10, of_ratio=True)
    return Trial("create, poll, ack, complete", "jobs/s", lambda: load, 1 / 4, ECHO, target, tidy=True)


@contextlib.contextmanager
def sweeper(rig: Rig) -> Iterator[int]:
    """A sweeper process while the block runs; its pid. It works when the block begins."""
    with contextlib.ExitStack() as stack:
        process = rig.service.spawn(stack, "-m", "jobwire", "sweeper")
        until(lambda: rig.service.redis.exists("jw:sweeper"))
        yield process.pid
    until(lambda: not rig.service.redis.exists("jw:sweeper"))


def lateness(rig: Rig, others: int, notified: bool) -> Figure:
    """From the end of a lease to the job being pending again, by the server's own clock: the event's time."""
    redis, space = rig.service.redis, rig.service.space
    redis.config_set(NOTIFY, "Kx" if notified else "")
    fill(rig, others)
    late: list[float] = []
    for _ in range(LEASES // 50):
        rig.service.post(f"/spaces/{space}/jobs", [{"name": "late", "timeoutSeconds": 1}] * 50)
        taken = rig.service.post(f"/spaces/{space}/jobs/poll", {"count": 50})["jobs"]
        ends = {job["id"]: redis.zscore(f"jw:{{{space}}}:deadlines", job["id"]) for job in taken}
        until(partial(none_delivered, rig, list(ends)))
        late += [ended_at(rig, id_) - end for id_, end in ends.items()]
        rig.service.post(f"/spaces/{space}/jobs/poll", {"count": 50})
        for id_ in ends:
            rig.service.post(f"/jobs/{id_}/kill", {})
    redis.config_set(NOTIFY, "Kx")
    rig.service.tidy()
    name = f"lease end to pending, {others:,} other TTL keys, {'with' if notified else 'without'} notifications"
    return spread(name, late, Target(300, at_least=False))


def none_delivered(rig: Rig, jobs: list[str]) -> bool:
    """Whether none of these jobs is delivered any more."""
    scores = rig.service.redis.zmscore(f"jw:{{{rig.service.space}}}:jobs:delivered", jobs)
    return all(score is None for score in scores)


def ended_at(rig: Rig, job: str) -> float:
    """When the job went back to pending, in ms."""
    item = rig.service.redis.lindex(f"jw:{{{rig.service.space}}}:job:{job}:events", -1)
    kind, at_ms, *_ = msgspec.json.decode(item)
    if kind != "delivery_timeout":
        raise RuntimeError(f"the newest event is {kind}")
    return float(at_ms)


def fill(rig: Rig, keys: int) -> None:
    """Other keys with a long time to live."""
    with rig.service.redis.pipeline(transaction=False) as pipe:
        for number in range(keys):
            pipe.set(f"other:{number}", "x", px=86_400_000)
            if number % 10_000 == 9_999:
                pipe.execute()
        pipe.execute()


def burst(rig: Rig, jobs: int) -> list[Figure]:
    """Many leases that end at the same moment: how long until all are handled, and what others notice of it."""
    redis, space, service = rig.service.redis, rig.service.space, rig.service
    calm = Load(service.web, [partial(repeat, (rig.request(f"/jobs/{service.claimed(1)[0]['id']}/keepalive"),))] * 4)
    alone = rig.client.run(calm._replace(seconds=2.0))
    claimed = [service.claimed(1000) for _ in range(jobs // 1000)]
    redis.config_resetstat()
    redis.config_set("slowlog-log-slower-than", 0)
    redis.config_set("slowlog-max-len", 200_000)
    redis.slowlog_reset()
    now_ms = end_all(rig, [job["id"] for some in claimed for job in some])
    rig.client.start(calm._replace(seconds=2.0, warm_s=0.0))
    begun = time.perf_counter()
    until(lambda: not redis.zcount(f"jw:{{{space}}}:deadlines", 0, now_ms))
    seconds = time.perf_counter() - begun
    beside = rig.client.finish()
    longest = max(entry["duration"] for entry in redis.slowlog_get(200_000) if b"EVALSHA" in entry["command"])
    redis.config_set("slowlog-log-slower-than", 10_000)
    service.tidy()
    return [
        Figure(f"{jobs:,} leases that end at once: handled in", seconds, "s", None, Target(3, at_least=False)),
        Figure("longest script call meanwhile", longest / 1000, "ms", None, Target(10, at_least=False)),
        Figure("p99 of other calls, before", alone.p99_ms, "ms"),
        Figure(
            "p99 of other calls, meanwhile",
            beside.p99_ms,
            "ms",
            beside.p99_ms / alone.p99_ms,
            Target(2, at_least=False, of_ratio=True),
        ),
    ]


def end_all(rig: Rig, jobs: list[str]) -> int:
    """Let the leases of these jobs end at one moment, which is now; the moment in ms."""
    redis, space = rig.service.redis, rig.service.space
    now_ms = int(time.time() * 1000)
    with redis.pipeline() as pipe:
        for job in jobs:
            pipe.delete(f"jw:{{{space}}}:lease:{job}")
        pipe.zadd(f"jw:{{{space}}}:deadlines", dict.fromkeys(jobs, now_ms))
        pipe.zadd("jw:due", {space: now_ms})
        pipe.execute()
    return now_ms


def parked_latency(rig: Rig) -> list[Figure]:
    """From the create that is sent to the answer of one of many parked polls."""
    space, key = rig.service.space, rig.service.worker_key
    create = post(f"{BASE}/spaces/{space}/jobs", key, b'{"name":"parked"}')
    answered: list[tuple[float, str]] = []
    over = threading.Event()
    with parked(rig, PARKED_FOR_LATENCY, answered, over), socket.create_connection(rig.service.web) as sock:
        sent: dict[str, float] = {}
        for _ in range(JOBS_TO_PARKED):
            begun = time.perf_counter()
            sock.sendall(create)
            sent[msgspec.json.decode(body_of(whole_answer(sock)))["id"]] = begun
            time.sleep(0.01)
        until(lambda: len(answered) >= JOBS_TO_PARKED)
        over.set()
    rig.service.tidy()
    times = [(at - sent[job]) * 1000 for at, job in answered]
    p50 = Figure("create to one of 200 parked polls, p50", median(times), "ms", None, Target(5, at_least=False))
    return [p50, spread("create to one of 200 parked polls", times, Target(25, at_least=False))]


@contextlib.contextmanager
def parked(rig: Rig, count: int, answered: list[tuple[float, str]], over: threading.Event) -> Iterator[None]:
    """Polls that wait, each parked again when it got a job; `answered` gets the moment and the job."""
    poll = post(f"{BASE}/spaces/{rig.service.space}/jobs/poll", rig.service.worker_key, b'{"waitSeconds":30}')
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection(rig.service.web))
            sock.sendall(poll)
            selector.register(sock, selectors.EVENT_READ, sock)
        time.sleep(1.0)

        def listen() -> None:
            while not over.is_set():
                for ready, _ in selector.select(0.1):
                    answer = whole_answer(ready.data)
                    at = time.perf_counter()
                    answered.extend((at, job["id"]) for job in msgspec.json.decode(body_of(answer))["jobs"])
                    ready.data.sendall(poll)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def whole_answer(sock: socket.socket) -> bytes:
    """One HTTP answer."""
    data = b""
    while True:
        head = data.find(b"\r\n\r\n")
        if head >= 0:
            at = data.index(b"content-length: ") + 16
            if len(data) >= head + 4 + int(data[at : data.index(b"\r", at)]):
                return data
        data += sock.recv(65_536)


def parked_cost(rig: Rig, count: int) -> Figure:
    """The share of a core that parked polls cost the web process and Valkey, nothing else going on."""
    quiet = share(rig, rig_seconds(rig))
    with parked(rig, count, [], threading.Event()):
        busy = share(rig, rig_seconds(rig))
    name = f"{count:,} parked polls"
    return Figure(name, busy, "% of a core", None, Target(3, at_least=False), {"without_percent": quiet})


def idle_cost(rig: Rig, spaces: int) -> Figure:
    """The share of a core that a sweeper and Valkey take for spaces in which nothing happens."""
    make_spaces(rig, spaces)
    with sweeper(rig) as pid:
        time.sleep(2.0)
        sweeping = share(rig, 31.0 if not rig.quick else 3.0, pid)
    return Figure(f"{spaces:,} idle spaces", sweeping, "% of a core", None, Target(1, at_least=False))


def make_spaces(rig: Rig, spaces: int) -> None:
    """Spaces as `POST /spaces` leaves them, idle from the beginning."""
    for _ in range(spaces):
        rig.service.post("/spaces", {"name": "idle"})


def share(rig: Rig, seconds: float, pid: int = 0) -> float:
    """Percent of a core that Valkey and the web process (or the process `pid`) use in so many seconds."""

    def used() -> float:
        now = rig.service.cpu()
        return now.valkey_s + (cpu_s(pid) if pid else now.web_s)

    before, begun = used(), time.perf_counter()
    time.sleep(seconds)
    return (used() - before) / (time.perf_counter() - begun) * 100


def rig_seconds(rig: Rig) -> float:
    """How long to watch something that only idles."""
    return 2.0 if rig.quick else WATCH_S


def spread(name: str, times_ms: list[float], target: Target) -> Figure:
    """The p99 of some times, with the p50 and the longest beside it."""
    cuts = quantiles(times_ms, n=100)
    detail = {"p50_ms": median(times_ms), "p99_ms": cuts[98], "max_ms": max(times_ms)}
    return Figure(f"{name}, p99", cuts[98], "ms", None, target, detail)


def until(condition: Callable[[], Any], within_s: float = 60.0) -> None:
    """Wait until it is true; RuntimeError when it is not in time."""
    deadline = time.perf_counter() + within_s
    while not condition():
        if time.perf_counter() > deadline:
            raise RuntimeError("what is measured did not happen")
        time.sleep(0.002)
