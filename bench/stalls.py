"""Clients that stop in the middle: what uploads and downloads that nobody goes on with take, and who notices.

They come with ten keys, so that the bound for all keys together is what ends it, and not that of a single one.
"""

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator
from itertools import cycle
from statistics import quantiles

import msgspec

from bench.harness import Figure, Rig, Target
from bench.service import BASE, Service

KEYS = 10
MIB = 1_048_576
UPLOAD_BYTES = 8 * MIB
LOG_MIB = 9
LINE = "x" * 60_000
HELD = "jobwire_inflight_bytes"


def stalls(rig: Rig, count: int) -> list[Figure]:
    """Memory while so many of each stall, and another's calls meanwhile."""
    service, seconds = rig.service, 1.0 if rig.quick else 5.0
    job, watched = (service.claimed(1)[0]["id"] for _ in range(2))
    for _ in range(LOG_MIB):
        service.post(f"/jobs/{job}/logs", [LINE] * 17)
    before_ms = p99_ms(service, watched, seconds)
    service.forget_peak()
    with stalled(service, job, count):
        meanwhile_ms = p99_ms(service, watched, seconds)
        held, peak = service.metric(HELD), service.peak_bytes()
    until_free_s = freed(service)
    name, most_ms = f"{count} stalled uploads and {count} unread downloads", Target(250, at_least=False)
    return [
        Figure(f"memory beside {name}", peak / MIB, "MiB", target=Target(400, at_least=False)),
        Figure("  bytes in flight, as /metrics says", held / MIB, "MiB"),
        Figure("  p99 of others' progress", meanwhile_ms, "ms", None, most_ms, {"before_p99_ms": before_ms}),
        Figure("  all gone, until nothing is in flight", until_free_s, "s", target=Target(5, at_least=False)),
    ]


@contextlib.contextmanager
def stalled(service: Service, job: str, count: int) -> Iterator[None]:
    """Meanwhile they are there."""
    keys = [service.key("jobs:create", "jobs:read") for _ in range(KEYS)]
    with contextlib.ExitStack() as stack:
        for _, key in zip(range(count), cycle(keys), strict=False):
            head = f"POST {BASE}/spaces/{service.space}/jobs HTTP/1.1\r\nhost: bench\r\nx-api-key: {key}\r\n"
            upload = stack.enter_context(opened(service, f"{head}content-length: {UPLOAD_BYTES}\r\n\r\n"))
            with contextlib.suppress(ConnectionError):  # where there was no more room for it
                upload.sendall(b" " * (UPLOAD_BYTES - 1))
        for number, key in zip(range(count), cycle(keys), strict=False):
            accept = ("application/json", "application/x-ndjson")[number % 2]
            path = f"{BASE}/jobs/{job}/logs?after=0&limit=500"
            head = f"GET {path} HTTP/1.1\r\nhost: bench\r\nx-api-key: {key}\r\naccept: {accept}\r\n\r\n"
            stack.enter_context(opened(service, head))
        yield


def opened(service: Service, head: str) -> socket.socket:
    """A connection that takes little from the kernel, with the head of a request."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(service.web)
    sock.sendall(head.encode())
    return sock


def p99_ms(service: Service, job: str, seconds: float) -> float:
    """How long progress takes, one call after the other."""
    body, taken_ms = msgspec.json.encode({"percent": 40, "message": "scaling"}), []
    with contextlib.closing(http.client.HTTPConnection(*service.web, timeout=60)) as connection:
        until_s = time.perf_counter() + seconds
        while (begun_s := time.perf_counter()) < until_s:
            connection.request("POST", f"{BASE}/jobs/{job}/progress", body, {"x-api-key": service.root_key})
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise RuntimeError(f"progress beside stalls: {response.status}")
            taken_ms.append((time.perf_counter() - begun_s) * 1000)
    return quantiles(taken_ms, n=100)[98]


def freed(service: Service) -> float:
    """Seconds until nothing is counted any more."""
    begun_s = time.perf_counter()
    while service.metric(HELD):
        if time.perf_counter() - begun_s > 30:
            raise RuntimeError("bytes of connections that have gone are still counted")
        time.sleep(0.05)
    return time.perf_counter() - begun_s
