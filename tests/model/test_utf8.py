"""The text of a body: what Python's own decoder makes of it, with U+FFFD for what stands for no character."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.errors import Refusal
from app.model.steps import exhaust
from app.model.utf8 import BOM, is_plain, text_steps

PARTS = st.lists(
    st.sampled_from(
        [
            r"\ud83d",
            r"\uD83D",
            r"\ude00",
            r"\uDE00",
            r"\ud83d\ude00",
            r"\\",
            r"\"",
            r"\n",
            r"\u00e9",
            "u",
            "d83d",
            "é",
            "😀",
            "x",
        ]
    ),
    max_size=30,
)


def mended(value: Any) -> Any:
    """A value of Python's decoder, which keeps lone surrogates."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, list):
        return [mended(each) for each in value]
    return {mended(name): mended(each) for name, each in value.items()}


@given(PARTS, PARTS, st.integers(24, 60))
def test_lone_surrogates_become_the_replacement_character_and_nothing_else_changes(
    name: list[str], value: list[str], piece: int
) -> None:
    body = '[{"%s":["%s"]}]' % ("".join(name), "".join(value))  # noqa: UP031  # braces
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.model.utf8.MEND_BYTES", piece)
        patch.setattr("app.model.utf8.CHECK_STEP_BYTES", 7)
        text = exhaust(text_steps(body.encode()))
    assert json.loads(text) == mended(json.loads(body))
    assert len(text) == len(body.encode())
    if json.loads(text) == json.loads(body):
        assert text == body.encode()


@pytest.mark.parametrize("body", [b"", b"{}", b'{"a":"x/y"}'])
def test_ascii_without_escapes_is_its_own_text(body: bytes) -> None:
    assert is_plain(body)
    assert exhaust(text_steps(body)) is body


def test_a_byte_order_mark_at_the_start_is_passed_over_and_one_within_kept() -> None:
    assert exhaust(text_steps(BOM + b'"' + BOM + b'"')) == b'"' + BOM + b'"'
    assert exhaust(text_steps(BOM)) == b""


@pytest.mark.parametrize("wrong", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe2\x82", b"\xf5\x80\x80\x80"])
@pytest.mark.parametrize("before", [0, 1, 5, 6, 7, 20])
def test_what_is_not_utf8_is_refused_with_its_place(wrong: bytes, before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.model.utf8.CHECK_STEP_BYTES", 7)
    for after in (b"", b'"  and more of it'):
        with pytest.raises(Refusal) as caught:
            exhaust(text_steps(b"x" * before + wrong + after))
        assert caught.value.code == "invalid_json"
        assert caught.value.text.endswith(f"at byte {before}.")
