"""Bytes in base64url without padding, as they stand in URLs and headers. https://www.rfc-editor.org/rfc/rfc4648#section-5"""

import base64


def encode_base64url(data: bytes) -> str:
    """The one spelling of these bytes."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(text: str) -> bytes:
    """The bytes that a text stands for. ValueError for one that stands for none."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
