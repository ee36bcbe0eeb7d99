"""Logs: appends against raw XADD, other calls beside them, memory, a million lines, and a bomb."""

import asyncio
import glob
import gzip
import http.client
import random
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import msgspec

from app.backend import Backend
from app.logs.intake import decode_batch_steps, encode_parts, unusual_line
from app.model.nesting import nested_deeper
from app.model.steps import exhaust
from app.settings import Settings
from bench.ceilings import XADD, xadd
from bench.harness import Figure, Rig, Target, Trial, post
from bench.house import LINES
from bench.load import Client, Load, repeat
from bench.service import BASE

TITLE = "Logs: one web process, auth and validation on, JOBWIRE_RATE=0, AOF everysec"

NDJSON = "application/x-ndjson"
XADD_FULL = f"{XADD}, full lines"
FULL_LINES = [
    b'{"timestamp":"2026-03-01T09:%02d:%02d.%03dZ","level":"info","message":"GET /images/%06d.jpeg answered 200",'
    b'"source":"web-%d","metadata":{"requestId":"%016x","bytes":%d,"durationMs":%d,"cached":false}}'
    % (
        i // 60 % 60,
        i % 60,
        i * 37 % 1000,
        i * 7919 % 1_000_000,
        i % 3,
        i * 0x9E3779B97F4A7C15 % (1 << 64),
        i * 104_729 % 5_000_000,
        i * 31 % 900,
    )
    for i in range(1000)
]
"""Lines as a logger writes them that has something for each member."""

APPENDERS = 8
BESIDE = 4
MILLION = 1_000_000
ERRORS = 10
HOT_LINES = 10_000
NOWHERE, COMMON = "xyzzyplugh", "installed"
ORDINARY = "connection timeout refused"
"""Words as people search for them, not all of them in a package log."""
REAL = ("/var/log/dpkg.log*", "/var/log/apt/*.log", "/var/log/alternatives.log*", "/var/log/syslog*")
BOMB_BYTES = 1 << 30
MIB = 1 << 20


def run(rig: Rig) -> list[Figure]:
    """All figures of the logs."""
    return [*rig.interleave(appends(rig)), *beside(rig), *memory(rig), *million(rig), *bomb(rig), *nesting(), *intake()]


def real_lines() -> list[str]:
    """The machine's own package and system logs. RuntimeError when it has none."""
    paths = [Path(path) for pattern in REAL for path in sorted(glob.glob(pattern)) if not path.endswith(".gz")]
    lines = [line for path in paths for line in path.read_text(errors="replace").splitlines()]
    if not lines:
        raise RuntimeError(f"no logs at {', '.join(REAL)}")
    return lines


def ndjson(messages: Sequence[str], grave: Container[int] = ()) -> bytes:
    """Entries of these messages; errors at the places in `grave`."""
    return b"\n".join(
        msgspec.json.encode({"level": "error" if place in grave else "info", "message": text, "source": "stdout"})
        for place, text in enumerate(messages)
    )


# Appends


def appends(rig: Rig) -> list[Trial]:
    """Batches, each connection to a job of its own, and raw XADD of the same lines. Sealing runs along."""
    dice = random.Random(1)
    noise = [b'{"message":"%s"}' % dice.randbytes(48).hex().encode() for _ in range(1000)]
    packed = gzip.compress(b"\n".join(noise), 6)
    return [
        xadd(rig, LINES),
        _append(rig, "append 1000", b"\n".join(LINES), 1000, least=1.0),
        _append(rig, "append 1000, gzip, hard to compress", packed, 1000, least=0.6, more="content-encoding: gzip"),
        _append(rig, "append 100", b"\n".join(LINES[:100]), 100, least=0.5),
        xadd(rig, FULL_LINES, name=XADD_FULL),
        _append(rig, "append of 1,000 full lines", b"\n".join(FULL_LINES), 1000, least=1.2, ceiling=XADD_FULL),
        _append(rig, "append of 100 full lines", b"\n".join(FULL_LINES[:100]), 100, least=0.7, ceiling=XADD_FULL),
    ]


def _append(
    rig: Rig, name: str, body: bytes, lines: int, *, least: float, ceiling: str = XADD, more: str = ""
) -> Trial:
    load = partial(_appenders, rig, body, APPENDERS, more)
    return Trial(name, "lines/s", load, lines, ceiling, Target(least, of_ratio=True), tidy=True)


