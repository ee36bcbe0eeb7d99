"""Running the web application: uvicorn with our options, and a way down in which nothing is cut short.

Owns: which options the server runs with (the benchmarks use the same), the signals of the process, the socket.
"""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from app.live import DRAIN

OPTIONS: dict[str, Any] = {
    "http": "app.handover:HttpProtocol",
    "ws": "app.handover:WebSocketProtocol",
    "ws_per_message_deflate": False,
    "ws_ping_interval": None,
    "access_log": False,
    "server_header": False,
    "log_config": None,
    "timeout_keep_alive": 75,
    "timeout_graceful_shutdown": 20,
    "backlog": 4096,
}
"""uvicorn's settings for us: uvloop and httptools, WebSockets without compression and without its own pings."""

POLL_S = 0.05


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is a free one. OSError when the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


class Server(uvicorn.Server):
    """A uvicorn whose signals are ours: uvicorn raises them again after its own shutdown, before ours."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain before uvicorn does anything: it would close the listening socket, then every connection at once."""
        drain = self.lifespan.state.get(DRAIN)
        if drain is not None:
            draining = asyncio.ensure_future(drain())
            while not draining.done() and not self.force_exit:
                await asyncio.wait([draining], timeout=POLL_S)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.freeze()  # else every full collection walks through all modules, for some ten milliseconds
        self.accepting.set()


async def serve(app: ASGIApp, sock: socket.socket, ready: Callable[[], Awaitable[None]]) -> None:
    """Serve until SIGINT or SIGTERM; a second signal ends it at once. `ready` runs once connections are accepted."""
    server = Server(uvicorn.Config(app, **OPTIONS))
    loop = asyncio.get_running_loop()

    def leave() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave)
    serving = asyncio.create_task(server.serve([sock]), name="serve")
    accepting = asyncio.create_task(server.accepting.wait())
    await asyncio.wait((serving, accepting), return_when=asyncio.FIRST_COMPLETED)
    accepting.cancel()
    if server.started:
        await ready()
    await serving


def address(sock: socket.socket) -> str:
    """The http address of a listening socket, as a client on this machine writes it."""
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
