"""The nesting check: what a plain recursion says, in time that grows with the text alone."""

import json
from time import thread_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.nesting import PIECE_BYTES, nested_deeper

MIB = 1024 * 1024
STRINGS = st.text(st.sampled_from('[]{}"\\ué,:'), max_size=12)
VALUES = st.recursive(
    st.none() | st.integers() | STRINGS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=25,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


@given(VALUES, st.integers(0, 8), st.booleans(), st.integers(2, 40))
def test_a_text_is_nested_as_deep_as_its_value(value: Any, most: int, escaped: bool, piece: int) -> None:
    text = json.dumps(value, ensure_ascii=escaped).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.model.nesting.PIECE_BYTES", piece)
        assert nested_deeper(text, most) == (depth_of(value) > most)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"]":'])
@pytest.mark.parametrize("padding", [b"", b'"' + b"x" * PIECE_BYTES + b'",', b'"' + b"\\\\" * PIECE_BYTES + b'",'])
def test_a_depth_counts_wherever_it_begins(opening: bytes, padding: bytes) -> None:
    closing = b"".join({b"[": b"]", b"{": b"}"}[opening[at : at + 1]] for at in range(len(opening) - 1, -1, -1)
                       if opening[at : at + 1] in (b"[", b"{"))  # fmt: skip
    each = len(closing)
    for times in (63 // each, 64 // each, 66 // each):
        text = b"[" + padding + opening * times + b"1" + closing * times + b",[],[]]"
        json.loads(text)
        assert nested_deeper(text, 64) == (1 + each * times > 64)


HOSTILE = {
    "62 open, 62 closed": (b"[" * 62 + b"]" * 62 + b",") * (MIB // 125),
    "empty arrays": b"[]," * (MIB // 3),
    "empty strings": b'"",' * (MIB // 3) + b"[]," * 65,
    "quotes": b'"' + b'\\"' * (MIB // 2) + b'",' + b"[]," * 65,
    "backslashes": b'"' + b"\\\\" * (MIB // 2) + b'",' + b"[]," * 65,
    "objects": b'{"":[""]},' * (MIB // 10),
    "objects, 60 deep": (b'{"a":' * 60 + b"1" + b"}" * 60 + b",") * (MIB // 362),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_mebibyte_takes_milliseconds(name: str) -> None:
    text = b"[" + HOSTILE[name] + b"1]"
    json.loads(text)
    took_s = []
    for _ in range(3):
        begun_s = thread_time()
        assert not nested_deeper(text, 64)
        took_s.append(thread_time() - begun_s)
    assert min(took_s) < 0.05


def test_the_check_stops_where_it_has_found_too_much() -> None:
    assert nested_deeper(b"[" * 65 + b"]" * 65 + b"," + b"x" * MIB, 64)
