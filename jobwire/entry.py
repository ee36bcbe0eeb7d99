"""A log line on its way to the service.

Owns the shape that is sent and the encoding of a batch. An entry is as small as its line: level `info`, no source and
no metadata are simply left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

CONTENT_TYPE = "application/x-ndjson"

# What an entry costs in this process beside its text: the struct, the string's header, its place in a list.
ENTRY_OVERHEAD_BYTES = 128

_encoder = msgspec.json.Encoder()


class Entry(msgspec.Struct, omit_defaults=True, gc=False):
    """One line: `timestamp` is RFC 3339, `metadata` any JSON object, `source` at most 200 characters."""

    message: str
    level: str = "info"
    source: str | None = None
    timestamp: str | None = None
    metadata: dict[str, Any] | None = None


def encode(entries: Sequence[Entry]) -> bytes:
    """The batch as NDJSON, one entry a line. Raises what msgspec raises for metadata that is no JSON."""
    return _encoder.encode_lines(entries)


def weight_bytes(entry: Entry) -> int:
    """About what the entry occupies while it waits: its text, its metadata, and the objects around them."""
    weight = len(entry.message) + ENTRY_OVERHEAD_BYTES
    if entry.metadata is not None:
        weight += len(_encoder.encode(entry.metadata))
    return weight


def rfc3339(unix_s: float) -> str:
    """A Unix time as the text the service reads, to the millisecond, in UTC."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
