"""The ceilings of live delivery, each a process: a bare broadcast by picows, and one by Starlette, to all who connect.

`python -m bench.broadcast picows|starlette`: whoever POSTs nothing but connects and sends `COUNT SIZE` as text makes it
send that many frames of that size to everybody, one after the other, each in a turn of the event loop of its own.
"""

import asyncio
import contextlib
import sys
from typing import Any, ClassVar

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.serve import OPTIONS, address_of, open_listening_socket, run_process, serve

HELLO = b"hello"


class Listener(WSListener):
    """One picows connection; all of them are in `everybody`."""

    everybody: ClassVar[set[Any]] = set()
    tasks: ClassVar[set[asyncio.Task[None]]] = set()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.everybody.add(transport)
        transport.send(WSMsgType.TEXT, HELLO)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            task = asyncio.ensure_future(self.broadcast(frame.get_payload_as_utf8_text()))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.everybody.discard(transport)

    async def broadcast(self, order: str) -> None:
        """Do what was asked for."""
        count, size = (int(word) for word in order.split())
        for _ in range(count):
            payload = b"x" * size
            for transport in self.everybody:
                transport.send(WSMsgType.TEXT, payload)
            await asyncio.sleep(0)


async def by_picows() -> None:
    """Serve until cancelled."""

    def accept(_: WSUpgradeRequest) -> Listener:
        return Listener()

    server = await ws_create_server(accept, "127.0.0.1", 0)
    print("http://{}:{}".format(*server.sockets[0].getsockname()[:2]), flush=True)
    await server.serve_forever()


def starlette() -> Starlette:
    """The same by Starlette's own send."""
    everybody: set[WebSocket] = set()

    async def watch(socket: WebSocket) -> None:
        await socket.accept()
        everybody.add(socket)
        await socket.send_text(HELLO.decode())
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                count, size = (int(word) for word in (await socket.receive_text()).split())
                for _ in range(count):
                    text = "x" * size
                    for one in everybody:
                        await one.send_text(text)
                    await asyncio.sleep(0)
        everybody.discard(socket)

    return Starlette(routes=[WebSocketRoute("/{rest:path}", watch)])


def main(name: str) -> None:
    """Serve one of the two on a free port until SIGTERM."""
    if name == "picows":
        with contextlib.suppress(KeyboardInterrupt):
            run_process(by_picows())
        return
    OPTIONS["ws"] = "websockets-sansio"
    with contextlib.closing(open_listening_socket("127.0.0.1", 0)) as sock:

        async def ready() -> None:
            print(address_of(sock), flush=True)

        run_process(serve(starlette(), sock, ready))


if __name__ == "__main__":
    main(sys.argv[1])
