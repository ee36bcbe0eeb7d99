"""docs/glossary.md: its terms are in use, its codes and statuses exist, and every link of the docs leads somewhere."""

import re
from pathlib import Path

import pytest

from app.model.errors import KINDS
from app.model.job import Status

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = "\n".join(page.read_text() for page in PAGES if page != GLOSSARY)
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| \[\w+\]\(([^)]+)\) \|$", GLOSSARY.read_text(), re.MULTILINE)
TERMS = [row[0] for row in ROWS]
TEXT = "\n".join(" ".join(row[1:3]) for row in ROWS)
RELATIVE = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The fragments under which the headings of a page are reached."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_line_of_the_tables_is_a_term_once() -> None:
    lines = [line for line in GLOSSARY.read_text().splitlines() if line.startswith("| ")]
    headings = lines.count("| term | meaning | example | rule |")
    assert len(ROWS) == len(lines) - headings == len(set(TERMS)) > 40


@pytest.mark.parametrize("term", TERMS)
def test_every_term_is_in_use_on_another_page(term: str) -> None:
    assert re.search(rf"\b{re.escape(term)}", OTHERS, re.IGNORECASE)


@pytest.mark.parametrize(("term", "meaning", "link"), [(row[0], row[1], row[3]) for row in ROWS], ids=TERMS)
def test_a_meaning_is_one_short_sentence_and_names_its_term(term: str, meaning: str, link: str) -> None:
    assert meaning.endswith(".")
    assert meaning.count(". ") == 0
    assert len(meaning) <= 130
    assert link.partition("#")[0] != GLOSSARY.name


def test_every_error_code_that_it_names_exists_with_that_status() -> None:
    named = re.findall(r"(\d{3}) `(\w+)`", TEXT)
    assert len(named) >= 6
    assert {code: int(status) for status, code in named}.items() <= {
        code: k.status for code, k in KINDS.items()
    }.items()


def test_every_other_word_of_code_that_it_names_is_a_status_or_stands_on_another_page() -> None:
    words = set(re.findall(r"`([a-z_]+)`", TEXT))
    assert set(Status) <= words
    assert not {word for word in words - set(Status) - KINDS.keys() if f"`{word}`" not in OTHERS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    for link in RELATIVE.findall(page.read_text()):
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link
