"""How long a connection may take nothing: what the other side has taken is the kernel's own count.

Owns: who stands still, and since when. Never: judges by what waits on our side. That shrinks only when the kernel's
buffer, of megabytes, has room again, so that somebody who reads slowly would look dead; and it grows when something
is written, so that somebody who is dead would look alive. Nor is it left to the kernel (TCP_USER_TIMEOUT): that ends
those, too, who read, but never so much at once that the window opens for a whole segment.
"""

import contextlib
import socket
import struct
from asyncio import Transport
from typing import Generic, NamedTuple, Protocol, TypeVar

TCP_INFO = struct.Struct("=24xI92xQ16xI")
"""Segments that are not acknowledged, bytes that are, bytes that are not sent: `struct tcp_info` of linux/tcp.h."""


class Taken(NamedTuple):
    """What the other side of a connection has taken."""

    total_bytes: int
    """Since the connection began, or since any other moment: it grows with every byte."""

    owed: bool
    """Whether something was written that it has not taken."""


def taken(transport: Transport) -> Taken:
    """What was taken of all that was written. Where no kernel tells, what left our own buffer stands for it."""
    left_bytes = transport.get_write_buffer_size()
    if hasattr(socket, "TCP_INFO"):
        with contextlib.suppress(OSError):
            sock = transport.get_extra_info("socket")
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
            flying, acknowledged_bytes, unsent_bytes = TCP_INFO.unpack(info)
            return Taken(acknowledged_bytes, bool(flying or unsent_bytes or left_bytes))
    return Taken(-left_bytes, left_bytes > 0)


class Taker(Protocol):
    """A connection, as seen from here."""

    @property
    def full(self) -> bool:
        """Whether it takes no more."""

    @property
    def taken(self) -> Taken:
        """What the other side has taken."""


T = TypeVar("T", bound=Taker)


class Patience(Generic[T]):
    """Connections that may be standing still. Those that are full are looked at often, all others now and then."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._watched: dict[T, tuple[int, float]] = {}
        self._owing: dict[T, tuple[int, float]] = {}

    def watch(self, taker: T, now_s: float) -> None:
        """It is full."""
        self._owing.pop(taker, None)
        self._watched[taker] = (taker.taken.total_bytes, now_s)

    def forget(self, taker: T) -> None:
        """It takes again, or has gone."""
        self._watched.pop(taker, None)
        self._owing.pop(taker, None)

    def look(self, taker: T, now_s: float) -> None:
        """Look at one that need not be full. Whoever took nothing between two looks is watched, since the first."""
        if taker in self._watched:
            return
        total, owed = taker.taken
        before = self._owing.pop(taker, None)
        if before is not None and before[0] == total:
            self._watched[taker] = before
        elif owed:
            self._owing[taker] = (total, now_s)

    def exhausted(self, now_s: float) -> list[T]:
        """Those who have taken nothing for too long, each once. Cost: a look at everybody who is watched."""
        over = []
        for taker, (before, since_s) in tuple(self._watched.items()):
            total, owed = taker.taken
            if not owed or (total != before and not taker.full):
                del self._watched[taker]
            elif total != before:
                self._watched[taker] = (total, now_s)
            elif now_s - since_s > self.timeout_s:
                del self._watched[taker]
                over.append(taker)
        return over
