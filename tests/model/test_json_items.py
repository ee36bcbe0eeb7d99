"""Elements of large arrays: what Python's own decoder makes of the whole, one by one."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.json_items import MEMBERS_MOST, TooLong, array_elements, member_elements, value_end

TEXTS = st.text(st.sampled_from('[]{}"\\ué,: 1'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)
ARRAYS = st.lists(VALUES, max_size=8)
BLANKS = st.sampled_from(["", " ", "\n\t\r "])


def spelled(value: Any, blank: str, *, escaped: bool) -> bytes:
    text = json.dumps(value, ensure_ascii=escaped, separators=(f"{blank},{blank}", f"{blank}:{blank}"))
    return f"{blank}{text}{blank}".encode()


def read(found: Iterator[bytes]) -> list[Any]:
    return [json.loads(each) for each in found]


@given(ARRAYS, BLANKS, st.booleans(), st.integers(1, 30))
def test_elements_are_those_of_the_whole(array: list[Any], blank: str, escaped: bool, window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.model.json_items.VALUE_WINDOW_BYTES", window)
        assert read(array_elements(spelled(array, blank, escaped=escaped), 10_000)) == array


@given(ARRAYS, st.dictionaries(TEXTS, VALUES, max_size=3), st.dictionaries(TEXTS, VALUES, max_size=3), BLANKS)
def test_elements_of_a_member_are_found_among_others(
    array: list[Any], before: dict[str, Any], after: dict[str, Any], blank: str
) -> None:
    body = spelled({**before, "logs": array, **after}, blank, escaped=True)
    assert read(member_elements(body, "logs", 10_000)) == array


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"[1",
        b"[1,",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[1] x",
        b"[1]]",
        b"[01]",
        b'["a\x01"]',
        b"[1}",
        b"[nul]",
        b"[-]",
    ],
)
def test_what_is_no_array_is_an_error(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        list(array_elements(body, 1000))
    if body:
        with pytest.raises(msgspec.DecodeError):
            list(member_elements(b'{"a":1,"logs":' + body + b"}", "logs", 1000))


@pytest.mark.parametrize(
    "body", [b'{"logs"', b'{"logs":[]', b'{"logs":[],}', b'{"logs":[]}x', b"{1:[]}", b'{"logs" []}']
)
def test_what_is_no_object_is_an_error(body: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, LookupError)):
        list(member_elements(body, "logs", 1000))


@pytest.mark.parametrize(
    "body",
    [b'{"a":[]}', b'{"logs":1}', b'{"logs":[1],"logs":[2]}', b"{" + b'"a":1,' * MEMBERS_MOST + b'"logs":[]}'],
)
def test_an_object_has_the_member_once_and_not_many_others(body: bytes) -> None:
    with pytest.raises(LookupError):
        list(member_elements(body, "logs", 1000))


def test_a_value_that_is_longer_than_what_is_looked_at_is_told_at_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.model.json_items.VALUE_WINDOW_BYTES", 4)
    found = array_elements(b'["' + b"a" * 90 + b'","' + b"b" * 99 + b'"]', 100)
    assert next(found) == b'"' + b"a" * 90 + b'"'
    with pytest.raises(TooLong):
        next(found)


@pytest.mark.parametrize(("body", "end"), [(b"1,2", 1), (b'"a" ]', 4), (b"[1]\n}", 4), (b"null", 4), (b"{} x", 3)])
def test_the_place_behind_a_value_is_where_msgspec_says(body: bytes, end: int) -> None:
    assert value_end(body, 0, 100) == end
