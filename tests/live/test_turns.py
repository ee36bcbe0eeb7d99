"""Nobody's work is another's wait: no turn of the event loop is long, whatever one caller asks for or sends."""

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.logs.search import Q_CHARS
from tests.any_redis import NewRedis
from tests.factories import Space
from tests.metered import Metered
from tests.server import Server

MIB = 1024 * 1024
MOST_MS = 50
TRIES = 8
"""What else the machine does adds to a turn's CPU (caches, pages, clock rate), and takes nothing from it: the best
counts."""

GZIP = {"content-encoding": "gzip"}
NDJSON = {"content-type": "application/x-ndjson"}
DOWNLOAD = {"accept": "application/x-ndjson"}

WORDS = [f"word{i:02}" for i in range(14)]
DEEP = b"[" * 60 + b"1" + b"]" * 60 + b","


class MeteredServer(Server):
    program = ("-m", "tests.metered")


class Desk:
    """A server whose turns are measured, and logs on it: of 70,000 short lines, and of long ones."""

    def __init__(self, server: MeteredServer, turns: Path) -> None:
        self.server = server
        self.space = Space(server)
        self._turns = turns
        self.short, self.long, self.greek, self.fresh = (self.space.create()["id"] for _ in range(4))
        words = [f"line {i} of the build, word {i * 7919 % 1000} aAaA" for i in range(10_000)]
        for _ in range(7):
            self.append(self.short, words)
        every = " ".join(WORDS)
        self.append(self.long, [f"{'a' * 2300} {every} {('odd', 'even')[i % 2]}" for i in range(8000)])
        self.append(self.greek, ["ΟΔΟΣ straße " * 40] * 8000)

    def append(self, job: str, messages: list[str]) -> None:
        body = b"\n".join(json.dumps(message, ensure_ascii=False).encode() for message in messages)
        assert self.post(f"/jobs/{job}/logs", body, NDJSON).status_code == 200

    def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.space.all.post(path, content=gzip.compress(body, 1), headers={**GZIP, **(headers or {})})

    def search(self, job: str, q: str, **more: Any) -> httpx.Response:
        return self.space.all.get(f"/jobs/{job}/logs", params={"after": 0, "q": q}, **more)

    def longest_ms(self, load: Callable[[], Any]) -> float:
        """The CPU of the longest turn while a load ran, 0 if none was long."""
        self._turns.write_text("")
        load()
        return max((float(line.split()[0]) for line in self._turns.read_text().splitlines()), default=0.0)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, new_redis: NewRedis) -> Iterator[Desk]:
    turns = tmp_path_factory.mktemp("turns") / "turns"
    settings = {"TURNS_FILE": str(turns), "JOBWIRE_LOG_HOT_LINES": "1000"}
    with new_redis() as valkey, MeteredServer(valkey.url, **settings) as server:
        yield Desk(server, turns)


