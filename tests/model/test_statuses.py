"""The statuses stand in app/model/job.py. Who cannot read them there says the same: Lua, client, page and docs."""

import re
from pathlib import Path
from typing import get_args

from lupa.lua51 import LuaRuntime

from app.api import asyncapi, request_schemas
from app.model.job import ENDED, LEASED, Status
from app.redis_links.lua_sources import folder
from jobwire.api import response_structs

ROOT = Path(__file__).parents[2]
ALL = [str(status) for status in Status]
RETRIED = {Status.DEAD, Status.KILLED}


def literals(path: str, pattern: str) -> list[str]:
    """The texts in quotes within the first group of a pattern, which occurs once in a file."""
    (found,) = re.findall(pattern, (ROOT / path).read_text(), re.MULTILINE | re.DOTALL)
    return re.findall(r"[\"'](\w+)[\"']", found)


def test_lua_has_the_statuses_in_the_same_order_and_with_the_same_meaning() -> None:
    source = (folder() / "include" / "statuses.lua").read_text()
    listed, is_leased, has_ended = LuaRuntime().execute(source + "return STATUSES, is_leased, has_ended")
    assert list(listed.values()) == ALL
    assert {status for status in Status if is_leased(str(status))} == LEASED
    assert {status for status in Status if has_ended(str(status))} == ENDED


def test_the_list_stands_once_in_lua() -> None:
    for path in folder().rglob("*.lua"):
        code = re.sub(r"--.*", "", path.read_text())
        named = [set(re.findall(r"'(\w+)'", group)) & set(ALL) for group in re.findall(r"{[^{}]*}", code)]
        assert path.stem == "statuses" or all(len(names) < len(ENDED) for names in named), path.name


def test_the_client_has_the_same() -> None:
    assert list(response_structs.STATUSES) == ALL
    assert response_structs.ENDED == ENDED


def test_the_page_and_its_types_have_the_same() -> None:
    assert sorted(literals("app/static/status.js", r"^export const STATUSES = \[(.*?)\]")) == sorted(ALL)
    assert set(literals("app/static/status.js", r"^const ENDS = new Set\(\[(.*?)\]")) == ENDED
    assert set(literals("app/static/jobwire.d.ts", r"^export type Ended = (.*?);")) == ENDED
    assert set(literals("app/static/jobwire.d.ts", r"^export type Status = (.*?);")) == set(ALL) - ENDED


def test_what_the_api_describes_has_the_same() -> None:
    assert list(get_args(asyncapi.STATUS)) == ALL
    assert set(get_args(asyncapi.End.__annotations__["status"])) == ENDED
    assert set(get_args(request_schemas.BulkRetryRequest.__annotations__["status"])) == RETRIED


def test_the_docs_name_every_status_and_no_other() -> None:
    page = (ROOT / "docs" / "states.md").read_text()
    rows = re.findall(r"^\| (.*?) \| \w+ \| (.*?) \| `\w+` \|", page, re.MULTILINE)
    assert {name for row in rows for cell in row for name in re.findall(r"`(\w+)`", cell)} == set(ALL)
