"""uvicorn's two protocols, able to hand a connection over: the request is handled as any other, then it is ours.

An application finds `jobwire.take` among the scope's extensions. Called after all checks, it returns an Outlet (None
when the client has gone); the application then returns, and with it every object of the request. On a WebSocket it
accepts; on HTTP the head of the response has been sent before.

Owns: keeping the `token` of a query out of every scope, and so out of every log line: it comes as the extension
`jobwire.token`.
"""

import functools
import logging
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from app.outlet import EventStreamOutlet, WebSocketOutlet
from app.protocol import Protocol

log = logging.getLogger("jobwire.web")
quiet = logging.getLogger("jobwire.websocket")
quiet.setLevel(logging.WARNING)
"""Where websockets writes: at INFO, a line for each connection that opens, which takes a tenth of a handshake."""

TAKE = "jobwire.take"
TOKEN = "jobwire.token"


def hide_token(scope: MutableMapping[str, Any]) -> None:
    """Move `?token=` from the scope's query to its extensions."""
    query: bytes = scope["query_string"]
    if b"token" not in query:
        return
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    tokens = [value for name, value in pairs if name == "token"]
    if tokens:
        scope["query_string"] = urlencode([p for p in pairs if p[0] != "token"], encoding="latin-1").encode("latin-1")
        scope.setdefault("extensions", {})[TOKEN] = tokens[-1]


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """The handshake of a WebSocket."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.taken = False
        self.conn.debug = False
        self.conn.logger = quiet

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            scope: Any = self.scope
            hide_token(scope)
            scope["extensions"][TAKE] = self.take

    def take(self) -> WebSocketOutlet | None:
        """Accept, and hand over."""
        if self.disconnected or self.transport.is_closing():
            return None
        self.taken = self.handshake_complete = True
        del self.response.headers["Date"]
        for name, value in self.default_headers:
            self.response.headers[name.decode("latin-1")] = value.decode("latin-1")
        self.conn.send_response(self.response)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.connections.discard(self)
        outlet = WebSocketOutlet(self.transport, self.connections)
        self.transport.set_protocol(outlet)
        return outlet

    async def run_asgi(self) -> None:
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            log.exception("a WebSocket request failed: %s", self.scope["path"])
            self.send_500_response()
        if not self.taken:
            if not self.handshake_complete:
                self.send_500_response()
            self.transport.close()


class HttpProtocol(Protocol):
    """A request that may become an event stream."""

    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            scope: Any = self.cycle.scope
            hide_token(scope)
            scope.setdefault("extensions", {})[TAKE] = functools.partial(self.take, self.cycle)

    def take(self, cycle: RequestResponseCycle) -> EventStreamOutlet | None:
        """Hand over, after the head of a response without a length."""
        if cycle.disconnected or self.transport.is_closing():
            return None
        cycle.disconnected = True
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        outlet = EventStreamOutlet(self.transport, self.connections)
        self.transport.set_protocol(outlet)
        return outlet
