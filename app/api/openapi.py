"""GET /openapi.json: the API for machines, as OpenAPI 3.1. Made once, of the structs that decode and encode.

https://spec.openapis.org/oas/v3.1.1.html
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from app.api.method_dispatch import Action
from app.api.openapi_operations import OPERATIONS, Operation, Parameter
from app.api.response_schemas import Problem
from app.api.responses import JSON
from app.jobs.keys_and_scopes import ANY_KEY, ROOT
from app.model.errors import KINDS
from jobwire.version import __version__

REFERENCE = "#/components/schemas/{name}"
ALWAYS = ("unauthorized", "unavailable", "outcome_unknown", "internal")
LOCATED = {"space_id": ("wrong_space", "space_not_found"), "job_id": ("wrong_space",), "token_id": ()}
MEANINGS = {"space_id": "A space.", "job_id": "A job.", "token_id": "A key's id, not the key."}
RETRY_AFTER = {"schema": {"type": "string"}, "description": "Seconds to wait."}
ANSWER_HEADERS = {
    429: {"Retry-After": RETRY_AFTER},
    503: {"Retry-After": RETRY_AFTER},
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "How to send a key."}},
}
TAGS = {
    "producer": "For those who make jobs, and end them from outside.",
    "worker": "For those who do them.",
    "reader": "For those who look.",
    "operator": "For the root key.",
}

Json = dict[str, Any]


def openapi_document(table: Mapping[str, Mapping[str, Action]], base: str) -> Json:
    """The whole document for a table of routes."""
    types = [
        kind for operation in OPERATIONS.values() for kind in (operation.answer, operation.body) if kind is not None
    ]
    kinds = [*types, *(p.kind for operation in OPERATIONS.values() for p in operation.parameters), Problem]
    kind_schemas, components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    schemas = Schemas(zip(kinds, kind_schemas, strict=True))
    components["Problem"]["properties"]["code"]["enum"] = list(KINDS)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "jobwire",
            "version": __version__,
            "description": "Jobs, their progress, events and logs. Members that are not described are ignored.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": base}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "security": [{"key": []}, {"bearer": []}, {"basic": []}],
        "paths": {path: describe_path(path, actions, schemas) for path, actions in table.items()},
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "The key is the password."},
            },
        },
    }


class Schemas:
    """The JSON Schema of each type that the operations name."""

    def __init__(self, pairs: Iterable[tuple[Any, Json]]) -> None:
        self._pairs = list(pairs)

    def of(self, kind: Any) -> Json:
        """The schema of a type. KeyError."""
        for known, schema in self._pairs:
            if known is kind or known == kind:
                return schema
        raise KeyError(kind)


def describe_path(path: str, actions: Mapping[str, Action], schemas: Schemas) -> Json:
    """One path: its methods, and the parameters that stand in it."""
    names = re.findall(r"\{(\w+)\}", path)
    description: Json = {
        method.lower(): describe_method(path, method, action, schemas) for method, action in actions.items()
    }
    if names:
        description["parameters"] = [
            {"name": name, "in": "path", "required": True, "description": MEANINGS[name], "schema": {"type": "string"}}
            for name in names
        ]
    return description


def describe_method(path: str, method: str, action: Action, schemas: Schemas) -> Json:
    """One method of one path."""
    operation = OPERATIONS[method, path]
    description: Json = {
        "operationId": "_".join([method.lower(), *re.findall(r"\w+", path)]),
        "summary": operation.summary,
        "tags": [operation.tag],
        "description": describe_scope(action.scope),
        "parameters": [describe_parameter(each, schemas) for each in operation.parameters],
        "responses": describe_responses(path, action, operation, schemas),
    }
    if operation.body is not None:
        description["requestBody"] = describe_body(operation, schemas)
    return description


def describe_scope(scope: str) -> str:
    """Which key may call."""
    if scope == ROOT:
        return "Needs the root key."
    return "Any key will do." if scope == ANY_KEY else f"Needs the scope `{scope}`."


def describe_parameter(each: Parameter, schemas: Schemas) -> Json:
    """A member of the query, or a header."""
    return {"name": each.name, "in": each.place, "description": each.meaning, "schema": schemas.of(each.kind)}


def describe_body(operation: Operation, schemas: Schemas) -> Json:
    """What is sent."""
    content: Json = {JSON: {"schema": schemas.of(operation.body)}}
    if operation.example is not None:
        content[JSON]["example"] = operation.example
    for kind in operation.also:
        content[kind] = {"schema": {"type": "string", "description": "One JSON value a line."}}
    return {"required": operation.body_needed, "content": content}


def describe_responses(path: str, action: Action, operation: Operation, schemas: Schemas) -> Json:
    """The answer, and every error by its status."""
    good: Json = {"description": operation.summary}
    if operation.answer is not None:
        good["content"] = {JSON: {"schema": schemas.of(operation.answer)}}
        if operation.body is None:
            good["content"] |= {kind: {"schema": {"type": "string"}} for kind in operation.also}
    if operation.headers:
        described = {name: {"schema": {"type": "string"}, "description": text} for name, text in operation.headers}
        good["headers"] = described
    by_status: dict[int, list[str]] = {}
    for code in error_codes(path, action, operation):
        by_status.setdefault(KINDS[code].status, []).append(code)
    errors = {str(status): describe_errors(status, codes_, schemas) for status, codes_ in sorted(by_status.items())}
    return {str(operation.status): good} | errors


def error_codes(path: str, action: Action, operation: Operation) -> list[str]:
    """Every code that the operation may be refused with."""
    located = [code for name in re.findall(r"\{(\w+)\}", path) for code in LOCATED[name]]
    if action.scope == ROOT:
        located = [code for code in located if code != "wrong_space"]
    limited = () if action.scope == ROOT else ("rate_limited",)
    scoped = () if action.scope == ANY_KEY else ("missing_scope",)
    return list(dict.fromkeys((*ALWAYS, *scoped, *limited, *located, *operation.errors)))


def describe_errors(status: int, codes_: list[str], schemas: Schemas) -> Json:
    """One status of errors."""
    example = {"error": "A sentence for a person.", "code": codes_[0]}
    description: Json = {
        "description": f"Refused: {', '.join(f'`{code}`' for code in codes_)}.",
        "content": {JSON: {"schema": schemas.of(Problem), "example": example}},
    }
    return description | ({"headers": ANSWER_HEADERS[status]} if status in ANSWER_HEADERS else {})
