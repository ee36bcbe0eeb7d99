"""HTTP/1.1 on a connection, as uvicorn speaks it, with differences that clients and the operator notice.

What is no HTTP is refused in JSON, as everything else is. The head of a request (its URL and headers, chunk headers and
trailers too) is bounded: uvicorn's httptools protocol holds whatever is sent. And so is the time in which a head comes,
and in which nothing of a body does: uvicorn's only time-out begins when a request has been answered, and ends with the
first byte of the next.

Always: one request is one request. An upgrade that is offered is taken only from the GET of a WebSocket; every other
offer is passed over, and the body behind it is read as a body. What a trailer has is no header. What cannot be read as
one request ends the connection. Who speaks HTTP/1.0 is sent no chunks. Of requests that come before those ahead of them
are answered, a few are looked at and one read of the socket is held, however many come: uvicorn makes objects of a
hundred times their size of all of them.
"""

import asyncio
from typing import Any

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.metrics import catalog
from app.model.errors import Refusal, TooLarge, invalid, too_large
from app.wire.stall_detector import Acknowledged, read_acknowledged

HEAD_BYTES = 65_536

PARSE_BYTES = 4096
"""What the parser is given at a time: some 200 requests at the most, which are a few ms. Of a body whose length was
declared it is given all that has come."""

UNREADABLE = "Invalid HTTP request received."
CHUNKED = b"chunked"

HEAD_S = 10.0
BODY_S = 30.0
"""How long the other side may take for a head, and how long nothing of a body may come, up to two looks more."""


class StrictCycle(RequestResponseCycle):
    """A request of HTTP/1.0, or one that waits for `100 Continue`, and its answer.

    To HTTP/1.0 a body without a length ends with the connection: https://www.rfc-editor.org/rfc/rfc9112#section-6.1
    Who was answered while waiting may send the body or leave it out, so that what comes next could be either:
    https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1
    """

    _is_measured = True

    async def send(self, message: Any) -> None:
        if not self.response_started:
            if self.waiting_for_100_continue and self.more_body:
                self.keep_alive = False
            self._is_measured = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if self.scope["http_version"] != "1.1" and not self._is_measured:
                self.chunked_encoding = False
        elif self.chunked_encoding is False and not self._is_measured:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


class PausingFlow(FlowControl):
    """Reads no further while what was read before is still to be looked at, whoever asks for more."""

    behind = False

    def resume_reading(self) -> None:
        if not self.behind:
            super().resume_reading()


