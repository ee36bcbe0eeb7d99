"""Text from viewers is UTF-8, and is refused at the first byte that it is not. RFC 6455, 8.1; Autobahn 6.1.1 to 6.23.7

https://www.rfc-editor.org/rfc/rfc6455#section-8.1 and, for what is UTF-8, https://www.rfc-editor.org/rfc/rfc3629
"""

from __future__ import annotations

import pytest

from tests.live.raw import CLOSE, CONTINUATION, PING, TEXT, RawSocket, frame
from tests.live.test_sockets import GOODBYE, fragments

GREEK = "κόσμε".encode()

NO_CHARACTERS = "".join(chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF))
"""The last two code points of each plane: no characters, and UTF-8 all the same."""

VALID = {
    "nothing": b"",
    "the first and the last of one byte": b"\x00\x7f",
    "the first and the last of two": "\u0080\u07ff".encode(),
    "the first and the last of three": "\u0800\uffff".encode(),
    "the first and the last of four": "\U00010000\U0010ffff".encode(),
    "around the surrogates": "\ud7ff\ue000".encode(),
    "no characters of any plane": NO_CHARACTERS.encode(),
    "the replacement character and its neighbours": "\ufff9\ufffa\ufffb\ufffc\ufffd".encode(),
    "words": "Hello-µ@ßöäüàá-UTF-8!!".encode() + GREEK,
}

INVALID = {
    "a continuation byte alone": b"\x80",
    "all continuation bytes": bytes(range(0x80, 0xC0)),
    "the first of two without the second": b"\xc2 ",
    "the first of three with one": b"\xe0\xa0 ",
    "the first of four with two": b"\xf0\x90\x80 ",
    "the first of five": b"\xf8\x88\x80\x80\x80",
    "the first of six": b"\xfc\x84\x80\x80\x80\x80",
    "fe": b"\xfe",
    "ff": b"\xff",
    "a slash in two bytes": b"\xc0\xaf",
    "a slash in three": b"\xe0\x80\xaf",
    "a slash in four": b"\xf0\x80\x80\xaf",
    "the longest of one in two": b"\xc1\xbf",
    "the longest of two in three": b"\xe0\x9f\xbf",
    "the longest of three in four": b"\xf0\x8f\xbf\xbf",
    "NUL in two": b"\xc0\x80",
    "the first surrogate": b"\xed\xa0\x80",
    "the last surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "beyond the last of all": b"\xf4\x90\x80\x80",
    "far beyond": b"\xf7\xbf\xbf\xbf",
}

UNFINISHED = {
    "two": b"\xc3",
    "three": "€".encode()[:2],
    "four, one there": b"\xf0",
    "four, three there": "𐍈".encode()[:3],
    "words": GREEK[:-1],
}


@pytest.mark.parametrize("valid", VALID)
def test_text_may_be_whole_or_cut_anywhere(socket: RawSocket, valid: str) -> None:
    text = VALID[valid]
    in_pieces = fragments(TEXT, *(text[i : i + 1] for i in range(len(text) + 1)))
    assert socket.hears(frame(TEXT, text), in_pieces, frame(PING, b"fine"), GOODBYE) == [b"fine", 1000]


@pytest.mark.parametrize("invalid", INVALID)
def test_text_that_is_not_utf8_is_closed_with_1007(socket: RawSocket, invalid: str) -> None:
    assert socket.hears(frame(TEXT, GREEK + INVALID[invalid] + b"edited"), frame(PING, b"late")) == [1007]


@pytest.mark.parametrize("invalid", INVALID)
def test_it_is_closed_before_the_message_ends(socket: RawSocket, invalid: str) -> None:
    text = GREEK + INVALID[invalid] + b"edited"
    pieces = (frame(CONTINUATION if i else TEXT, text[i : i + 1], fin=False) for i in range(len(text)))
    assert socket.hears(*pieces) == [1007]


@pytest.mark.parametrize("invalid", INVALID)
def test_it_is_closed_before_the_frame_ends(socket: RawSocket, invalid: str) -> None:
    whole = frame(TEXT, GREEK + INVALID[invalid] + b"edited" + b"." * 100)
    assert socket.hears(whole[:-100]) == [1007]


@pytest.mark.parametrize("unfinished", UNFINISHED)
def test_a_character_that_does_not_end_with_the_message_is_closed_with_1007(socket: RawSocket, unfinished: str) -> None:
    text = UNFINISHED[unfinished]
    assert socket.hears(frame(TEXT, text, fin=False), frame(PING, b"so far"), frame(CONTINUATION)) == [b"so far", 1007]


@pytest.mark.parametrize("invalid", [*INVALID, *UNFINISHED])
def test_the_reason_of_a_close_is_utf8_too(socket: RawSocket, invalid: str) -> None:
    assert socket.hears(frame(CLOSE, (1000).to_bytes(2) + {**INVALID, **UNFINISHED}[invalid])) == [1007]


def test_a_message_does_not_begin_where_the_last_one_stopped(socket: RawSocket) -> None:
    binary = fragments(0x2, b"\xc3", b"\xff")
    assert socket.hears(binary, frame(TEXT, b"ok"), frame(PING, b"fine"), GOODBYE) == [b"fine", 1000]
