"""Signatures by which a receiver knows that a request is ours and fresh, as Standard Webhooks has them. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
SECRETS_MOST = 2
SECRET_BYTES = 32


def new_secret() -> str:
    """A fresh secret: `whsec_` and 32 random bytes in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def is_secret(text: str) -> bool:
    """Whether it is `whsec_` and 24 to 64 bytes in base64, as the specification asks."""
    try:
        return text.startswith(PREFIX) and 24 <= len(_key(text)) <= 64
    except (binascii.Error, ValueError):
        return False


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(PREFIX), validate=True)


def sign_headers(id_: str, at_s: int, body: bytes, keys: Sequence[str]) -> dict[str, str]:
    """The three headers of a message; without secrets only its id and time. One signature a secret, newest first."""
    headers = {"webhook-id": id_, "webhook-timestamp": str(at_s)}
    content = b"%s.%d.%s" % (id_.encode(), at_s, body)
    signatures = [base64.b64encode(hmac.digest(_key(key), content, hashlib.sha256)).decode() for key in keys]
    if signatures:
        headers["webhook-signature"] = " ".join(f"v1,{signature}" for signature in signatures)
    return headers
