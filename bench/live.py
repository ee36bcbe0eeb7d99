"""Live delivery: one web process, thousands of viewers, the client on the same cores."""

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from statistics import quantiles
from typing import TypeVar

import msgspec

from app.serve import run as run_loop
from bench.crowd import Crowd, Poster
from bench.harness import Figure, Rig, Target
from bench.service import Service, address, cpu_s

TITLE = "Live delivery: one web process, the client on the same cores"

VIEWERS = 1000
EVENTS = 300
ROUNDS = 4
LINE = {"level": "info", "message": "compiled src/modules/network/connection_pool.c in 0.418 s, 12 warnings, 0 errors"}

T = TypeVar("T")


def run(rig: Rig) -> list[Figure]:
    """Every figure of the suite."""
    scale = 10 if rig.quick else 1
    figures = broadcasts(rig.service, VIEWERS // scale, EVENTS // scale)
    figures.append(lines(rig.service, 100, 40 // scale))
    figures += latency(rig.service, VIEWERS // scale, 1000 // scale)
    figures += idle(rig.service, 10_000 // scale, 2 if rig.quick else 15)
    figures += kicked(rig.service, 2000 // scale)
    figures.append(behind(rig.service, 100_000 // scale))
    return figures


def on_loop(work: Callable[[], Awaitable[T]]) -> T:
    """The result of an async function, on the loop that the server runs on, too."""
    results: list[T] = []

    async def keep() -> None:
        results.append(await work())

    run_loop(keep())
    return results[0]


def broadcasts(service: Service, viewers: int, events: int) -> list[Figure]:
    """Frames per CPU second of the sending process: ours with the POSTs that cause them, and the two bare ones."""
    with ExitStack() as stack:
        picows = service.spawn(stack, "-m", "bench.broadcast", "picows")
        starlette = service.spawn(stack, "-m", "bench.broadcast", "starlette")
        there = {"picows": (picows, address(picows)), "starlette": (starlette, address(starlette))}
        bare = {name: on_loop(lambda p=p, a=a: bare_frames(p, a, viewers, events)) for name, (p, a) in there.items()}  # type: ignore[misc]  # of a lambda's defaults
    ours = on_loop(lambda: our_frames(service, viewers, events))
    ratio = ours / bare["picows"]
    return [
        Figure("bare picows broadcast", bare["picows"], "frames/CPU s"),
        Figure("bare Starlette broadcast", bare["starlette"], "frames/CPU s", bare["starlette"] / bare["picows"]),
        Figure(f"events to {viewers:,} viewers", ours, "frames/CPU s", ratio, Target(0.7, of_ratio=True)),
    ]


async def bare_frames(
    process: "subprocess.Popen[str]", place: tuple[str, int], viewers: int, events: int, size: int = 160
) -> float:
    crowd = Crowd(place, "/x", "")
    await crowd.join(viewers)
    order = f"{events} {size}".encode()
    before = cpu_s(process.pid)
    mask = b"\0\0\0\0"
    crowd.viewers[0].transport.write(bytes((0x81, 0x80 | len(order))) + mask + order)
    await crowd.until(events)
    used_s = cpu_s(process.pid) - before
    crowd.leave()
    await asyncio.sleep(0.2)
    return viewers * events / used_s


async def our_frames(service: Service, viewers: int, events: int) -> float:
    job = service.claimed(1)[0]["id"]
    crowd = Crowd(service.web, f"/realtime/{job}", service.worker_key)
    await crowd.join(viewers)
    poster = Poster(service.web, service.worker_key)
    await poster.post(f"/jobs/{job}/event", b"1")
    await crowd.until(1)
    before = service.cpu().web_s
    for number in range(events):
        await poster.post(f"/jobs/{job}/event", b'{"n":%d}' % number)
    await crowd.until(events + 1)
    used_s = service.cpu().web_s - before
    crowd.leave()
    poster.close()
    await asyncio.sleep(0.2)
    return viewers * events / used_s


def lines(service: Service, viewers: int, batches: int) -> Figure:
    """Log lines, appended 500 at once, to viewers with `logs=true`."""

    async def measure() -> float:
        job = service.claimed(1)[0]["id"]
        crowd = Crowd(service.web, f"/realtime/{job}?logs=true", service.worker_key)
        await crowd.join(viewers)
        poster = Poster(service.web, service.worker_key)
        body = msgspec.json.encode([LINE] * 500)
        await poster.post(f"/jobs/{job}/logs", body)
        await crowd.until(1)
        before, frames = service.cpu().web_s, 1
        for _ in range(batches):
            await poster.post(f"/jobs/{job}/logs", body)
            frames += 1
            await crowd.until(frames)
        used_s = service.cpu().web_s - before
        crowd.leave()
        poster.close()
        return viewers * batches * 500 / used_s

    delivered = on_loop(measure)
    return Figure(f"log lines to {viewers} viewers", delivered, "lines/CPU s", target=Target(1_000_000))


def latency(service: Service, viewers: int, events: int) -> list[Figure]:
    """From the POST to the last viewer at 50 events/s, and the same in turns while 5 % of the viewers read nothing."""
    took: dict[int, list[float]] = {0: [], viewers // 20: []}
    for _ in range(ROUNDS):
        for stalled, delays in took.items():
            delays += on_loop(lambda stalled=stalled: delays_ms(service, viewers, events // ROUNDS, stalled=stalled))  # type: ignore[misc]  # of a lambda's default
    calm, rough = (quantiles(delays, n=100) for delays in took.values())
    change = rough[98] / calm[98] - 1
    return [
        Figure("50 events/s, POST to last viewer, p50", calm[49], "ms", target=Target(12, at_least=False)),
        Figure("the same, p99", calm[98], "ms", target=Target(40, at_least=False)),
        Figure("p99 with 5 % of them stalled", change * 100, "% more", target=Target(20, at_least=False)),
    ]


async def delays_ms(service: Service, viewers: int, events: int, *, stalled: int) -> list[float]:
    job = service.claimed(1)[0]["id"]
    crowd = Crowd(service.web, f"/realtime/{job}", service.worker_key)
    deaf = Crowd(service.web, f"/realtime/{job}", service.worker_key)
    await crowd.join(viewers - stalled)
    if stalled:
        await deaf.join(stalled)
    for viewer in deaf.viewers:
        viewer.transport.pause_reading()
    poster = Poster(service.web, service.worker_key)
    loop, begun = asyncio.get_running_loop(), []
    start_s = loop.time() + 0.1
    for number in range(events):
        await asyncio.sleep(max(0.0, start_s + number * 0.02 - loop.time()))
        begun.append(loop.time())
        await poster.post(f"/jobs/{job}/event", b'{"n":%d}' % number)
    await crowd.until(events)
    took = [(crowd.last_s[number + 1] - begun[number]) * 1000 for number in range(events)]
    crowd.leave()
    deaf.leave()
    poster.close()
    await asyncio.sleep(0.2)
    return took


def idle(service: Service, viewers: int, seconds: float) -> list[Figure]:
    """What viewers cost to whom nothing happens."""

    async def measure() -> tuple[float, float]:
        jobs = [job["id"] for job in service.claimed(100)]
        before = service.rss_bytes()
        crowds = [Crowd(service.web, f"/realtime/{job}", service.worker_key) for job in jobs]
        for crowd in crowds:
            await crowd.join(viewers // 100)
        await asyncio.sleep(1)
        each = (service.rss_bytes() - before) / viewers / 1024
        used_s, begun = service.cpu().web_s, time.monotonic()
        await asyncio.sleep(seconds)
        share = (service.cpu().web_s - used_s) / (time.monotonic() - begun)
        for crowd in crowds:
            crowd.leave()
        await asyncio.sleep(1)
        return each, share * 100

    each, share = on_loop(measure)
    return [
        Figure(f"{viewers:,} idle viewers, memory", each, "KiB each", target=Target(40, at_least=False)),
        Figure(f"{viewers:,} idle viewers, CPU", share, "% of a core", target=Target(5, at_least=False)),
    ]


def kicked(service: Service, viewers: int) -> list[Figure]:
    """Everybody is gone at once and comes back, with their position, while the job goes on."""

    async def measure() -> tuple[float, float]:
        job = service.claimed(1)[0]["id"]
        poster = Poster(service.web, service.worker_key)
        crowd = Crowd(service.web, f"/realtime/{job}", service.worker_key)
        await crowd.join(viewers)
        crowd.leave()
        for number in range(20):
            await poster.post(f"/jobs/{job}/event", b"%d" % number)
        before, begun = reads(service), time.monotonic()
        again = Crowd(service.web, f"/realtime/{job}?after=2", service.worker_key)
        await again.join(viewers, at_once=viewers)
        await again.until(20)
        took_s = time.monotonic() - begun
        read = reads(service) - before
        again.leave()
        poster.close()
        await asyncio.sleep(1)
        return took_s, read

    took_s, read = on_loop(measure)
    return [
        Figure(f"{viewers:,} viewers kicked, until all are live", took_s, "s", target=Target(5, at_least=False)),
        Figure("the same, reads of the job", read, "reads", target=Target(3, at_least=False)),
    ]


def reads(service: Service) -> float:
    """Scripts and look-ups of a job so far: every script but those of keys, rates and the sweeper is a job's here."""
    stats = service.redis.info("commandstats")
    return float(stats.get("cmdstat_lrange", {}).get("calls", 0))


def behind(service: Service, count: int) -> Figure:
    """How long a viewer that has missed that many lines takes to be live."""

    async def measure() -> float:
        job = service.claimed(1)[0]["id"]
        poster = Poster(service.web, service.worker_key)
        for _ in range(count // 1000):
            await poster.post(f"/jobs/{job}/logs", msgspec.json.encode([LINE] * 1000))
        begun = time.monotonic()
        crowd = Crowd(service.web, f"/realtime/{job}?logs=true&logsAfter=0&after=2", service.worker_key)
        await crowd.join(1)
        await poster.post(f"/jobs/{job}/event", b'"the last"')
        await crowd.until_bytes(count * 250)
        took_s = time.monotonic() - begun
        crowd.leave()
        poster.close()
        return took_s

    return Figure(f"a viewer {count:,} lines behind is live", on_loop(measure), "s", target=Target(2, at_least=False))
