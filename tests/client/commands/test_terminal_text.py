"""What reaches a terminal: text, never orders."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from jobwire.commands.terminal_text import Paint, harmless, harmless_lines, table


@given(st.text())
def test_nothing_that_a_terminal_obeys_gets_through(text: str) -> None:
    for shown in (harmless(text), harmless_lines(text)):
        for character in shown.replace("\n", "").replace("\t", ""):
            assert unicodedata.category(character) not in ("Cc", "Zl", "Zp")
            assert unicodedata.bidirectional(character) not in (
                *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
            )


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Zl", "Zp"])))
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert harmless(text) == text


def test_colours_go_and_other_orders_show() -> None:
    assert harmless("\x1b[1;31mred\x1b[0m") == "red"
    assert harmless("\x1b]0;title\x07\x1b[2J\x9b2J") == "\\x1b]0;title\\x07\\x1b[2J\\x9b2J"
    assert harmless("a\u202eb") == "a\\u202eb"
    assert harmless("50%\r100%") == "50%\\x0d100%"


def test_a_message_of_many_lines_cannot_pass_for_two() -> None:
    assert harmless_lines("one\r\ntwo\nthree") == "one\n    two\n    three"


def test_colours_only_when_wanted() -> None:
    assert Paint(False).level("error", "x") == "x"
    assert Paint(True).level("error", "x") == "\x1b[31mx\x1b[0m"
    assert Paint(True).level("info", "x") == "x"


def test_a_table_is_as_wide_as_its_cells() -> None:
    assert table(("A", "LONG"), [("aaa", "b"), ("c", "d")]) == ["A    LONG", "aaa  b", "c    d"]
