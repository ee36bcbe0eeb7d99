"""RFC 6455 where it matters for a server that mostly sends: framing, control frames, fragments, limits.

https://www.rfc-editor.org/rfc/rfc6455 ; text and closes have files of their own. Each table names the cases of the
Autobahn test suite that it stands for.
"""

from __future__ import annotations

import time

import pytest

from tests.factories import Space
from tests.live.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawSocket, frame
from tests.valkey import until

GOODBYE = frame(CLOSE, (1000).to_bytes(2))
"""What ends the connection from our side, where nothing was wrong."""


def fragments(opcode: int, *parts: bytes) -> bytes:
    """A message in fragments."""
    last = len(parts) - 1
    return b"".join(frame(CONTINUATION if i else opcode, part, fin=i == last) for i, part in enumerate(parts))


# Sections 5.5.2 and 5.5.3; Autobahn 2.1 to 2.11

ALL_BYTES = bytes(range(256))
PING_PAYLOADS = {"nothing": b"", "text": b"Hello, world!", "bytes": ALL_BYTES[-8:], "125 bytes": b"\xfe" * 125}


@pytest.mark.parametrize("payload", PING_PAYLOADS)
def test_a_ping_is_answered_with_its_payload(socket: RawSocket, payload: str) -> None:
    sent = PING_PAYLOADS[payload]
    assert socket.hears(frame(PING, sent), GOODBYE) == [sent, 1000]


def test_pings_in_one_write_are_each_answered_in_order(socket: RawSocket) -> None:
    payloads = [b"payload-%d" % i for i in range(10)]
    assert socket.hears(*(frame(PING, payload) for payload in payloads), GOODBYE) == [*payloads, 1000]


def test_pings_that_come_byte_by_byte_are_answered(socket: RawSocket) -> None:
    payloads = [b"payload-%d" % i for i in range(10)]
    for byte in b"".join(frame(PING, payload) for payload in payloads):
        socket.send(bytes((byte,)))
    assert socket.hears(GOODBYE) == [*payloads, 1000]


def test_a_ping_of_126_bytes_ends_it(socket: RawSocket) -> None:
    assert socket.hears(frame(PING, b"\xfe" * 126)) == [1002]


def test_pongs_that_nobody_asked_for_mean_nothing(socket: RawSocket) -> None:
    assert socket.hears(frame(PONG), frame(PONG, b"x"), frame(PING, b"y"), GOODBYE) == [b"y", 1000]


def test_messages_mean_nothing(socket: RawSocket) -> None:
    messages = frame(TEXT), frame(TEXT, "grüße".encode()), frame(BINARY), frame(BINARY, ALL_BYTES)
    assert socket.hears(*messages, frame(PING, b"still here"), GOODBYE) == [b"still here", 1000]


# Section 5.2, RSV1 to RSV3; Autobahn 3.1 to 3.7


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
@pytest.mark.parametrize("rsv", range(1, 8))
def test_a_reserved_bit_ends_it(socket: RawSocket, opcode: int, rsv: int) -> None:
    payload = (1000).to_bytes(2)
    assert socket.hears(frame(PING, b"a"), frame(opcode, payload, rsv=rsv), frame(PING, b"b")) == [b"a", 1002]


def test_a_reserved_bit_of_a_continuation_ends_it(socket: RawSocket) -> None:
    assert socket.hears(frame(TEXT, b"x", fin=False), frame(CONTINUATION, b"y", rsv=4)) == [1002]


# Section 5.2, opcodes; Autobahn 4.1.1 to 4.2.5

RESERVED = [*range(0x3, 0x8), *range(0xB, 0x10)]
BEFORE = {"first": b"", "after a message": frame(TEXT, b"Hello"), "in a message": frame(TEXT, b"Hel", fin=False)}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("payload", [b"", b"payload"])
@pytest.mark.parametrize("opcode", RESERVED)
def test_a_reserved_opcode_ends_it(socket: RawSocket, opcode: int, payload: bytes, before: str) -> None:
    heard = socket.hears(BEFORE[before], frame(PING, b"a"), frame(opcode, payload), frame(PING, b"b"))
    assert heard == [b"a", 1002]


# Section 5.1


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
def test_a_frame_that_is_not_masked_ends_it(socket: RawSocket, opcode: int) -> None:
    assert socket.hears(frame(opcode, (1000).to_bytes(2), masked=False)) == [1002]


# Section 5.4; Autobahn 5.1 to 5.20

