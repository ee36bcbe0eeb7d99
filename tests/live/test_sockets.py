"""RFC 6455 where it matters for a server that mostly sends: framing, fragments, control frames, text, limits, ends."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.factories import Space
from tests.live.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawSocket, frame
from tests.server import Server
from tests.valkey import Valkey, until


@pytest.fixture(scope="module")
def space() -> Iterator[Space]:
    with Valkey() as valkey, Server(valkey.url) as server:
        yield Space(server)


@pytest.fixture
def socket(space: Space) -> Iterator[RawSocket]:
    job = space.create()
    with RawSocket(space.server, f"/realtime/{job['id']}", space.all.key) as opened:
        assert opened.read().opcode == TEXT
        yield opened


@pytest.mark.parametrize("size", [0, 1, 125])
def test_a_ping_is_answered_with_its_payload(socket: RawSocket, size: int) -> None:
    socket.send(frame(PING, b"p" * size))
    assert socket.until(PONG).payload == b"p" * size


def test_a_ping_in_the_middle_of_a_fragmented_message_is_answered(socket: RawSocket) -> None:
    socket.send(frame(TEXT, b"be", fin=False) + frame(PING, b"now") + frame(CONTINUATION, b"gun"))
    assert socket.until(PONG).payload == b"now"


def test_a_ping_that_comes_byte_by_byte_is_answered(socket: RawSocket) -> None:
    for byte in frame(PING, b"slow"):
        socket.send(bytes((byte,)))
    assert socket.until(PONG).payload == b"slow"


def test_unsolicited_pongs_and_messages_mean_nothing(socket: RawSocket) -> None:
    ignored = (frame(PONG), frame(PONG, b"x"), frame(TEXT, "grüße".encode()), frame(BINARY, b"\xff\x00"))
    socket.send(b"".join(ignored))
    socket.send(frame(TEXT, b"{}", fin=False) + frame(CONTINUATION, b"", fin=False) + frame(CONTINUATION, b""))
    socket.send(frame(PING, b"still here"))
    assert socket.until(PONG).payload == b"still here"


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 3000, 4999])
def test_a_close_is_answered_with_its_code(socket: RawSocket, code: int) -> None:
    socket.send(frame(CLOSE, code.to_bytes(2) + b"bye"))
    assert socket.closes() == code


def test_a_close_without_a_code_is_answered(socket: RawSocket) -> None:
    socket.send(frame(CLOSE))
    assert socket.closes() in (1000, 1005)


WRONG = {
    "not masked": frame(TEXT, b"x", masked=False),
    "a reserved bit": frame(TEXT, b"x", rsv=4),
    "a reserved opcode": frame(0x3, b"x"),
    "a reserved control opcode": frame(0xB, b"x"),
    "a fragmented ping": frame(PING, b"x", fin=False),
    "a ping of 126 bytes": frame(PING, b"x" * 126),
    "a continuation of nothing": frame(CONTINUATION, b"x"),
    "a message inside a message": frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"),
    "a close of one byte": frame(CLOSE, b"x"),
    "a close with code 999": frame(CLOSE, (999).to_bytes(2)),
    "a close with code 1005": frame(CLOSE, (1005).to_bytes(2)),
    "a close with code 5000": frame(CLOSE, (5000).to_bytes(2)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_breaks_the_protocol_is_closed_with_1002(socket: RawSocket, wrong: str) -> None:
    socket.send(WRONG[wrong])
    assert socket.closes() == 1002


BAD_TEXT = {
    "whole": frame(TEXT, b"\xff"),
    "in fragments": frame(TEXT, b"ok\xce", fin=False) + frame(CONTINUATION, b"\xce"),
    "in a close": frame(CLOSE, (1000).to_bytes(2) + b"\xff"),
}


@pytest.mark.parametrize("where", BAD_TEXT)
def test_text_that_is_not_utf8_is_closed_with_1007(socket: RawSocket, where: str) -> None:
    socket.send(BAD_TEXT[where])
    assert socket.closes() == 1007


def test_a_character_may_be_cut_between_fragments(socket: RawSocket) -> None:
    socket.send(frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\xa4") + frame(PING, b"fine"))
    assert socket.until(PONG).payload == b"fine"


HUGE = {
    "4097 bytes": frame(BINARY, b"x" * 4097),
    "a mebibyte": frame(BINARY, b"x" * 1_048_576),
    "announced only": b"\x82\xff" + (2**40).to_bytes(8) + b"mask",
    "in fragments": frame(TEXT, b"x" * 4000, fin=False) + frame(CONTINUATION, b"x" * 97),
}


@pytest.mark.parametrize("huge", HUGE)
def test_messages_over_4_kib_are_closed_with_1009(socket: RawSocket, huge: str) -> None:
    socket.send(HUGE[huge])
    assert socket.closes() == 1009


def test_4_kib_are_taken(socket: RawSocket) -> None:
    socket.send(frame(BINARY, b"x" * 4096) + frame(PING))
    assert socket.until(PONG)


def test_a_flood_of_pings_that_nobody_reads_the_answers_of_costs_no_memory(space: Space) -> None:
    job = space.create()
    flood = frame(PING, b"x" * 125) * 2000
    with RawSocket(space.server, f"/realtime/{job['id']}", space.all.key, receive_bytes=4096) as socket:
        before = space.server.rss_bytes()
        socket.sock.settimeout(1)
        sent, begun = 0, time.monotonic()
        try:
            while time.monotonic() - begun < 5 and sent < 200_000_000:
                sent += socket.sock.send(flood)
        except TimeoutError:
            pass
        assert space.server.rss_bytes() - before < 16_000_000
        assert sent < 200_000_000, "the server has stopped reading"


def test_a_viewer_that_vanishes_is_forgotten(space: Space) -> None:
    job = space.create(claim=True)
    with RawSocket(space.server, f"/realtime/{job['id']}", space.all.key) as socket:
        socket.read()
    until(lambda: space.do(job, "event", 1)["success"])


def test_no_compression_is_agreed_on(socket: RawSocket) -> None:
    assert b"permessage-deflate" not in socket.head.lower()
