"""Scripts: how long the longest one holds Redis up under calls that are much work, by Valkey's own slow log.

Jobs of one create are all made or none, so that they are one script: as long as a thousand jobs take. Everything else
goes in steps. The figure is the median of some rounds, each with the longest script of its calls.
"""

import http.client
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from bench.harness import Figure, Rig, Target
from bench.house import PAYLOAD
from bench.service import BASE, Service

TITLE = "Scripts: the longest one under calls that are much work"

STEP_MS = 10.0
PLAIN = {"name": "resize", "payload": PAYLOAD}
LARGE = {"name": "resize", "payload": "x" * 8000}
CALLED_BACK = {**PLAIN, "callbackUrl": "https://example.com/" + "x" * 2000, "callbackHeaders": {"x": "y" * 5000}}


def run(rig: Rig) -> list[Figure]:
    """One line for each load."""
    path = f"/spaces/{rig.service.space}/jobs"
    named = [{**PLAIN, "name": f"{place:04}{'n' * 196}"} for place in range(1000)]
    step = Target(STEP_MS, at_least=False)
    return [
        figure(rig, "create 1000", partial(create, path, [PLAIN] * 1000)),
        figure(rig, "create 1000 of 8 KB", partial(create, path, [LARGE] * 1000)),
        figure(rig, "create 1000 of as many names", partial(create, path, named)),
        figure(rig, "create 1000 with callbacks", partial(create, path, [CALLED_BACK] * 1000)),
        figure(rig, "create 100 claimed", partial(create, path, [{**PLAIN, "claim": True}] * 100), step),
        figure(rig, "poll 50", polled, step),
        figure(rig, "kill, and retry of 1000", killed_and_retried, step),
        figure(rig, "removal of a space with 1000", removed, step),
    ]


def figure(rig: Rig, name: str, load: Callable[[Service], object], target: Target | None = None) -> Figure:
    """The longest script of a load."""
    found = [longest_ms(rig.service, load) for _ in range(rig.rounds)]
    return Figure(name, median(found), "ms", None, target)


def longest_ms(service: Service, load: Callable[[Service], object]) -> float:
    """How long the longest script took while the load ran; jobs are forgotten after it."""
    client: Any = service.redis
    client.config_set("slowlog-log-slower-than", 200)
    client.slowlog_reset()
    load(service)
    taken_us = [entry["duration"] for entry in client.slowlog_get(1000) if entry["command"].startswith(b"EVALSHA")]
    service.tidy()
    return max(taken_us, default=0) / 1000


def create(path: str, jobs: list[dict[str, Any]], service: Service) -> None:
    service.post(path, jobs)


def polled(service: Service) -> None:
    path = f"/spaces/{service.space}/jobs"
    service.post(path, [PLAIN] * 500)
    service.redis.slowlog_reset()
    for _ in range(10):
        service.post(f"{path}/poll", {"count": 50})


def killed_and_retried(service: Service) -> None:
    path = f"/spaces/{service.space}/jobs"
    made = service.post(path, [PLAIN] * 1000)
    service.redis.slowlog_reset()
    for job in made:
        service.post(f"/jobs/{job['id']}/kill", {})
    service.post(f"{path}/retry", {"status": "killed"})


def removed(service: Service) -> None:
    space = service.post("/spaces", {"name": "to go"})["id"]
    service.post(f"/spaces/{space}/jobs", [CALLED_BACK] * 1000)
    service.redis.slowlog_reset()
    connection = http.client.HTTPConnection(*service.web, timeout=60)
    connection.request("DELETE", f"{BASE}/spaces/{space}", headers={"x-api-key": service.root_key})
    assert connection.getresponse().status == 204
    connection.close()
