"""The rules of the house, as tests: who may import whom, what a script's header says, what the docs must name."""

import ast
import re
from pathlib import Path

import pytest

from app.api.routes import BASE, Handlers, table
from app.error import KINDS
from app.keys import Keys
from app.scripts import INCLUDE, SCRIPTS, WORDS, folder
from app.settings import variables

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"

ROOMS = [
    {"cli"},
    {"up", "workers", "demo", "demo_loop"},
    {"main", "credentials"},
    {"serve"},
    {"door", "stalls"},
    {"api.routes"},
    {"api.openapi", "api.asyncapi"},
    {"api.operations"},
    {
        "stream",
        "api.admin",
        "api.callbacks",
        "api.health",
        "api.logs",
        "api.metrics",
        "api.pages",
        "api.reader",
        "api.stats",
        "api.worker",
    },
    {"api.producer"},
    {"api.shapes"},
    {"api.answers", "api.lane", "api.origins", "api.query", "api.requests"},
    {"api.http"},
    {"api.trail"},
    {"backend"},
    {"live"},
    {"job_watch", "space_watch"},
    {"watch"},
    {"history"},
    {"sweeper", "callbacks", "push", "overview"},
    {"outbox", "hosts", "outgoing"},
    {"spaces", "deletion", "waiting", "tickets"},
    {"store", "logs", "auth", "agenda", "revival", "cursors"},
    {"seal", "quota", "epoch", "advice", "outages", "ends"},
    {"expiry", "relay", "redis_clock", "headroom", "lag", "damage"},
    {"scripts"},
    {"exposition"},
    {"link"},
    {"blocks", "paging"},
    {"connect"},
    {"handover"},
    {"protocol", "outlet", "topics", "inflight"},
    {"hub"},
    {"track"},
    {"event"},
    {"entries", "lines"},
    {"inflate", "items", "utf8"},
    {"nesting"},
    {"embedded", "guard"},
    {"folder", "aof"},
    {"metrics", "service_log"},
    {"tally", "turns", "schedule"},
    {
        "job",
        "clock",
        "keys",
        "error",
        "address",
        "settings",
        "shares",
        "sign",
        "hooks",
        "patience",
        "inbound",
        "framing",
    },
]
"""Rooms from top to bottom: a module may import from its own row and from the rows below."""

STARLETTE = {"main", "serve", "stream", "api"}
PURE = {
    "job",
    "clock",
    "keys",
    "error",
    "settings",
    "entries",
    "lines",
    "blocks",
    "paging",
    "nesting",
    "address",
    "schedule",
    "shares",
    "sign",
    "hooks",
    "inbound",
    "event",
    "track",
    "hub",
    "topics",
}
SUFFIXES = {".py", ".lua", ".js"}
IO = {"asyncio", "redis", "hiredis", "socket", "uvicorn", "starlette", "urllib3", "subprocess"}


def modules(package: str) -> list[tuple[str, Path]]:
    """Every module of a package, by its name inside the package."""
    paths = [path for path in sorted((ROOT / package).rglob("*.py")) if path.stem != "__init__"]
    return [(".".join(path.relative_to(ROOT / package).with_suffix("").parts), path) for path in paths]


def imports(path: Path) -> set[str]:
    """Every module that is imported while the program runs: what only a type checker sees does not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def test_every_module_of_the_server_has_a_row() -> None:
    rows = [name for row in ROOMS for name in row]
    assert sorted(rows) == sorted({name for name, _ in modules("app")})


@pytest.mark.parametrize(("name", "path"), modules("app"))
def test_imports_point_down(name: str, path: Path) -> None:
    rows = {module: depth for depth, row in enumerate(ROOMS) for module in row}
    for imported in imports(path):
        if imported.startswith("app."):
            assert rows[imported.removeprefix("app.")] >= rows[name], f"{name} imports {imported}"


@pytest.mark.parametrize(("name", "path"), modules("app"))
def test_starlette_stays_in_its_rooms_and_pure_modules_do_no_io(name: str, path: Path) -> None:
    roots = {imported.split(".")[0] for imported in imports(path)}
    assert "starlette" not in roots or name.partition(".")[0] in STARLETTE
    assert name not in PURE or not roots & IO


@pytest.mark.parametrize(("name", "path"), modules("jobwire"))
def test_the_client_half_never_imports_the_server(name: str, path: Path) -> None:
    assert not {imported for imported in imports(path) if imported.split(".")[0] == "app"}, name


@pytest.mark.parametrize(("name", "path"), [*modules("app"), *modules("jobwire")])
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


SOURCES = {path.stem: path.read_text() for path in sorted(folder().glob("*.lua"))}


def body(name: str) -> str:
    return re.sub(r"^--.*$", "", SOURCES[name], flags=re.MULTILINE)


@pytest.mark.parametrize("name", SOURCES)
def test_a_script_is_named_after_its_operation_and_has_a_whole_header(name: str) -> None:
    assert re.fullmatch(r"[a-z]+_[a-z]+", name)
    text = header(SOURCES[name])
    for part in ("Replies", "Events", "Cost"):
        assert section(text, part).strip()


@pytest.mark.parametrize("name", SOURCES)
def test_a_header_numbers_the_keys_and_arguments_that_the_body_reads(name: str) -> None:
    for which in ("KEYS", "ARGV"):
        told, opened = numbers(header(SOURCES[name]), which)
        used, _ = numbers(body(name), which)
        assert all(n in told or (opened is not None and n >= opened) for n in used), f"{which} of {name}"
        assert told <= used or opened is not None, f"{which} of {name} that nobody reads"


@pytest.mark.parametrize("name", SOURCES)
def test_a_header_tells_every_first_word_of_a_reply(name: str) -> None:
    told = set(re.findall(r"\{'(\w+)'", section(header(SOURCES[name]), "Replies")))
    text = SCRIPTS[name].text
    said = set(re.findall(r"return \{ ?'(\w+)'", text))
    if "local refusal" not in text:
        said -= {"no_job", "lease_lost"} - set(re.findall(r"return \{ ?'(\w+)'", body(name)))
    assert said <= told | {"ok"}, f"{name} answers {said - told}"


def test_every_refusal_word_of_a_script_has_its_error() -> None:
    read_by_callers = {"ok", "replay", "past", "stale"}
    for name, source in SOURCES.items():
        told = set(re.findall(r"\{'(\w+)'", section(header(source), "Replies")))
        if name.startswith("job_"):
            assert told <= WORDS.keys() | read_by_callers, name


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
    real = {(method, path) for path, actions in table(stand_in).items() for method in actions}
    assert real == documented
    assert BASE in (DOCS / "api.md").read_text()


class _NoHandlers:
    """Handlers whose every attribute is a name: enough to list the routes."""

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
        }
        wanted = method.__code__.co_varnames[1 : method.__code__.co_argcount]
        assert f"`{method(keys, **{arg: arguments[arg] for arg in wanted})}`" in text, name
    for name, value in vars(keys).items():
        if name != "prefix":
            assert f"`{value}`" in text, name


SOURCE_FILES = [
    path for name in ("app", "jobwire", "lua", "bench") for path in (ROOT / name).rglob("*") if path.suffix in SUFFIXES
]


@pytest.mark.parametrize("path", SOURCE_FILES, ids=lambda path: path.name)
def test_nothing_is_left_for_later(path: Path) -> None:
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b|NotImplementedError", path.read_text())
