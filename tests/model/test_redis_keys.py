"""Lua builds keys of a space by itself: what it spells is what app/model/redis_keys.py spells, and nothing else."""

import inspect
import re

from app.model.redis_keys import Keys
from app.redis_links.lua_sources import folder

SOURCES = [path.read_text() for path in folder().rglob("*.lua")]
CODE = "\n".join(re.sub(r"--.*", "", text) for text in SOURCES)
HANDED_IN = {"tokens", "idem:*", "logs", "log_bytes"}
"""Keys of a space that no script builds: scripts get them in KEYS, or only Python uses them."""


def spelled_by_python(tag: str) -> set[str]:
    """What stands behind the hash tag of each key and channel, `*` for each id or name in it."""
    found = set()
    for name, method in inspect.getmembers(Keys("jw"), inspect.ismethod):
        parameters = list(inspect.signature(method).parameters.values())
        if name.startswith("_") or parameters[0].name != tag:
            continue
        wanted = [one for one in parameters[1:] if one.default is inspect.Parameter.empty]
        for given in {len(wanted), len(parameters) - 1}:
            found.add(method("TAG", *["*"] * given).partition("}:")[2])
    return found


def spelled_by_lua() -> set[str]:
    """The same of the keys that Lua joins to the prefix of a space."""
    names = re.findall(r"\bspace \.\. '([\w:]+)'|\b(?:put|head)\('([\w:]+)'", CODE)
    events = re.findall(r"\bkey \.\. '(:\w+)'", CODE)
    return {re.sub(":.*", ":*", joined or called) for joined, called in names} | {f"job:*{end}" for end in events}


def test_lua_and_python_spell_the_same_keys_of_a_space() -> None:
    # `moving` never exists; scripts get it in KEYS, and those that work at maxmemory begin by deleting it.
    assert spelled_by_lua() - {"moving"} == spelled_by_python("space") - HANDED_IN


def test_headers_of_scripts_name_keys_that_there_are() -> None:
    headers = "\n".join(SOURCES)
    for letter, tag in (("S", "space"), ("J", "job")):
        named = set(re.findall(rf"jw:{{{letter}}}:([a-z_:]*[a-z_])", headers))
        assert named - {"moving"} <= spelled_by_python(tag)
