"""Requests that jobwire makes by itself: POSTs of JSON to addresses which users gave, through the guard.

Owns: the limits of one request (5 s to connect, 15 s in all, 64 KiB of the answer), and telling every way in which it
can fail as one Outcome. Never: follows a redirect, uses a proxy or cookies, unpacks an answer, raises for what a
stranger does; tells who gave the address more than that no answer came: what a name resolves to and which ports are
open are nobody's business but the operator's.

Always: an answer whose status line came is an answer, whatever is wrong with the rest of it.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from app.webhooks.answers import Outcome
from app.webhooks.checked_connections import Guard
from app.webhooks.forbidden_addresses import Forbidden, check_url
from jobwire.version import __version__

if TYPE_CHECKING:
    from app.webhooks.http_session import HttpSession

OWN_HEADERS = frozenset(
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


class WebhookClient:
    """One client for all that is sent. To be made and closed on the event loop."""

    def __init__(self, guard: Guard, timeout_s: float) -> None:
        self._guard = guard
        self._timeout_s = timeout_s
        self._session: HttpSession | None = None

    @staticmethod
    def now_s() -> int:
        """Seconds since 1970, for a signature: what the receiver compares with its own clock."""
        return int(time.time())

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
        await self._guard.close()

    async def post_json(
        self, url: str, body: bytes, headers: Mapping[str, str], own: Mapping[str, str], *, space: str = ""
    ) -> Outcome:
        """POST JSON once, with a user's `headers` and our `own`, which win. Never raises but when cancelled.

        Names are looked up in the turn of `space`.
        """
        try:
            target = check_url(url)
        except Forbidden as error:
            return Outcome(None, str(error), None, None, None)
        session = await self._open_session()
        return await session.post(target, body, _request_headers(headers, own), tuple(headers.values()), space)

    async def _open_session(self) -> "HttpSession":
        """The session, made at the first request. aiohttp is imported in a thread, beside the event loop's turns."""
        if self._session is None:
            made = await asyncio.to_thread(_session_class)
            if self._session is None:
                self._session = made(self._guard, self._timeout_s)
        return self._session


def _session_class() -> "type[HttpSession]":
    from app.webhooks.http_session import HttpSession  # noqa: PLC0415  # a server that sends nothing starts without it

    return HttpSession


def _request_headers(headers: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request."""
    sent = {name: value for name, value in headers.items() if name.lower() not in OWN_HEADERS}
    if "user-agent" not in {name.lower() for name in sent}:
        sent["User-Agent"] = f"jobwire/{__version__}"
    return sent | {"Content-Type": "application/json", "Accept-Encoding": "identity", **own}
