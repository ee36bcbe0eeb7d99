"""The listening socket of a server: open as long as there are files left for those who come.

Owns: accepting, and pausing it before the process is out of file descriptors, so that its links to Redis can be made
anew meanwhile; who has to go then, so that somebody new can come: those that are between two requests, or have never
sent any, the one that has been so for longest first. Never: ends a connection in the middle of anything.
Always: who is not accepted yet waits in the kernel's queue, and does not learn of it.
"""

import asyncio
import logging
import os
import resource
import select
import socket
import sys
from collections.abc import Callable, Iterable

from app.metrics import catalog
from app.wire.http_protocol import HttpProtocol

log = logging.getLogger("jobwire.web")

SPARED_FILES = 32
"""Files that are left for everything else that a process opens while it accepts nobody."""

IDLE_S = 1.0
FREED_AT_ONCE = 64
"""For how long a connection must have been idle to be ended for want of files, and how many are at one look."""

WARN_S = 60.0
"""The least time between two warnings."""


class ListeningSocket:
    """Accepts on a socket of the caller's, which it never closes."""

    def __init__(self, sock: socket.socket, make_protocol: Callable[[], asyncio.Protocol], backlog: int) -> None:
        self._sock = sock
        self._make_protocol = make_protocol
        self._backlog = backlog
        self._server: asyncio.Server | None = None
        self._closed = False
        self._warned_s: float | None = None

    async def open(self) -> None:
        """Accept, if there are files for it."""
        if self._closed or self._is_short():
            return
        ours = self._sock.dup()
        if self._is_short():  # with this one, too: else each time that it is tried again lets one more in
            ours.close()
            return
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol_for_accepted, sock=ours, backlog=self._backlog)

    def close(self) -> None:
        """Accept nobody any more."""
        self._closed = True
        self._pause()

    async def resume_accepting(self, connections: Iterable[object], now_s: float) -> None:
        """While accepting is paused and somebody waits: make room, and try again. For a clock to call."""
        if self._server is not None or self._closed or not self._is_awaited():
            return
        for connection in longest_idle(connections, now_s)[:FREED_AT_ONCE]:
            connection.transport.close()
        await self.open()
        if self._server is None and (self._warned_s is None or now_s - self._warned_s >= WARN_S):
            self._warned_s = now_s
            log.warning(
                "new connections wait: of the %d files that this process may open, %d are left; raise its limit",
                *(resource.getrlimit(resource.RLIMIT_NOFILE)[0], SPARED_FILES),
            )

    def _protocol_for_accepted(self) -> asyncio.Protocol:
        """What speaks on a connection that has just been accepted."""
        if self._is_short():
            asyncio.get_running_loop().call_soon(self._pause_if_open)
        return self._make_protocol()

    def _pause_if_open(self) -> None:
        if self._server is not None:
            catalog.ACCEPT_PAUSES.inc()
            self._pause()

    def _pause(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _is_short(self) -> bool:
        """Whether so many files are open that nobody is let in. Below the lowest number that is free all are taken."""
        try:
            lowest = os.dup(self._sock.fileno())
        except OSError:
            return True
        os.close(lowest)
        return lowest >= most_open_files()

    def _is_awaited(self) -> bool:
        """Whether somebody waits to be accepted."""
        waiting = select.poll()
        waiting.register(self._sock, select.POLLIN)
        return bool(waiting.poll(0))


def most_open_files() -> int:
    """How many files may be open before nobody is accepted any more."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return sys.maxsize
    return max(most - SPARED_FILES, most // 2)


def longest_idle(connections: Iterable[object], now_s: float) -> list[HttpProtocol]:
    """Connections that nobody would miss, those first that have been idle for longest."""
    idle: list[tuple[float, HttpProtocol]] = []
    for connection in connections:
        if isinstance(connection, HttpProtocol):
            since_s = connection.idle_since_s
            if since_s is not None and now_s - since_s >= IDLE_S:
                idle.append((since_s, connection))
    idle.sort(key=lambda entry: entry[0])
    return [connection for _, connection in idle]
