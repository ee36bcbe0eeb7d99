"""What the project depends on: how far each may go, and which versions the tests run with."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WANTED = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
TESTED = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in LINES)}


@pytest.mark.parametrize("requirement", WANTED, ids=lambda requirement: str(requirement.name))
def test_each_has_bounds_and_a_version_between_them_that_is_tested(
    requirement: Requirement,
) -> None:
    assert {part.operator for part in requirement.specifier} == {">=", "<"}
    assert TESTED[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_list_of_versions_is_exact_and_names_no_place() -> None:
    for line in LINES:
        assert re.fullmatch(r"[\w.-]+==[\w.!+-]+", line), line


def needed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> None:
    """Add what a package needs here, itself included."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            needed(canonicalize_name(requirement.name), frozenset(requirement.extras), seen)


def test_everything_that_is_needed_is_on_the_list() -> None:
    seen: set[tuple[str, frozenset[str]]] = set()
    needed("jobwire", frozenset({"test"}), seen)
    assert {name for name, _ in seen} - {"jobwire"} <= TESTED.keys()