def searches() -> Iterator[tuple[str, Callable[[Desk], Any]]]:
    yield "one word that is nowhere", lambda desk: desk.search(desk.short, "nowhere")
    yield "words that are everywhere, but one", lambda desk: desk.search(desk.short, "line build word aaaa nowhere")
    # Each of them is in every block, and no line has all.
    yield "16 words", lambda desk: desk.search(desk.long, f"{' '.join(WORDS)} odd even")
    needle = "a" * (Q_CHARS // 2) + "b" + "a" * (Q_CHARS // 2 - 1)
    yield "a word that almost matches at each place", lambda desk: desk.search(desk.long, needle)
    almost = " ".join("a" * (20 + i) + "b" + "a" * 30 for i in range(16))
    yield "16 words that almost match", lambda desk: desk.search(desk.long, almost)
    yield "full case folding", lambda desk: desk.search(desk.greek, "ΟΔΟΣ strasse nirgends")
    yield "a page of long lines", lambda desk: desk.search(desk.long, "aaa aa a")
    yield "a download", lambda desk: desk.search(desk.long, "", headers=DOWNLOAD)
    yield "a download of what is nowhere", lambda desk: desk.search(desk.short, "line nowhere", headers=DOWNLOAD)


def bodies() -> Iterator[tuple[str, str, dict[str, str], Callable[[], bytes], tuple[int, ...]]]:
    entry = json.dumps({"message": "x" * 3000 + "é\n", "metadata": {"a": [1] * 20}}).encode()
    deep = b'{"message":"m","metadata":{"a":[' + DEEP * 100 + b"1]}}"
    lone = b'{"message":"' + rb"\ud83d" * 500 + b'"}'
    for kind, joined, headers in (("array", _array, {}), ("lines", _lines, NDJSON)):
        yield f"10,000 entries, {kind}", "logs", headers, partial(joined, entry, 9900), (200,)
        yield f"deep metadata, {kind}", "logs", headers, partial(joined, deep, 2500), (200,)
        yield f"one long entry, {kind}", "logs", headers, partial(joined, b'"' + rb"\u0001" * 5 * MIB + b'"', 1), (413,)
        most = b'"' + "é".encode() * (2 * MIB - 8) + b'"'
        yield f"the longest entries, {kind}", "logs", headers, partial(joined, most, 7), (200,)
    yield "lone surrogates", "logs", {}, partial(_array, lone, 9900), (200,)
    yield "nothing but line breaks", "logs", NDJSON, lambda: b"\n" * 31 * MIB, (200,)
    yield "nothing but blanks", "logs", {}, lambda: b"{" + b" " * 31 * MIB, (413,)
    yield "empty arrays", "logs", {}, lambda: b"[" + b"[]," * 10 * MIB + b"1]", (413,)
    yield "much beside the logs", "logs", {}, lambda: b'{"a":[' + b"[]," * 10 * MIB + b'1],"logs":[]}', (413,)
    yield (
        "a thousand jobs",
        "jobs",
        {},
        lambda: json.dumps([{"name": "x", "payload": "y" * 7000}] * 1000).encode(),
        (201,),
    )
    yield "too many jobs", "jobs", {}, lambda: b"[" + b'{"name":"x"},' * 600_000 + b"1]", (413,)
    yield "too many headers", "jobs", {}, _headers, (413,)
    yield "a deep payload", "jobs", {}, lambda: b'{"name":"x","payload":[' + DEEP * 8500 + b"1]}", (201,)
    yield "deep nothing", "jobs", {}, lambda: b'{"name":"x","nothing":[' + DEEP * 68_000 + b"1]}", (201,)
    yield "a deep result", "complete", {}, lambda: b"[" + DEEP * 8500 + b"1]", (200,)
    result = b'{"verb":"complete","jobId":"x","body":"' + b"\xc3\xa9" * 3500 + b'"},'
    yield "a thousand calls", "calls", {}, lambda: b"[" + result * 999 + result[:-1] + b"]", (200,)
    call = b'{"verb":"event","jobId":"x","body":[' + DEEP * 2000 + b"1]},"
    yield "deep calls", "calls", {}, lambda: b"[" + call * 30 + call[:-1] + b"]", (200,)
    one = b'{"verb":"complete","jobId":"x","more":[' + DEEP * 67_000 + b"1]}"
    yield "one long call", "calls", {}, lambda: b"[" + one + b"]", (200,)
    failed = b'{"verb":"fail","jobId":"x","body":{"error":"' + rb"\u0001" * 170_000 + b'"}},'
    yield "long errors", "calls", {}, lambda: b"[" + failed * 7 + failed[:-1] + b"]", (200,)
    yield "too many calls", "calls", {}, lambda: b"[" + b'{"verb":"ack","jobId":"x"},' * 300_000 + b"1]", (413,)
    yield "many names", "jobs/poll", {}, lambda: b'{"names":[' + b'"a",' * (MIB // 4 - 20) + b'"a"]}', (400,)


def _array(one: bytes, times: int) -> bytes:
    return b"[" + b",".join([one] * times) + b"]"


def _lines(one: bytes, times: int) -> bytes:
    return b"\n".join([one] * times)


def _headers() -> bytes:
    return b'{"name":"x","callbackHeaders":{' + b",".join(b'"%d":""' % i for i in range(700_000)) + b"}}"


@pytest.mark.parametrize("load", [pytest.param(load, id=name) for name, load in searches()])
def test_no_turn_is_long_while_somebody_searches(desk: Desk, load: Callable[[Desk], httpx.Response]) -> None:
    def run() -> None:
        assert load(desk).status_code == 200

    assert least_of_longest_ms(desk, run) < MOST_MS


@pytest.mark.alone("it measures turns, and a busy machine makes the same work cost more CPU")
@pytest.mark.parametrize(
    ("path", "headers", "make", "statuses"), [pytest.param(*rest, id=name) for name, *rest in bodies()]
)
def test_no_turn_is_long_while_somebody_sends_a_body(
    desk: Desk, path: str, headers: dict[str, str], make: Callable[[], bytes], statuses: tuple[int, ...]
) -> None:
    body = make()

    def run() -> None:
        space = desk.space
        if path == "logs":
            where = f"/jobs/{desk.fresh}/logs"
        elif path == "complete":
            where = f"/jobs/{space.job_in('running')['id']}/complete"
        else:
            where = f"/spaces/{space.id}/{path}"
        answer = desk.post(where, body, headers)
        assert answer.status_code in statuses, answer.text[:200]

    assert least_of_longest_ms(desk, run) < MOST_MS


def least_of_longest_ms(desk: Desk, load: Callable[[], Any]) -> float:
    longest_ms = desk.longest_ms(load)
    for _ in range(TRIES - 1):
        if longest_ms >= MOST_MS:
            longest_ms = min(longest_ms, desk.longest_ms(load))
    return longest_ms


def test_others_are_answered_while_ten_search(desk: Desk) -> None:
    almost = " ".join("a" * (20 + i) + "b" + "a" * 30 for i in range(16))

    def search() -> None:
        assert desk.search(desk.long, almost).status_code == 200

    searching = [threading.Thread(target=search) for _ in range(10)]

    def load() -> None:
        answered = 0
        for thread in searching:
            thread.start()
        while any(thread.is_alive() for thread in searching):
            assert desk.space.all.get("/whoami").status_code == 200
            answered += 1
        assert answered >= 20

    assert desk.longest_ms(load) < 3 * MOST_MS


async def test_the_meter_sees_a_long_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNS_FILE", str(tmp_path / "turns"))
    meter = Metered()
    meter.start()
    await asyncio.sleep(0.01)
    end_s = time.thread_time() + 0.08
    while time.thread_time() < end_s:
        pass
    await asyncio.sleep(0.01)
    await meter.close()
    assert max(float(line.split()[0]) for line in (tmp_path / "turns").read_text().splitlines()) >= 80
