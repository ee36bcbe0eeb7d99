"""uvicorn's two protocols, able to hand a connection over: the request is handled as any other, then it is ours.

An application finds `jobwire.hand_over` among the scope's extensions. Called after all checks, it returns a Connection
(None when the client has gone); the application then returns, and with it every object of the request. On a WebSocket
it accepts; on HTTP the head of the response has been sent before.

Owns: the handshake of a WebSocket, refused in JSON where it is broken, and the subprotocol that is answered. Never:
logs an address with its query, which may hold a key.
"""

import functools
import logging
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from app.metrics import catalog
from app.model.errors import ApiError, invalid
from app.wire.connection import EventStreamConnection, UnchunkedEventStreamConnection, WebSocketConnection
from app.wire.direct_exchange import DIRECT
from app.wire.http_protocol import UNREADABLE, HttpProtocol, StrictCycle

log = logging.getLogger("jobwire.web")
quiet = logging.getLogger("jobwire.websocket")
quiet.setLevel(logging.WARNING)
"""Where websockets and uvicorn write of a WebSocket: at INFO, lines for each, with the query of its address."""

HAND_OVER = "jobwire.hand_over"
SUBPROTOCOL = "jobwire"


class Handshake(ServerProtocol):
    """A handshake whose refusals are JSON. https://www.rfc-editor.org/rfc/rfc6455#section-4.2.2"""

    def reject(self, status: Any, text: str) -> Response:
        failed = ApiError("internal", "The WebSocket could not be opened.")
        error = invalid(" ".join(text.split())) if status < 500 else failed
        catalog.count_refusal(error.code, ())
        response = super().reject(error.kind.status, msgspec.json.encode(error.body()).decode())
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        response.headers["Sec-WebSocket-Version"] = "13"
        return response


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """The handshake of a WebSocket."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_handed_over = False
        self.logger = quiet
        self.conn = Handshake(logger=quiet)
        self.conn.debug = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            self._refuse_unreadable()

    def _refuse_unreadable(self) -> None:
        """Answer a head of which websockets makes no request: one with a body, or with too many or too long lines."""
        unsent = self.conn.data_to_send()
        refusal = b"".join(unsent) or self.conn.reject(400, UNREADABLE).serialize()
        self.handshake_complete = True
        self.transport.write(refusal)
        self.transport.close()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            scope: Any = self.scope
            scope["extensions"][HAND_OVER] = self.hand_over

    def hand_over(self) -> WebSocketConnection | None:
        """Accept, and hand over."""
        if self.disconnected or self.transport.is_closing():
            return None
        self.is_handed_over = self.handshake_complete = True
        del self.response.headers["Date"]
        if SUBPROTOCOL in self.scope["subprotocols"]:
            self.response.headers["Sec-WebSocket-Protocol"] = SUBPROTOCOL
        for name, value in self.default_headers:
            self.response.headers[name.decode("latin-1")] = value.decode("latin-1")
        self.conn.send_response(self.response)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.connections.discard(self)
        connection = WebSocketConnection(self.transport, self.connections)
        self.transport.set_protocol(connection)
        return connection

    async def run_asgi(self) -> None:
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            log.exception("a WebSocket request failed: %s", self.scope["path"])
            self.send_500_response()
        if not self.is_handed_over:
            if not self.handshake_complete:
                self.send_500_response()
            self.transport.close()


class HandoverHttpProtocol(HttpProtocol):
    """A request that may become an event stream."""

    def on_request_begun(self, cycle: RequestResponseCycle) -> None:
        super().on_request_begun(cycle)
        scope: Any = cycle.scope
        extensions: dict[str, Any] = {HAND_OVER: functools.partial(self.hand_over, cycle)}
        scope["extensions"] = extensions
        if not isinstance(cycle, StrictCycle):
            extensions[DIRECT] = cycle

    def hand_over(self, cycle: RequestResponseCycle) -> EventStreamConnection | None:
        """Hand over, after the head of a response without a length."""
        if cycle.disconnected or self.transport.is_closing():
            return None
        cycle.disconnected = True
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        kind = EventStreamConnection if cycle.scope["http_version"] == "1.1" else UnchunkedEventStreamConnection
        connection = kind(self.transport, self.connections)
        self.transport.set_protocol(connection)
        return connection
