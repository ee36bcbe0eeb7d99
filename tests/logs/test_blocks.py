"""Sealed blocks: what goes in comes out, line by line, and a search of them finds what a plain filter finds."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from app.logs.blocks import Block, level_bits, seal_block
from app.logs.levels import LEVELS
from app.logs.lines import Stored
from app.logs.search import FOLDED_TO_ASCII, LineFilter
from app.model.steps import exhaust

JOB = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["", "\0", "a\nb", "\n", "\xff", "ΑΣ", "İ", "\u212a", "ß", "emoji 😀", "a\u2028b", "Error: Refused", "x" * 70_000]
)
LINES = st.fixed_dictionaries(
    {"level": st.sampled_from(LEVELS), "message": TEXTS},
    optional={
        "source": st.sampled_from(["stdout", "stderr", "", "é\n"]),
        "metadata": st.sampled_from([{"a": 1}, {}, {"b": [1, {"c": "\n"}]}]),
        "loggedAt": st.sampled_from(["2026-03-01T09:21:01.120Z", "1970-01-01T00:00:00.000Z"]),
    },
)
BATCHES = st.lists(st.tuples(st.integers(1, 10**12), st.lists(LINES, min_size=1, max_size=8)), min_size=1, max_size=6)


def stored(batches: list[tuple[int, list[dict[str, Any]]]], first: int) -> list[Stored]:
    """Record batches as they lie in the stream."""
    found = []
    for at_ms, lines in batches:
        text = json.dumps(lines, separators=(",", ":"), ensure_ascii=False).encode()
        found.append(Stored(first, first + len(lines) - 1, at_ms, text))
        first += len(lines)
    return found


def block_of(batches: list[tuple[int, list[dict[str, Any]]]], first: int) -> Block:
    made = seal_block(stored(batches, first))
    return Block(made.first, made.last, made.text)


@given(BATCHES, st.integers(1, 2**39))
def test_a_block_gives_back_the_lines_that_went_in(batches: list[tuple[int, list[dict[str, Any]]]], first: int) -> None:
    block, plain = block_of(batches, first), stored(batches, first)
    assert (block.first, block.last) == (first, plain[-1].last)
    assert block.size_bytes == sum(len(batch.text) for batch in plain)
    whole = [row for batch in plain for row in batch.build_rows(JOB, range(batch.first, batch.last + 1))]
    assert block.build_rows(JOB, range(first, block.last + 1)) == whole
    some = range(first + len(whole) // 3, block.last + 1)
    assert block_of(batches, first).build_rows(JOB, some) == whole[len(whole) // 3 :]


@given(
    BATCHES,
    st.lists(
        TEXTS.filter(bool) | st.sampled_from(["a", "e", "\n", "σ", "Σ", "ς", "i", "k", "i\u0307", "ß", "ss", "ﬁ", "f"]),
        max_size=2,
    ),
    st.frozensets(st.sampled_from(LEVELS), max_size=3),
    st.data(),
)
def test_a_search_of_a_block_finds_what_a_plain_filter_finds(
    batches: list[tuple[int, list[dict[str, Any]]]], needles: list[str], levels: frozenset[str], data: st.DataObject
) -> None:
    wanted = LineFilter(levels, tuple(needle.casefold() for needle in needles))
    block = block_of(batches, 1)
    low = data.draw(st.integers(1, block.last))
    high = data.draw(st.integers(low, block.last))
    lines = [line for _, part in batches for line in part]
    expected = [
        seq
        for seq in range(low, high + 1)
        if (not levels or lines[seq - 1]["level"] in levels)
        and all(needle in lines[seq - 1]["message"].casefold() for needle in wanted.needles)
    ]
    assert list(exhaust(block.match_steps(wanted, range(low, high + 1)))) == expected


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *[(text, True) for text in ("z" * 1000 + "JaZz", "jazz and more", "more jAZZ", "jaz jazzy")],
        *[(text, False) for text in ("", "z", "jaz", "azzj jaz zz", "zz" * 50)],
    ],
)
def test_a_word_is_found_wherever_it_stands_and_not_by_its_letters(text: str, found: bool) -> None:
    block = block_of([(5, [{"level": "info", "message": text}])], 1)
    assert bool(exhaust(block.match_steps(LineFilter(needles=("jazz",)), range(1, 2)))) is found


def test_the_record_of_a_block_tells_its_levels_its_end_and_its_size() -> None:
    batches = [(5, [{"level": "error", "message": "a"}, {"level": "debug", "message": "b"}])]
    made = seal_block(stored(batches, 300))
    bits, last, size = made.record[0], int.from_bytes(made.record[1:7]), int.from_bytes(made.record[7:11])
    assert (bits, last, size) == (level_bits(frozenset({"error", "debug"})), 301, made.stored_bytes)


def test_a_block_that_was_passed_over_has_no_matches() -> None:
    assert not exhaust(Block(1, 1000, b"").match_steps(LineFilter(frozenset({"error"})), range(1, 1001)))


def test_metadata_comes_back_byte_by_byte() -> None:
    text = b'[{"level":"info","message":"a","metadata":{"n":1.0e2,"big":123456789012345678901234567890}}]'
    made = seal_block([Stored(1, 1, 5, text)])
    (row,) = Block(1, 1, made.text).build_rows(JOB, [1])
    assert row.metadata == Raw(b'{"n":1.0e2,"big":123456789012345678901234567890}')


def test_what_folds_to_a_letter_of_ascii_is_known_by_its_beginning() -> None:
    beyond = [chr(code) for code in range(128, 0x110000) if not 0xD800 <= code < 0xE000]
    found = [char.encode() for char in beyond if any(each.isascii() for each in char.casefold())]
    assert len(found) > 15
    assert all(char.startswith(FOLDED_TO_ASCII) for char in found)
    assert all(any(char.startswith(begin) for char in found) for begin in FOLDED_TO_ASCII)
