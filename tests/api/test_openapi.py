"""/openapi.json: that it says what the service does. Each documented refusal is provoked, and random calls, good and
bad, must be answered as it says.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import hypothesis
import msgspec
import pytest
import schemathesis
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from app.api.log_schemas import LogLine
from app.api.openapi import openapi_document
from app.api.openapi_operations import OPERATIONS
from app.api.routes import BASE, route_table
from app.jobs.keys_and_scopes import ROOT, SCOPES
from app.logs.lines import Row
from app.model.errors import KINDS
from tests.any_redis import AnyRedis
from tests.faults.service import Service
from tests.room import Room, new_room
from tests.test_house import _NoHandlers

STAND_IN: Any = _NoHandlers()
TABLE = route_table(STAND_IN)
DOCUMENT = openapi_document(TABLE, BASE)
NOBODY = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
ALWAYS_ELSEWHERE = {"unavailable", "outcome_unknown", "internal"}
"""A Redis that is away and bugs have tests of their own (tests/faults, tests/contract); here all goes well."""

Operation = tuple[str, str]


def test_every_route_is_described_and_no_other() -> None:
    assert set(OPERATIONS) == {(method, path) for path, actions in TABLE.items() for method in actions}
    assert all(OPERATIONS[operation].tag in {tag["name"] for tag in DOCUMENT["tags"]} for operation in OPERATIONS)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if OPERATIONS[o].example is not None], ids=" ".join)
def test_every_example_is_of_its_type(operation: Operation) -> None:
    found = OPERATIONS[operation]
    msgspec.json.decode(msgspec.json.encode(found.example), type=found.body)


def test_references_lead_somewhere_and_operation_ids_are_unique() -> None:
    text = json.dumps(DOCUMENT)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(DOCUMENT["components"]["schemas"])
    ids = [method["operationId"] for item in DOCUMENT["paths"].values() for method in item.values() if "tags" in method]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)


def test_a_line_is_described_as_it_is_written() -> None:
    assert [field.encode_name for field in msgspec.structs.fields(LogLine)] == list(Row.__struct_fields__)


async def test_the_document_is_served_and_is_the_same_for_everybody(room: Room) -> None:
    async with room.client() as client:
        reply = await client.get("http://test/openapi.json", headers={"x-api-key": ""})
    assert reply.status_code == 200
    assert reply.json() == json.loads(msgspec.json.encode(DOCUMENT))


# Each documented refusal


class Stage(NamedTuple):
    """A space with a job, and keys that may too little."""

    space: str
    job: str
    narrow: dict[str, str]
    foreign: str
    ended: str


async def stage(client: httpx.AsyncClient) -> Stage:
    space, other = [(await client.post("/spaces", json={"name": "s"})).json()["id"] for _ in "ab"]
    job = (await client.post(f"/spaces/{space}/jobs", json={"name": "a"})).json()["id"]
    narrow = {scope: await new_key(client, space, scope) for scope in ("jobs:create", "jobs:kill")}
    ended = (await client.post(f"/spaces/{space}/jobs", json={"name": "a", "claim": True})).json()["id"]
    await client.post(f"/jobs/{ended}/complete")
    return Stage(space, job, narrow, await new_key(client, other, *SCOPES), ended)


async def new_key(client: httpx.AsyncClient, space: str, *scopes: str) -> str:
    made = await client.post(f"/spaces/{space}/tokens", json={"name": "k", "scopes": scopes})
    return str(made.json()["key"])


def provoked(stage: Stage, operation: Operation, code: str) -> dict[str, Any]:
    """What to send so that an operation is refused with a code: arguments of httpx, and values for the path."""
    method, path = operation
    good: dict[str, Any] = {"path": {"space_id": stage.space, "job_id": stage.job, "token_id": NOBODY}}
    if OPERATIONS[operation].example is not None:
        good["json"] = OPERATIONS[operation].example
    huge = {"content": b"{}", "headers": {"content-type": "application/json", "content-length": "99000000"}}
    if path.endswith("/callback/retry") and code == "invalid_request":
        return {"path": {"job_id": stage.ended}}
    other_scope = "jobs:kill" if TABLE[path][method].scope == "jobs:create" else "jobs:create"
    ways: dict[str, dict[str, Any]] = {
        "unauthorized": {"headers": {"x-api-key": "emit_nobody"}},
        "missing_scope": {"headers": {"x-api-key": stage.narrow[other_scope]}},
        "wrong_space": {"headers": {"x-api-key": stage.foreign}},
        "space_not_found": {"path": {**good["path"], "space_id": NOBODY}},
        "job_not_found": {"path": {**good["path"], "job_id": NOBODY}},
        "token_not_found": {},
        "unsupported_media_type": {"content": b"a=b", "headers": {"content-type": "text/plain"}},
        "too_large": huge,
        "invalid_json": {"content": b"{", "headers": {"content-type": "application/json"}},
        "invalid_request": {"params": {"limit": "many"}} if method == "GET" else {"json": 7},
        "invalid_entry": {"json": [7]},
        "lease_lost": {"headers": {"x-lease-token": "another"}},
    }
    way = ways[code]
    if "content" in way:
        good.pop("json", None)
    return good | way


REFUSED = [
    (operation, code)
    for operation in OPERATIONS
    for status, found in DOCUMENT["paths"][operation[1]][operation[0].lower()]["responses"].items()
    for code in found["description"].split("`")[1::2]
    if status >= "4" and code not in ALWAYS_ELSEWHERE
]
SPECIAL = {"rate_limited", "invalid_state", "idempotency_mismatch", "space_full"}


@pytest.fixture(scope="module")
def documented() -> list[tuple[Operation, str]]:
    """Refusals that the first test below provokes, all in one room."""
    return [found for found in REFUSED if found[1] not in SPECIAL]


async def send(client: httpx.AsyncClient, operation: Operation, sent: dict[str, Any]) -> httpx.Response:
    method, path = operation
    return await client.request(method, path.format(**sent.pop("path")), **sent)


async def test_every_documented_refusal_happens(documented: list[tuple[Operation, str]], room: Room) -> None:
    async with room.client() as client:
        here = await stage(client)
        for operation, code in documented:
            reply = await send(client, operation, provoked(here, operation, code))
            told = (reply.status_code, reply.json().get("code"))
            assert told == (KINDS[code].status, code), f"{operation} {reply.text[:200]}"


async def test_every_call_whose_job_must_be_in_some_state_says_so(room: Room) -> None:
    async with room.client() as client:
        here = await stage(client)
        for operation in [operation for operation, code in REFUSED if code == "invalid_state"]:
            revives = operation[1].endswith("retry") or operation[0] == "DELETE"
            sent = provoked(here, operation, "token_not_found")
            sent["path"]["job_id"] = here.job if revives else here.ended
            if operation[1].endswith("/complete"):
                sent["json"] = "another result"
            reply = await send(client, operation, sent)
            assert (reply.status_code, reply.json()["code"]) == (409, "invalid_state"), operation


async def test_every_idempotent_call_refuses_another_body(room: Room) -> None:
    async with room.client() as client:
        here = await stage(client)
        for operation in [operation for operation, code in REFUSED if code == "idempotency_mismatch"]:
            first = provoked(here, operation, "token_not_found") | {"headers": {"idempotency-key": "k"}}
            other = {**first, "json": [{"name": "other", "message": "other"}]}
            assert (await send(client, operation, {**first})).status_code < 300
            reply = await send(client, operation, other)
            assert (reply.status_code, reply.json()["code"]) == (422, "idempotency_mismatch")


async def test_every_call_is_refused_over_the_rate(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, rate=1) as room, room.client() as client:
        here = await stage(client)
        key = {"x-api-key": await new_key(client, here.space, *SCOPES)}
        for operation in [operation for operation, code in REFUSED if code == "rate_limited"]:
            status = 0
            while status != 429:
                sent = provoked(here, operation, "token_not_found") | {"headers": key}
                reply = await send(client, operation, sent)
                status = reply.status_code
            assert reply.json()["code"] == "rate_limited"
            assert reply.headers["retry-after"]


async def test_every_call_that_brings_something_new_is_refused_by_a_full_space(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, space_bytes=5000) as room, room.client() as client:
        here = await stage(client)
        await client.post(f"/jobs/{here.job}/claim")
        await client.post(f"/jobs/{here.job}/checkpoint", json={"x": "y" * 5000})
        for operation in [operation for operation, code in REFUSED if code == "space_full"]:
            reply = await send(client, operation, provoked(here, operation, "token_not_found"))
            assert (reply.status_code, reply.json()["code"]) == (503, "space_full")
            assert reply.json()["limit"] == {"spaceBytes": 5000}


# Random calls against the service itself


@schemathesis.serializer("application/x-ndjson")
def as_text(_: Any, value: Any) -> bytes:
    """A string goes as it is."""
    return str(value).encode("utf-8", "surrogatepass")


SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
EXPECTED = (
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
)
ADDRESSES = ("callbackUrl", "push", "slack")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """`jobwire up`."""
    with Service() as service:
        yield service


def tamed(body: Any) -> Any:
    """A body that makes the service call nobody and wait for nothing."""
    if isinstance(body, list):
        return [tamed(each) for each in body]
    if not isinstance(body, dict):
        return body
    kept = {name: value for name, value in body.items() if name not in ADDRESSES}
    return kept | ({"waitSeconds": 0} if "waitSeconds" in kept else {})


@SCHEMA.parametrize()
@hypothesis.settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_whatever_is_sent_is_answered_as_documented(case: Any, service: Service) -> None:
    space = service.new_space() if case.method == "DELETE" else service.space
    job = service.call("POST", f"/spaces/{space}/jobs", {"name": "x", "claim": True})
    values = {"space_id": space, "job_id": job.body["id"], "token_id": NOBODY}
    case.path_parameters = {name: values[name] for name in case.path_parameters}
    case.body = tamed(case.body)
    case.call_and_validate(
        base_url=f"{service.url}{BASE}", headers={"x-api-key": service.root_key}, checks=list(EXPECTED), timeout=20
    )


def test_root_routes_are_marked() -> None:
    for path, actions in TABLE.items():
        for method, action in actions.items():
            assert ("root key" in DOCUMENT["paths"][path][method.lower()]["description"]) == (action.scope == ROOT)
