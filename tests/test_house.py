"""The rules of the house, as tests: who may import whom, what a script's header says, what the docs must name."""

import ast
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from app.api.routes import BASE, Handlers, route_table
from app.model.errors import KINDS
from app.model.redis_keys import Keys, moving
from app.redis_links.lua_sources import INCLUDE, folder
from app.redis_links.scripts import SCRIPTS, WORDS
from app.settings import variables

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

HOUSE = [
    "cli",
    "local",
    "worker_processes",
    "main",
    "serve",
    "api",
    "backend",
    "streams",
    "sweeper",
    "webhooks",
    "jobs",
    "logs",
    "wire",
    "redis_links",
    "loop",
    "metrics",
    "model",
    "settings",
]
"""The rooms and the files beside them, from top to bottom: each imports from itself and from what stands below it."""

STARLETTE = {"main", "serve", "api"}
PURE = {
    "model",
    "settings",
    "jobs.job_records",
    "logs.intake",
    "logs.levels",
    "logs.lines",
    "logs.search",
    "logs.blocks",
    "logs.page_scan",
    "streams.frames",
    "streams.gap_frames",
    "streams.sequence",
    "streams.topic",
    "streams.job_topic",
    "streams.space_topic",
    "webhooks.forbidden_addresses",
    "webhooks.fair_shares",
    "webhooks.retry_schedule",
    "webhooks.signatures",
    "webhooks.space_hooks",
    "wire.framing",
    "wire.websocket_input",
}
"""Rooms and modules that do no I/O, nor does anything that they import."""

NOUNS = {"callback", "epoch", "feed", "job", "leader", "log", "outage", "rate", "ready", "secret", "space", "token"}
"""What scripts act on."""

SUFFIXES = {".py", ".lua", ".js"}
IO = {"asyncio", "redis", "hiredis", "socket", "uvicorn", "starlette", "urllib3", "subprocess"}


def modules(package: str) -> list[tuple[str, Path]]:
    """Every module of a package, by its name inside the package."""
    paths = [path for path in sorted((ROOT / package).rglob("*.py")) if path.stem != "__init__"]
    return [(".".join(path.relative_to(ROOT / package).with_suffix("").parts), path) for path in paths]


@cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever it does so and whether the program or only a type checker sees it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


SERVER = dict(modules("app"))
ROOMS = sorted({name.partition(".")[0] for name in SERVER if "." in name})


@cache
def inside(name: str) -> set[str]:
    """The server's modules that one of them imports."""
    return {found[4:] for found in imports(SERVER[name]) if found[4:] in SERVER and found.startswith("app.")}


def reached(name: str, inside: Callable[[str], set[str]] = inside) -> set[str]:
    """A module and every one that it imports, directly or by way of others."""
    seen: set[str] = set()
    coming = [name]
    while coming:
        module = coming.pop()
        if module not in seen:
            seen.add(module)
            coming.extend(inside(module))
    return seen


def sentences(package: str) -> list[str]:
    """What a package owns, and what it never does: the first two paragraphs of its docstring."""
    return (ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text())) or "").split("\n\n")[:2]


def test_every_room_and_every_file_beside_them_has_its_place() -> None:
    assert sorted(HOUSE) == sorted({name.partition(".")[0] for name in SERVER})


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_owns_and_what_it_never_does_and_the_docs_say_the_same(room: str) -> None:
    owns, never = sentences(f"app/{room}")
    assert never.startswith("Never: ")
    assert f"| `{room}/` | {owns} | {never.removeprefix('Never: ')} |" in (DOCS / "why.md").read_text()


@pytest.mark.parametrize("name", SERVER)
def test_imports_point_down(name: str) -> None:
    place = HOUSE.index(name.partition(".")[0])
    assert not {other for other in inside(name) if HOUSE.index(other.partition(".")[0]) < place}


@pytest.mark.parametrize("name", SERVER)
def test_no_module_imports_itself_by_way_of_others(name: str) -> None:
    assert not {other for other in inside(name) if name in reached(other)}


@pytest.mark.parametrize("name", SERVER)
def test_starlette_stays_in_its_rooms(name: str) -> None:
    roots = {imported.split(".")[0] for imported in imports(SERVER[name])}
    assert "starlette" not in roots or name.partition(".")[0] in STARLETTE


