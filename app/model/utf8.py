"""The text of a JSON body, before anything decodes it: UTF-8, which every parser of JSON can read again.

Owns: what is taken although RFC 8259 leaves it open: a byte order mark at the start (section 8.1), which is passed
over, and lone surrogate escapes (section 8.2), which stand for no character and become U+FFFD, in values and in names.

Always: in steps, so that 32 MiB are many short turns; a text with nothing odd is returned as it is, not copied.
"""

import codecs
import re

from app.model.errors import Refusal
from app.model.nesting import whole_escapes
from app.model.steps import Steps

CHECK_STEP_BYTES = 1_048_576
MEND_BYTES = 65_536

BOM = codecs.BOM_UTF8
_ODD = re.compile(rb"\\u[dD]")
_ODD_BYTES = 3
_HIGH = rb"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE = re.compile(rb"%b(?!%b)|(?<!%b)%b" % (_HIGH, _LOW, _HIGH, _LOW))
_BACKSLASH = b"\xff\xfe"
"""Stands for an escaped backslash for a moment; no text in UTF-8 has these bytes."""

_UNFINISHED = re.compile(rb"(?:%b)?(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z" % _HIGH)
_LONGEST = 12


def is_plain(body: bytes) -> bool:
    """Whether a body is ASCII without escapes, as most are: then it is its own text."""
    return body.isascii() and b"\\" not in body


def text_steps(body: bytes) -> Steps[bytes]:
    """The text that a body stands for. Refusal `invalid_json` when it is not UTF-8."""
    if not body.isascii():
        yield from _check_steps(body)
        if body.startswith(BOM):
            body = body[len(BOM) :]
    if b"\\" not in body:
        return body
    yield
    if (yield from _has_surrogates_steps(body)):
        return (yield from _mend_steps(body))
    return body


def _check_steps(body: bytes) -> Steps[None]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(body), CHECK_STEP_BYTES):
        left = len(decoder.getstate()[0])
        try:
            decoder.decode(body[start : start + CHECK_STEP_BYTES], final=start + CHECK_STEP_BYTES >= len(body))
        except UnicodeDecodeError as error:
            at = start - left + error.start
            raise Refusal("invalid_json", f"The body is not UTF-8: {error.reason} at byte {at}.") from None
        yield


def _has_surrogates_steps(body: bytes) -> Steps[bool]:
    for start in range(0, len(body), CHECK_STEP_BYTES):
        if _ODD.search(body, start, start + CHECK_STEP_BYTES + _ODD_BYTES):
            return True
        yield
    return False


def _mend_steps(body: bytes) -> Steps[bytes]:
    """The body with U+FFFD for each surrogate escape without its other half; it is as long as before."""
    parts, start = [], 0
    while start < len(body):
        piece = whole_escapes(body[start : start + MEND_BYTES])
        # Backslashes that are left begin an escape.
        escapes = piece.replace(b"\\\\", _BACKSLASH)
        if start + len(piece) < len(body):
            escapes = escapes[: _whole_escapes_end(escapes)]
        parts.append(_LONE.sub(rb"\\ufffd", escapes).replace(_BACKSLASH, b"\\\\"))
        start += len(escapes)
        yield
    return b"".join(parts)


def _whole_escapes_end(escapes: bytes) -> int:
    """Where a piece ends without cutting an escape, or a pair of surrogates, in two."""
    match = _UNFINISHED.search(escapes, max(0, len(escapes) - _LONGEST))
    return (match.start() if match else 0) or len(escapes)
