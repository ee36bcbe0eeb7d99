"""HTTP/1.1 on a connection, as uvicorn speaks it, with three differences that clients and the operator notice.

What is no HTTP is refused in JSON, as everything else is. The head of a request (its URL and headers, chunk headers and
trailers too) is bounded: uvicorn's httptools protocol holds whatever is sent. And so is the time in which a head comes:
uvicorn's only time-out begins when a request has been answered, and ends with the first byte of the next.
"""

from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import metrics
from app.error import Refusal, invalid, too_large

HEAD_BYTES = 65_536


class Protocol(HttpToolsProtocol):
    """Never holds more of a request's head than HEAD_BYTES and one read of the socket."""

    _held_bytes = 0
    """Bytes received since something was handed on: a whole head, or a piece of a body."""

    _seen: Any = ()
    """The request, by its scope, that was under way at the last look; None when there had been none at all."""

    def look(self) -> None:
        """Hang up if the other side was the one to go on with the same request at the look before, and is again.

        To go on with a head, or with a body that is no longer wanted: while a request is being answered, whoever
        answers it knows how long to wait for its body. For a clock to call; requests themselves pay nothing for it.
        """
        cycle = self.cycle
        is_stuck = cycle is None or (cycle.response_complete and (cycle.more_body or cycle.scope is not self.scope))
        if is_stuck and self._seen is self.scope:
            self.transport.close()
        self._seen = self.scope

    def data_received(self, data: bytes) -> None:
        self._held_bytes += len(data)
        super().data_received(data)
        if self._held_bytes > HEAD_BYTES and not self.transport.is_closing():
            text = f"The URL and headers are larger than {HEAD_BYTES} bytes."
            self._refuse(too_large(text, "headBytes", HEAD_BYTES))

    def on_message_begin(self) -> None:
        self._held_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._held_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._held_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._held_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(invalid(msg))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer and hang up; only hang up where the answer to an earlier request is still to be finished."""
        metrics.refused(refusal.code, refusal.more.get("limit", ()))
        if self.cycle is None or self.cycle.response_complete:
            body = msgspec.json.encode(refusal.body())
            status = b"413 Content Too Large" if refusal.code == "too_large" else b"400 Bad Request"
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()
