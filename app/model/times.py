"""Times on the wire: RFC 3339 in UTC with milliseconds and Z out, any offset in. https://www.rfc-editor.org/rfc/rfc3339"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)
from_none = None
_MILLISECOND = timedelta(milliseconds=1)
MOST_MS = 253_402_300_799_999


@lru_cache(maxsize=4096)
def _second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


def rfc3339(at_ms: int) -> str:
    """A moment in ms since 1970 as `2026-03-01T09:21:01.120Z`."""
    return f"{_second(at_ms // 1000)}{at_ms % 1000:03d}Z"


def parse_ms(text: str) -> int:
    """The moment of an RFC 3339 text, cut to ms since 1970. ValueError with a sentence for anything else."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("a time is RFC 3339 with an offset, as in 2026-03-01T09:21:01.120Z")
    day, time, fraction, offset = match.groups()
    if time.endswith(":60"):
        time = time[:-2] + "59"
    try:
        whole = datetime.fromisoformat(f"{day}T{time}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError as error:
        raise ValueError(f"a time that no calendar has: {error}") from None
    at_ms: int = (whole - datetime(1970, 1, 1, tzinfo=UTC)) // _MILLISECOND + int(((fraction or "") + "000")[:3])
    if not 0 <= at_ms <= MOST_MS:
        raise ValueError("a time lies between the years 1970 and 9999")
    return at_ms
