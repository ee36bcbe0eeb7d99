"""One service over HTTP: its address, a key, and a pool of connections.

Owns the sockets, the time limits and the sorting of failures into `NotDone`, `OutcomeUnknown` and `Refused`. Never
sends anything twice by itself, never follows a redirect (a key belongs to one host), never shows the key. Safe to
share between threads, and usable again in the child of a fork.
"""

from __future__ import annotations

import contextlib
import gzip
import ipaddress
import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationValueError,
    NewConnectionError,
    SSLError,
)

from ..errors import JobwireError, NotConfigured, NotDone, OutcomeUnknown, error_from_answer
from ..version import __version__

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
_POOL_SIZE = 16
_GZIP_FROM_BYTES = 1024
_STREAM_CHUNK_BYTES = 256 * 1024

_BASE = "/api/v1"

Query = Mapping[str, str | int | None]


class Answer(NamedTuple):
    """A successful answer (200 to 299): its status, headers (names compared without case) and whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Http:
    """Calls below `<url>/api/v1`, with one key."""

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        read_timeout_s: float = READ_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self.url = _checked(url)
        self._key = key
        self._timeout = urllib3.Timeout(connect=connect_timeout_s, read=read_timeout_s)
        self._compresses = not is_loopback(url)
        self._open_pool()

    def _open_pool(self) -> None:
        self._pid = os.getpid()
        self._pool = urllib3.PoolManager(maxsize=_POOL_SIZE, retries=False)

    def waiting(self, seconds: float) -> Http:
        """The same service and key, for someone who waits only so long."""
        return Http(self.url, self._key, read_timeout_s=seconds, connect_timeout_s=seconds)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        content_type: str = "application/json",
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        extra_wait_s: float = 0.0,
    ) -> Answer:
        """Send one request and read its whole answer. `extra_wait_s` is added to the read limit (long polls).

        Raises `NotDone`, `OutcomeUnknown` or `Refused`; nothing is repeated here.
        """
        fields = dict(headers or {})
        if body is not None:
            fields["Content-Type"] = content_type
            body = self._packed(body, fields)
        response = self._send(method, path + _query_string(query), body, fields, extra_wait_s=extra_wait_s)
        return _checked_answer(response, response.data)

    def probe(self, path: str) -> Answer:
        """GET a path beside the API, which wants no key and gets none."""
        response = self._send("GET", path, None, {}, base="")
        return _checked_answer(response, response.data)

    def stream(
        self, path: str, *, query: Query | None = None, accept: str, headers: Mapping[str, str] | None = None
    ) -> tuple[str, Body]:
        """GET: (content type, the body as it arrives). A body cut short raises `OutcomeUnknown`."""
        fields = {"Accept": accept, **(headers or {})}
        response = self._send("GET", path + _query_string(query), None, fields, preload=False)
        if response.status >= 300:
            _checked_answer(response, b"".join(Body(response)))
        return response.headers.get("Content-Type", ""), Body(response)

    def _send(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: dict[str, str],
        *,
        extra_wait_s: float = 0.0,
        preload: bool = True,
        base: str = _BASE,
    ) -> urllib3.BaseHTTPResponse:
        if self._pid != os.getpid():
            self._open_pool()
        timeout = self._timeout
        if extra_wait_s:
            timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=(timeout.read_timeout or 0) + extra_wait_s)
        try:
            return self._pool.request(
                method,
                self.url + base + target,
                body=body,
                headers=self._with_identity(headers, self._key if base else None),
                timeout=timeout,
                redirect=False,
                preload_content=preload,
            )
        except HTTPError as error:
            raise _sorted(error, self.url) from error

    @staticmethod
    def _with_identity(headers: dict[str, str], key: str | None) -> dict[str, str]:
        headers["User-Agent"] = f"jobwire/{__version__}"
        if key:
            headers["x-api-key"] = key
        return headers

    def _packed(self, body: bytes, headers: dict[str, str]) -> bytes:
        """The body as it travels: on loopback compression costs more than it saves."""
        if not self._compresses or len(body) < _GZIP_FROM_BYTES:
            return body
        headers["Content-Encoding"] = "gzip"
        return gzip.compress(body, compresslevel=1, mtime=0)


def is_loopback(url: str) -> bool:
    """Whether the address is on this machine, judged by its text alone (no look-up)."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotConfigured(f"{url!r} is no http(s) address of a jobwire server.")
    return url.rstrip("/").removesuffix(_BASE)


def _query_string(query: Query | None) -> str:
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return "?" + urlencode(given) if given else ""


def _checked_answer(response: urllib3.BaseHTTPResponse, body: bytes) -> Answer:
    if response.status >= 300:
        raise error_from_answer(response.status, body, response.headers.get("Retry-After"))
    return Answer(response.status, response.headers, body)


class Body(Iterator[bytes]):
    """An answer's body, piece by piece. `interrupt` may be called by another thread than the one that reads."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._chunks = _chunks(response)

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        """Read no more of it."""
        self._response.close()

    def interrupt(self) -> None:
        """Let the reader read no more; it closes."""
        with contextlib.suppress(ValueError, RuntimeError, OSError):
            self._response.shutdown()


def _chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    try:
        yield from response.stream(_STREAM_CHUNK_BYTES, decode_content=True)
    except HTTPError as error:
        raise OutcomeUnknown("The answer broke off.") from error
    finally:
        # Closed, not given back: what an abandoned answer still has to send must not meet the next request.
        response.close()


def _sorted(error: HTTPError, url: str) -> JobwireError:
    """What a failure of the link says about the request: whether it can have reached the service at all."""
    if isinstance(error, NewConnectionError | ConnectTimeoutError):
        return NotDone(f"No jobwire server answers at {url}.")
    if isinstance(error, SSLError):
        return NotDone(f"The certificate or TLS of {url} was not accepted.")
    if isinstance(error, LocationValueError):
        return NotConfigured(f"{url!r} is no http(s) address of a jobwire server.")
    return OutcomeUnknown(f"The link to {url} broke before the answer came.")
