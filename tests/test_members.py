"""Members of uvicorn, websockets and redis that no documentation promises, and that the server lives on.

Whoever lets a newer version in finds here, first, what of it has gone.
"""

import ast
import inspect
import re
from types import ModuleType

import pytest
import redis.asyncio.connection
import uvicorn
import websockets.server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

import app.serve
import app.wire.handover
import app.wire.http_protocol

MODULES = (app.wire.http_protocol, app.wire.handover, app.serve)

SET = {
    HttpToolsProtocol: {"cycle", "parser", "scope", "transport"},
    RequestResponseCycle: {
        *("disconnected", "keep_alive", "chunked_encoding", "expected_content_length"),
        *("more_body", "body", "message_event", "flow", "transport", "default_headers"),
        *("response_started", "response_complete", "on_response"),
    },
    WebSocketsSansIOProtocol: {"conn", "handshake_complete", "disconnected", "response", "logger"},
    uvicorn.Server: {"should_exit", "force_exit", "server_state", "servers", "lifespan", "started"},
    redis.asyncio.connection.AbstractConnection: {"_reader", "_writer"},
    websockets.server.ServerProtocol: {"accept", "reject", "send_response", "debug", "logger"},
}
"""What is set, or read from outside: setting what a library has no more would be no error."""


def ours(module: ModuleType) -> list[type]:
    """The classes of a module that stand on another's."""
    made = [each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__]
    return [each for each in made if foreign(each)]


def foreign(kind: type) -> list[type]:
    """The classes of libraries that it stands on."""
    return [base for base in kind.__mro__ if base.__module__.partition(".")[0] in ("uvicorn", "websockets", "redis")]


def members(kind: type) -> set[str]:
    """What the source of a class sets on itself or defines, and that of those it stands on."""
    text = "\n".join(inspect.getsource(base) for base in foreign(kind))
    return {name for pair in re.findall(r"self\.(\w+)|def (\w+)", text) for name in pair if name}


def used(kind: type) -> set[str]:
    """What our code reads of itself, and does not define or set itself."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(kind) or kind))
    own, seen = set(dir(kind)) - set().union(*(dir(base) for base in foreign(kind))), set()
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__]
    for node in ast.walk(classes[0]):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()"):
            if isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            else:
                seen.add(node.attr)
    return seen - own - set(dir(object))


@pytest.mark.parametrize("kind", [kind for module in MODULES for kind in ours(module)], ids=str)
def test_every_member_that_our_classes_use_is_one_of_the_library_s(kind: type) -> None:
    inherited = {name for base in kind.__mro__ if base.__module__.startswith("app.") for name in vars(base)}
    assert used(kind) <= members(kind) | inherited


@pytest.mark.parametrize("kind", SET, ids=str)
def test_every_member_that_is_set_or_read_from_outside_is_one_of_the_library_s(kind: type) -> None:
    assert SET[kind] <= members(kind) | set(dir(kind))
