"""What stands in the place of a library, beside the library: the CPU that each takes for the same.

Always: both sides run in turns, and a ratio is that of one round; the wall clock is not looked at.
"""

import asyncio
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from websockets.protocol import OPEN, SERVER, Protocol

from app.wire.connection import WebSocketConnection
from app.wire.websocket_input import BINARY, PING, PONG, TEXT, VIEWER_MESSAGE_BYTES
from bench.crowd import Crowd, Poster, Viewer, on_loop
from bench.harness import Figure, Rig, Target, post
from bench.house import CONNECTIONS, PROGRESS
from bench.load import Load, repeat
from bench.service import BASE, address, cpu_s

TITLE = "Libraries: CPU, and what the library takes by what ours takes (over 1: ours takes less)"

LESS = Target(1.0, of_ratio=True)
"""What shall take less than the library."""

FRAMES = 5000
MASK = b"mask"
VIEWERS = 1000
EVENTS = 100
EVENT_BYTES = 160


def run(rig: Rig) -> list[Figure]:
    """All of them."""
    return [*said(rig), *said_bytes(), *handed_over(rig), *http(rig), *routed(rig)]


def beside(rig: Rig, unit: str, sides: Mapping[str, Callable[[], float]], target: Target | None = None) -> list[Figure]:
    """The cost of each side, ours first, by rounds in turns; the ratio stands with each library."""
    rounds = [[take() for take in sides.values()] for _ in range(rig.rounds)]
    figures = []
    for place, name in enumerate(sides):
        value = median(row[place] for row in rounds)
        ratio = median(row[place] / row[0] for row in rounds)
        figures.append(Figure(name, value, unit, ratio if place else None, target if place else None))
    return figures


# What viewers say


class Nowhere(asyncio.Transport):
    """A transport that forgets."""

    def write(self, data: Any) -> None:
        """Forget it."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""


def said(rig: Rig) -> list[Figure]:
    """What one frame of a viewer costs, its answer included: here, and by the Sans-I/O half of websockets."""
    figures = []
    kinds = {
        "an empty pong": (frame(PONG, b""), LESS),
        "a ping": (frame(PING, b"1234"), LESS),
        "a text of 100 bytes": (frame(TEXT, b"x" * 100), None),
        "4 KiB, binary": (frame(BINARY, b"x" * VIEWER_MESSAGE_BYTES), None),
    }
    for kind, (data, target) in kinds.items():
        sides = {f"{kind}: ours": partial(heard_us, ours, data), f"{kind}: websockets": partial(heard_us, theirs, data)}
        figures += beside(rig, "us", sides, target)
    return figures


def frame(opcode: int, payload: bytes) -> bytes:
    """One masked frame."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2)
    return bytes([0x80 | opcode]) + length + MASK + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))


def ours() -> Callable[[bytes], None]:
    """What hears a new viewer."""
    hear: Callable[[bytes], None] = WebSocketConnection(Nowhere(), set()).data_received
    return hear


def theirs() -> Callable[[bytes], None]:
    """The same by websockets."""
    protocol, transport = Protocol(SERVER, state=OPEN, max_size=VIEWER_MESSAGE_BYTES), Nowhere()

    def hear(data: bytes) -> None:
        protocol.receive_data(data)
        protocol.events_received()
        if answer := protocol.data_to_send():
            transport.write(b"".join(answer))

    return hear


def heard_us(make: Callable[[], Callable[[bytes], None]], data: bytes) -> float:
    """CPU microseconds of hearing a frame."""
    hear = make()
    begun_s = time.thread_time()
    for _ in range(FRAMES):
        hear(data)
    return (time.thread_time() - begun_s) / FRAMES * 1e6


def said_bytes() -> list[Figure]:
    """What is kept for a viewer who has said a ping."""
    kept = {}
    for name, make in (("ours", ours), ("websockets", theirs)):
        make()(frame(PING, b"1234"))
        tracemalloc.start()
        viewers = [make() for _ in range(VIEWERS)]
        for hear in viewers:
            hear(frame(PING, b"1234"))
        kept[name] = tracemalloc.get_traced_memory()[0] / VIEWERS
        tracemalloc.stop()
    ratio = kept["websockets"] / kept["ours"]
    return [
        Figure("kept for who said a ping: ours", kept["ours"], "bytes"),
        Figure("kept for who said a ping: websockets", kept["websockets"], "bytes", ratio, LESS),
    ]


# Processes


