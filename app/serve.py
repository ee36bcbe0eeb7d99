"""Running the web application: uvicorn with our options, and a way down in which nothing is cut short.

Owns: which options the server runs with (the benchmarks use the same), the signals of the process, the socket.
Always: a server that is told to leave is down after WINDOW_S, whatever its clients and Redis do.
"""

import asyncio
import contextlib
import gc
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from app.wire.direct_exchange import CLOSING
from app.wire.listening_socket import ListeningSocket
from app.wire.stalled_requests import StalledRequests

OPTIONS: dict[str, Any] = {
    "http": "app.wire.handover:HandoverHttpProtocol",
    "ws": "app.wire.handover:WebSocketProtocol",
    "ws_per_message_deflate": False,
    "ws_ping_interval": None,
    "access_log": False,
    "server_header": False,
    "log_config": None,
    "timeout_keep_alive": 75,
    "backlog": 4096,
}
"""uvicorn's settings for us: uvloop and httptools, WebSockets without compression and without its own pings."""

DRAIN = "drain"
"""The name, in the state of the lifespan, of the function that the server calls before it shuts down."""

WINDOW_S = 25
"""How long a process may take from being told to leave until requests that are still under way are cut."""

LINKS_CLOSE_S = 2
"""How long the application may take to close its links when it has to end at once."""

STALL_CHECK_TICKS = 20
"""uvicorn's ticks (0.1 s) between two looks at all connections."""

DRAIN_POLL_S = 0.05
LAST_REQUEST_S = 0.1
"""How long a connection that was accepted last of all may take to send its request."""


def run_process(main: Coroutine[None, None, None]) -> None:
    """Run on the event loop that uvicorn would choose, with as many open files as the system grants."""
    allow_open_files()
    with asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory()) as runner:
        runner.run(main)


def allow_open_files() -> None:
    """Raise the soft limit to the hard one: each viewer is an open file, and many systems begin with 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # where the hard limit is more than the kernel takes
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_listening_socket(host: str, port: int) -> socket.socket:
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
        self._listening: list[ListeningSocket] = []
        self._stalled_requests = StalledRequests()

    def leave(self) -> None:
        """Begin the way down; doing it again does nothing."""
        self.should_exit = True

    def leave_at_once(self) -> None:
        """End, and cut whatever is under way."""
        self.should_exit = self.force_exit = True
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain before uvicorn does anything: it would close the listening socket, then every connection at once."""
        ends_s = asyncio.get_running_loop().time() + WINDOW_S
        state = self.server_state
        state.default_headers = [*state.default_headers, CLOSING]
        drain = self.lifespan.state.get(DRAIN)
        if drain is not None:
            draining = asyncio.ensure_future(drain())
            while not draining.done() and not self.force_exit:
                await asyncio.wait([draining], timeout=DRAIN_POLL_S)
                await self._resume_accepting()
        for listening in self._listening:
            listening.close()
        for sock in sockets or ():
            sock.close()
        await asyncio.sleep(LAST_REQUEST_S)
        self.config.timeout_graceful_shutdown = max(1, int(ends_s - asyncio.get_running_loop().time()))
        await super().shutdown(sockets)
        if self.force_exit:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lifespan.shutdown(), LINKS_CLOSE_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % STALL_CHECK_TICKS == 0:
            self._stalled_requests.end_stalled(tuple(self.server_state.connections), asyncio.get_running_loop().time())
        await self._resume_accepting()
        return await super().on_tick(counter)

    async def _resume_accepting(self) -> None:
        for listening in self._listening:
            await listening.resume_accepting(self.server_state.connections, asyncio.get_running_loop().time())

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, by sockets of ours: uvicorn's own way cannot pause."""
        await super().startup([])
        for sock in sockets or ():
            self._listening.append(ListeningSocket(sock, self._protocol, self.config.backlog))
            await self._listening[-1].open()
        gc.freeze()  # else every full collection walks through all modules, for some ten milliseconds
        self.accepting.set()

    def _protocol(self) -> asyncio.Protocol:
        """What uvicorn puts on a new connection."""
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]  # of its own protocols, as there
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def obey_signals(server: Server) -> None:
    """SIGINT and SIGTERM make the server leave; a second one ends it at once."""

    def leave() -> None:
        if server.should_exit:
            server.leave_at_once()
        server.leave()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, leave)


async def serve(
    app: ASGIApp,
    sock: socket.socket,
    ready: Callable[[], Awaitable[None]],
    obey: Callable[[Server], None] = obey_signals,
) -> None:
    """Serve until told to leave, by whatever `obey` listens to. `ready` runs once connections are accepted."""
    server = Server(uvicorn.Config(app, **OPTIONS))
    obey(server)
    serving = asyncio.create_task(server.serve([sock]), name="serve")
    accepting = asyncio.create_task(server.accepting.wait())
    await asyncio.wait((serving, accepting), return_when=asyncio.FIRST_COMPLETED)
    accepting.cancel()
    if server.started:
        await _unless(ready(), serving)
    await serving


async def _unless(work: Awaitable[None], over: "asyncio.Task[None]") -> None:
    """Await `work`; give it up when `over` ends before it."""
    working = asyncio.ensure_future(work)
    await asyncio.wait((working, over), return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()
    working.cancel()


def address_of(sock: socket.socket) -> str:
    """The http address of a listening socket, as a client on this machine writes it."""
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
