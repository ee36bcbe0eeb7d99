"""A viewer's connection, once it has been handed over: bytes go straight to the transport, no task waits on it.

Owns: what the other side may still say (on a WebSocket: control frames, and messages that are read and ignored), when a
connection is full, and closing it so that nothing that was written is cut. Never: frames a message twice; what it
writes was framed for all viewers.
Always: what is kept for a connection is bounded; while it is full, nothing is read from it, so that not even its pings
can make it grow.
"""

import asyncio
import json
import random
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from app.wire.framing import chunk, end_text, server_sent_event, unchunked_event, websocket_frame
from app.wire.stall_detector import Acknowledged, read_acknowledged
from app.wire.websocket_input import CLOSE, PING, FrameReader, ProtocolViolation

FULL_BYTES = 256 * 1024
DRAINED_BYTES = 32 * 1024
"""A connection is full from the one on, until no more than the other is left."""

EMPTY_PING = b"\x89\x00"
EMPTY_PONG = b"\x8a\x80"
REASON_BYTES = 123

NO_MORE = 1000
"""Close code of a stream that has nothing more to say. https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1"""

RETRY_MS = 3000
SHORTEST_RETRY_MS = 1000
"""When an EventSource comes back, with a jitter of a fifth, and the least that it is told when it is sent away."""


class ConnectionListener(Protocol):
    """Who is told what becomes of a connection."""

    def on_full(self, connection: "Connection") -> None:
        """Its buffer takes no more."""

    def on_drained(self, connection: "Connection") -> None:
        """Its buffer takes more again."""

    def on_closing(self, connection: "Connection") -> None:
        """Its close was written; it ends when the other side has taken it."""

    def on_lost(self, connection: "Connection") -> None:
        """The connection is gone."""

    def on_shutdown(self) -> None:
        """The server ends: send everybody away."""


