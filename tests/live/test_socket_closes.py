"""How a connection ends: a close is answered with its code, once, and what follows it is not heard.

https://www.rfc-editor.org/rfc/rfc6455#section-5.5.1 and section 7; Autobahn 7.1.1 to 7.13.2
"""

from __future__ import annotations

import pytest

from tests.live.raw import CLOSE, CONTINUATION, PING, TEXT, RawSocket, frame

VALID = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
"""Section 7.4.1 and IANA's registry of close codes; Autobahn 7.7.1 to 7.7.13."""

INVALID = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]
"""What section 7.4 keeps back or never gave out; Autobahn 7.9.1 to 7.9.9, 7.13.1 and 7.13.2."""


def close(code: int, reason: bytes = b"") -> bytes:
    """A close."""
    return frame(CLOSE, code.to_bytes(2) + reason)


@pytest.mark.parametrize("code", VALID)
def test_a_close_is_answered_with_its_code(socket: RawSocket, code: int) -> None:
    assert socket.hears(close(code, b"bye")) == [code]


@pytest.mark.parametrize("code", INVALID)
def test_a_code_that_no_close_may_have_is_answered_with_1002(socket: RawSocket, code: int) -> None:
    assert socket.hears(close(code, b"bye")) == [1002]


BODIES = {
    "nothing": (b"", 1005),
    "one byte": (b"\x03", 1002),
    "a code": (b"\x03\xe8", 1000),
    "a reason": (b"\x03\xe8" + "grüße".encode(), 1000),
    "a reason of 123 bytes": (b"\x03\xe8" + b"*" * 123, 1000),
    "a reason of 124 bytes": (b"\x03\xe8" + b"*" * 124, 1002),
}
"""Section 5.5; Autobahn 7.3.1 to 7.3.6."""


@pytest.mark.parametrize("body", BODIES)
def test_a_close_has_no_body_or_a_code_and_perhaps_a_reason(socket: RawSocket, body: str) -> None:
    sent, code = BODIES[body]
    assert socket.hears(frame(CLOSE, sent)) == [code]


AFTER = {
    "a close": close(1001),
    "a ping": frame(PING, b"late"),
    "a message": frame(TEXT, b"late"),
    "what was never a frame": b"\xff" * 300,
    "a long message": frame(TEXT, b"*" * 262_144) + frame(PING, b"late"),
}
"""Section 1.4; Autobahn 7.1.2 to 7.1.6."""


@pytest.mark.parametrize("after", AFTER)
def test_what_comes_after_a_close_is_not_heard(socket: RawSocket, after: str) -> None:
    assert socket.hears(frame(PING, b"before"), close(1000), AFTER[after]) == [b"before", 1000]


def test_a_close_may_come_between_fragments(socket: RawSocket) -> None:
    assert socket.hears(frame(TEXT, b"x", fin=False), close(1000), frame(CONTINUATION, b"y")) == [1000]


def test_a_close_that_comes_byte_by_byte_is_answered(socket: RawSocket) -> None:
    *first, last = close(3000, b"bye")
    for byte in first:
        socket.send(bytes((byte,)))
    assert socket.hears(bytes((last,))) == [3000]


@pytest.mark.parametrize(
    "wrong",
    [frame(0x3), frame(TEXT, b"\xff"), frame(TEXT, b"*" * 5000)],
    ids=["an opcode that is none", "not UTF-8", "too long"],
)
def test_what_comes_after_a_mistake_is_not_heard(socket: RawSocket, wrong: bytes) -> None:
    heard = socket.hears(wrong, frame(PING, b"late"), close(1000))
    assert len(heard) == 1
    assert heard[0] in (1002, 1007, 1009)
