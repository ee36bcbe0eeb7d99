"""Scripts: how long the longest one holds Redis up under calls that are much work, by Valkey's own slow log.

Every call is as large as it may be. Jobs of one create are all made or none, so that they are one script. The figure is
the least of some rounds, each with the longest script of its calls. What another process takes of the core is no work:
where the system lets us, nothing but Valkey runs on a core while Valkey has work (sched(7), SCHED_FIFO).
"""

import http.client
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from app.model.limits import BATCH_CLAIMS, BATCH_JOBS, EVENT_BYTES, POLL_JOBS, POLL_NAMES, POLLED_BYTES
from bench.harness import Figure, Rig, Target, post
from bench.house import PAYLOAD
from bench.load import Load, drive, times
from bench.service import BASE, Service
from bench.time import sweeper, until

TITLE = "Scripts: the longest one under calls that are much work"

SETTINGS = {"JOBWIRE_RETENTION": "1"}

STEP_MS = 10.0
PLAIN = {"name": "resize", "payload": PAYLOAD}
LARGE = {"name": "resize", "payload": "x" * 8000}
CALLED_BACK = {**PLAIN, "callbackUrl": "https://example.com/" + "x" * 2000, "callbackHeaders": {"x": "y" * 5000}}
NAMES = [f"{place:04}{'n' * 196}" for place in range(BATCH_JOBS)]
NOTED = 100_000
FEW_EVENTS = 2000
SMALL_EVENTS = 9_930
LARGE_EVENTS = 62
"""Of EVENT_BYTES, which with the small ones are nearly all that a job keeps: of 10,000 events, and of 16 MiB."""

POSTERS = 8
LINES = 10_000
LONG_LOG = 100_000


def run(rig: Rig) -> list[Figure]:
    """One line for each load, and the longest of all."""
    with suppress(AttributeError, PermissionError):
        os.sched_setscheduler(rig.service.nodes[0].pid or 0, os.SCHED_FIFO, os.sched_param(1))
    path = f"/spaces/{rig.service.space}/jobs"
    loads: dict[str, Callable[[Service], object]] = {
        "create 1000": partial(create, path, [PLAIN] * BATCH_JOBS),
        "create 1000 of 8 KB": partial(create, path, [LARGE] * BATCH_JOBS),
        "create 1000 of as many names": partial(create, path, [{**PLAIN, "name": name} for name in NAMES]),
        "create 1000 with callbacks": partial(create, path, [CALLED_BACK] * BATCH_JOBS),
        "create 100 claimed": partial(create, path, [{**PLAIN, "claim": True}] * BATCH_CLAIMS),
        "poll 50": polled,
        "poll 50 of 8 MiB": large_polled,
        "poll 50 of 50 names": names_polled,
        "list 100 of 1000, by statuses, far down": listed,
        "kill, and retry of 1000": killed_and_retried,
        "1000 calls, complete with 8 KB each": completed_by_calls,
        "complete of a job with 2,000 events": completed_with_events,
        "event of 256 KiB that displaces 6,000": displaced,
        "read, pages and removal of a job with 16 MiB of events": read_and_removed,
        "1000 leases that end": partial(leases_ended, rig),
        "1000 scheduled jobs that are due": partial(fell_due, rig),
        "1000 ended jobs whose time is up": partial(time_up, rig),
        "append of 10,000 lines": appended,
        "pages and removal of a log of 100,000 lines": log_read_and_removed,
        "removal of a space with 1000": removed,
    }
    most = Target(STEP_MS, at_least=False)
    figures = [Figure(name, longest_ms(rig, load), "ms", None, most) for name, load in loads.items()]
    return [*figures, max(figures, key=lambda figure: figure.value)._replace(name="the longest of all")]


def longest_ms(rig: Rig, load: Callable[[Service], object]) -> float:
    """How long the longest script of a load takes, in the round that was disturbed the least."""
    return min(longest_of_round_ms(rig.service, load) for _ in range(rig.rounds))


def longest_of_round_ms(service: Service, load: Callable[[Service], object]) -> float:
    """How long the longest script took while the load ran; jobs are forgotten after it."""
    client: Any = service.redis
    client.config_set("slowlog-log-slower-than", 200)
    client.config_set("slowlog-max-len", NOTED)
    client.slowlog_reset()
    load(service)
    taken_us = [entry["duration"] for entry in client.slowlog_get(NOTED) if entry["command"].startswith(b"EVALSHA")]
    service.tidy()
    return max(taken_us, default=0) / 1000


# Loads. What they prepare is not looked at.


def create(path: str, jobs: Sequence[dict[str, Any]], service: Service) -> None:
    service.post(path, jobs)


def polled(service: Service) -> None:
    prepared(service, [PLAIN] * 500)
    for _ in range(10):
        poll(service)


