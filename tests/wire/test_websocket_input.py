"""What viewers say: however it is cut on its way, the same is heard, and nothing of it is kept."""

from __future__ import annotations

import sys
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.wire.websocket_input import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    VIEWER_MESSAGE_BYTES,
    FrameReader,
    ProtocolViolation,
)
from tests.live.raw import frame

Heard = list[tuple[int, bytes] | int]

control = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125))
message = st.builds(frame, st.just(TEXT), st.text(max_size=300).map(str.encode)) | st.builds(
    frame, st.just(BINARY), st.binary(max_size=VIEWER_MESSAGE_BYTES)
)
in_fragments = st.builds(
    lambda first, between, last: frame(BINARY, first, fin=False) + between + frame(CONTINUATION, last),
    st.binary(max_size=300),
    control,
    st.binary(max_size=300),
)
anything = st.binary(max_size=40) | st.builds(
    frame, st.integers(0, 15), st.binary(max_size=200), fin=st.booleans(), masked=st.booleans(), rsv=st.integers(0, 7)
)
spoken = st.lists(control | message | in_fragments, max_size=8)


def heard(*parts: bytes) -> Heard:
    """The control frames in what comes in these parts; at a mistake its code, and nothing more."""
    inbound, said = FrameReader(), Heard()
    try:
        for part in parts:
            said.extend(inbound.read(part))
    except ProtocolViolation as violation:
        said.append(violation.code)
    return said


@given(spoken, st.lists(anything, max_size=2), st.data())
def test_however_it_is_cut_the_same_is_heard(frames: list[bytes], more: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(frames + more)
    places = st.lists(st.integers(0, len(whole)), max_size=20).map(sorted)
    cuts = [0, *data.draw(places), len(whole)]
    assert heard(*(whole[start:end] for start, end in pairwise(cuts))) == heard(whole)


@given(spoken, control)
def test_what_keeps_the_protocol_is_never_refused(frames: list[bytes], last: bytes) -> None:
    said = heard(*frames, last)
    assert not any(isinstance(one, int) for one in said)
    assert said[-1:] == heard(last)


@given(st.lists(anything, max_size=10))
def test_whatever_comes_ends_in_nothing_but_a_code(frames: list[bytes]) -> None:
    said = heard(b"".join(frames))
    assert all(not isinstance(one, int) or one in (1002, 1007, 1009) for one in said)


def test_a_message_that_never_ends_is_not_kept() -> None:
    inbound = FrameReader()
    assert not list(inbound.read(frame(BINARY, b"x" * 4000, fin=False)))
    for _ in range(10_000):
        assert not list(inbound.read(frame(CONTINUATION, fin=False)))
    kept = sum(sys.getsizeof(getattr(inbound, name)) for name in FrameReader.__slots__)
    assert kept < 1000


def test_a_close_is_heard_with_its_body() -> None:
    body = (1000).to_bytes(2) + b"bye"
    assert heard(frame(CLOSE, body)) == [(CLOSE, body)]
