"""A log line on its way to the service.

Owns the shape that is sent and the encoding of a batch. An entry is as small as its line: level `info`, no source and
no metadata are simply left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

CONTENT_TYPE = "application/x-ndjson"

# What an entry costs in this process beside its text: the struct, the string's header, its place in a list.
ENTRY_OVERHEAD_BYTES = 128

_encoder = msgspec.json.Encoder()


class Entry(msgspec.Struct, omit_defaults=True, gc=False):
    """One line: `timestamp` is RFC 3339 (`normalise` reads others), `metadata` any JSON object, `source` at most 200
    characters."""

    message: str
    level: str = "info"
    source: str | None = None
    timestamp: str | None = None
    metadata: dict[str, Any] | None = None


LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")
_LEVEL_NAMES = {
    **dict(zip(LEVELS, LEVELS, strict=True)),
    "warning": "warn",
    "err": "error",
    "critical": "fatal",
    "notice": "info",
}
"""Names of levels, in lower case, as the service reads them."""

_OFFSET = re.compile(r"([+-]\d\d)(\d\d)?$")
_UNITS_S = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3), (0.0, 1.0))
"""Units of Unix times by their size: from so many on, so many a second."""
_END_S = 253_402_300_800
"""The end of the year 9999, as a Unix time."""


def normalise(entry: Entry) -> None:
    """Make of an entry's level and time what the service takes; one odd line would have its whole batch refused.

    A level that nobody knows is info. A time is RFC 3339 with any offset, `+0100` too, or seconds, milliseconds,
    microseconds or nanoseconds since 1970. Of another the text is kept in the metadata, as `timestamp`.
    """
    if entry.level not in LEVELS:
        entry.level = _LEVEL_NAMES.get(str(entry.level).lower(), "info")
    if entry.timestamp is not None and not _is_canonical(entry.timestamp):
        given, entry.timestamp = entry.timestamp, _time_of(entry.timestamp)
        if entry.timestamp is None:
            entry.metadata = {**(entry.metadata or {}), "timestamp": str(given)[:100]}


def _is_canonical(text: object) -> bool:
    return isinstance(text, str) and len(text) == 24 and text[-1] == "Z" and _time_of(text) is not None


def _time_of(given: object) -> str | None:
    """The moment as RFC 3339 in UTC; None for what is no time, or lies outside of the years that the service has."""
    try:
        number = float(given)  # type: ignore[arg-type]  # what is no number raises
        unix_s = number / next(unit for least, unit in _UNITS_S if number >= least)
    except StopIteration:
        return None
    except (TypeError, ValueError, OverflowError):
        parsed = _readable(str(given))
        if parsed is None:
            return None
        unix_s = parsed.timestamp()
    return rfc3339(unix_s) if 0 <= unix_s < _END_S else None


def _readable(given: str) -> datetime | None:
    """A moment; without an offset it is UTC."""
    text = _OFFSET.sub(lambda found: f"{found[1]}:{found[2] or '00'}", given) if "T" in given else given
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def encode(entries: Sequence[Entry]) -> bytes:
    """The batch as NDJSON, one entry a line. Raises what msgspec raises for metadata that is no JSON."""
    return _encoder.encode_lines(entries)


def encode_safely(entries: Sequence[Entry]) -> bytes:
    """`encode` for whatever a program says: levels and times as the service takes them, and a lone surrogate, which has
    no UTF-8, as U+FFFD, rather than losing the lines around it."""
    for entry in entries:
        normalise(entry)
    try:
        return encode(entries)
    except UnicodeEncodeError:
        for entry in entries:
            entry.message = _well_formed(entry.message)
            entry.source = _well_formed(entry.source) if entry.source else None
        return encode(entries)


def _well_formed(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def weight_bytes(entry: Entry) -> int:
    """About what the entry occupies while it waits: its text, its metadata, and the objects around them."""
    weight = len(entry.message) + ENTRY_OVERHEAD_BYTES
    if entry.metadata is not None:
        weight += len(_encoder.encode(entry.metadata))
    return weight


def rfc3339(unix_s: float) -> str:
    """A Unix time as the text the service reads, to the millisecond, in UTC."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
