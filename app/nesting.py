"""How deep a JSON text is nested: a guard of everything that is kept as it was sent, for whoever decodes it later."""

import re

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


def nested_deeper(text: bytes, most: int) -> bool:
    """Whether a valid JSON text is nested deeper than `most`: what is left when the innermost pairs go that often."""
    if text.count(b"[") + text.count(b"{") <= most:
        return False
    brackets = _STRING.sub(b"", text).translate(_SQUARE, _NO_BRACKETS)
    for _ in range(most):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)
