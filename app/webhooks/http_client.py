"""Requests that jobwire makes by itself: POSTs of JSON to addresses which users gave, through the guard.

Owns: the limits of one request (5 s to connect, 15 s in all, 64 KiB of the answer), and telling every way in which it
can fail as one Outcome. Never: follows a redirect, uses a proxy or cookies, unpacks an answer, raises for what a
stranger does; tells who gave the address more than that no answer came: what a name resolves to and which ports are
open are nobody's business but the operator's.

Always: an answer whose status line came is an answer, whatever is wrong with the rest of it.
"""

import asyncio
import html
import io
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
from aiohttp.client_proto import ResponseHandler

from app.webhooks.checked_connections import Guard
from app.webhooks.forbidden_addresses import Forbidden, check_url
from app.webhooks.retry_schedule import retry_after
from app.webhooks.space_hooks import MASK
from jobwire.version import __version__

ANSWER_BYTES = 65_536
KEPT_BYTES = 1024
STREAMED_BODY_BYTES = 262_144
"""Larger bodies are handed to aiohttp as a file, which it sends piece by piece."""

KEEPALIVE_S = 4.0
"""How long an idle connection is kept: shorter than common servers keep it, so that they do not close it under us."""

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


ANSWER_HEAD_BYTES = 65_536
ANSWER_HEADERS_MOST = 1000
"""What is taken of the head of an answer. Of a larger one only the status line counts."""

UNREACHED = "The host could not be reached, or gave no answer."
"""All that is told of a request without an answer, whatever the reason."""

BEGINNING_CHARS = 4
"""Of a secret that breaks off at the end of an answer, a beginning of so many characters is masked."""


class Outcome(NamedTuple):
    """What became of a request. `status` is None when no answer came; `error` is "" for 2xx.

    `reached`: an answer came; None when the guard refused, which says nothing about the host. `detail` is why no answer
    came, for the operator.
    """

    status: int | None
    error: str
    body: str | None
    retry_after_s: float | None
    reached: bool | None
    detail: str = ""


class AnswerStart:
    """How the answer to one request begins, as far as it came."""

    def __init__(self) -> None:
        self.bytes = b""

    @property
    def status(self) -> int | None:
        """What the status line says, if it came whole; that of an interim answer does not count."""
        begun = self.bytes.lstrip(b"\r\n")
        at = 0
        while (line := STATUS_LINE.match(begun, at)) is not None:
            status = int(line[1])
            if status >= 200 or status == 101:
                return status
            end = begun.find(b"\r\n\r\n", line.end() - 2)
            if end < 0:
                break
            at = end + 4
        return None


STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r?\n")
ANSWER_START: ContextVar[AnswerStart] = ContextVar("ANSWER_START")


class RecordingConnection(ResponseHandler):
    """A connection of aiohttp's that keeps how each answer begins: its parser keeps nothing of what it refuses."""

    answer_start = AnswerStart()

    def set_response_params(self, **params: Any) -> None:
        """A request begins; it is that of the task which calls this."""
        self.answer_start = ANSWER_START.get()
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        room = ANSWER_HEAD_BYTES - len(self.answer_start.bytes)
        if room > 0:
            self.answer_start.bytes += data[:room]
        super().data_received(data)
        broken = self.exception()
        if broken is not None and self._payload is not None and self._payload.exception() is None:
            # The base class tells only those who wait for a head: who reads the body would wait for the time limit.
            self._payload.set_exception(aiohttp.ClientPayloadError(), broken)