class HttpProtocol(HttpToolsProtocol):
    """Never holds more of a request's head than HEAD_BYTES and one read of the socket."""

    flow: PausingFlow

    _unread = b""
    """What has come behind requests that are still to be answered."""

    _held_bytes = 0
    """Bytes received since something was handed on: a whole head, or a piece of a body."""

    _received_bytes = 0
    """Bytes received in all."""

    _body_bytes = 0
    """Bytes received of the body that is coming, or came last."""

    _answering: RequestResponseCycle | None = None
    """The request that is being answered, or was last; `cycle` is the last that has begun."""

    _accepted_s = 0.0
    _awaited: Any = ()
    _awaited_s = 0.0
    """What the other side had to go on with at the last look, and since when it has been the same."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self.flow = PausingFlow(transport)
        self._accepted_s = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """The one that is being answered hears of it, too: uvicorn tells the last that has begun."""
        super().connection_lost(exc)
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()

    @property
    def idle_since_s(self) -> float | None:
        """Since when it has been for the other side to begin a request; None when one has begun."""
        if not self._received_bytes:
            return self._accepted_s
        timer = self.timeout_keep_alive_task
        return None if timer is None else timer.when() - self.timeout_keep_alive

    @property
    def full(self) -> bool:
        """Whether more of an answer waits than its buffer takes."""
        return self.flow.write_paused

    @property
    def acknowledged(self) -> Acknowledged:
        """What the other side has taken of all that was written."""
        return read_acknowledged(self.transport)

    def end_if_stalled(self, now_s: float) -> str:
        """Hang up if the other side has had to go on with the same thing for too long; then say with what, else "".

        With a head, with a body of which nothing comes, or with one that is no longer wanted. For a clock to call:
        requests pay a single addition for it.
        """
        awaited, what, most_s = self._awaited_now()
        if awaited is not self._awaited:
            self._awaited, self._awaited_s = awaited, now_s
        elif what and now_s - self._awaited_s > most_s and not self.transport.is_closing():
            self.transport.close()
            return what
        return ""

    def _awaited_now(self) -> tuple[Any, str, float]:
        """What is to come from the other side, what to call it, and how long that may take.

        The first is another object as soon as it goes on: with a head when it is whole, with a body at each byte.
        """
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            if cycle is not None and cycle.scope is self.scope:
                if cycle.more_body:
                    return self.scope, "body", BODY_S
                if self.timeout_keep_alive_task is not None:
                    return (), "", 0.0
            return self.scope, "head", HEAD_S
        if cycle.more_body and not self.flow.read_paused and not cycle.waiting_for_100_continue:
            return self._received_bytes, "body", BODY_S
        return (), "", 0.0

    def data_received(self, data: bytes) -> None:
        if len(data) <= PARSE_BYTES and not self.pipeline and not self._unread:
            self._read(data)
        else:
            self._read_on(self._unread + data)

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._answering = self.pipeline[-1][0]
        super().on_response_complete()
        if self._unread and not self.pipeline:
            self.loop.call_soon(self._read_on)

    def _read_on(self, data: bytes = b"") -> None:
        """Look at what has come, piece by piece, until a request is to wait for those before it."""
        view, start = memoryview(data or self._unread), 0
        self._unread = b""
        while start < len(view) and not self.pipeline and not self.transport.is_closing() and self._is_open_and_ours():
            piece = view[start : start + (self._declared_bytes_left() or PARSE_BYTES)]
            self._read(piece)
            start += len(piece)
        if self._is_open_and_ours():
            self._unread = bytes(view[start:])
            self._keep_pace()

    def _declared_bytes_left(self) -> int:
        """How much is still to come of a body whose length was declared: so many bytes are no head."""
        cycle = self.cycle
        if cycle is None or not cycle.more_body or cycle.scope is not self.scope:
            return 0
        declared = next((int(value) for name, value in cycle.scope["headers"] if name == b"content-length"), 0)
        return max(0, declared - self._body_bytes)

    def _keep_pace(self) -> None:
        """Take in no more while something is unread."""
        caught_up = self.flow.behind and not self._unread
        self.flow.behind = bool(self._unread)
        if self.flow.behind:
            self.flow.pause_reading()
        elif caught_up and not self.pipeline:
            self.flow.resume_reading()

    def _is_open_and_ours(self) -> bool:
        """Whether the connection is still there, and was not handed over."""
        return self.parser is not None and self.transport.get_protocol() is self

    def _read(self, data: bytes | memoryview) -> None:
        self._unset_keepalive_if_required()
        self._received_bytes += len(data)
        self._held_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserError:
            self.send_400_response(UNREADABLE)
        except HttpParserUpgrade as offer:
            self._answer_offers(memoryview(data)[offer.args[0] :])
        if self._held_bytes > HEAD_BYTES and not self.transport.is_closing():
            text = f"The URL and headers are larger than {HEAD_BYTES} bytes."
            self._refuse(too_large(text, "headBytes", HEAD_BYTES))

    def _should_upgrade(self) -> bool:
        """uvicorn then makes no request of a head that offers an upgrade: what it becomes is decided after it."""
        return True

    def _answer_offers(self, rest: memoryview) -> None:
        """Go on after a head that offers an upgrade, and after each such head in the rest of what has come.

        The parser stops at it, takes nothing behind it for its body, and cannot be told that nothing is upgraded: so
        that another one reads the head again, without the offer.
        """
        try:
            while not self.transport.is_closing():
                if self._opens_websocket():
                    self.handle_websocket_upgrade()
                    return
                head = self._head_without_offer()
                self.parser = HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)
                try:
                    self.parser.feed_data(rest)
                    return
                except HttpParserUpgrade as offer:
                    rest = rest[offer.args[0] :]
        except HttpParserError:
            self.send_400_response(UNREADABLE)

    def _opens_websocket(self) -> bool:
        """Whether the head is that of a WebSocket: https://www.rfc-editor.org/rfc/rfc6455#section-4.1

        Not behind a request that is still being answered: two would write at once.
        """
        offered = [value.lower() for name, value in self.scope["headers"] if name == b"upgrade"]
        is_get = self.scope["method"] == "GET" and self.scope["http_version"] == "1.1"
        return is_get and offered == [b"websocket"] and (self.cycle is None or self.cycle.response_complete)

    def _head_without_offer(self) -> bytes:
        """The head as it came, but for what it offers. HttpParserError for a CONNECT, which is nothing else."""
        if self.scope["method"] == "CONNECT":
            raise HttpParserError
        start = f"HTTP/{self.scope['http_version']}".encode()
        lines = [b"%b %b %b" % (self.scope["method"].encode(), self.url, start)]
        lines += [b"%b: %b" % header for header in self.scope["headers"] if header[0] != b"upgrade"]
        return b"\r\n".join((*lines, b"", b""))

    def on_message_begin(self) -> None:
        self._held_bytes = self._body_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._held_bytes = 0
        before = self.cycle
        super().on_headers_complete()
        self.headers = []  # where fields of a trailer go: they must not pass for those of the head
        if self.cycle is not before:
            if before is None or before.response_complete:
                self._answering = self.cycle
            self.on_request_begun(self.cycle)

    def on_request_begun(self, cycle: RequestResponseCycle) -> None:
        """A request has begun. HTTP/1.0 knows no `100 Continue`."""
        if cycle.scope["http_version"] != "1.1":
            cycle.keep_alive = cycle.waiting_for_100_continue = False
            cycle.__class__ = StrictCycle
        elif cycle.waiting_for_100_continue:
            cycle.__class__ = StrictCycle

    def on_chunk_header(self) -> None:
        """Refuse a body that is coded in another way before it is chunked. The parser does not."""
        codings = (value for name, value in self.scope["headers"] if name == b"transfer-encoding")
        if any(coding.lower() != CHUNKED for coding in codings):
            raise HttpParserError

    def on_body(self, body: bytes) -> None:
        self._held_bytes = 0
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._held_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(invalid(msg))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer and hang up; only hang up where the answer to an earlier request is still to be finished."""
        catalog.count_refusal(refusal.code, refusal.more.get("limit", ()))
        if self.cycle is None or self.cycle.response_complete:
            body = msgspec.json.encode(refusal.body())
            status = b"413 Content Too Large" if isinstance(refusal, TooLarge) else b"400 Bad Request"
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()
