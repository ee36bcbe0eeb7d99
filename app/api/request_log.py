"""The log of a request: its id, which the client gives or gets, and the line that the log has of it.

Owns: `x-request-id` on every answer, and what of a request is logged: never its query, its headers or its body, for
these may hold keys.
"""

import asyncio
import os
import re
import secrets
from collections.abc import Mapping
from itertools import count
from time import time

import msgspec
from starlette.types import Message, Scope, Send

from app.metrics.service_log import mask_secrets
from app.model.times import rfc3339

SCOPE_HEADERS = "jobwire.headers"
SCOPE_REQUEST_ID = "jobwire.request_id"
"""Where a scope keeps its headers by their name, and the id of the request."""

ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""https://www.w3.org/TR/trace-context/#traceparent-header"""

TRACE_MEMBER = ',"traceparent":"%s"'
FLUSH_S = 0.1
HELD_LINES = 200
"""Requests that may wait to be written; then they are written at once."""

_NEW_ID = b"%b-%%x" % secrets.token_hex(6).encode()
_NUMBERS = count(1)


class LoggedSend:
    """Stands in for `send` where an answer is made by others: sets the id on it, and keeps its status."""

    __slots__ = ("_id", "_send", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._id = scope[SCOPE_REQUEST_ID]
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message["headers"], (b"x-request-id", self._id)]}
        await self._send(message)


def request_id_of(headers: Mapping[bytes, bytes]) -> bytes:
    """The id that the client gave, or a new one."""
    given = headers.get(b"x-request-id")
    return given if given is not None and ID.fullmatch(given) else _NEW_ID % next(_NUMBERS)


def traceparent_of(headers: Mapping[bytes, bytes]) -> str:
    """The trace that the request is part of, or "". What is no traceparent is ignored, as the specification says."""
    given = headers.get(b"traceparent")
    return given.decode() if given is not None and _TRACEPARENT.fullmatch(given) else ""


class RequestLog:
    """One line of JSON for each request, made and written some times a second."""

    def __init__(self) -> None:
        self._held: list[tuple[float, Scope, int, float]] = []
        self._at_ms = 0
        self._at = ""

    def add(self, scope: Scope, status: int, seconds: float) -> None:
        """A request was answered; status 0 when it was not, for the client had gone."""
        if not self._held:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._held.append((time(), scope, status, seconds))
        if len(self._held) >= HELD_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        held, self._held = self._held, []
        text = memoryview("".join([self._line(*request) for request in held]).encode())
        try:
            while text:
                text = text[os.write(2, text) :]
        except OSError:
            pass

    def _line(self, at_s: float, scope: Scope, status: int, seconds: float) -> str:
        at_ms = int(at_s * 1000)
        if at_ms != self._at_ms:
            self._at_ms, self._at = at_ms, rfc3339(at_ms)
        path: str = scope["path"]
        client: str = (scope.get("client") or ("",))[0]
        trace = traceparent_of(scope[SCOPE_HEADERS])
        return (
            f'{{"at":"{self._at}","level":"{"error" if status >= 500 else "info"}","logger":"jobwire.request",'
            f'"requestId":{_quoted(scope[SCOPE_REQUEST_ID].decode())},"method":{_quoted(scope["method"])},'
            f'"path":{_quoted(path)},"status":{status},"ms":{seconds * 1000:.3f},"client":{_quoted(client)}'
            f"{TRACE_MEMBER % trace if trace else ''}}}\n"
        )


def _quoted(text: str) -> str:
    """A value as JSON, without what looks like a key: nothing of a request is taken to be harmless."""
    return _encode_value(mask_secrets(text) if "_" in text else text).decode()


_encode_value = msgspec.json.Encoder().encode
