"""Cursors of lists: where a page ended, signed, so that a client can only bring back what it was given.

Owns: the text of a cursor, and the secret that signs it, which is made once for a Redis and shared by its processes.
Never: tells what a list was filtered by; a cursor is good for the very list (its kind, its space, its filters) that it
came from, and whoever brings it back names the filters again.

    base64url without padding of: version (1 byte), position (8), the first 16 bytes of HMAC-SHA256 over list, version
    and position
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence

import msgspec

from app.model.base64url import decode_base64url, encode_base64url
from app.model.errors import Refusal, invalid
from app.model.redis_keys import Keys
from app.redis_links.epoch import Epoch
from app.redis_links.link import Link
from app.redis_links.scripts import Scripts

CURSOR_VERSION = b"\x01"
MAC_BYTES = 16
SIZE_BYTES = len(CURSOR_VERSION) + 8 + MAC_BYTES

Filters = Mapping[str, str | int | Sequence[str]]
"""What a list is filtered by: those filters that are set, each in one form for all its spellings."""


class Cursors:
    """Signs and checks cursors. `control` is asked for the secret once, and again when an epoch of the store begins."""

    def __init__(self, control: Link, keys: Keys, epoch: Epoch) -> None:
        self._scripts = Scripts(control)
        self._key = keys.secret
        self._secret = b""
        epoch.on_change(self._forget)

    async def sign(self, kind: str, space: str, filters: Filters, position: int) -> str:
        """The cursor of a position in a list. `kind` tells lists of different routes apart."""
        head = CURSOR_VERSION + position.to_bytes(8)
        mac = sign_position(await self._shared(), list_name(kind, space, filters), head)
        return encode_base64url(head + mac)

    async def check(self, text: str, kind: str, space: str, filters: Filters) -> int:
        """The position of a cursor of this very list. Refusal `invalid_request` for any other text."""
        data = decode_cursor(text)
        if len(data) == SIZE_BYTES and data[:1] == CURSOR_VERSION:
            head, mac = data[:-MAC_BYTES], data[-MAC_BYTES:]
            if hmac.compare_digest(sign_position(await self._shared(), list_name(kind, space, filters), head), mac):
                return int.from_bytes(head[1:])
        raise forged_cursor()

    async def _shared(self) -> bytes:
        if not self._secret:
            (self._secret,) = await self._scripts.run("secret_keep", [self._key], [secrets.token_hex(32)])
        return self._secret

    def _forget(self) -> None:
        """Another store answers, or an older state of this one: it may have another secret, or none."""
        self._secret = b""


def list_name(kind: str, space: str, filters: Filters) -> bytes:
    """A list in one spelling."""
    return msgspec.json.encode([kind, space, sorted(filters.items())])


def sign_position(secret: bytes, listed: bytes, head: bytes) -> bytes:
    """What proves that a cursor is ours."""
    return hmac.digest(secret, hashlib.sha256(listed).digest() + head, "sha256")[:MAC_BYTES]


def decode_cursor(text: str) -> bytes:
    """The bytes that a text stands for; none for a text that is not the one spelling of any."""
    try:
        data = decode_base64url(text)
    except ValueError:
        return b""
    return data if encode_base64url(data) == text else b""


def forged_cursor() -> Refusal:
    """A cursor that none of ours gave out for this list."""
    return invalid("The cursor is not valid for this list: send the value of x-next-cursor, with the same filters.")
