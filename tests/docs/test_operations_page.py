"""docs/operations.md: every line of the table of what breaks names a test that exists."""

import re
from pathlib import Path

HERE = Path(__file__).parents[1]
PAGE = HERE.parent / "docs" / "operations.md"


def named() -> list[str]:
    """The last cell of each row of the table."""
    _, _, table = PAGE.read_text().partition("## When this breaks, that happens")
    rows = re.findall(r"^\| .* \|$", table, re.MULTILINE)[1:]
    return [row.split("|")[-2].strip().strip("`") for row in rows]


def names_of_tests(path: Path) -> list[str]:
    """The names of a file's tests."""
    return re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)


def existing() -> set[str]:
    """The names of all tests."""
    return {name for path in HERE.rglob("test_*.py") for name in names_of_tests(path)}


def test_every_line_names_a_test_that_exists() -> None:
    assert len(named()) > 20
    assert set(named()) <= existing()


def test_every_bad_day_stands_in_the_table() -> None:
    bad_days = names_of_tests(HERE / "faults" / "test_bad_days.py")
    assert set(bad_days) <= set(named())
