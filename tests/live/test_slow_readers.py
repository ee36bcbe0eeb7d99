"""Viewers that read slowly, or not at all: who is cut, when, and that nobody loses anything by it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.any_redis import NewRedis
from tests.factories import Json, Space
from tests.live.checker import Check, Truth
from tests.live.followers import JobFollower
from tests.live.raw import CLOSE, TEXT, RawEvents, RawSocket
from tests.server import Server
from tests.valkey import until
from tests.viewers import SocketViewer

TIMEOUT_S = 2.0
LINE = "x" * 60_000
MEBIBYTES = 8
"""More than the kernel's buffers and a connection's hold together, many times over what is read slowly."""

TRANSPORTS = ("WebSocket", "event stream")


@pytest.fixture(scope="module")
def space(new_redis: NewRedis) -> Iterator[Space]:
    with new_redis() as valkey, Server(valkey.url, JOBWIRE_VIEWER_TIMEOUT=str(TIMEOUT_S)) as server:
        yield Space(server)


class Reader:
    """A viewer of everything of a job that reads when it is told to. What it has seen is checked as it comes."""

    def __init__(self, space: Space, job: Json, transport: str, receive_bytes: int = 4096) -> None:
        self._space, self._receive_bytes = space, receive_bytes
        self._kind = RawSocket if transport == "WebSocket" else RawEvents
        self.seen = JobFollower(lambda: space.server.url, job["id"], str(space.all.key))
        self.stream = self._open()

    def _open(self) -> RawSocket | RawEvents:
        return self._kind(self._space.server, self.seen.path(), str(self._space.all.key), self._receive_bytes)

    def read(self) -> tuple[int, str] | None:
        """Take one frame; when it is the end of the stream, its code (0 in an event stream) and reason."""
        got = self.stream.read()
        if isinstance(got, bytes):
            return self._read_event(got)
        if got.opcode == CLOSE:
            return got.code, got.payload[2:].decode()
        if got.opcode == TEXT:
            self.seen.take(json.loads(got.payload))
        return None

    def _read_event(self, event: bytes) -> tuple[int, str] | None:
        if not event:
            return 0, ""
        fields = dict(line.split(b": ", 1) for line in event.splitlines() if b": " in line)
        if b"data" in fields:
            self.seen.take(json.loads(fields[b"data"]))
            assert fields[b"id"].decode() == self.seen.event_id()
        return None

    def read_all(self) -> None:
        """Read fast until it has seen exactly what Redis holds; AssertionError when the stream ends before."""
        check = Check(truth(self._space, self.seen.job))
        while not check.is_settled(self.seen):
            assert (end := self.read()) is None, end
        check.look_at(self.seen)

    def read_to_end(self) -> tuple[int, str]:
        """Read fast until the stream ends; its code and reason. EOFError or ConnectionError when it breaks off."""
        while (end := self.read()) is None:
            pass
        return end

    def resume(self) -> None:
        """Come back with the position."""
        self.stream.sock.close()
        self.stream = self._open()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.sock.close()


def flood(space: Space, job: Json, mebibytes: int = MEBIBYTES) -> None:
    """Lines of 60,000 bytes and some events."""
    for number in range(mebibytes):
        space.do(job, "logs", [f"{number}.{i} {LINE}" for i in range(17)])
        space.do(job, "event", {"number": number})


def truth(space: Space, job: str) -> Truth:
    """What Redis holds of the job."""
    return Truth(space.server.redis_url, space.server.prefix, space.id, [job])


def metric(space: Space, name: str) -> float:
    """What the server counts."""
    text = space.server.beside("/metrics").text
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def working(space: Space) -> Any:
    """A job that runs."""
    return space.job_in("running", timeoutSeconds=3600)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_viewer_that_takes_nothing_is_closed_and_resumes_without_loss(space: Space, transport: str) -> None:
    job, closed = working(space), metric(space, "jobwire_still_readers_total")
    with Reader(space, job, transport) as reader:
        flood(space, job)
        flooded = time.monotonic()
        until(lambda: metric(space, "jobwire_still_readers_total") > closed, 20)
        assert time.monotonic() - flooded > TIMEOUT_S / 2, "it had its time"
        code, reason = reader.read_to_end()
        if transport == "WebSocket":
            assert (code, reason) == (1013, "Nothing was read for 2 s.")
        assert 0 < reader.seen.lines.position < 17 * MEBIBYTES, "it had got what was written, and no more"
        reader.resume()
        reader.read_all()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_viewer_that_reads_little_by_little_is_never_cut(space: Space, transport: str) -> None:
    job, slow = working(space), metric(space, "jobwire_slow_readers_total")
    with Reader(space, job, transport) as reader:
        flood(space, job)
        begun, sips = time.monotonic(), 0
        while time.monotonic() - begun < 4 * TIMEOUT_S:
            reader.stream.sip(1000)
            sips += 1
            time.sleep(0.2)  # the pace of this reader, not a wait
            space.do(job, "event", sips)
        assert metric(space, "jobwire_slow_readers_total") > slow, "it was slow indeed"
        assert sips < 50
        reader.read_all()


def test_a_viewer_that_never_reads_is_forgotten(space: Space) -> None:
    job, before = working(space), metric(space, "jobwire_streams_open")
    with Reader(space, job, "WebSocket") as reader:
        until(lambda: metric(space, "jobwire_streams_open") > before)
        flood(space, job)
        until(lambda: metric(space, "jobwire_streams_open") == before, 30)
        with contextlib.suppress(EOFError, ConnectionError):
            raise AssertionError(f"it cannot have seen the end, yet: {reader.read_to_end()}")
        reader.resume()
        reader.read_all()


@pytest.mark.alone("it measures delay under load")
def test_nobody_waits_for_those_who_take_nothing(space: Space) -> None:
    job, slow = working(space), metric(space, "jobwire_slow_readers_total")
    path = f"/realtime/{job['id']}?logs=true"
    with contextlib.ExitStack() as stack:
        for transport in TRANSPORTS * 5:
            stack.enter_context(Reader(space, job, transport))
        prompt = stack.enter_context(SocketViewer(space.server, path, space.all.key))
        flood(space, job)
        until(lambda: metric(space, "jobwire_slow_readers_total") >= slow + 10)
        begun = time.monotonic()
        for number in range(100):
            space.do(job, "event", {"late": number})
            prompt.until(lambda frame, wanted=number: frame["data"] == {"late": wanted}, 2)  # type: ignore[misc]  # a default binds
        assert time.monotonic() - begun < TIMEOUT_S * 2
        assert prompt.lines() == list(range(1, 17 * MEBIBYTES + 1))
