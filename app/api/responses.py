"""Answers as they leave: a whole one, in JSON, or a streamed one.

Never: knows what a job is, or what went wrong: see error_answers.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.types import Message, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.wire.direct_exchange import write_answer

JSON = "application/json"
NDJSON = "application/x-ndjson"

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

    def write(self, cycle: RequestResponseCycle, *more: tuple[bytes, bytes]) -> bool:
        """As `send`, at once. False, and nothing was done, where it has to be sent."""
        if self.headers or not self.body or len(self.body) > BUFFER_BYTES:
            return False
        length = (b"content-length", b"%d" % len(self.body))
        return write_answer(cycle, self.status, (JSON_HEADER, length, *more), self.body)

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

    def write(self, cycle: RequestResponseCycle, *more: tuple[bytes, bytes]) -> bool:
        """It is never written at once."""
        return False


NO_CONTENT = Answer(204, b"")


def json_answer(body: Any, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """An answer of anything that msgspec encodes as JSON."""
    return Answer(status, msgspec.json.encode(body), headers)
