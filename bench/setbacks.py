"""What viewers go through: some stop reading, all are kicked at once, one is far behind. Events go on meanwhile.

Every viewer checks that it gets every event and line once, in order, also from one connection to the next.
"""

import asyncio
from contextlib import ExitStack
from statistics import median, quantiles
from time import perf_counter
from typing import NamedTuple

import msgspec

from bench.crowd import EVENT_S, Crowd, Poster, on_loop
from bench.harness import Figure, Target
from bench.job_reads import JobReads
from bench.service import Service, address

SLOW = "jobwire_slow_readers_total"
TURNS = (False, True, True, False, False, True)
"""Rounds without and with viewers that stop reading, so that a drift of the machine hits both alike."""

STALL_BYTES = 2 << 20
"""What comes for a viewer while it does not read: several times what its connection holds (`FULL_BYTES` in
app/wire/connection.py, and about 0.1 MB in the kernel).
"""

AFTERWARDS_S = 2.0
LINE = {"level": "info", "message": "compiled src/modules/network/connection_pool.c in 0.418 s, 12 warnings, 0 errors"}


class Round(NamedTuple):
    """POST to the last of the others, p99 in ms; the web process's CPU for each event; how many became slow; how long
    until they had it all.
    """

    p99_ms: float
    web_us: float
    slow: float
    late_s: float


def stalled(service: Service, viewers: int, seconds: float) -> list[Figure]:
    """50 events/s while 5 % of the viewers read nothing for so long, beside the same while everybody reads."""
    few = viewers // 20
    rounds: dict[bool, list[Round]] = {False: [], True: []}
    for stall in TURNS:
        rounds[stall].append(on_loop(lambda stall=stall: stall_round(service, viewers - few, few, seconds, stall)))  # type: ignore[misc]  # of a lambda's default
    calm, rough = (median(one.p99_ms for one in turn) for turn in rounds.values())
    calm_us, rough_us = (median(one.web_us for one in turn) for turn in rounds.values())
    slow = min(one.slow for one in rounds[True])
    late_s = max(one.late_s for one in rounds[True])
    return [
        Figure(f"viewers set aside of {few} that read nothing for {seconds:g} s", slow, "viewers", target=Target(few)),
        Figure("p99 of the others", rough, "ms", detail={"web_us": rough_us}),
        Figure("p99 of the others while all read", calm, "ms", detail={"web_us": calm_us}),
        Figure("p99 by those who read nothing", (rough / calm - 1) * 100, "% more", target=Target(20, at_least=False)),
        Figure("reading again, until they have all they missed", late_s, "s"),
    ]


async def stall_round(service: Service, others: int, few: int, seconds: float, stall: bool) -> Round:
    """One round: so many seconds of events, then a moment in which those who stalled catch up."""
    job = service.claimed(1)[0]["id"]
    many, deaf = (Crowd(service.web, f"/realtime/{job}", service.worker_key) for _ in range(2))
    await many.join(others)
    await deaf.join(few, small=True)
    start, count, begun_s = many.start, round(seconds / EVENT_S), list[float]()
    pad, before = STALL_BYTES // count, service.metric(SLOW)
    poster = Poster(service.web, service.worker_key)
    if stall:
        deaf.stall()
    web_s = service.cpu().web_s
    await poster.events(job, count, begun_s, pad)
    await many.until(start + count)
    web_us = (service.cpu().web_s - web_s) / count * 1e6
    slow, again_s = service.metric(SLOW) - before, perf_counter()
    deaf.read_on()
    more = round(AFTERWARDS_S / EVENT_S)
    await poster.events(job, more, [], pad)
    for crowd in (many, deaf):
        await crowd.until(start + count + more)
        crowd.leave()
    poster.close()
    await asyncio.sleep(0.2)
    delays_ms = [(many.last_s[start + 1 + n] - begun_s[n]) * 1000 for n in range(count)]
    return Round(quantiles(delays_ms, n=100)[98], web_us, slow, max(0.0, deaf.last_s[start + count] - again_s))


def kicked(service: Service, viewers: int) -> list[Figure]:
    """Everybody's connection breaks at once, and everybody comes back at once, while the job goes on."""
    figures = []
    for cold, what in ((False, "kicked, back at the same process"), (True, "of a killed process, at another")):
        took_s, reads = on_loop(lambda cold=cold: kick(service, viewers, cold))  # type: ignore[misc]  # of a lambda's default
        read = float(sum(reads.reads.values()))
        figures += [
            Figure(f"{viewers:,} viewers {what}, all live", took_s, "s", target=Target(5, at_least=False)),
            Figure("the same, reads of the job", read, "reads", None, Target(3, at_least=False), {**reads.reads}),
            Figure("the same, looks that are taken anyway", reads.looks, "reads"),
        ]
    return figures


async def kick(service: Service, viewers: int, cold: bool) -> tuple[float, JobReads]:
    """Seconds until each has an event that was posted after all were back, and what was read of the job until then.

    Cold: they were at a process that is killed, and come to one that has never heard of the job.
    """
    with ExitStack() as stack:
        job = service.claimed(1)[0]["id"]
        other = service.another_web(stack) if cold else None
        crowd = Crowd(address(other) if other else service.web, f"/realtime/{job}", service.worker_key)
        await crowd.join(viewers)
        poster, begun_s = Poster(service.web, service.worker_key), list[float]()
        posting = asyncio.create_task(poster.events(job, 10_000, begun_s))
        await crowd.until(crowd.start + 20)
        with JobReads(service.redis, job) as reads:
            kicked_s = perf_counter()
            crowd.expect_kick(service.web)
            if other:
                other.kill()
            else:
                crowd.hang_up()
            await crowd.all_connected()
            took_s = await crowd.until(crowd.start + len(begun_s) + 1) - kicked_s
        posting.cancel()
        crowd.leave()
        poster.close()
    await asyncio.sleep(1)
    return took_s, reads


def behind(service: Service, count: int) -> Figure:
    """How long a viewer that has missed that many lines takes to have them, and then an event that was posted later."""

    async def measure() -> float:
        job = service.claimed(1)[0]["id"]
        poster = Poster(service.web, service.worker_key)
        for _ in range(count // 1000):
            await poster.post(f"/jobs/{job}/logs", msgspec.json.encode([LINE] * 1000))
        crowd = Crowd(service.web, f"/realtime/{job}?logs=true&logsAfter=0", service.worker_key)
        begun_s = perf_counter()
        await crowd.join(1)
        await crowd.until_line(count)
        await poster.post(f"/jobs/{job}/event", b'"later"')
        took_s = await crowd.until(crowd.start + 1) - begun_s
        crowd.leave()
        poster.close()
        return took_s

    return Figure(f"a viewer {count:,} lines behind is live", on_loop(measure), "s", target=Target(2, at_least=False))
