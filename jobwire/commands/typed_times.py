"""Times as a person types them: RFC 3339, or so long from now or ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SPAN = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def moment(text: str | None, direction: int) -> str | None:
    """A time for the server: `90s`, `15m`, `12h`, `30d` from now (direction 1) or ago (-1); anything else as given."""
    match = _SPAN.fullmatch(text or "")
    if match is None:
        return text
    return (datetime.now(UTC) + direction * timedelta(**{_UNITS[match[2]]: int(match[1])})).isoformat()