class Side(NamedTuple):
    """A process of bench.library_servers."""

    pid: int
    place: tuple[str, int]

    @property
    def rss_bytes(self) -> int:
        """The memory that it holds now."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def start(rig: Rig, stack: ExitStack, *words: str) -> Side:
    """One more process, until the stack ends."""
    process = rig.service.spawn(stack, "-m", "bench.library_servers", *words)
    return Side(process.pid, address(process))


def request_us(rig: Rig, side: Side, requests: Sequence[bytes]) -> float:
    """CPU microseconds of a request, one after the other on a connection for each of these."""
    load = Load(side.place, [partial(repeat, (request,)) for request in requests], seconds=rig.seconds)
    before_s = cpu_s(side.pid)
    outcome = rig.client.run(load)
    if outcome.refused:
        raise RuntimeError(f"{outcome.refused} refused, one with {outcome.refusal!r}")
    used_s = (cpu_s(side.pid) - before_s) * outcome.seconds / (outcome.seconds + load.warm_s)
    return used_s / outcome.requests * 1e6


def http(rig: Rig) -> list[Figure]:
    """A bare POST echo, on our HTTP, on the parser of uvicorn that it is made of, and on its careful one."""
    request = post("/echo", rig.service.worker_key, PROGRESS, "A" * 22)
    names = {"ours": "HTTP echo: ours", "httptools": "HTTP echo: uvicorn, httptools", "h11": "HTTP echo: uvicorn, h11"}
    with ExitStack() as stack:
        there = {text: start(rig, stack, "echo", name) for name, text in names.items()}
        take = {text: partial(request_us, rig, side, [request] * CONNECTIONS) for text, side in there.items()}
        mine, httptools, h11 = beside(rig, "us", take)
    return [mine, httptools, h11._replace(target=LESS)]


def routed(rig: Rig) -> list[Figure]:
    """A progress call by the fast path, by the same with messages of ASGI, and through Starlette's router."""
    jobs = rig.service.claimed(CONNECTIONS)
    requests = [rig.request(f"/jobs/{job['id']}/progress", PROGRESS, job["leaseToken"]) for job in jobs]
    with ExitStack() as stack:
        there = {
            "fast path": start(rig, stack, "web"),
            "fast path, messages of ASGI": start(rig, stack, "web", "messages"),
            "Starlette's router": start(rig, stack, "routed"),
        }
        take = {f"progress: {name}": partial(request_us, rig, side, requests) for name, side in there.items()}
        figures = beside(rig, "us", take, LESS)
    rig.service.tidy()
    return figures


# Viewers


class EventReader(Viewer):
    """One event stream that counts its events."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        text = self._rest + data
        self._rest = text[-1:] if text.endswith(b"\n") and not text.endswith(b"\n\n") else b""
        for _ in range(text.count(b"\n\n")):
            self.on_text(b"", 0, 0)


class EventCrowd(Crowd):
    """Viewers of event streams."""

    def request(self, viewer: Viewer) -> bytes:
        return f"GET {BASE}/x HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


def socket_crowd(side: Side) -> Crowd:
    """Those who come by WebSocket."""
    return Crowd(side.place, "/x", "", Viewer)


def event_crowd(side: Side) -> Crowd:
    """Those who come as an EventSource does."""
    return EventCrowd(side.place, "/x", "", EventReader)


def handed_over(rig: Rig) -> list[Figure]:
    """A broadcast to many, and what a viewer's connection holds: handed over, and by Starlette's own means."""
    kinds = (
        ("WebSocket", socket_crowd, "sockets", "Starlette's WebSocket.send"),
        ("event stream", event_crowd, "events", "Starlette's StreamingResponse"),
    )
    figures = []
    for kind, crowd, app, library in kinds:
        with ExitStack() as stack:
            there = {"handed over": start(rig, stack, "handed_over"), library: start(rig, stack, app)}
            held = [on_loop(partial(held_kib, side, crowd, viewers(rig))) for side in there.values()]
            take: dict[str, Callable[[], float]] = {
                f"{kind}, a frame: {name}": partial(frame_us, side, crowd, viewers(rig)) for name, side in there.items()
            }
            figures += beside(rig, "us", take, LESS)
        figures.append(Figure(f"{kind}, memory: handed over", held[0], "KiB each"))
        figures.append(Figure(f"{kind}, memory: {library}", held[1], "KiB each", held[1] / held[0], LESS))
    return figures


def viewers(rig: Rig) -> int:
    """How many watch."""
    return VIEWERS // 10 if rig.quick else VIEWERS


async def held_kib(side: Side, crowd_of: Callable[[Side], Crowd], count: int) -> float:
    """KiB that a viewer's connection takes in a process that has had none before."""
    before, crowd = side.rss_bytes, crowd_of(side)
    await crowd.join(count)
    await asyncio.sleep(0.2)
    grown = side.rss_bytes - before
    crowd.leave()
    await asyncio.sleep(0.2)
    return grown / count / 1024


def frame_us(side: Side, crowd_of: Callable[[Side], Crowd], count: int) -> float:
    """CPU microseconds of a frame to one of so many viewers."""

    async def measure() -> float:
        crowd, poster = crowd_of(side), Poster(side.place, "")
        await crowd.join(count)
        await poster.post("/send", f"1 {EVENT_BYTES}".encode())
        await crowd.until(crowd.start + 1)
        before_s = cpu_s(side.pid)
        await poster.post("/send", f"{EVENTS} {EVENT_BYTES}".encode())
        await crowd.until(crowd.start + EVENTS + 1)
        used_s = cpu_s(side.pid) - before_s
        crowd.leave()
        poster.close()
        await asyncio.sleep(0.2)
        return used_s / count / EVENTS * 1e6

    return on_loop(measure)