class Connection(asyncio.Protocol):
    """What a WebSocket and an event stream have in common. While it lives it is one of the server's `connections`."""

    __slots__ = ("__weakref__", "_connections", "closing", "full", "listener", "transport", "write")

    def __init__(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        self.transport = transport
        self.write: Callable[[bytes], None] = transport.write
        self.full = False
        self.closing = False
        self.listener: ConnectionListener | None = None
        self._connections = connections
        connections.add(self)
        transport.set_write_buffer_limits(FULL_BYTES, DRAINED_BYTES)

    @property
    def acknowledged(self) -> Acknowledged:
        """What the other side has taken of all that was written."""
        return read_acknowledged(self.transport)

    def pause_writing(self) -> None:
        self.full = True
        self.transport.pause_reading()
        if self.listener is not None:
            self.listener.on_full(self)

    def resume_writing(self) -> None:
        self.full = False
        if not self.transport.is_closing():
            self.transport.resume_reading()
        if self.listener is not None:
            self.listener.on_drained(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self.listener is not None:
            self.listener.on_lost(self)

    def _begin_close(self) -> bool:
        """Whether this is the first close."""
        if self.closing:
            return False
        self.closing = True
        if self.listener is not None:
            self.listener.on_closing(self)
        return True

    def abort(self) -> None:
        """End it at once, whatever was not sent."""
        self.transport.abort()

    def shutdown(self) -> None:
        """uvicorn's shutdown, where no drain came before it: send everybody away."""
        if self.listener is not None:
            self.listener.on_shutdown()
        else:
            self.close(1012, "")

    @property
    @abstractmethod
    def wrap(self) -> Callable[[bytes, str], bytes]:
        """The function that frames a text and its position for this kind of connection."""

    @abstractmethod
    def close(self, code: int, reason: str) -> None:
        """Send what was written, then end. A second call does nothing."""

    @abstractmethod
    def send_end(self, status: str, position: str) -> None:
        """Say how the job ended, then close: nothing more will come."""

    @abstractmethod
    def send_ping(self) -> None:
        """Show every proxy in between that the connection is in use."""


class WebSocketConnection(Connection):
    """A WebSocket after its handshake. https://www.rfc-editor.org/rfc/rfc6455"""

    __slots__ = ("_frame_reader", "_input_over")

    @property
    def wrap(self) -> Callable[[bytes, str], bytes]:
        return websocket_frame

    def __init__(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        super().__init__(transport, connections)
        self._frame_reader: FrameReader | None = None
        self._input_over = False

    def data_received(self, data: bytes) -> None:
        if self._frame_reader is None:
            if len(data) == 6 and data.startswith(EMPTY_PONG):
                return
            self._frame_reader = FrameReader()
        if self._input_over:
            return
        pongs: list[bytes] = []
        try:
            for opcode, payload in self._frame_reader.read(data):
                if opcode == PING:
                    pongs.append(b"\x8a%c%b" % (len(payload), payload))
                elif opcode == CLOSE:
                    self._send_pongs(pongs)
                    self._answer_close(payload)
                    return
            self._send_pongs(pongs)
        except ProtocolViolation as violation:
            self._send_pongs(pongs)
            self._close_after_violation(violation)

    def _send_pongs(self, pongs: list[bytes]) -> None:
        if pongs and not self.closing:
            self.write(b"".join(pongs))

    def _answer_close(self, payload: bytes) -> None:
        """The other side closes, or answers our close: https://www.rfc-editor.org/rfc/rfc6455#section-7.1"""
        self._input_over = True
        if self._begin_close():
            self.write(b"\x88%c%b" % (len(payload), payload))
        self.transport.close()

    def _close_after_violation(self, violation: ProtocolViolation) -> None:
        """Close, and ignore all further input. To close the socket now could reset it: unread data may be left."""
        self._input_over = True
        self.close(violation.code, violation.reason)
        self.transport.write_eof()

    def close(self, code: int, reason: str) -> None:
        if self._begin_close():
            body = code.to_bytes(2) + reason.encode()[:REASON_BYTES].decode(errors="ignore").encode()
            self.write(b"\x88%c%b" % (len(body), body))

    def send_end(self, status: str, position: str) -> None:
        self.close(NO_MORE, end_text(status).decode())

    def send_ping(self) -> None:
        self.write(EMPTY_PING)


class EventStreamConnection(Connection):
    """A response of server-sent events after its head. Whatever else is requested on the connection is not read.

    It begins with when to come back, so that what an earlier one said, when it was sent away, is not for ever.
    """

    __slots__ = ()

    last = b"0\r\n\r\n"
    """What ends the body."""

    def __init__(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        super().__init__(transport, connections)
        self.write(self.encode_body(retry_text(random.randint(RETRY_MS * 4 // 5, RETRY_MS * 6 // 5))))

    @property
    def wrap(self) -> Callable[[bytes, str], bytes]:
        return server_sent_event

    def data_received(self, data: bytes) -> None:
        self.transport.pause_reading()

    def close(self, code: int, reason: str) -> None:
        if self._begin_close():
            if reason:
                self.write(self.encode_body(retry_text(SHORTEST_RETRY_MS + reconnect_after_ms(reason))))
            self.write(self.last)
            self.transport.close()

    def send_end(self, status: str, position: str) -> None:
        if not self.closing:
            self.write(self.encode_body(b"event: end\nid: %b\ndata: %b\n\n" % (position.encode(), end_text(status))))
        self.close(NO_MORE, "")

    def send_ping(self) -> None:
        self.write(self.encode_body(b":\n"))

    def encode_body(self, text: bytes) -> bytes:
        """Text as a piece of the body."""
        return chunk(text)


class UnchunkedEventStreamConnection(EventStreamConnection):
    """The same to HTTP/1.0: the body ends with the connection."""

    __slots__ = ()

    last = b""

    @property
    def wrap(self) -> Callable[[bytes, str], bytes]:
        return unchunked_event

    def encode_body(self, text: bytes) -> bytes:
        return text


def retry_text(after_ms: int) -> bytes:
    """What tells an EventSource when to come back."""
    return b"retry: %d\n\n" % after_ms


def reconnect_reason(reconnect_after_ms: int) -> str:
    """The reason of a close that asks to come back, elsewhere or later."""
    return json.dumps({"reconnectAfterMs": reconnect_after_ms}, separators=(",", ":"))


def reconnect_after_ms(reason: str) -> int:
    """The delay that a reason of `reconnect_reason` names; 0 for another reason."""
    try:
        return int(json.loads(reason)["reconnectAfterMs"])
    except (ValueError, TypeError, KeyError):
        return 0