def _appenders(rig: Rig, body: bytes, connections: int, more: str = "") -> Load:
    key = rig.service.worker_key
    jobs = rig.service.claimed(connections)
    requests = [post(f"{BASE}/jobs/{job['id']}/logs", key, body, kind=NDJSON, more=more) for job in jobs]
    return Load(rig.service.web, [partial(repeat, (request,)) for request in requests])


def beside(rig: Rig) -> list[Figure]:
    """How long `GET /jobs/:id` takes while others append at full speed."""
    figures = []
    with Client() as other:
        for lines, most_ms in ((1000, 25.0), (10_000, 60.0)):
            body = b"\n".join((LINES * 10)[:lines])
            p99s = [_get_beside(rig, other, body) for _ in range(rig.rounds)]
            target = Target(most_ms, at_least=False)
            figures.append(Figure(f"GET job, p99 beside appends of {lines:,}", median(p99s), "ms", None, target))
    return figures


def _get_beside(rig: Rig, other: Client, body: bytes) -> float:
    (job,) = rig.service.claimed(1)
    request = get(f"/jobs/{job['id']}", rig.service.worker_key)
    other.start(_appenders(rig, body, BESIDE)._replace(seconds=rig.seconds + 1.5))
    time.sleep(0.5)
    outcome = rig.client.run(Load(rig.service.web, [partial(repeat, (request,))] * 2)._replace(seconds=rig.seconds))
    other.finish()
    rig.service.tidy()
    return outcome.p99_ms


def get(path: str, key: str) -> bytes:
    """The bytes of a GET below the base path."""
    return f"GET {BASE}{path} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {key}\r\n\r\n".encode()


# Memory


def memory(rig: Rig) -> list[Figure]:
    """What Redis needs for real logs, as a part of their JSON: in the stream, sealed, and short and finished."""
    lines = real_lines()[:HOT_LINES]
    raw = sum(len(msgspec.json.encode({"level": "info", "message": text, "source": "stdout"})) for text in lines)
    hot = _bytes_of(rig, lines, 4, sealed=False) / raw / 4
    sealed = _bytes_of(rig, lines, 4, sealed=True) / raw / 4
    count = 200 if rig.quick else 1000
    short = _bytes_of(rig, lines[:10], count, sealed=True) / count
    return [
        Figure("memory of real logs, hot", hot, "of raw", None, Target(1.2, at_least=False)),
        Figure("memory of real logs, sealed", sealed, "of raw", None, Target(0.2, at_least=False)),
        Figure("memory of a finished log of 10 lines", short, "bytes", None, Target(1024, at_least=False)),
    ]


def _bytes_of(rig: Rig, lines: Sequence[str], jobs: int, *, sealed: bool) -> float:
    """Redis bytes of the logs of so many jobs with these lines each, by its own count before and after."""
    service = rig.service
    service.tidy()
    made = service.claimed(jobs)
    before = _used(rig)
    for job in made:
        for at in range(0, len(lines), 1000):
            _post(rig, f"/jobs/{job['id']}/logs", ndjson(lines[at : at + 1000]))
    if sealed:
        asyncio.run(_rest(service.environment["REDIS_URL"], [job["id"] for job in made]))
    used = _used(rig) - before
    service.tidy()
    return used


async def _rest(redis_url: str, jobs: Sequence[str]) -> None:
    """What the sweeper does when ended jobs have rested."""
    backend = Backend(Settings(redis_url=redis_url))
    await backend.start()
    try:
        await asyncio.gather(*(backend.logs.settle(job, 86_400_000) for job in jobs))
    finally:
        await backend.close()


def _used(rig: Rig) -> int:
    return int(rig.service.redis.info("memory")["used_memory"])


# A million lines


