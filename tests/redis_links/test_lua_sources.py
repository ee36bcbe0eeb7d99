"""Includes: each once, what it needs before it; a circle is an error and not an endless text."""

from pathlib import Path

import pytest

from app.redis_links.lua_sources import with_includes, without_unused


def written(folder: Path, **texts: str) -> Path:
    """A script of these texts: `script` and its includes."""
    (folder / "include").mkdir()
    for name, text in texts.items():
        place = folder if name == "script" else folder / "include"
        (place / f"{name}.lua").write_text(text)
    return folder / "script.lua"


def test_what_an_include_needs_stands_before_it_and_once(tmp_path: Path) -> None:
    script = written(
        tmp_path,
        script="-- A script.\n-- include: top\n-- include: left\nreturn 1\n",
        top="-- include: left\n-- include: right\nlocal top = 1\n",
        left="-- include: base\nlocal left = 1\n",
        right="-- include: base\nlocal right = 1\n",
        base="local base = 1\n",
        unused="local unused = 1\n",
    )
    lines = ["-- A script.", *(f"local {name} = 1" for name in ("base", "left", "right", "top")), "return 1"]
    assert with_includes(script).splitlines() == lines


@pytest.mark.parametrize(
    "includes",
    [
        {"first": "-- include: first\n"},
        {"first": "-- include: second\n", "second": "-- include: third\n", "third": "-- include: first\n"},
    ],
    ids=["itself", "by way of others"],
)
def test_an_include_that_needs_itself_is_an_error(tmp_path: Path, includes: dict[str, str]) -> None:
    script = written(tmp_path, script="-- include: first\n", **includes)
    with pytest.raises(ValueError, match=r"first -> .*first"):
        with_includes(script)


def test_an_include_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        with_includes(written(tmp_path, script="-- include: nothing\n"))


def test_what_nothing_uses_is_left_out_and_what_only_that_used_as_well() -> None:
    used = "local function double(n)\n  local function add(m)\n    return n + m\n  end\n  return add(n)\nend\n"
    unused = (
        "local MOST = 5\n"
        "local function inner(n) return math.min(n, MOST) end\n"
        "local function outer(n)\n  if n then\n    return inner(n)\n  end\nend\n"
        "-- outer(n): named in a comment alone.\n"
    )
    call = "local LEAST = 2\nreturn double(LEAST)\n"
    assert without_unused(used + unused + call) == used + "-- outer(n): named in a comment alone.\n" + call


def test_what_is_used_behind_two_dashes_of_a_string_is_kept() -> None:
    text = "local FEW = 2\nlocal function few() return FEW end\nreturn '--' .. few()\n"
    assert without_unused(text) == text


def test_a_constant_that_goes_on_in_the_next_line_is_kept() -> None:
    text = "local WORDS = table.concat(\n  { 'a' })\nlocal TEXT = 'a' ..\n  'b'\nreturn 1\n"
    assert without_unused(text) == text
