"""The protocol by itself: however a pipeline of requests is cut, the same requests are answered, in the same order."""

from __future__ import annotations

import asyncio
import json
import socket
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from app.serve import OPTIONS
from app.wire.direct_exchange import CLOSING, DIRECT, take_body, write_answer
from app.wire.handover import HandoverHttpProtocol

WAIT_S = 10.0
MOST_BYTES = 200
OFFERS = (
    "",
    "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\nUpgrade: h2c\r\n",
    "Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\n",
    "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: upgrade\r\n",
    "Upgrade: h2c\r\n",
    "Connection: upgrade\r\n",
)
INNER = b"POST /inner HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}"


class Sent(NamedTuple):
    """A request: what it says, and how."""

    method: str
    offer: str
    body: bytes
    chunks: tuple[int, ...] | None

    def wire(self, number: int) -> bytes:
        """Its bytes."""
        head = f"{self.method} /{number}?a=b HTTP/1.1\r\nHost: x\r\n{self.offer}X-Number: {number}\r\n"
        if self.chunks is None:
            return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"".join(self._chunks()) + b"0\r\n\r\n"

    def _chunks(self) -> list[bytes]:
        assert self.chunks is not None
        edges = sorted({0, *(edge % (len(self.body) + 1) for edge in self.chunks), len(self.body)})
        parts = [self.body[begin:end] for begin, end in pairwise(edges)]
        return [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]


bodies = st.one_of(st.binary(max_size=40), st.just(INNER), st.binary(max_size=8).map(lambda end: INNER * 3 + end))
requests = st.builds(
    Sent,
    st.sampled_from(("POST", "DELETE", "PATCH", "PUT")),
    st.sampled_from(OFFERS),
    bodies,
    st.one_of(st.none(), st.lists(st.integers(0, 400), max_size=4).map(tuple)),
)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with all that a request said."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send_whole(send, said_by(scope, body))


def said_by(scope: Any, body: bytes) -> bytes:
    """All that a request said."""
    numbers = [value.decode() for name, value in scope["headers"] if name == b"x-number"]
    return json.dumps([scope["method"], scope["path"], numbers, body.decode("latin-1")]).encode()


def headers_of(said: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of an answer."""
    return [(b"content-length", b"%d" % len(said)), (b"x-a", b"b")]


async def send_whole(send: Any, said: bytes) -> None:
    """Answer by messages."""
    await send({"type": "http.response.start", "status": 200, "headers": headers_of(said)})
    await send({"type": "http.response.body", "body": said})


async def direct_echo(scope: Any, receive: Any, send: Any) -> None:
    """As `echo`, without messages wherever that goes."""
    cycle = scope["extensions"].get(DIRECT)
    body = None if cycle is None else take_body(cycle, MOST_BYTES)
    if body is None:
        await echo(scope, receive, send)
        return
    assert take_body(cycle, MOST_BYTES) == b""
    said = said_by(scope, body)
    if not write_answer(cycle, 200, headers_of(said), said):
        await send_whole(send, said)


class Counted(HandoverHttpProtocol):
    """A protocol that tells how much it was given."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.taken_bytes = 0
        self.came = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.taken_bytes += len(data)
        self.came.set()

    async def until(self, total_bytes: int) -> None:
        """Return when so much was taken in all."""
        while self.taken_bytes < total_bytes:
            self.came.clear()
            await self.came.wait()


async def answers(pieces: list[bytes], count: int, app: Any = echo) -> tuple[list[Any], bytes]:
    """What is answered to pieces of which each was taken before the next is sent; and what is answered beyond that."""
    config = uvicorn.Config(app, **OPTIONS)
    config.load()
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    _, protocol = await loop.connect_accepted_socket(lambda: Counted(config, ServerState(), {}), theirs)
    reader, writer = await asyncio.open_connection(sock=ours)
    sent_bytes = 0
    async with asyncio.timeout(WAIT_S):
        for piece in pieces:
            writer.write(piece)
            sent_bytes += len(piece)
            await protocol.until(sent_bytes)
        got = [await answer(reader) for _ in range(count)]
        protocol.transport.close()
        beyond = await reader.read()
    writer.close()
    await writer.wait_closed()
    return got, beyond


async def answer(reader: asyncio.StreamReader) -> Any:
    """The next answer's body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    assert head.startswith("HTTP/1.1 200 "), head
    length = next(line for line in head.split("\r\n") if line.startswith("content-length: "))
    return json.loads(await reader.readexactly(int(length.partition(": ")[2])))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(requests, min_size=1, max_size=6),
    st.lists(st.integers(0, 4000), max_size=12),
    st.sampled_from((echo, direct_echo)),
)
async def test_however_a_pipeline_is_cut_the_same_requests_are_answered_in_order(
    sent: list[Sent], cuts: list[int], app: Any
) -> None:
    whole = b"".join(request.wire(number) for number, request in enumerate(sent))
    edges = sorted({0, *(cut % len(whole) for cut in cuts), len(whole)})
    pieces = [whole[begin:end] for begin, end in pairwise(edges)]
    expected = [[one.method, f"/{i}", [str(i)], one.body.decode("latin-1")] for i, one in enumerate(sent)]
    assert await answers(pieces, len(sent), app) == (expected, b"")


async def test_thousands_of_offers_in_one_packet_are_no_burden() -> None:
    one = b"POST /0 HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}"
    got, beyond = await answers([one * 3000], 3000)
    assert got == [["POST", "/0", [], "{}"]] * 3000
    assert beyond == b""


class WrittenTo(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def get_protocol(self) -> Any:
        return None

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def written(app: Any, request: bytes, *, leaving: bool = False, full: bool = False) -> tuple[bytes, bool]:
    """What is written in answer to a request, and whether the connection is closed behind it."""
    config = uvicorn.Config(app, **OPTIONS)
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"today"), *([CLOSING] if leaving else [])]
    protocol, transport = HandoverHttpProtocol(config, state, {}), WrittenTo()
    protocol.connection_made(transport)
    if full:
        protocol.pause_writing()
    protocol.data_received(request)
    await asyncio.sleep(0)
    if full:
        assert transport.written == b""
        protocol.resume_writing()
    await asyncio.gather(*state.tasks)
    return transport.written, transport.closed


HEAD = "POST /0 HTTP/{}\r\nHost: x\r\nContent-Length: 2\r\n{}\r\n"


@pytest.mark.parametrize("leaving", [False, True])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "head",
    [HEAD.format("1.1", ""), HEAD.format("1.1", "Connection: close\r\n"), HEAD.format("1.0", "")],
    ids=["kept", "to be closed", "HTTP/1.0"],
)
async def test_what_is_answered_without_messages_reads_as_what_is_answered_by_them(
    head: str, *, leaving: bool, full: bool
) -> None:
    request = head.encode() + b"{}"
    ways = [await written(app, request, leaving=leaving, full=full) for app in (echo, direct_echo)]
    assert ways[0] == ways[1]
    assert ways[0][1] is (leaving or "close" in head or "1.0" in head)


async def test_who_has_gone_is_answered_nothing() -> None:
    async def gone(scope: Any, receive: Any, send: Any) -> None:
        cycle = scope["extensions"][DIRECT]
        cycle.disconnected = True
        assert take_body(cycle, MOST_BYTES) is None
        assert not write_answer(cycle, 200, [], b"")

    assert await written(gone, HEAD.format("1.1", "").encode() + b"{}") == (b"", False)
