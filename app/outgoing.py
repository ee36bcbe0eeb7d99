"""Requests that jobwire makes by itself: POSTs of JSON to addresses which users gave, through the guard.

Owns: the limits of one request (5 s to connect, 15 s in all, 64 KiB of the answer), and telling every way in which it
can fail as one Outcome. Never: follows a redirect, uses a proxy or cookies, unpacks an answer, raises for what a
stranger does.
"""

import asyncio
import io
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import aiohttp

from app.address import Forbidden, check_url
from app.guard import Guard
from app.schedule import retry_after
from jobwire.version import __version__

ANSWER_BYTES = 65_536
KEPT_BYTES = 1024
LARGE_BYTES = 262_144
"""Larger bodies are handed to aiohttp as a file, which it sends piece by piece."""

IDLE_S = 4.0
"""How long an idle connection is kept: shorter than common servers keep it, so that they do not close it under us."""

OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)
"""Headers that a user's do not replace: they frame the message, or prove where it comes from."""


class Outcome(NamedTuple):
    """What became of a request. `status` is None when no answer came; `error` is "" for 2xx.

    `reached`: an answer came; None when the guard refused, which says nothing about the host.
    """

    status: int | None
    error: str
    body: str | None
    retry_after_s: float | None
    reached: bool | None


class Outgoing:
    """One client for all that is sent. To be made and closed on the event loop."""

    def __init__(self, guard: Guard, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        connector = aiohttp.TCPConnector(
            resolver=guard,
            socket_factory=guard.socket,
            limit=0,
            keepalive_timeout=IDLE_S,
            ttl_dns_cache=10,
        )
        self._guard = guard
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s / 3),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding",),
        )

    @staticmethod
    def now_s() -> int:
        """Seconds since 1970, for a signature: what the receiver compares with its own clock."""
        return int(time.time())

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
        await self._guard.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], own: Mapping[str, str]) -> Outcome:
        """POST JSON once, with a user's `headers` and our `own`, which win. Never raises but when cancelled."""
        sent = {name: value for name, value in headers.items() if name.lower() not in OURS}
        names = {name.lower() for name in sent}
        if "user-agent" not in names:
            sent["User-Agent"] = f"jobwire/{__version__}"
        sent |= {"Content-Type": "application/json", "Accept-Encoding": "identity", **own}
        try:
            target = check_url(url)
            data = io.BytesIO(body) if len(body) > LARGE_BYTES else body
            async with self._session.post(target, data=data, headers=sent, allow_redirects=False) as response:
                return await self._outcome(response, tuple(headers.values()))
        except Forbidden as error:
            return Outcome(None, str(error), None, None, None)
        except aiohttp.ConnectionTimeoutError:
            return Outcome(None, f"No connection within {self._timeout_s / 3:g} s.", None, None, False)
        except TimeoutError:
            return Outcome(None, f"No answer within {self._timeout_s:g} s.", None, None, False)
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            return _failed(error)

    async def _outcome(self, response: aiohttp.ClientResponse, hidden: Sequence[str]) -> Outcome:
        kept = await self._read(response)
        status = response.status
        if 200 <= status < 300:
            return Outcome(status, "", None, None, True)
        redirect = "; redirects are not followed" if 300 <= status < 400 else ""
        wait_s = retry_after(response.headers.get("Retry-After", ""), time.time())
        return Outcome(status, f"The answer was {status}{redirect}.", without(kept, hidden), wait_s, True)

    @staticmethod
    async def _read(response: aiohttp.ClientResponse) -> str:
        """The first KiB as text. The rest up to 64 KiB is read, so that the connection can be used again.

        An answer whose head came in time and whose body does not is an answer.
        """
        kept, size = b"", 0
        try:
            async for chunk in response.content.iter_any():
                kept = (kept + chunk)[:KEPT_BYTES] if len(kept) < KEPT_BYTES else kept
                size += len(chunk)
                if size > ANSWER_BYTES:
                    break
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass
        if not response.content.at_eof():
            response.close()
        return kept.decode("utf-8", "replace")


def without(text: str, hidden: Sequence[str]) -> str:
    """The text without secrets that the receiver echoed: our requests carry them in headers."""
    for secret in hidden:
        if len(secret) >= 8:
            text = text.replace(secret, "***")
    return text


def _failed(error: Exception) -> Outcome:
    """No answer came. The text names the host at most: a URL's path and query may be secrets."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, Forbidden):
            return Outcome(None, str(seen), None, None, None)
        seen = seen.__cause__ or getattr(seen, "os_error", None)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Outcome(None, "The host's name could not be resolved.", None, None, False)
    if isinstance(error, aiohttp.ClientSSLError):
        return Outcome(None, f"TLS failed: {type(error).__name__}.", None, None, False)
    if isinstance(error, aiohttp.ClientConnectorError):
        return Outcome(None, f"No connection: {error.os_error.strerror or 'refused'}.", None, None, False)
    if isinstance(error, asyncio.IncompleteReadError | aiohttp.ServerDisconnectedError | ConnectionError):
        return Outcome(None, "The connection was closed before an answer.", None, None, False)
    return Outcome(None, f"The request failed: {type(error).__name__}.", None, None, False)
