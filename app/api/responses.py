"""Answers as they leave: a whole one or a streamed one, and those that an error or a bug stands for, in JSON.

Never: knows what a job is.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.types import Message, Scope, Send

from app.api.request_log import SCOPE_REQUEST_ID
from app.metrics import catalog
from app.model.errors import ApiError, Refusal

log = logging.getLogger("jobwire.api")

JSON = "application/json"
NDJSON = "application/x-ndjson"
READ_METHODS = "GET, HEAD"
"""The methods of a path that is only read, as the header `Allow` has them."""


BUFFER_BYTES = 65_536
"""Answers up to this size are left to the connection's buffer, which is full from there on."""

JSON_HEADER = (b"content-type", b"application/json")


class Answer(NamedTuple):
    """A whole answer: status, JSON body, and headers besides its type and length."""

    status: int
    body: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()

    async def send(self, send: Send, *more: tuple[bytes, bytes]) -> None:
        """Send it, with `more` headers."""
        length = (b"content-length", b"%d" % len(self.body))
        headers = [JSON_HEADER, length, *self.headers, *more] if self.body else [length, *self.headers, *more]
        start: Message = {"type": "http.response.start", "status": self.status, "headers": headers}
        await send(start)
        if len(self.body) > BUFFER_BYTES:  # what ends the answer is not sent before this has left us
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "http.response.body", "body": self.body})

    @property
    def held_bytes(self) -> int:
        """How many bytes are to be counted until it was taken."""
        size = len(self.body)
        return size if size > BUFFER_BYTES else 0


class Streamed(NamedTuple):
    """An answer that is sent by its own function, which begins with the response's start."""

    run: Callable[[Send], Awaitable[None]]
    status: int = 200
    held_bytes: int = 0
    """How many bytes it holds at most at one time."""

    async def send(self, send: Send, *more: tuple[bytes, bytes]) -> None:
        """Send it; what it begins with is its own, so that `more` headers are not for it."""
        await self.run(send)


NO_CONTENT = Answer(204, b"")


def json_answer(body: Any, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """An answer of anything that msgspec encodes as JSON."""
    return Answer(status, msgspec.json.encode(body), headers)


def error_answer(error: ApiError) -> Answer:
    """The answer that a refusal or an outage stands for."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in error.headers.items()]
    return Answer(error.kind.status, msgspec.json.encode(error.body()), headers)


def not_found_answer() -> Answer:
    """The answer for a path that does not exist."""
    return error_answer(Refusal("not_found", "No such path."))


def method_refused_answer(allow: str) -> Answer:
    """The answer for a path that has other methods."""
    return error_answer(Refusal("method_not_allowed", f"This path allows {allow}.", headers={"allow": allow}))


def bug_answer(scope: Scope) -> Answer:
    """The answer when our own code failed: told to the log, with an id that the client is told, too."""
    catalog.BUGS.inc()
    known: bytes = scope.get(SCOPE_REQUEST_ID) or secrets.token_hex(8).encode()
    request_id = known.decode()
    log.exception("request %s failed: %s %s", request_id, scope.get("method"), scope["path"])
    return error_answer(ApiError("internal", "This is a bug in jobwire. It has been logged.", requestId=request_id))
