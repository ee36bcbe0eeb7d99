"""One request: its caller, its headers and its body.

Owns: what a request spends of its key's rate, and the order in which a body is read: media type, size
(body_reading.py), inflating (inflate.py), UTF-8, JSON (body_reading.py again).
"""

import base64
import re
from collections.abc import Mapping, Sequence

from starlette.types import Receive, Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.api.body_reading import UNCOUNTED_BYTES, check_json, receive_body
from app.api.inflate import ENCODINGS, inflate_aside
from app.api.request_log import SCOPE_HEADERS
from app.api.responses import JSON
from app.jobs.keys_and_scopes import Identity
from app.jobs.rate_limit import Rate
from app.loop.turns import in_turns
from app.model.errors import ApiError, Refusal, invalid
from app.model.limits import IGNORED_BYTES, UNIT_BYTES
from app.model.utf8 import is_plain, text_steps
from app.wire.bytes_in_flight import BytesInFlight
from app.wire.direct_exchange import take_body


class Call:
    """One request: its path parameters, headers, caller, and body."""

    __slots__ = (
        "_rate",
        "_spent",
        "bytes_in_flight",
        "direct",
        "headers",
        "held_bytes",
        "identity",
        "params",
        "receive",
        "scope",
        "space",
    )

    def __init__(self, scope: Scope, receive: Receive, direct: RequestResponseCycle | None = None) -> None:
        """`direct` is the request on its connection, if it may be read and answered without messages."""
        self.direct = direct
        self.scope = scope
        self.receive = receive
        self.params: Mapping[str, str] = scope.get("path_params", {})
        self.headers: dict[bytes, bytes] = scope.get(SCOPE_HEADERS) or dict(scope["headers"])
        self.identity: Identity
        self.bytes_in_flight: BytesInFlight
        self.held_bytes = 0
        self.space = ""
        self._rate: Rate | None = None
        self._spent = 0

    async def spend_from(self, rate: Rate) -> None:
        """Spend the first unit of work; more is spent from there, too. Refusal `rate_limited`."""
        self._rate = rate
        self._spent = await rate.spend(self.identity)

    async def spend(self, units: int) -> None:
        """Work beside the first unit, known only now; to be asked before anything is stored. Refusal `rate_limited`."""
        if units and self._rate is not None:
            self._spent = await self._rate.spend(self.identity, units, self._spent)

    def get_header(self, name: bytes) -> str:
        """A header's text, "" without it."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def job(self) -> str:
        """The job's id, as the path has it."""
        return self.params["job_id"]

    @property
    def lease_token(self) -> str:
        """The lease that the caller says it holds, or ""."""
        return self.get_header(b"x-lease-token")

    @property
    def key(self) -> str:
        """The key that was sent, or ""."""
        if b"x-api-key" in self.headers:
            return self.get_header(b"x-api-key").strip()
        scheme, _, rest = self.get_header(b"authorization").partition(" ")
        if scheme.lower() == "basic":
            return password_of(rest.strip())
        return rest.strip() if scheme.lower() == "bearer" else ""

    def idempotency_key(self) -> str:
        """The Idempotency-Key, or "". Refusal `invalid_request` for one that is empty, too long or unprintable."""
        if b"idempotency-key" not in self.headers:
            return ""
        sent = self.headers[b"idempotency-key"]
        if not 1 <= len(sent) <= 128 or not all(32 <= byte < 127 for byte in sent):
            raise invalid("An Idempotency-Key has 1 to 128 printable ASCII characters.")
        return sent.decode()

    def media_type(self, *supported: str) -> str:
        """The body's media type, one of `supported`; JSON without one. Refusal `unsupported_media_type`."""
        sent = self.get_header(b"content-type")
        if sent in supported:
            return sent
        if not sent or self.headers.get(b"content-length") == b"0":
            return JSON
        kind, _, parameters = sent.partition(";")
        charsets = re.findall(r"(?:^|;)\s*charset\s*=([^;]*)", parameters.lower())
        if kind.strip().lower() not in supported or any(c.strip(' "') not in ("utf-8", "utf8") for c in charsets):
            raise Refusal("unsupported_media_type", f"Send {' or '.join(supported)} in UTF-8, not {sent[:100]!r}.")
        return kind.strip().lower()

    async def read_body(self, limit_bytes: int, wire_bytes: int = 0, supported: Sequence[str] = (JSON,)) -> bytes:
        """The inflated body, valid UTF-8, of at most `limit_bytes` (`wire_bytes` before inflating, if given).

        Refusals: unsupported_media_type, too_large, rate_limited, invalid_json. Raises ClientGone.
        """
        if self.direct is not None and b"content-encoding" not in self.headers:
            self.media_type(*supported)
            if (body := self._take_body(limit_bytes)) is not None:
                return body if is_plain(body) else await in_turns(text_steps(body))
        return await self.inflate(await self.read_sent(wire_bytes or limit_bytes, supported), limit_bytes)

    async def read_sent(self, limit_bytes: int, supported: Sequence[str] = (JSON,)) -> bytes:
        """The body as it was sent. Refusals: unsupported_media_type, too_large. Raises ClientGone."""
        self.media_type(*supported)
        encoding = self.get_header(b"content-encoding")
        if encoding.strip().lower() not in ENCODINGS:
            raise Refusal("unsupported_media_type", f"The content encoding {encoding[:100]!r} is not gzip or zstd.")
        if (body := self._take_body(limit_bytes)) is not None:
            return body
        return await receive_body(self.receive, self.headers.get(b"content-length", b""), limit_bytes, self.hold)

    def _take_body(self, limit_bytes: int) -> bytes | None:
        """The body as it was sent, if it is small, has come whole, and may be read without messages."""
        return None if self.direct is None else take_body(self.direct, min(limit_bytes, UNCOUNTED_BYTES))

    async def inflate(self, sent: bytes, limit_bytes: int) -> bytes:
        """The text that the body stands for, as app/model/utf8.py reads it; it is spent.

        Refusals: too_large, rate_limited, invalid_json.
        """
        encoding = self.get_header(b"content-encoding")
        whole = sent
        if encoding:
            whole = await self._unpacked(sent, encoding, limit_bytes)
        else:
            await self.spend(len(whole) // UNIT_BYTES)
        return whole if is_plain(whole) else await in_turns(text_steps(whole))

    async def _unpacked(self, sent: bytes, encoding: str, limit_bytes: int) -> bytes:
        """A packed body, inflated and spent. What is refused because of what it inflates to was work as well."""
        size = limit_bytes
        try:
            whole = await inflate_aside(sent, encoding, limit_bytes)
            size = len(whole)
            self.hold(self.held_bytes + size)
            await self.spend(size // UNIT_BYTES)
        except ApiError:
            if self._rate is not None:
                await self._rate.charge(self.identity, size // UNIT_BYTES)
            raise
        return whole

    async def skip_body(self) -> None:
        """Read a body that has nothing to say: empty, or any JSON of up to 64 KiB."""
        body = await self.read_body(IGNORED_BYTES)
        if body.strip():
            check_json(body)

    def hold(self, size_bytes: int) -> None:
        """What is held for this call now: its body, then its answer. Raises Unavailable for want of room."""
        self.bytes_in_flight.resize(self.identity.digest, self.held_bytes, size_bytes)
        self.held_bytes = size_bytes

    def require_room(self, size_bytes: int) -> None:
        """Refusal `unavailable`, before anything is done, unless there is room for so large an answer."""
        self.bytes_in_flight.require_room(self.identity.digest, size_bytes)

    async def wait_until_gone(self) -> None:
        """Return when the caller has gone; to be asked after the body was read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


def password_of(credentials: str) -> str:
    """The password of HTTP Basic, "" for what is none. https://www.rfc-editor.org/rfc/rfc7617"""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
