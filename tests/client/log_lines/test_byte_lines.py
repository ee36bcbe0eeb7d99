"""Bytes to entries and back: what goes in comes out, whatever it is and however it was cut."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobwire.api.response_structs import LogLine
from jobwire.log_lines.byte_lines import LINE_LIMIT_BYTES, Joiner, LineSplitter, last_state, raw_bytes
from jobwire.log_lines.entry import Entry, encode
from tests.client.conftest import as_raw

_ugly = st.sampled_from(
    [
        b"\n",
        b"\r\n",
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xa9",
        "é".encode(),
        "😀".encode(),
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"x",
    ]
)
_long = st.builds(
    lambda unit, count: unit * count,
    st.sampled_from([b"a", "é".encode(), "😀".encode(), b"\xff"]),
    st.integers(5000, 70000),
)
_streams = st.lists(st.one_of(_ugly, st.binary(max_size=20), _long), max_size=12).map(b"".join)


def split(stream: bytes, *cuts: int) -> list[Entry]:
    splitter = LineSplitter(source="stdout")
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    entries = [entry for start, end in pairwise(places) for entry in splitter.feed(stream[start:end])]
    return entries + splitter.end()


def stored(entries: list[Entry]) -> list[LogLine]:
    """The entries as the service would give them back."""
    decoded = [msgspec.json.decode(line, type=dict) for line in encode(entries).split(b"\n") if line]
    return [
        msgspec.json.decode(msgspec.json.encode({"seq": seq, **line}), type=LogLine)
        for seq, line in enumerate(decoded, 1)
    ]


@given(_streams, st.lists(st.integers(0, 200_000), max_size=8))
def test_any_bytes_come_back_and_the_cuts_leave_no_trace(stream: bytes, cuts: list[int]) -> None:
    entries = split(stream, *cuts)
    assert b"".join(map(raw_bytes, stored(entries))) == stream
    assert entries == split(stream)


@given(_streams)
def test_no_entry_is_over_a_limit_of_the_service(stream: bytes) -> None:
    for entry in split(stream):
        assert len(entry.message.encode()) <= LINE_LIMIT_BYTES
        assert len(msgspec.json.encode(entry.metadata)) <= 16 * 1024


def test_ordinary_lines_carry_nothing_beside_their_text() -> None:
    assert split("one\n\nz\u0000w\u00e9i\r\n".encode()) == [
        Entry("one", source="stdout"),
        Entry("", source="stdout"),
        Entry("z\0wéi\r", source="stdout"),
    ]
    assert encode(LineSplitter().feed(b"plain\n")) == b'{"message":"plain"}\n'


def test_an_unfinished_last_line_says_so() -> None:
    assert [entry.metadata for entry in split(b"a\nb")] == [None, {"newline": False}]


def test_bytes_that_are_not_utf8_are_shown_replaced_and_kept() -> None:
    (entry,) = split(b"caf\xe9\n")
    assert (entry.message, entry.metadata) == ("caf\ufffd", {"bytes": "Y2Fm6Q=="})


def test_a_bad_line_leaves_its_neighbours_ordinary() -> None:
    assert [entry.metadata is None for entry in split(b"good\n\xff\ngood\n")] == [True, False, True]


def test_a_long_line_is_split_between_characters_and_numbered() -> None:
    line = "😀" * 40_000
    entries = split(line.encode() + b"\n")
    assert "".join(entry.message for entry in entries) == line
    assert [entry.metadata for entry in entries] == [
        {"part": 1, "newline": False},
        {"part": 2, "newline": False},
        {"part": 3},
    ]


def test_a_line_of_exactly_the_limit_is_whole() -> None:
    (entry,) = split(b"a" * LINE_LIMIT_BYTES + b"\n")
    assert entry.metadata is None


def test_metadata_of_others_is_not_taken_for_bytes() -> None:
    for metadata in ({"bytes": 17}, {"bytes": "no base64!"}, {"newline": 0}, {"part": "x"}, None):
        assert raw_bytes(LogLine(seq=1, message="text", metadata_json=as_raw(metadata))) == b"text\n"


@given(pieces=st.lists(st.binary(max_size=40), max_size=12))
def test_bytes_that_are_sent_before_their_lines_end_come_out_as_they_went_in(pieces: list[bytes]) -> None:
    splitter, entries = LineSplitter(), []
    for piece in pieces:
        entries += splitter.feed(piece)
        entries += splitter.flush()
        entries += splitter.flush()
    entries += splitter.end()
    assert b"".join(map(raw_bytes, entries)) == b"".join(pieces)


def test_what_waits_for_its_end_is_sent_at_the_second_look_without_half_a_character() -> None:
    splitter = LineSplitter()
    assert splitter.feed("50 % é".encode()[:-1]) == []
    assert splitter.flush() == []
    (part,) = splitter.flush()
    assert (part.message, part.metadata) == ("50 % ", {"part": 1, "newline": False})
    (rest,) = splitter.feed("é".encode()[1:] + b"\n")
    assert (rest.message, rest.metadata) == ("é", {"part": 2})


def test_parts_of_a_line_are_joined_for_each_source() -> None:
    splitters = {name: LineSplitter(source=name) for name in "ab"}
    joiner, whole = Joiner(), []
    for name, piece in [("a", b"one "), ("b", b"1 "), ("a", b"line\n"), ("b", b"2"), ("a", b"next\n")]:
        splitter = splitters[name]
        found = splitter.feed(piece) or (splitter.flush() or splitter.flush())
        whole += [joined for entry in found if (joined := joiner.add(entry)) is not None]
    assert [joined.text for joined in whole] == ["one line", "next"]
    assert [joined.text for joined in joiner.open()] == ["1 2"]


@pytest.mark.parametrize(
    ("text", "state"), [("plain", "plain"), ("\r10%\r20%", "20%"), ("10%\r", "10%"), ("\r", ""), ("a\rb\r\r", "b")]
)
def test_the_last_state_of_a_redrawn_line_is_behind_its_last_return(text: str, state: str) -> None:
    assert last_state(text) == state
