"""The load: conversations over plain sockets, each sending its next request when the answer has come.

Runs in a process of its own, so that what it costs is not taken from the server's core. Never: pipelines HTTP, or looks
at more of an answer than its end and its first bytes; what an answer says is the business of the flow that asked.
"""

import multiprocessing
import selectors
import socket
import time
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple, Protocol, Self

RECEIVE_BYTES = 262_144
LENGTH = b"content-length: "

Flow = Generator[bytes, bytes, None]
"""One conversation: yields a request, is sent its answer (for HTTP head and body)."""


class Framing(Protocol):
    """Finds the end of an answer in what arrives."""

    def feed(self, data: bytes) -> bytes | None:
        """The whole answer, or None while some of it is missing."""

    def good(self, answer: bytes) -> bool:
        """Whether the answer is the one that a measure wants."""


class HttpFraming:
    """Answers with a content-length; good are those with 2xx."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> bytes | None:
        whole = self._buffer + data if self._buffer else data
        head = whole.find(b"\r\n\r\n")
        if head >= 0:
            at = whole.find(LENGTH, 0, head) + len(LENGTH)
            if len(whole) >= head + 4 + int(whole[at : whole.index(b"\r", at)]):
                self._buffer = b""
                return whole
        self._buffer = whole
        return None

    def good(self, answer: bytes) -> bool:
        return answer[9:10] == b"2"


class RedisFraming:
    """Answers of a pipeline, by their number of lines; good are those without an error at the front."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._seen = 0
        self._first = b""

    def feed(self, data: bytes) -> bytes | None:
        self._first = self._first or data
        self._seen += data.count(b"\r\n")
        if self._seen < self._lines and self._first[:1] != b"-":
            return None
        answer, self._seen, self._first = self._first, 0, b""
        return answer

    def good(self, answer: bytes) -> bool:
        return answer[:1] != b"-"


class Load(NamedTuple):
    """What to send: one connection for each flow. `address` is (host, port) or the path of a Unix socket.

    A `whole` load lasts until each of its flows has ended, or its seconds are over.
    """

    address: tuple[str, int] | str
    flows: Sequence[Callable[[], Flow]]
    framing: Callable[[], Framing] = HttpFraming
    seconds: float = 1.0
    warm_s: float = 0.1
    whole: bool = False


class Outcome(NamedTuple):
    """What came of a load in its window; a flow that ends, ends the window, but for a `whole` load."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    client_cpu_s: float
    refused: int
    refusal: bytes

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def repeat(requests: Sequence[bytes]) -> Flow:
    """The same requests, one after the other, for ever."""
    while True:
        for request in requests:
            _ = yield request


def times(request: bytes, count: int) -> Flow:
    """The same request so many times, each answered before the next."""
    for _ in range(count):
        _ = yield request


class _Conversation:
    """A connection with its flow, and when the request that waits was sent."""

    def __init__(self, load: Load, flow: Flow) -> None:
        family = socket.AF_UNIX if isinstance(load.address, str) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect(load.address)
        self.flow = flow
        self.framing = load.framing()
        self.sent_s = time.perf_counter()
        self.sock.sendall(next(flow))

    def receive(self) -> bytes | None:
        """The answer, if it is whole now."""
        data = self.sock.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server closed a connection")
        return self.framing.feed(data)

    def go_on(self, answer: bytes) -> float:
        """Send the next request; the moment it was sent. StopIteration at the flow's end."""
        request = self.flow.send(answer)
        self.sent_s = time.perf_counter()
        self.sock.sendall(request)
        return self.sent_s


class _Counts:
    """What is counted between the warm-up and the end."""

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.refused = 0
        self.refusal = b""

    def refuse(self, answer: bytes) -> None:
        self.refused += 1
        self.refusal = answer[:500]

    def outcome(self, seconds: float, cpu_s: float) -> Outcome:
        times = sorted(self.latencies_s) or [0.0]
        p50, p99 = (times[min(len(times) - 1, int(len(times) * q))] * 1000 for q in (0.5, 0.99))
        return Outcome(len(self.latencies_s), seconds, p50, p99, cpu_s, self.refused, self.refusal)


def drive(load: Load) -> Outcome:
    """Run the conversations side by side for the load's seconds, and count."""
    with selectors.DefaultSelector() as selector:
        talks = [_Conversation(load, make()) for make in load.flows]
        for talk in talks:
            selector.register(talk.sock, selectors.EVENT_READ, talk)
        try:
            warm = _Counts()
            if load.warm_s:
                _exchange(selector, warm, time.perf_counter() + load.warm_s, whole=load.whole)
            counts, begun_s, cpu_s = _Counts(), time.perf_counter(), time.process_time()
            counts.refused, counts.refusal = warm.refused, warm.refusal
            _exchange(selector, counts, begun_s + load.seconds, whole=load.whole)
            return counts.outcome(time.perf_counter() - begun_s, time.process_time() - cpu_s)
        finally:
            for talk in talks:
                talk.sock.close()


def _exchange(selector: selectors.BaseSelector, counts: _Counts, until_s: float, *, whole: bool) -> None:
    now_s = time.perf_counter()
    while now_s < until_s and selector.get_map():
        for ready, _ in selector.select(until_s - now_s):
            talk: _Conversation = ready.data
            answer = talk.receive()
            if answer is None:
                continue
            if not talk.framing.good(answer):
                counts.refuse(answer)
            sent_s = talk.sent_s
            try:
                now_s = talk.go_on(answer)
            except StopIteration:
                if not whole:
                    return
                selector.unregister(talk.sock)
                continue
            counts.latencies_s.append(now_s - sent_s)
        now_s = time.perf_counter()


class Client:
    """A process that runs loads, one at a time; several clients make several loads at once."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._ours, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, load: Load) -> Outcome:
        """The outcome of a load. RuntimeError when a conversation broke."""
        self.start(load)
        return self.finish()

    def start(self, load: Load) -> None:
        """Begin a load."""
        self._ours.send(load)

    def finish(self) -> Outcome:
        """The outcome of the load that was begun last. RuntimeError when a conversation broke."""
        outcome = self._ours.recv()
        if isinstance(outcome, str):
            raise RuntimeError(outcome)
        assert isinstance(outcome, Outcome)
        return outcome

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join(5)
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(pipe: "Connection[Outcome | str, Load]") -> None:
    while True:
        try:
            load = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(drive(load))
        except OSError as error:
            pipe.send(f"the load broke off: {error}")
