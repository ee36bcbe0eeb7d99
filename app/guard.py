"""Where a request of ours may go. The one door for everything that is sent to an address which a user gave.

Owns: which URLs are refused by their looks, and a resolver that hands out checked addresses only, so that the
connection is made to what was checked and not to what a second look-up says. Each socket is checked once more as it
is made: an address that came by another way finds the same door.
"""

import asyncio
import re
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from app.address import Network, forbidden

LOOK_UPS = 64
"""Names that are looked up at once: each look-up holds a thread, a dead name server holds it long."""

_NUMBER = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)")


class Forbidden(OSError):
    """A URL or an address that we do not call; the text says why, without the URL's path."""


def check_url(text: str) -> URL:
    """The URL, if its looks allow a call: http or https, no user info, a host whose address is not oddly spelt.

    Raises Forbidden. That the host's addresses are public is checked when connecting.
    """
    try:
        url = URL(text)
        host, port = url.raw_host, url.port
    except ValueError:
        raise Forbidden("The URL cannot be understood.") from None
    if url.scheme not in ("http", "https"):
        raise Forbidden("Only http and https are called.")
    if url.raw_user is not None or url.raw_password is not None:
        raise Forbidden("A URL with user info is not called.")
    if not host or not port:
        raise Forbidden("The URL has no host.")
    if ":" not in host and _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        _check_dotted(host)
    return url


def _check_dotted(host: str) -> None:
    """Forbidden unless the host is four plain decimal numbers: 127.1, 0x7f000001 and 0177.0.0.1 are 127.0.0.1, too."""
    try:
        IPv4Address(host)
    except AddressValueError:
        raise Forbidden("An oddly spelt address is not called.") from None


class Guard(AbstractResolver):
    """A resolver and a maker of sockets for aiohttp's connector; `allowed` are networks beside the public ones."""

    def __init__(self, allowed: Sequence[Network]) -> None:
        self._allowed = allowed
        self._threads = ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name, if every one of them may be called. Raises Forbidden, OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, self.look_up, host, port, family)
        for _, address in found:
            self.check(address)
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST
            )
            for kind, address in found
        ]

    def look_up(self, host: str, port: int, family: int) -> list[tuple[int, str]]:
        """What the system's resolver says: address family and address, each once. Blocks."""
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        return list(dict.fromkeys((int(kind), str(place[0])) for kind, _, _, _, place in found))

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one address that is about to be connected to. Raises Forbidden."""
        family, kind, proto, _, place = info
        self.check(str(place[0]))
        return socket.socket(family, kind, proto)

    def check(self, address: str) -> None:
        """Raise Forbidden unless the address is public or allowed."""
        kind = forbidden(address, self._allowed)
        if kind:
            raise Forbidden(f"The address {address} is {kind}; JOBWIRE_CALLBACK_ALLOW can allow its network.")

    async def close(self) -> None:
        """Look up no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
