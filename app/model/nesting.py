"""How deep a JSON text is nested: a guard of everything that is kept as it was sent, for whoever decodes it later.

Always: one pass in pieces, whatever the text says, about 12 ms a MiB at the most; the suite `logs` of the bench has the
figure.
"""

import re
from functools import cache

from app.model.steps import Steps, exhaust

PIECE_BYTES = 65_536

_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


def nested_deeper(text: bytes, most: int) -> bool:
    """Whether a valid JSON text is nested deeper than `most`."""
    return _may_be_nested_deeper(text, most) and exhaust(nesting_steps(text, most))


def nesting_steps(text: bytes, most: int) -> Steps[bool]:
    """The same in steps of PIECE_BYTES."""
    if not _may_be_nested_deeper(text, most):
        return False
    depth, quoted, start = 0, False, 0
    while start < len(text):
        if start:
            yield
        piece = whole_escapes(text[start : start + PIECE_BYTES])
        start += len(piece)
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        brackets = b"".join(parts[quoted::2]).translate(_SQUARE, _NO_BRACKETS)
        quoted ^= len(parts) % 2 == 0
        opened = brackets.count(b"[")
        end = depth + 2 * opened - len(brackets)
        # The piece between what is open before it and what is open behind it is balanced.
        if depth + opened > most and not _nested(most).fullmatch(b"[" * depth + brackets + b"]" * end):
            return True
        depth = end
    return False


def _may_be_nested_deeper(text: bytes, most: int) -> bool:
    """Whether there are brackets enough. In most texts there are not."""
    return text.count(b"[") + text.count(b"{") > most


def whole_escapes(piece: bytes) -> bytes:
    """The piece of a text without the backslash at its end, if that belongs to what follows."""
    alone = (len(piece) - len(piece.rstrip(b"\\"))) % 2
    return piece[: len(piece) - alone] or piece


@cache
def _nested(most: int) -> re.Pattern[bytes]:
    """Balanced brackets, nested at most that deep. Nothing in it is tried twice: linear in the text."""
    pattern = b""
    for _ in range(most):
        pattern = rb"(?:\[" + pattern + rb"\])*+"
    return re.compile(pattern)