@pytest.mark.parametrize("name", [name for name in SERVER if name in PURE or name.partition(".")[0] in PURE])
def test_what_is_pure_does_no_io_nor_does_what_it_imports(name: str) -> None:
    outside = {imported.split(".")[0] for module in reached(name) for imported in imports(SERVER[module])}
    assert not outside & IO


@pytest.mark.parametrize(("name", "path"), modules("jobwire"))
def test_the_client_half_never_imports_the_server(name: str, path: Path) -> None:
    assert not {imported for imported in imports(path) if imported.split(".")[0] == "app"}, name


CLIENT = dict(modules("jobwire"))
CLIENT_HOUSE = [
    "__main__",
    "commands",
    "run",
    "reading",
    "log_shipping",
    "api",
    "configuration",
    "log_lines",
    "exit_codes",
    "errors",
    "version",
]
"""The client's packages and the files beside them, from top to bottom."""


@cache
def client_inside(name: str) -> set[str]:
    """The modules of the client that one of its modules imports, by relative imports as all of them are."""
    package, found = ["jobwire", *name.split(".")[:-1]], set()
    for node in ast.walk(ast.parse(CLIENT[name].read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[1 : len(package) - node.level + 1], *([node.module] if node.module else [])]
            found |= {".".join(base), *(".".join([*base, alias.name]) for alias in node.names)}
    return found & CLIENT.keys()


CLIENT_ROOMS = sorted({name.partition(".")[0] for name in CLIENT if "." in name})


def test_every_package_of_the_client_and_every_file_beside_them_has_its_place() -> None:
    assert sorted(CLIENT_HOUSE) == sorted({name.partition(".")[0] for name in CLIENT})


@pytest.mark.parametrize("room", CLIENT_ROOMS)
def test_a_package_of_the_client_says_what_it_owns_and_the_docs_say_the_same(room: str) -> None:
    owns, never = sentences(f"jobwire/{room}")
    assert never.startswith("Never: ")
    assert f"| `{room}/` | {owns} | {never.removeprefix('Never: ')} |" in (DOCS / "why.md").read_text()


@pytest.mark.parametrize("name", CLIENT)
def test_imports_of_the_client_point_down(name: str) -> None:
    place = CLIENT_HOUSE.index(name.partition(".")[0])
    assert not {other for other in client_inside(name) if CLIENT_HOUSE.index(other.partition(".")[0]) < place}
    assert not [imported for imported in imports(CLIENT[name]) if imported.split(".")[0] == "jobwire"]


@pytest.mark.parametrize("name", CLIENT)
def test_no_module_of_the_client_imports_itself_by_way_of_others(name: str) -> None:
    assert not {other for other in client_inside(name) if name in reached(other, client_inside)}


@pytest.mark.parametrize(("name", "path"), [*SERVER.items(), *CLIENT.items()])
def test_a_module_says_what_it_is_for(name: str, path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), name


def header(text: str) -> str:
    """The comment that a script begins with, up to its includes or its code."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("-- ") or INCLUDE.match(line):
            break
        lines.append(line[3:])
    return "\n".join(lines)


def section(text: str, name: str) -> str:
    """One paragraph of a header: from `Name:` to the next."""
    found = re.search(rf"^{name}: (.*?)(?=^\w+: |^(?:KEYS|ARGV)\[|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"the header has no {name}"
    return found[1]


def numbers(text: str, table_name: str) -> tuple[set[int], int | None]:
    """The numbers named as KEYS[1], ARGV[3..], ...: single ones, and where an open range begins."""
    single = {int(n) for n in re.findall(rf"{table_name}\[(\d+)\]", text)}
    opened = re.findall(rf"{table_name}\[(\d+)\.\.", text)
    return single, int(opened[0]) if opened else None


def parameters(function: str) -> list[str]:
    """Those of a function of an include."""
    (found,) = re.findall(rf"^local function {function}\((.*)\)$", "\n".join(INCLUDED.values()), re.MULTILINE)
    return str(found).split(", ")


SOURCES = {path.stem: path.read_text() for path in sorted(folder().glob("*.lua"))}


def body(name: str) -> str:
    return re.sub(r"^--.*$", "", SOURCES[name], flags=re.MULTILINE)


@pytest.mark.parametrize("name", SOURCES)
def test_a_script_is_named_noun_and_verb_and_has_a_whole_header(name: str) -> None:
    noun, _, verb = name.partition("_")
    assert noun in NOUNS
    assert re.fullmatch(r"[a-z]+(_[a-z]+)?", verb)
    text = header(SOURCES[name])
    for part in ("Replies", "Events", "Cost"):
        assert section(text, part).strip()


GUARD = re.compile(r"^KEYS\[(\d+)\] none   jw:\{([SJ])\}:moving, which never exists$", re.MULTILINE)


@pytest.mark.parametrize("name", SOURCES)
def test_a_script_of_a_hash_tag_has_the_key_that_never_exists_behind_its_others(name: str) -> None:
    text = header(SOURCES[name])
    others = re.findall(r"^KEYS\[\d+\]", GUARD.sub("", text), re.MULTILINE)
    tags = set(re.findall(r"^KEYS\[\d+\].*jw:\{([SJ])\}", GUARD.sub("", text), re.MULTILINE))
    assert GUARD.findall(text) == [(str(len(others) + 1), tag) for tag in tags]
    assert tags or not re.search(r"redis\.call\('\w+', (?!\w+_key\b)", body(name)), "it makes names of keys itself"


@pytest.mark.parametrize("name", SOURCES)
def test_a_header_numbers_the_keys_and_arguments_that_the_body_reads(name: str) -> None:
    for which in ("KEYS", "ARGV"):
        told, opened = numbers(GUARD.sub("", header(SOURCES[name])), which)
        used, _ = numbers(body(name), which)
        if handed_on := re.search(r"(\w+)\(space_of\(KEYS\[1\]\), now_ms\(\), unpack\(ARGV\)\)", body(name)):
            used |= set(range(1, len(parameters(handed_on[1])) - 1)) if which == "ARGV" else set()
        assert all(n in told or (opened is not None and n >= opened) for n in used), f"{which} of {name}"
        assert told <= used or opened is not None, f"{which} of {name} that nobody reads"


@pytest.mark.parametrize("name", SOURCES)
def test_a_header_tells_every_first_word_of_a_reply(name: str) -> None:
    told = set(re.findall(r"\{'(\w+)'", section(header(SOURCES[name]), "Replies")))
    said = set(re.findall(r"return \{ ?'(\w+)'", body(name)))
    if "fenced_job(" in body(name):
        said |= {"no_job", "lease_lost"}
    assert said <= told | {"ok"}, f"{name} answers {said - told}"


def test_every_refusal_word_of_a_script_has_its_error() -> None:
    read_by_callers = {"ok", "replay", "past", "stale", "fault"}
    for name, source in SOURCES.items():
        told = set(re.findall(r"\{'(\w+)'", section(header(source), "Replies")))
        if name.startswith("job_"):
            assert told <= WORDS.keys() | read_by_callers, name


INCLUDED = {path.stem: path.read_text() for path in sorted((folder() / "include").glob("*.lua"))}
NAMED_BY = {
    name: include
    for include, text in INCLUDED.items()
    for name in re.findall(r"^local (?:function )?(\w+)", text, re.MULTILINE)
}
"""What includes give to others: each function and constant, by the include that has it."""


def used_includes(text: str) -> set[str]:
    """The includes of which a file uses something that it has not itself."""
    code = re.sub(r"'[^'\n]*'", "''", re.sub(r"--.*", "", text))
    own = {name for names in re.findall(r"\blocal (?:function )?(\w+(?:, \w+)*)", code) for name in names.split(", ")}
    used = set(re.findall(r"(?<![.\w])[A-Za-z]\w*", code))
    return {NAMED_BY[name] for name in (used - own) & NAMED_BY.keys()}


@pytest.mark.parametrize(("name", "text"), [*SOURCES.items(), *INCLUDED.items()])
def test_a_script_or_an_include_names_the_includes_that_it_uses_and_no_others(name: str, text: str) -> None:
    assert sorted(INCLUDE.findall(text)) == sorted(used_includes(text)), name


def test_what_includes_give_has_one_meaning() -> None:
    given = [
        name for text in INCLUDED.values() for name in re.findall(r"^local (?:function )?(\w+)", text, re.MULTILINE)
    ]
    assert sorted(given) == sorted(set(given))


@pytest.mark.parametrize("name", SOURCES)
def test_scripts_run_wherever_they_must(name: str) -> None:
    code = re.sub(r"--.*", "", SCRIPTS[name].text)
    assert not SCRIPTS[name].text.startswith("#!")
    assert not re.search(r"\b(cmsgpack|struct|bit)\.", code)
    assert not re.search(r"cjson\.decode", code), "JSON of users is opaque"


@pytest.mark.parametrize("setting", variables(), ids=lambda setting: str(setting[1]))
def test_every_setting_stands_in_the_docs(setting: tuple[str, str, object, str]) -> None:
    _, variable, default, meaning = setting
    shown = ",".join(default) if isinstance(default, tuple) else int(default) if isinstance(default, bool) else default
    cell = "-" if shown == "" else f"`{shown}`"
    assert f"| `{variable}` | {cell} | {meaning} |" in (DOCS / "settings.md").read_text()


def test_every_route_stands_in_the_docs_and_none_besides() -> None:
    documented = set(
        re.findall(r"^\| `([A-Z]+) (/(?:jobs|spaces|whoami)\S*)`", (DOCS / "api.md").read_text(), re.MULTILINE)
    )
    stand_in: Handlers = _NoHandlers()  # type: ignore[assignment]  # only names are read
    real = {(method, path) for path, actions in route_table(stand_in).items() for method in actions}
    assert real == documented
    assert BASE in (DOCS / "api.md").read_text()


class _NoHandlers:
    """Handlers whose every attribute is a name: enough to list the routes."""

    def __call__(self, *_: object) -> "_NoHandlers":
        return self

    def __getattr__(self, name: str) -> "_NoHandlers":
        return self


def test_every_error_code_stands_in_the_docs_with_its_status() -> None:
    text = (DOCS / "api.md").read_text()
    codes = {code: int(status) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text, re.MULTILINE)}
    assert codes == {code: kind.status for code, kind in KINDS.items()}


def test_every_key_stands_in_the_docs() -> None:
    text = (DOCS / "redis.md").read_text()
    keys = Keys("jw")
    for name, method in vars(Keys).items():
        if name.startswith("_"):
            continue
        arguments = {
            "space": "S",
            "job": "J",
            "digest": "<sha256>",
            "key": "<key>",
            "first": "<first>",
            "name": "<name>",
            "status": "<status>",
            "span": "<span>",
            "tag": "<tag>",
        }
        wanted = method.__code__.co_varnames[1 : method.__code__.co_argcount]
        assert f"`{method(keys, **{arg: arguments[arg] for arg in wanted})}`" in text, name
    for name, value in vars(keys).items():
        if name != "prefix":
            assert f"`{value}`" in text, name
    for key in (keys.space("S"), keys.log("J")):
        assert f"`{moving(key)}`" in text


def public_names(path: Path) -> set[str]:
    """The classes, functions and constants that a module defines for others, but for its log and its type variables."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")} - {"T", "log"}


