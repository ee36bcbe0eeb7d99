"""Callbacks: how many arrive a second while a hundred hosts hang, how soon, and what a long outbox costs Redis.

The outbox is filled through the store's own verbs; one `jobwire callbacks` process empties it. Receivers are loopback
addresses of a process of its own; the ceiling is a bare aiohttp client that posts to the same ones.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any

import aiohttp
import msgspec
import urllib3

from app.backend import Backend
from app.jobs.job_records import NewJob
from app.redis_links.scripts import SCRIPTS
from app.settings import Settings
from app.webhooks.callbacks import LEASE_AT_ONCE
from app.webhooks.outbox import Outbox
from bench.harness import Figure, Rig, Target
from bench.service import Service, cpu_s, end

TITLE = "Callbacks: one process, 10 healthy hosts, 100 that hang"

HEALTHY = 10
HANGING = 100
BATCH = 500
TAKES = 40
BODY = b'{"jobId":"%s","timestamp":"2026-01-01T00:00:00.000Z"}' % (b"x" * 200)


class Receivers:
    """The addresses that callbacks go to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._http = urllib3.PoolManager(retries=False)

    def healthy(self, number: int) -> str:
        """The URL of one that answers."""
        return f"http://127.0.1.{number % HEALTHY + 1}:{self._port}/callback"

    def hanging(self, number: int) -> str:
        """The URL of one that does not."""
        return f"http://127.0.2.{number % HANGING + 1}:{self._port}/callback"

    def told(self) -> dict[str, Any]:
        """What has come since the last question."""
        return dict(msgspec.json.decode(self._http.request("GET", self.healthy(0)).data))


