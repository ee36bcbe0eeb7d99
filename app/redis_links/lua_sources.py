"""The texts of the Lua scripts: where they are, and their includes.

A line `-- include: NAME` stands for `lua/include/NAME.lua`. A script or an include names what it uses itself; what its
includes need is found here: each of them stands in the text once, before whatever uses it.
"""

import re
from collections import Counter
from functools import cache
from pathlib import Path

COMMENT = re.compile(r"^\s*--.*", re.MULTILINE)
"""A line of comment. One behind code is not told from a string with two dashes: what it names counts as used."""

WORD = re.compile(r"\w+")
DEFINITION = re.compile(
    r"^local function (?P<name>\w+)\((?:.* end|.*\n(?:(?!end$).*\n)*end)\n"
    r"|^local (?P<constant>[A-Z_]+) = .*[^{,(.]\n",
    re.MULTILINE,
)
"""What stands at the outermost level: a function, which ends in its first line or with a line `end`, or a constant."""

INCLUDE = re.compile(r"^-- include: (\w+)(?:\n|\Z)", re.MULTILINE)


def folder() -> Path:
    """Where the scripts are: inside the installed package, or beside it in a checkout."""
    here = Path(__file__).parent.parent
    return here / "lua" if (here / "lua").is_dir() else here.parent / "lua"


def with_includes(script: Path) -> str:
    """A script's text with its includes in place. ValueError for one that needs itself, by way of others or not."""
    return _expand(script, script.parent / "include", (), set())


def without_unused(text: str) -> str:
    """A script's text without the functions, and the constants of one line, that nothing in it uses.

    The server makes all of them anew each time that a script runs: 2 to 4 us of 8 for a keepalive.
    """
    while True:
        words = Counter(WORD.findall(COMMENT.sub("", text)))
        unused = [found for found in DEFINITION.finditer(text) if words[found["name"] or found["constant"]] == 1]
        if not unused:
            return text
        for found in reversed(unused):
            text = text[: found.start()] + text[found.end() :]


def _expand(path: Path, includes: Path, above: tuple[str, ...], known: set[str]) -> str:
    """The text of a file without the includes that are `known` already, to which its own are added."""

    def put(line: re.Match[str]) -> str:
        name = line[1]
        if name in above:
            raise ValueError(f"{path}: an include needs itself: {' -> '.join((*above, name))}")
        if name in known:
            return ""
        text = _expand(includes / f"{name}.lua", includes, (*above, name), known)
        known.add(name)
        return text

    return INCLUDE.sub(put, _text(path))


@cache
def _text(path: Path) -> str:
    """The text of a file; an include is needed by many."""
    return path.read_text()
