"""A viewer's connection, once it has been handed over: bytes go straight to the transport, no task waits on it.

Owns: what the other side may still say (on a WebSocket: control frames, and messages that are read and ignored), when a
connection is full, and closing it so that nothing that was written is cut. Never: frames a message twice; what it
writes was framed for all viewers.
Always: what is kept for a connection is bounded; while it is full, nothing is read from it, so that not even its pings
can make it grow.
"""

import asyncio
import json
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from websockets.frames import Close, Frame, Opcode
from websockets.protocol import SERVER
from websockets.protocol import Protocol as WebSocket

from app.event import chunk, server_sent_event, websocket_frame
from app.patience import Taken, taken

FULL_BYTES = 256 * 1024
DRAINED_BYTES = 32 * 1024
"""A connection is full from the one on, until no more than the other is left."""

INBOUND_BYTES = 4096
"""The longest message that a viewer may send."""

PING = b"\x89\x00"
EMPTY_PONG = b"\x8a\x80"
REASON_BYTES = 123


class Watcher(Protocol):
    """Who is told what becomes of an outlet."""

    def filled(self, outlet: "Outlet") -> None:
        """It takes no more."""

    def drained(self, outlet: "Outlet") -> None:
        """It takes more again."""

    def ending(self, outlet: "Outlet") -> None:
        """Its close was written; it ends when the other side has taken it."""

    def lost(self, outlet: "Outlet") -> None:
        """It has gone."""

    def leave(self) -> None:
        """The server ends: send everybody away."""


class Outlet(asyncio.Protocol):
    """What a WebSocket and an event stream have in common. While it lives it is one of the server's `connections`."""

    __slots__ = ("__weakref__", "_connections", "closing", "full", "transport", "viewer", "watcher", "write")

    def __init__(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        self.transport = transport
        self.write: Callable[[bytes], None] = transport.write
        self.full = False
        self.closing = False
        self.watcher: Watcher | None = None
        self.viewer: Any = None
        self._connections = connections
        connections.add(self)
        transport.set_write_buffer_limits(FULL_BYTES, DRAINED_BYTES)

    @property
    def taken(self) -> Taken:
        """What the other side has taken of all that was written."""
        return taken(self.transport)

    def pause_writing(self) -> None:
        self.full = True
        self.transport.pause_reading()
        if self.watcher is not None:
            self.watcher.filled(self)

    def resume_writing(self) -> None:
        self.full = False
        if not self.transport.is_closing():
            self.transport.resume_reading()
        if self.watcher is not None:
            self.watcher.drained(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self.watcher is not None:
            self.watcher.lost(self)

    def _close_begins(self) -> bool:
        """Whether this is the first close."""
        if self.closing:
            return False
        self.closing = True
        if self.watcher is not None:
            self.watcher.ending(self)
        return True

    def abort(self) -> None:
        """End it at once, whatever was not sent."""
        self.transport.abort()

    def shutdown(self) -> None:
        """The server ends, and nobody has drained before it."""
        if self.watcher is not None:
            self.watcher.leave()
        else:
            self.close(1012, "")

    @property
    @abstractmethod
    def wrap(self) -> Callable[[bytes, str], bytes]:
        """What makes a text, at a position, ready to be written."""

    @abstractmethod
    def close(self, code: int, reason: str) -> None:
        """Send what was written, then end. Doing it again does nothing."""

    @abstractmethod
    def ping(self) -> None:
        """Show, to whatever lies between, that the connection is in use."""


class WebSocketOutlet(Outlet):
    """A WebSocket after its handshake. https://www.rfc-editor.org/rfc/rfc6455"""

    __slots__ = ("_kind", "_message", "_socket")

    @property
    def wrap(self) -> Callable[[bytes, str], bytes]:
        return websocket_frame

    def __init__(self, transport: asyncio.Transport, connections: set[Any]) -> None:
        super().__init__(transport, connections)
        self._socket: WebSocket | None = None
        self._message: list[bytes] = []
        self._kind = Opcode.BINARY

    def data_received(self, data: bytes) -> None:
        if self._socket is None:
            if len(data) == 6 and data.startswith(EMPTY_PONG):
                return
            self._socket = WebSocket(SERVER, max_size=INBOUND_BYTES)
        self._socket.receive_data(data)
        for event in self._socket.events_received():
            if isinstance(event, Frame) and self._heard(event):
                return
        self._answer()
        if self._socket.parser_exc is not None and self._close_begins():
            self.transport.write_eof()

    def _answer(self) -> None:
        if self._socket is not None and not self.closing:
            self.write(b"".join(self._socket.data_to_send()))

    def _heard(self, frame: Frame) -> bool:
        """Whether this frame ends the connection. Messages mean nothing here, but text has to be text."""
        if frame.opcode is Opcode.CLOSE:
            self._answer()
            self._close_begins()
            self.transport.close()
            return True
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            if frame.opcode is not Opcode.CONT:
                self._kind = frame.opcode
            self._message.append(bytes(frame.data))
            if frame.fin:
                message, self._message = b"".join(self._message), []
                if self._kind is Opcode.TEXT and not is_utf8(message):
                    self.close(1007, "text that is not UTF-8")
                    self.transport.write_eof()
                    return True
        return False

    def close(self, code: int, reason: str) -> None:
        if self._close_begins():
            body = Close(code, reason.encode()[:REASON_BYTES].decode(errors="ignore")).serialize()
            self.write(b"\x88%c%b" % (len(body), body))

    def ping(self) -> None:
        self.write(PING)


class EventStreamOutlet(Outlet):
    """A response of server-sent events after its head. Whatever else is requested on the connection is not read."""

    __slots__ = ()

    @property
    def wrap(self) -> Callable[[bytes, str], bytes]:
        return server_sent_event

    def data_received(self, data: bytes) -> None:
        self.transport.pause_reading()

    def close(self, code: int, reason: str) -> None:
        if self._close_begins():
            if reason:
                self.write(chunk(b"retry: %d\n\n" % retry_ms(reason)))
            self.write(b"0\r\n\r\n")
            self.transport.close()

    def ping(self) -> None:
        self.write(chunk(b":\n\n"))


def is_utf8(text: bytes) -> bool:
    """Whether the bytes are UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def away(reconnect_after_ms: int) -> str:
    """The reason of a close that asks to come back, elsewhere or later."""
    return json.dumps({"reconnectAfterMs": reconnect_after_ms}, separators=(",", ":"))


def retry_ms(reason: str) -> int:
    """What `away` said; 1000 for another reason."""
    try:
        return int(json.loads(reason)["reconnectAfterMs"])
    except (ValueError, TypeError, KeyError):
        return 1000