@contextmanager
def receivers() -> Iterator[Receivers]:
    """The receiver's process."""
    command = [sys.executable, "-m", "bench.receiver", str(HEALTHY), str(HANGING)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Receivers(int(process.stdout.readline()))
    finally:
        end(process)


@contextmanager
def callbacks(service: Service) -> Iterator["subprocess.Popen[str]"]:
    """One callbacks process."""
    env = {**service.environment, "JOBWIRE_CALLBACK_ALLOW": "127.0.0.0/8"}
    process = subprocess.Popen(
        [sys.executable, "-m", "jobwire", "callbacks"], env=env, text=True, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        end(process)


def ending(service: Service, urls: Sequence[str], every_s: float = 0.0) -> None:
    """Jobs with these callbackUrls, created and completed; one each `every_s` seconds, or as fast as it goes."""

    async def run() -> None:
        backend = Backend(Settings(redis_url=service.environment["REDIS_URL"]))
        await backend.start()
        await backend.control.ready(10)
        try:
            for at in range(0, len(urls), BATCH):
                step = urls[at : at + BATCH]
                jobs = [NewJob("bench", b"null", 0, 86_400, None, url, b"", "", True) for url in step]
                made = await backend.store.create(service.space, jobs)
                if not every_s:
                    await asyncio.gather(*(backend.store.complete(service.space, job, "", b"1") for job in made.ids))
                    continue
                for job in made.ids:
                    await backend.store.complete(service.space, job, "", b"1")
                    await asyncio.sleep(every_s)
        finally:
            await backend.close()

    asyncio.run(run())


def ceiling(at: Receivers, seconds: float) -> float:
    """Posts a second of a bare aiohttp client to the healthy hosts."""

    async def run() -> None:
        deadline_s = time.monotonic() + seconds
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def post(number: int) -> None:
                while time.monotonic() < deadline_s:
                    async with session.post(at.healthy(number), data=BODY) as response:
                        await response.read()

            await asyncio.gather(*(post(number) for number in range(HEALTHY * 4)))

    at.told()
    asyncio.run(run())
    told = at.told()
    return float(told["count"] / told["seconds"])


def arrived(at: Receivers, count: int, within_s: float) -> dict[str, Any]:
    """What came, once so many have come; RuntimeError when they do not."""
    whole: dict[str, Any] = {"count": 0, "lateMs": [], "seconds": 0.0}
    begun = time.monotonic()
    while whole["count"] < count:
        if time.monotonic() - begun > within_s:
            raise RuntimeError(f"{whole['count']} of {count} callbacks came within {within_s:g} s")
        time.sleep(0.2)
        told = at.told()
        whole = {name: whole[name] + told[name] for name in whole}
    return whole


def rate(rig: Rig, at: Receivers) -> Figure:
    """Deliveries to healthy hosts, while every hanging one has callbacks due, too, among them."""
    healthy = 2000 if rig.quick else 10_000
    hanging = HANGING * (5 if rig.quick else 20)
    step = healthy // hanging
    urls: list[str] = []
    for number in range(hanging):
        urls += [at.hanging(number), *(at.healthy(other) for other in range(step))]
    ending(rig.service, urls)
    bare = ceiling(at, rig.seconds)
    with callbacks(rig.service) as process:
        begun = time.monotonic()
        while (told := at.told())["count"] == 0:
            time.sleep(0.02)
            if time.monotonic() - begun > 60:
                raise RuntimeError("no callback came")
        began_s, cpu_before = time.monotonic(), cpu_s(process.pid)
        first = told["count"]
        came = arrived(at, hanging * step - first, 120)
        passed_s = time.monotonic() - began_s
        detail = {"callbacks_us": (cpu_s(process.pid) - cpu_before) / came["count"] * 1e6}
    value = came["count"] / passed_s
    return Figure("deliveries while 100 hosts hang", value, "/s", value / bare, Target(500), detail)


def latency(rig: Rig, at: Receivers) -> Figure:
    """From a job's end to the arrival of its first try, at 100 ends a second."""
    count = 200 if rig.quick else 2000
    with callbacks(rig.service):
        ending(rig.service, [at.healthy(0)])
        arrived(at, 1, 30)
        ending(rig.service, [at.healthy(number) for number in range(count)], every_s=0.009)
        late_ms = arrived(at, count, 30)["lateMs"]
    cuts = quantiles(late_ms, n=100)
    return Figure(
        "end of a job to its callback, p99", cuts[98], "ms", None, Target(200, at_least=False), {"p50_ms": cuts[49]}
    )


def take_cpu(service: Service) -> float:
    """CPU milliseconds of Valkey for one script that takes 50 callbacks, which no neighbour disturbs."""

    async def run() -> float:
        backend = Backend(Settings(redis_url=service.environment["REDIS_URL"]))
        await backend.start()
        await backend.control.ready(10)
        outbox = Outbox(backend.control, backend.bulk, backend.keys, backend.clock, backend.spaces.list_ids)
        before_s = service.cpu().valkey_s
        for _ in range(TAKES):
            await outbox.lease_callbacks(service.space, LEASE_AT_ONCE, 1000)
        used_ms = (service.cpu().valkey_s - before_s) / TAKES * 1000
        await backend.close()
        return used_ms

    return asyncio.run(run())


def longest(rig: Rig, at: Receivers) -> Figure:
    """The longest script call in a second while 100,000 callbacks are due, half of them at hosts that hang.

    Redis's clock goes on while another process has its core: the median of the seconds is the script's, the longest of
    all is mostly the neighbours'.
    """
    count = 4000 if rig.quick else 100_000
    redis = rig.service.redis
    for number in range(0, count, 10_000):
        step = range(number, min(count, number + 10_000))
        ending(rig.service, [at.hanging(one) if one % 2 else at.healthy(one) for one in step])
    take = take_cpu(rig.service)
    redis.config_set("slowlog-log-slower-than", 300)
    redis.config_set("slowlog-max-len", 100_000)
    ours = {script.sha.encode() for name, script in SCRIPTS.items() if name.startswith("callback_")}
    longest_ms, came = [], 0
    with callbacks(rig.service):
        arrived(at, 1, 60)
        for _ in range(5 if rig.quick else 20):
            redis.slowlog_reset()
            time.sleep(rig.seconds)
            calls = [entry["duration"] for entry in redis.slowlog_get(-1) if ours & set(entry["command"].split()[:2])]
            longest_ms.append(max(calls, default=300) / 1000)
            came += at.told()["count"]
    redis.config_set("slowlog-log-slower-than", 10_000)
    detail = {
        "take_cpu_ms": take,
        "longest_ms": max(longest_ms),
        "deliveries_per_s": came / rig.seconds / len(longest_ms),
    }
    name = "longest script call in a second, 100,000 due"
    return Figure(name, median(longest_ms), "ms", None, Target(10, at_least=False), detail)


def run(rig: Rig) -> list[Figure]:
    """All of it; each leaves an empty outbox."""
    figures = []
    with receivers() as at:
        for measure in (latency, rate, longest):
            figures.append(measure(rig, at))
            rig.service.tidy()
            at.told()
    return figures
