"""The trail of a request: its id, which the client gives or gets, and the line that the log has of it.

Owns: `x-request-id` on every answer, and what of a request is logged: never its query, its headers or its body, for
these may hold keys.
"""

import re
import secrets
from itertools import count
from time import perf_counter, time

from starlette.types import Message, Scope, Send

from app.clock import rfc3339
from app.service_log import RequestLines, masked

REQUEST_ID = "jobwire.request_id"
ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""https://www.w3.org/TR/trace-context/#traceparent-header"""

_PROCESS = secrets.token_hex(6)
_NUMBERS = count(1)


class Trail:
    """Stands in for `send`."""

    __slots__ = ("_begun_s", "_id", "_send", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._begun_s = perf_counter()
        self._send = send
        self._id = scope[REQUEST_ID] = id_of(scope)
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = (b"x-request-id", self._id)
            message = {**message, "headers": [*message["headers"], own]}
        await self._send(message)

    def write(self, scope: Scope, lines: RequestLines) -> None:
        """One line; status 0 when there was no answer, for the client had gone."""
        line = {
            "at": rfc3339(int(time() * 1000)),
            "level": "error" if self.status >= 500 else "info",
            "logger": "jobwire.request",
            "requestId": self._id.decode(),
            "method": scope["method"],
            "path": masked(scope["path"]),
            "status": self.status,
            "ms": round((perf_counter() - self._begun_s) * 1000, 3),
            "client": (scope.get("client") or [""])[0],
        }
        trace = traceparent_of(scope)
        if trace:
            line["traceparent"] = trace
        lines.add(line)


def id_of(scope: Scope) -> bytes:
    """The id that the client gave, or a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and ID.fullmatch(value):
            given: bytes = value
            return given
    return b"%b-%x" % (_PROCESS.encode(), next(_NUMBERS))


def traceparent_of(scope: Scope) -> str:
    """The trace that the request is part of, or "". What is no traceparent is ignored, as the specification says."""
    for name, value in scope["headers"]:
        if name == b"traceparent" and TRACEPARENT.fullmatch(value):
            return str(value.decode())
    return ""