def large_polled(service: Service) -> None:
    large = {**PLAIN, "payload": "x" * (POLLED_BYTES // POLL_JOBS - 10)}
    for _ in range(2):
        prepared(service, [large] * (POLL_JOBS // 2))
    poll(service)


def names_polled(service: Service) -> None:
    names = NAMES[:POLL_NAMES]
    for _ in range(3):
        prepared(service, [{**PLAIN, "name": name} for name in names] * (BATCH_JOBS // POLL_NAMES))
    poll(service, names=names)


def listed(service: Service) -> None:
    prepared(service, [LARGE] * BATCH_JOBS)
    poll(service)
    service.redis.slowlog_reset()
    service.get(f"{jobs_of(service)}?limit=100&offset=850")
    service.get(f"{jobs_of(service)}?limit=100&offset=500&status=pending,delivered,running,completed")


def killed_and_retried(service: Service) -> None:
    for job in prepared(service, [PLAIN] * BATCH_JOBS):
        service.post(f"/jobs/{job['id']}/kill", {})
    service.post(jobs_of(service, "retry"), {"status": "killed"})


def completed_by_calls(service: Service) -> None:
    prepared(service, [PLAIN] * BATCH_JOBS)
    held = [job for _ in range(BATCH_JOBS // POLL_JOBS) for job in poll(service)]
    service.redis.slowlog_reset()
    calls = [{"verb": "complete", "jobId": job["id"], "body": "x" * 8000} for job in held]
    answers = service.post(f"/spaces/{service.space}/calls", calls)
    assert {answer["status"] for answer in answers} == {200}


def completed_with_events(service: Service) -> None:
    (job,) = service.claimed(1)
    tell(service, job, {"step": 1}, FEW_EVENTS)
    service.redis.slowlog_reset()
    service.post(f"/jobs/{job['id']}/complete", "x" * 1_000_000)


def displaced(service: Service) -> None:
    job = eventful(service)
    service.redis.slowlog_reset()
    for _ in range(3):
        service.post(f"/jobs/{job['id']}/event", "x" * (EVENT_BYTES - 2))


def read_and_removed(service: Service) -> None:
    job = eventful(service)
    service.redis.slowlog_reset()
    path = f"/jobs/{job['id']}"
    service.get(path)
    service.get(f"{path}/events?after=0&limit=1000")
    service.get(f"{path}/events?after={SMALL_EVENTS}&limit=1000")
    service.post(f"{path}/complete", None)
    delete(service, path)


def leases_ended(rig: Rig, service: Service) -> None:
    with sweeper(rig):
        for _ in range(BATCH_JOBS // BATCH_CLAIMS):
            service.post(jobs_of(service), [{**PLAIN, "claim": True, "timeoutSeconds": 1}] * BATCH_CLAIMS)
        service.redis.slowlog_reset()
        until(partial(none_is, service, "delivered"))


def fell_due(rig: Rig, service: Service) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    with sweeper(rig):
        prepared(service, [{**PLAIN, "scheduledFor": soon}] * BATCH_JOBS)
        until(partial(none_is, service, "scheduled"))


def time_up(rig: Rig, service: Service) -> None:
    for job in prepared(service, [PLAIN] * BATCH_JOBS):
        service.post(f"/jobs/{job['id']}/kill", {})
    service.redis.slowlog_reset()
    with sweeper(rig):
        until(partial(none_is, service, "killed"))


def appended(service: Service) -> None:
    (job,) = service.claimed(1)
    append(service, job, [{"message": "x" * 400, "level": "info"}] * LINES)
    append(service, job, [{"message": "x" * 400, "level": "info"}] * LINES)


def log_read_and_removed(service: Service) -> None:
    (job,) = service.claimed(1)
    for _ in range(LONG_LOG // LINES):
        append(service, job, [f"line {place} of the installed package" for place in range(LINES)])
    service.redis.slowlog_reset()
    for asked in ("limit=500", "after=0&limit=500", f"before={LONG_LOG // 2}&limit=500&q=nowhere", "level=error"):
        service.get(f"/jobs/{job['id']}/logs?{asked}")
    service.post(f"/jobs/{job['id']}/complete", None)
    delete(service, f"/jobs/{job['id']}")


def removed(service: Service) -> None:
    space = service.post("/spaces", {"name": "to go"})["id"]
    service.post(f"/spaces/{space}/jobs", [CALLED_BACK] * BATCH_JOBS)
    service.redis.slowlog_reset()
    delete(service, f"/spaces/{space}")


# What they share


def jobs_of(service: Service, verb: str = "") -> str:
    """The path of the space's jobs, or of a verb on all of them."""
    return "/".join(part for part in ("/spaces", service.space, "jobs", verb) if part)


def prepared(service: Service, jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fresh jobs, which no figure is about."""
    made: list[dict[str, Any]] = service.post(jobs_of(service), jobs)
    service.redis.slowlog_reset()
    return made


def poll(service: Service, **asked: Any) -> list[dict[str, Any]]:
    """As many jobs as a poll may take, begun."""
    jobs: list[dict[str, Any]] = service.post(jobs_of(service, "poll"), {"count": POLL_JOBS, "ack": True, **asked})[
        "jobs"
    ]
    return jobs


def tell(service: Service, job: dict[str, Any], data: Any, count: int) -> None:
    """So many custom events of a job."""
    event = post(f"{BASE}/jobs/{job['id']}/event", service.root_key, json.dumps(data).encode())
    flows = [partial(times, event, len(range(place, count, POSTERS))) for place in range(min(POSTERS, count))]
    outcome = drive(Load(service.web, flows, seconds=60, warm_s=0, whole=True))
    if outcome.refused:
        raise RuntimeError(f"{outcome.refused} refused, one with {outcome.refusal!r}")


def eventful(service: Service) -> dict[str, Any]:
    """A job with nearly as many events as are kept, small ones first, and nearly as many bytes of them."""
    (job,) = service.claimed(1)
    tell(service, job, 1, SMALL_EVENTS)
    tell(service, job, "x" * (EVENT_BYTES - 2), LARGE_EVENTS)
    return job


def append(service: Service, job: dict[str, Any], entries: Sequence[Any]) -> None:
    """Lines at the end of a job's log."""
    service.post(f"/jobs/{job['id']}/logs", entries)


def none_is(service: Service, status: str) -> bool:
    """Whether no job of the space has a status."""
    return not service.get(f"/spaces/{service.space}")["counts"][status]


def delete(service: Service, path: str) -> None:
    """A DELETE with the root key."""
    connection = http.client.HTTPConnection(*service.web, timeout=60)
    connection.request("DELETE", BASE + path, headers={"x-api-key": service.root_key})
    assert connection.getresponse().status == 204
    connection.close()