class WebhookClient:
    """One client for all that is sent. To be made and closed on the event loop."""

    def __init__(self, guard: Guard, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        connector = aiohttp.TCPConnector(
            resolver=guard,
            socket_factory=guard.make_socket,
            limit=0,
            keepalive_timeout=KEEPALIVE_S,
            ttl_dns_cache=10,
        )
        connector._factory = partial(RecordingConnection, loop=asyncio.get_running_loop())  # type: ignore[assignment]  # a kind of it
        self._guard = guard
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=timeout_s / 3),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding",),
            max_line_size=ANSWER_HEAD_BYTES,
            max_field_size=ANSWER_HEAD_BYTES,
            max_headers=ANSWER_HEADERS_MOST,
        )

    @staticmethod
    def now_s() -> int:
        """Seconds since 1970, for a signature: what the receiver compares with its own clock."""
        return int(time.time())

    async def close(self) -> None:
        """Close every connection."""
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
        data = io.BytesIO(body) if len(body) > STREAMED_BODY_BYTES else body
        answer_start = AnswerStart()
        token = ANSWER_START.set(answer_start)
        try:
            with self._guard.resolving_for(space):
                async with self._session.post(
                    target, data=data, headers=_request_headers(headers, own), allow_redirects=False
                ) as response:
                    wait = response.headers.get("Retry-After", "")
                    return outcome_of_answer(response.status, await self._read(response, tuple(headers.values())), wait)
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            status = answer_start.status
            return self._failed(error) if status is None else outcome_of_answer(status, "", "")
        finally:
            ANSWER_START.reset(token)

    def _failed(self, error: Exception) -> Outcome:
        """No answer came."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, Forbidden):
                return Outcome(None, UNREACHED, None, None, None, str(cause))
            cause = cause.__cause__ or getattr(cause, "os_error", None)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            detail = f"no connection within {self._timeout_s / 3:g} s"
        elif isinstance(error, TimeoutError):
            detail = f"no answer within {self._timeout_s:g} s"
        else:
            detail = f"{type(error).__name__}: {error}"
        return Outcome(None, UNREACHED, None, None, False, detail)

    @staticmethod
    async def _read(response: aiohttp.ClientResponse, hidden: Sequence[str]) -> str:
        """The first KiB as text, without what is hidden. An answer whose body does not come is an answer.

        The rest up to 64 KiB is read, so that the connection can be used again.
        """
        kept, size = b"", 0
        try:
            async for chunk in response.content.iter_any():
                kept = (kept + chunk)[:ANSWER_BYTES]
                size += len(chunk)
                if size > ANSWER_BYTES:
                    break
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass
        if not response.content.at_eof():
            response.close()
        if 200 <= response.status < 300:
            return ""
        return mask_echoes(kept.decode("utf-8", "replace"), hidden, len(kept[:KEPT_BYTES].decode("utf-8", "replace")))


def outcome_of_answer(status: int, body: str, wait: str) -> Outcome:
    """An answer came, with such a body, and a Retry-After or ""."""
    if 200 <= status < 300:
        return Outcome(status, "", None, None, True)
    redirect = "; redirects are not followed" if 300 <= status < 400 else ""
    return Outcome(status, f"The answer was {status}{redirect}.", body, retry_after(wait, time.time()), True)


def _request_headers(headers: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request."""
    sent = {name: value for name, value in headers.items() if name.lower() not in OWN_HEADERS}
    if "user-agent" not in {name.lower() for name in sent}:
        sent["User-Agent"] = f"jobwire/{__version__}"
    return sent | {"Content-Type": "application/json", "Accept-Encoding": "identity", **own}


# What a receiver echoes of our headers


def spell_secret(secret: str) -> Iterator[str]:
    """The ways in which an echo spells it."""
    yield secret
    for ascii_only in (True, False):
        yield json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
    yield quote(secret, safe="")
    yield html.escape(secret)
    yield secret.encode().decode("latin-1")


def hidden_words(values: Sequence[str]) -> list[str]:
    """What must not be shown, the longest first: the values of headers, and long words in them as after `Bearer `."""
    secrets = {value for value in values if value}
    secrets |= {word for value in values for word in value.split() if len(word) >= 8}
    return sorted({spelt for secret in secrets for spelt in spell_secret(secret)}, key=len, reverse=True)


def mask_echoes(text: str, values: Sequence[str], most: int) -> str:
    """The first `most` characters of a text, but for echoes of these values; each is masked as a whole.

    One of three characters or fewer is masked where it stands by itself: it might be a part of any word.
    """
    words = hidden_words(values)
    if not words:
        return text[:most]
    text = text[: most + len(words[0])]
    patterns = (re.escape(word) if len(word) > 3 else rf"(?<!\w){re.escape(word)}(?!\w)" for word in words)
    pieces: list[str] = []
    at = 0
    for match in re.finditer("|".join(patterns), text):
        if match.start() >= most:
            break
        pieces += (text[at : match.start()], MASK)
        at = match.end()
    end = len(text) - unfinished_length(text[at:], words, most - at)
    pieces.append(text[at : min(end, most)])
    if end < min(len(text), most):
        pieces.append(MASK)
    return "".join(pieces)


def unfinished_length(text: str, words: Sequence[str], most: int) -> int:
    """With how many characters of one of the words, its beginning, a text breaks off; 0 if they begin behind `most`."""
    least = max(BEGINNING_CHARS, len(text) - most)
    lengths = ((word, range(min(len(word) - 1, len(text)), least - 1, -1)) for word in words)
    return max((next((n for n in range_ if text.endswith(word[:n])), 0) for word, range_ in lengths), default=0)
