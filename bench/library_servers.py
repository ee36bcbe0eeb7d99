"""What stands in the place of a library, and the library: `python -m bench.library_servers APP [HTTP]`.

Each is a process as `jobwire web` is one; HTTP is `ours`, `messages`, or the name of a protocol of uvicorn's.
`POST /send` with `COUNT SIZE` sends so many texts of so many bytes to everybody who watches, each in a turn of the
event loop of its own.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.api.fast_path import Application
from app.main import web_from_environment
from app.serve import OPTIONS, address_of, open_listening_socket, run_process, serve
from app.wire.connection import Connection
from app.wire.direct_exchange import DIRECT
from app.wire.framing import unchunked_event
from app.wire.handover import HAND_OVER, HandoverHttpProtocol
from bench.server import echo
from bench.service import BASE

WATCH = f"{BASE}/x"
HELLO = b"hello"
EVENT_STREAM = "text/event-stream"


def routed() -> Starlette:
    """The product without its fast path: each call goes through Starlette's middleware and router."""
    app = web_from_environment()
    assert isinstance(app, Application)
    app.fast_paths = {}
    return app


class MessagesProtocol(HandoverHttpProtocol):
    """Our HTTP, on which every request is read and answered by messages of ASGI."""

    def on_request_begun(self, cycle: RequestResponseCycle) -> None:
        super().on_request_begun(cycle)
        extensions: Any = cycle.scope.get("extensions")
        extensions.pop(DIRECT, None)


def hall(to_all: Callable[[bytes], Awaitable[None]], *routes: BaseRoute) -> Starlette:
    """An application whose viewers come by `routes`, and are sent by `to_all` what /send asks for."""

    async def send(request: Request) -> Response:
        count, size = (int(word) for word in (await request.body()).split())
        for _ in range(count):
            await to_all(b"x" * size)
            await asyncio.sleep(0)
        return Response(b"")

    return Starlette(routes=[*routes, Route(f"{BASE}/send", send, methods=["POST"])])


def handed_over() -> Starlette:
    """WebSockets and event streams that were handed over: what is framed once is written to everybody."""
    everybody: set[Connection] = set()

    class Watch:
        """Both kinds, by one endpoint: a class is what Starlette takes for an ASGI application."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                headers = [(b"content-type", EVENT_STREAM.encode())]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            connection: Connection = scope["extensions"][HAND_OVER]()
            if scope["type"] == "websocket":
                connection.write(connection.wrap(HELLO, ""))
            everybody.add(connection)

    async def to_all(text: bytes) -> None:
        wrap, framed = None, b""
        for one in everybody:
            if one.wrap is not wrap:
                wrap = one.wrap
                framed = wrap(text, "")
            if not one.full and not one.transport.is_closing():
                one.write(framed)

    return hall(to_all, WebSocketRoute(WATCH, Watch()), Route(WATCH, Watch()))


def sockets() -> Starlette:
    """WebSockets by Starlette's send."""
    everybody: set[WebSocket] = set()

    async def watch(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(HELLO.decode())
        everybody.add(socket)
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await socket.receive_text()
        everybody.discard(socket)

    async def to_all(text: bytes) -> None:
        for one in tuple(everybody):
            with contextlib.suppress(WebSocketDisconnect):
                await one.send_text(text.decode())

    return hall(to_all, WebSocketRoute(WATCH, watch))


def events() -> Starlette:
    """Event streams by Starlette's StreamingResponse, a queue for each."""
    everybody: set[asyncio.Queue[bytes]] = set()

    async def pieces() -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        everybody.add(queue)
        try:
            yield b"retry: 3000\n\n"
            while True:
                yield await queue.get()
        finally:
            everybody.discard(queue)

    async def watch(_: Request) -> Response:
        return StreamingResponse(pieces(), media_type=EVENT_STREAM)

    async def to_all(text: bytes) -> None:
        event = unchunked_event(text, "")
        for queue in everybody:
            queue.put_nowait(event)

    return hall(to_all, Route(WATCH, watch))


APPS: dict[str, Callable[[], Starlette]] = {
    "echo": echo,
    "web": web_from_environment,
    "routed": routed,
    "handed_over": handed_over,
    "sockets": sockets,
    "events": events,
}


def main(name: str, http: str = "ours") -> None:
    """Serve one of APPS on a free port until SIGTERM."""
    if http == "messages":
        OPTIONS["http"] = MessagesProtocol
    elif http != "ours":
        OPTIONS["http"] = http
    if name == "sockets":
        OPTIONS["ws"] = "websockets-sansio"
    with contextlib.closing(open_listening_socket("127.0.0.1", 0)) as sock:

        async def ready() -> None:
            print(address_of(sock), flush=True)

        run_process(serve(APPS[name](), sock, ready))


if __name__ == "__main__":
    main(*sys.argv[1:])
