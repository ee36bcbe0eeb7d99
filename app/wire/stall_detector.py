"""How long a connection may take nothing: what the other side has taken is the kernel's own count.

Owns: who stands still, and since when. What becomes of them is decided in app/streams/slow_viewers.py (viewers) and
stalled_requests.py (callers).
Never: judges by what waits on our side. That shrinks only when the kernel's buffer, of megabytes, has room again, so
that somebody who reads slowly would look dead; and it grows when something is written, so that somebody who is dead
would look alive. Nor is it left to the kernel (TCP_USER_TIMEOUT): that ends those, too, who read, but never so much at
once that the window opens for a whole segment.
"""

import contextlib
import socket
import struct
from asyncio import Transport
from typing import Generic, NamedTuple, Protocol, TypeVar

TCP_INFO = struct.Struct("=24xI92xQ16xI")
"""Segments that are not acknowledged, bytes that are, bytes that are not sent: `struct tcp_info` of linux/tcp.h."""


class Acknowledged(NamedTuple):
    """What the other side of a connection has acknowledged."""

    total_bytes: int
    """Since the connection began, or since any other moment: it grows with every byte."""

    outstanding: bool
    """Whether something was written that it has not acknowledged."""


def read_acknowledged(transport: Transport) -> Acknowledged:
    """What was acknowledged of all that was written; without TCP_INFO, what left our own buffer stands for it."""
    left_bytes = transport.get_write_buffer_size()
    if hasattr(socket, "TCP_INFO"):
        with contextlib.suppress(OSError):
            sock = transport.get_extra_info("socket")
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
            flying, acknowledged_bytes, unsent_bytes = TCP_INFO.unpack(info)
            return Acknowledged(acknowledged_bytes, bool(flying or unsent_bytes or left_bytes))
    return Acknowledged(-left_bytes, left_bytes > 0)


class Peer(Protocol):
    """A connection, as seen from here."""

    @property
    def full(self) -> bool:
        """Whether it takes no more."""

    @property
    def acknowledged(self) -> Acknowledged:
        """What the other side has acknowledged."""


T = TypeVar("T", bound=Peer)


class StallDetector(Generic[T]):
    """Connections that may be standing still. Those that are full are looked at often, all others now and then."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._suspected: dict[T, tuple[int, float]] = {}
        self._outstanding: dict[T, tuple[int, float]] = {}

    def note_full(self, peer: T, now_s: float) -> None:
        """It is full: suspect it from now on."""
        self._outstanding.pop(peer, None)
        self._suspected[peer] = (peer.acknowledged.total_bytes, now_s)

    def forget(self, peer: T) -> None:
        """It takes again, or has gone."""
        self._suspected.pop(peer, None)
        self._outstanding.pop(peer, None)

    def check(self, peer: T, now_s: float) -> None:
        """Look at one that need not be full. Who took nothing between two looks is suspected, since the first."""
        if peer in self._suspected:
            return
        total, outstanding = peer.acknowledged
        before = self._outstanding.pop(peer, None)
        if before is not None and before[0] == total:
            self._suspected[peer] = before
        elif outstanding:
            self._outstanding[peer] = (total, now_s)

    def pop_stalled(self, now_s: float) -> list[T]:
        """Those who have taken nothing for too long, each once. Cost: a look at everybody who is suspected."""
        stalled = []
        for peer, (before, since_s) in tuple(self._suspected.items()):
            total, outstanding = peer.acknowledged
            if not outstanding or (total != before and not peer.full):
                del self._suspected[peer]
            elif total != before:
                self._suspected[peer] = (total, now_s)
            elif now_s - since_s > self.timeout_s:
                del self._suspected[peer]
                stalled.append(peer)
        return stalled
