"""What a line says of its own level."""

from __future__ import annotations

import pytest

from jobwire.log_lines.level_finder import LevelFinder


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("ERROR: no space left", "error"),
        ("error: expected ';'", "error"),
        ("[WARN] slow", "warn"),
        ("WARNING:root:slow", "warn"),
        ("\x1b[31mFATAL\x1b[0m gone", "fatal"),
        ("2026-03-01T09:21:01.120Z DEBUG opened", "debug"),
        ("[2026-03-01 09:21:01,120] ERROR in app: x", "error"),
        ("2026/03/01 09:21:01 warn: x", "warn"),
        ("09:21:01 CRITICAL x", "fatal"),
        ("Mar  1 09:21:01 notice x", "info"),
        ("ValueError: invalid literal", "error"),
        ("requests.exceptions.ConnectionError: x", "error"),
        ("Errors found: 0", "other"),
        ("error-free run", "other"),
        ("warnings are off", "other"),
        ("no error here", "other"),
        ("", "other"),
    ],
)
def test_a_word_of_a_level_counts_at_the_beginning_or_behind_a_time(line: str, level: str) -> None:
    assert LevelFinder("other").level(line) == level


def test_a_traceback_is_an_error_in_its_first_and_its_last_line() -> None:
    lines = ["Traceback (most recent call last):", '  File "x.py", line 1', "    error()", "KeyboardInterrupt", "after"]
    finder = LevelFinder("info")
    assert [finder.level(line) for line in lines] == ["error", "info", "info", "error", "info"]