def test_a_public_name_of_the_server_has_one_meaning() -> None:
    modules_of: dict[str, list[str]] = {}
    for module, path in SERVER.items():
        for name in public_names(path):
            modules_of.setdefault(name, []).append(module)
    assert {name: where for name, where in modules_of.items() if len(where) > 1} == {}


@pytest.mark.parametrize("name", SERVER)
def test_what_returns_steps_is_called_so_and_nothing_else_is(name: str) -> None:
    for node in ast.walk(ast.parse(SERVER[name].read_text())):
        if isinstance(node, ast.FunctionDef):
            returns = ast.unparse(node.returns) if node.returns else ""
            assert node.name.endswith("_steps") == returns.startswith("Steps["), node.name


SOURCE_FILES = [
    path for name in ("app", "jobwire", "lua", "bench") for path in (ROOT / name).rglob("*") if path.suffix in SUFFIXES
]


@pytest.mark.parametrize("path", SOURCE_FILES, ids=lambda path: path.name)
def test_nothing_is_left_for_later(path: Path) -> None:
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError", path.read_text())


@pytest.mark.parametrize("name", SERVER)
def test_what_went_wrong_is_told_by_types_and_not_by_codes(name: str) -> None:
    assert not re.search(r"\.code (==|!=|in|not in) ", SERVER[name].read_text())