def million(rig: Rig) -> list[Figure]:
    """Pages, searches and the download of one long log, and ripgrep on the same lines in a file."""
    lines = real_lines()
    count = MILLION // (10 if rig.quick else 1)
    texts = (lines * (count // len(lines) + 1))[:count]
    (made,) = rig.service.claimed(1)
    job = made["id"]
    _fill(rig, job, texts)
    log = Log(rig, job, count)
    figures = [*log.pages(), *log.searches(), *log.download(), *ripgrep(rig, texts)]
    rig.service.tidy()
    return figures


def _fill(rig: Rig, job: str, texts: Sequence[str]) -> None:
    grave = set(range(7, len(texts), len(texts) // ERRORS))
    for at in range(0, len(texts), 10_000):
        _post(rig, f"/jobs/{job}/logs", ndjson(texts[at : at + 10_000], {place - at for place in grave}))
    deadline_s = time.monotonic() + 60
    meta = f"jw:{{{job}}}:log:meta"
    while len(texts) - int(rig.service.redis.hget(meta, "sealed") or 0) > HOT_LINES + 2000:
        if time.monotonic() > deadline_s:
            raise RuntimeError("the log is not sealed")
        time.sleep(0.05)


class Log:
    """One long log, and how long its readers wait."""

    def __init__(self, rig: Rig, job: str, lines: int) -> None:
        self._rig = rig
        self._path = f"{BASE}/jobs/{job}/logs"
        self._lines = lines
        self._connection = http.client.HTTPConnection(*rig.service.web, timeout=60)
        self._key = {"x-api-key": rig.service.worker_key}

    def pages(self) -> list[Figure]:
        """Pages of 200, at the end and anywhere."""
        dice = random.Random(2)
        often = 100 if self._rig.quick else 1000
        tail = [self._page(limit=200)[1] for _ in range(often)]
        anywhere = [self._page(**{dice.choice(["after", "before"]): dice.randint(1, self._lines)})[1] for _ in tail]
        return [_p99("tail of 200", tail, 10), _p99("any page of 200", anywhere, 20)]

    def searches(self) -> list[Figure]:
        """Medians of a few searches each."""
        return [
            self._search("q for a word that is nowhere, all pages", 120, q=NOWHERE),
            self._search("q for three ordinary words, all pages", None, q=ORDINARY),
            self._search("q for a common word, first page", 25, first=True, q=COMMON),
            self._search(f"level=error with {ERRORS} hits, all pages", 60, level="error"),
        ]

    def download(self) -> list[Figure]:
        """The whole log as NDJSON."""
        before = self._rig.service.rss_bytes()
        most, size, begun_s = before, 0, time.perf_counter()
        self._connection.request("GET", f"{self._path}?after=0", headers={**self._key, "accept": NDJSON})
        response = self._connection.getresponse()
        while piece := response.read(MIB):
            size += len(piece)
            most = max(most, self._rig.service.rss_bytes())
        seconds = time.perf_counter() - begun_s
        more = Target(64, at_least=False)
        return [
            Figure("download", size / 1e6 / seconds, "MB/s", None, Target(50)),
            Figure("download, more memory", (most - before) / MIB, "MiB", None, more),
        ]

    def _search(self, name: str, most_ms: float | None, *, first: bool = False, **asked: Any) -> Figure:
        times, cpu = [], []
        for _ in range(3 if self._rig.quick else 9):
            before = self._rig.service.cpu()
            total_ms, pages = 0.0, self._backwards(asked)
            for took_ms in pages:
                total_ms += took_ms
                if first:
                    break
            times.append(total_ms)
            after = self._rig.service.cpu()
            cpu.append((after.web_s - before.web_s, after.valkey_s - before.valkey_s))
        web_s, valkey_s = map(median, zip(*cpu, strict=True))
        detail = {"web_us": web_s * 1e6, "valkey_us": valkey_s * 1e6}
        target = None if most_ms is None else Target(most_ms, at_least=False)
        return Figure(name, median(times), "ms", None, target, detail)

    def _backwards(self, asked: dict[str, Any]) -> Iterator[float]:
        """From the newest line to the oldest: the time of each page."""
        more = asked
        while True:
            page, took_ms = self._page(**more)
            yield took_ms
            if not page["cursor"]["hasMore"]:
                return
            more = asked | {"before": page["cursor"]["oldestSeq"]}

    def _page(self, **asked: Any) -> tuple[Any, float]:
        path = f"{self._path}?{urllib.parse.urlencode(asked)}"
        begun_s = time.perf_counter()
        self._connection.request("GET", path, headers=self._key)
        response = self._connection.getresponse()
        text = response.read()
        took_ms = (time.perf_counter() - begun_s) * 1000
        if response.status != 200:
            raise RuntimeError(f"GET {path}: {response.status} {text[:300]!r}")
        return msgspec.json.decode(text), took_ms


def _p99(name: str, times_ms: Sequence[float], most_ms: float) -> Figure:
    detail = {"p50_ms": median(times_ms)}
    return Figure(f"{name}, p99", quantiles(times_ms, n=100)[98], "ms", None, Target(most_ms, at_least=False), detail)


def ripgrep(rig: Rig, texts: Sequence[str]) -> list[Figure]:
    """The yardstick: the same searches in a file, if there is ripgrep on this machine."""
    program = shutil.which("rg")
    if program is None:
        return []
    path = rig.service.data / "lines.txt"
    path.write_text("\n".join(texts))
    figures = []
    for name, word in (("nowhere", NOWHERE), ("common", COMMON)):
        times = []
        for _ in range(5):
            begun_s = time.perf_counter()
            subprocess.run([program, "-i", "-F", "-c", word, str(path)], stdout=subprocess.DEVNULL, check=False)
            times.append((time.perf_counter() - begun_s) * 1000)
        figures.append(Figure(f"ripgrep, all lines, {name} word", median(times), "ms"))
    return figures


# A bomb


def bomb(rig: Rig) -> list[Figure]:
    """A body of a few bytes that would be a gigabyte."""
    packer = gzip.compress(bytes(BOMB_BYTES // 64), 9)
    body = packer * 64
    (job,) = rig.service.claimed(1)
    rig.service.forget_peak()
    before_s, before = rig.service.cpu().web_s, rig.service.rss_bytes()
    headers = {"x-api-key": rig.service.worker_key, "content-encoding": "gzip", "content-type": NDJSON}
    connection = http.client.HTTPConnection(*rig.service.web, timeout=60)
    connection.request("POST", f"{BASE}/jobs/{job['id']}/logs", body, headers)
    status = connection.getresponse().status
    connection.close()
    if status != 413:
        raise RuntimeError(f"the bomb was answered {status}")
    used_s, grown = rig.service.cpu().web_s - before_s, rig.service.peak_bytes() - before
    return [
        Figure("1 GiB gzip bomb, CPU", used_s, "s", None, Target(0.3, at_least=False)),
        Figure("1 GiB gzip bomb, memory", max(0, grown) / MIB, "MiB", None, Target(64, at_least=False)),
    ]


def _post(rig: Rig, path: str, body: bytes) -> None:
    connection = http.client.HTTPConnection(*rig.service.web, timeout=60)
    connection.request("POST", BASE + path, body, {"x-api-key": rig.service.worker_key, "content-type": NDJSON})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"POST {path}: {response.status} {text[:300]!r}")


# Nesting


def nesting() -> list[Figure]:
    """What it takes at the worst to see how deep a MiB of JSON is nested."""
    hostile = (b"[" * 62 + b"]" * 62, b'"",[],', b'{"":[""]},', b'"\\\\\\"",[],')
    took_ms = [median(_nesting_ms(part * (MIB // len(part))) for _ in range(9)) for part in hostile]
    return [Figure("nesting check of a MiB, the worst of 4, CPU", max(took_ms), "ms", None, Target(20, at_least=False))]


def _nesting_ms(text: bytes) -> float:
    begun_s = time.thread_time()
    if nested_deeper(text, 64):
        raise RuntimeError("this is not nested that deep")
    return 1000 * (time.thread_time() - begun_s)


# Intake


def intake() -> list[Figure]:
    """What it takes to decode, check and encode full lines, as it is done, and line by line."""
    body, slices = b"\n".join(FULL_LINES), [FULL_LINES[at : at + 250] for at in range(0, 1000, 250)]

    def by_column() -> None:
        exhaust(decode_batch_steps(body, ndjson=True))

    def by_line() -> None:
        for lines in slices:
            list(encode_parts([unusual_line(line)[0] for line in lines]))

    names = {"1,000 full lines decoded, checked and encoded, CPU": by_column, "the same, line by line": by_line}
    return [Figure(name, median(_cpu_us(work) for _ in range(99)), "us") for name, work in names.items()]


def _cpu_us(work: Callable[[], None]) -> float:
    begun_s = time.thread_time()
    work()
    return 1e6 * (time.thread_time() - begun_s)
