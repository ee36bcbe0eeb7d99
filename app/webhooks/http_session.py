"""Requests by aiohttp, through the guard: the only module that knows it.

It is imported by app/webhooks/http_client.py when the first request is to be sent, for aiohttp takes a quarter of all
the time in which a server starts, and most servers send nothing.
"""

import asyncio
import io
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from app.webhooks.answers import UNREACHED, AnswerStart, Outcome, mask_echoes, outcome_of_answer
from app.webhooks.checked_connections import Guard
from app.webhooks.forbidden_addresses import Forbidden

ANSWER_BYTES = 65_536
KEPT_BYTES = 1024
STREAMED_BODY_BYTES = 262_144
"""Larger bodies are handed to aiohttp as a file, which it sends piece by piece."""

KEEPALIVE_S = 4.0
"""How long an idle connection is kept: shorter than common servers keep it, so that they do not close it under us."""

ANSWER_HEAD_BYTES = 65_536
ANSWER_HEADERS_MOST = 1000
"""What is taken of the head of an answer. Of a larger one only the status line counts."""

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


class HttpSession:
    """The connections of a process. To be made and closed on the event loop."""

    def __init__(self, guard: Guard, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        connector = aiohttp.TCPConnector(
            resolver=guard,  # type: ignore[arg-type]  # it has what a resolver has
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

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def post(
        self, target: URL, body: bytes, headers: Mapping[str, str], hidden: Sequence[str], space: str
    ) -> Outcome:
        """POST once. Of the answer nothing is kept that is `hidden`. Never raises but when cancelled."""
        data = io.BytesIO(body) if len(body) > STREAMED_BODY_BYTES else body
        answer_start = AnswerStart()
        token = ANSWER_START.set(answer_start)
        try:
            with self._guard.resolving_for(space):
                async with self._session.post(target, data=data, headers=headers, allow_redirects=False) as response:
                    wait = response.headers.get("Retry-After", "")
                    return outcome_of_answer(response.status, await self._read(response, hidden), wait)
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
