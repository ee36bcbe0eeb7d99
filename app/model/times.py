"""Times on the wire: RFC 3339 in UTC with milliseconds and Z out, any offset in. https://www.rfc-editor.org/rfc/rfc3339"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)
_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOST_MS = 253_402_300_799_999

_DIGITS_AS_0 = bytes.maketrans(b"123456789", b"000000000")
_SHAPE = b"0000-00-00T00:00:00.000Z\n"
_HOUR_CHARS = len("2026-03-01T09")
_TENS_OF_MINUTES, _TENS_OF_SECONDS = _SHAPE.index(b":") + 1, _SHAPE.index(b".") - 2


@lru_cache(maxsize=4096)
def _second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


def rfc3339(at_ms: int) -> str:
    """A moment in ms since 1970 as `2026-03-01T09:21:01.120Z`."""
    return f"{_second(at_ms // 1000)}{at_ms % 1000:03d}Z"


def parse_ms(text: str) -> int:
    """The moment of an RFC 3339 text, cut to ms since 1970. ValueError with a sentence for anything else."""
    at_s, ms = _parse(text)
    return at_s * 1000 + int(ms)


def canonical(text: str) -> str:
    """An RFC 3339 text in the form in which all times are answered. ValueError with a sentence for anything else."""
    at_s, ms = _parse(text)
    return f"{_second(at_s)}{ms}Z"


def _parse(text: str) -> tuple[int, str]:
    """The second since 1970, and the three digits behind it."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("a time is RFC 3339 with an offset, as in 2026-03-01T09:21:01.120Z")
    second, fraction, offset = match.groups("")
    return _second_of(second, offset), (fraction + "00")[:3] if fraction else "000"


@lru_cache(maxsize=4096)
def _second_of(text: str, offset: str) -> int:
    """A whole second: most times that come at once share a few of them."""
    if text.endswith(":60"):
        text = text[:-2] + "59"
    try:
        whole = datetime.fromisoformat(f"{text}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError as error:
        raise ValueError(f"a time that no calendar has: {error}") from None
    at_s = (whole - _EPOCH) // _SECOND
    if not 0 <= at_s <= MOST_MS // 1000:
        raise ValueError("a time lies between the years 1970 and 9999")
    return at_s


def are_canonical(texts: Sequence[str]) -> bool:
    """Whether these are times in exactly the form in which all times are answered; there is at least one.

    Their shape is looked at in one piece, their hours once each.
    """
    whole = "\n".join(texts).encode()
    if whole.translate(_DIGITS_AS_0) != (_SHAPE * len(texts))[:-1]:
        return False
    if any(whole[tens :: len(_SHAPE)].strip(b"012345") for tens in (_TENS_OF_MINUTES, _TENS_OF_SECONDS)):
        return False
    first = texts[0][:_HOUR_CHARS]
    hours = {first} if whole.count(first.encode()) == len(texts) else {text[:_HOUR_CHARS] for text in texts}
    return all(map(_is_hour, hours))


@lru_cache(maxsize=4096)
def _is_hour(text: str) -> bool:
    """Whether a calendar has the hour that a canonical time begins with."""
    try:
        return canonical(f"{text}:00:00Z").startswith(text)
    except ValueError:
        return False