WHOLE = {
    "two fragments": fragments(TEXT, b"frag", b"ment"),
    "two binary ones": fragments(BINARY, b"\xff", b"\xfe"),
    "empty ones": fragments(TEXT, b"", b"", b""),
    "an empty one at the end": fragments(TEXT, b"x", b""),
    "two messages": fragments(TEXT, b"a", b"b") + fragments(BINARY, b"c", b"d"),
    "pings between": frame(TEXT, b"a", fin=False)
    + frame(PING, b"1")
    + frame(CONTINUATION, b"b", fin=False)
    + frame(PING, b"2")
    + frame(PONG, b"unasked")
    + frame(CONTINUATION, b"c"),
}


@pytest.mark.parametrize("chopped", [False, True], ids=["in one write", "byte by byte"])
@pytest.mark.parametrize("whole", WHOLE)
def test_a_message_may_come_in_fragments(socket: RawSocket, whole: str, *, chopped: bool) -> None:
    size = 1 if chopped else 65_536
    for start in range(0, len(WHOLE[whole]), size):
        socket.send(WHOLE[whole][start : start + size])
    pings = [b"1", b"2"] if whole == "pings between" else []
    assert socket.hears(frame(PING, b"end"), GOODBYE) == [*pings, b"end", 1000]


def test_a_ping_between_fragments_is_answered_before_the_message_ends(socket: RawSocket) -> None:
    socket.send(frame(TEXT, b"be", fin=False) + frame(PING, b"now"))
    assert socket.until(PONG).payload == b"now"


BROKEN = {
    "a ping in fragments": frame(PING, b"x", fin=False) + frame(CONTINUATION, b"y"),
    "a pong in fragments": frame(PONG, b"x", fin=False) + frame(CONTINUATION, b"y"),
    "a close in fragments": frame(CLOSE, (1000).to_bytes(2), fin=False) + frame(CONTINUATION, b"y"),
    "a continuation of nothing": frame(CONTINUATION, b"x"),
    "a continuation of nothing, not final": frame(CONTINUATION, b"x", fin=False) + frame(TEXT, b"y"),
    "a continuation after a message": frame(TEXT, b"x") + frame(CONTINUATION, b"y"),
    "a continuation after the last": fragments(TEXT, b"x", b"y") + frame(CONTINUATION, b"z"),
    "text inside a message": frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"),
    "bytes inside a message": frame(TEXT, b"x", fin=False) + frame(BINARY, b"y", fin=False),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_fragments_that_do_not_fit_end_it(socket: RawSocket, broken: str) -> None:
    assert socket.hears(frame(PING, b"a"), BROKEN[broken], frame(PING, b"b")) == [b"a", 1002]


# Section 10.4, limits: messages over 4 KiB are refused, as all of Autobahn 9 and 10.1.1 are but the small ones

FITTING = {
    "whole": frame(BINARY, b"x" * 4096),
    "in fragments": fragments(TEXT, b"x" * 4000, b"x" * 96),
    "with pongs inside that do not count": frame(TEXT, b"x" * 4000, fin=False)
    + frame(PONG, b"y" * 125)
    + frame(CONTINUATION, b"x" * 96),
    "one after the other": frame(TEXT, b"x" * 4096) * 3,
}
HUGE = {
    "4097 bytes": frame(BINARY, b"x" * 4097),
    "a mebibyte": frame(BINARY, b"x" * 1_048_576),
    "announced only": b"\x82\xff" + (2**40).to_bytes(8) + b"mask",
    "announced only, more than there can be": b"\x82\xff" + b"\xff" * 8 + b"mask",
    "in fragments": fragments(TEXT, b"x" * 4000, b"x" * 97),
    "in many fragments": fragments(BINARY, *[b"x" * 64] * 65),
    "in fragments that do not end": frame(TEXT, b"x" * 4000, fin=False) + frame(CONTINUATION, b"x" * 97, fin=False),
}


@pytest.mark.parametrize("fitting", FITTING)
def test_messages_of_4_kib_are_taken(socket: RawSocket, fitting: str) -> None:
    assert socket.hears(FITTING[fitting], frame(PING, b"end"), GOODBYE) == [b"end", 1000]


@pytest.mark.parametrize("huge", HUGE)
def test_messages_over_4_kib_are_closed_with_1009(socket: RawSocket, huge: str) -> None:
    assert socket.hears(HUGE[huge]) == [1009]


def test_a_flood_of_pings_that_nobody_reads_the_answers_of_costs_no_memory(socket_space: Space) -> None:
    space = socket_space
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


def test_a_viewer_that_vanishes_is_forgotten(socket_space: Space) -> None:
    job = socket_space.create(claim=True)
    with RawSocket(socket_space.server, f"/realtime/{job['id']}", socket_space.all.key) as socket:
        socket.read()
    until(lambda: socket_space.do(job, "event", 1)["success"])


# Section 9.1


def test_no_compression_is_agreed_on(socket: RawSocket) -> None:
    assert b"permessage-deflate" not in socket.head.lower()
