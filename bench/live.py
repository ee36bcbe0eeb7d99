"""Live delivery: one web process, thousands of viewers, the client on the same cores."""

import asyncio
import subprocess
import time
from contextlib import ExitStack
from statistics import quantiles

import msgspec

from bench.crowd import Crowd, Poster, Viewer, on_loop
from bench.harness import Figure, Rig, Target
from bench.service import Service, address, cpu_s
from bench.setbacks import LINE, behind, kicked, stalled

TITLE = "Live delivery: one web process, the client on the same cores"

VIEWERS = 1000
EVENTS = 300


def run(rig: Rig) -> list[Figure]:
    """Every figure of the suite."""
    scale = 10 if rig.quick else 1
    figures = broadcasts(rig.service, VIEWERS // scale, EVENTS // scale)
    figures.append(lines(rig.service, 100, 40 // scale))
    figures += latency(rig.service, VIEWERS // scale, 1000 // scale)
    figures += idle(rig.service, 10_000 // scale, 2 if rig.quick else 15)
    figures += stalled(rig.service, VIEWERS // scale, 20 / scale)
    figures += kicked(rig.service, 2000 // scale)
    figures.append(behind(rig.service, 100_000 // scale))
    return figures


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
    crowd = Crowd(place, "/x", "", Viewer)
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
    await crowd.until(crowd.start + 1)
    before = service.cpu().web_s
    for number in range(events):
        await poster.post(f"/jobs/{job}/event", b'{"n":%d}' % number)
    await crowd.until(crowd.start + events + 1)
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
        await crowd.until_line(500)
        before = service.cpu().web_s
        for batch in range(batches):
            await poster.post(f"/jobs/{job}/logs", body)
            await crowd.until_line(500 * (batch + 2))
        used_s = service.cpu().web_s - before
        crowd.leave()
        poster.close()
        return viewers * batches * 500 / used_s

    delivered = on_loop(measure)
    return Figure(f"log lines to {viewers} viewers", delivered, "lines/CPU s", target=Target(1_000_000))


def latency(service: Service, viewers: int, events: int) -> list[Figure]:
    """From the POST to the last viewer at 50 events/s."""
    delays_ms = on_loop(lambda: delays(service, viewers, events))
    marks = quantiles(delays_ms, n=100)
    return [
        Figure("50 events/s, POST to last viewer, p50", marks[49], "ms", target=Target(12, at_least=False)),
        Figure("the same, p99", marks[98], "ms", target=Target(40, at_least=False)),
    ]


async def delays(service: Service, viewers: int, events: int) -> list[float]:
    """Of each event, ms from the POST's beginning to the last viewer."""
    job = service.claimed(1)[0]["id"]
    crowd = Crowd(service.web, f"/realtime/{job}", service.worker_key)
    await crowd.join(viewers)
    poster, begun_s = Poster(service.web, service.worker_key), list[float]()
    await poster.events(job, events, begun_s)
    await crowd.until(crowd.start + events)
    crowd.leave()
    poster.close()
    await asyncio.sleep(0.2)
    return [(crowd.last_s[crowd.start + 1 + n] - begun_s[n]) * 1000 for n in range(events)]


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
