"""Bytes to log entries and back, without losing one.

Owns the representation of a byte stream as log lines. An ordinary line (UTF-8, at most 60 KiB, ended by a newline) is
its text and nothing else. What is not ordinary is said in the entry's `metadata`:

    bytes     base64 of the line's very bytes, when they are not UTF-8 (the message shows U+FFFD for them)
    part      1, 2, ... when a line was too long for one entry, or was sent before its end came
    newline   false when no newline follows these bytes: every part but the last, and an unfinished last line

Always: joining `raw_bytes` of a stream's entries gives the stream, and (but for `flush`) the entries do not depend on
how the stream was cut into chunks. A carriage return, a NUL, a BOM are ordinary characters of their line.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple, Protocol

from .entry import Entry
from .level_finder import LevelFinder

LINE_LIMIT_BYTES = 60 * 1024

# Base64 of this much fits into an entry's metadata (16 KiB) with room to spare.
RAW_LIMIT_BYTES = 8 * 1024
_JOINED_CHARS = 1024 * 1024


class LineSplitter:
    """Cuts one stream into entries; keeps at most one unfinished line of 60 KiB between calls."""

    def __init__(self, *, source: str | None = None, level: str = "info", find_levels: bool = False) -> None:
        self._source = source
        self._level = level
        self._finder = LevelFinder(level) if find_levels else None
        self._line_level = level
        self._has_waited = False
        self._rest = b""
        self._parts = 0

    def feed(self, chunk: bytes) -> list[Entry]:
        """The entries that this chunk finishes, in order."""
        whole, newline, rest = (self._rest + chunk).rpartition(b"\n")
        entries = self._finished(whole) if newline else []
        if newline:
            self._has_waited = False
        self._rest = rest
        while len(self._rest) > LINE_LIMIT_BYTES:
            entries.append(self._cut(newline=False))
        return entries

    def flush(self) -> list[Entry]:
        """What has waited for its line's end since the last call, as a part that others join; no half character."""
        if not self._rest or not self._has_waited:
            self._has_waited = bool(self._rest)
            return []
        end = _whole_characters(self._rest)
        piece, kept = self._rest[:end], self._rest[end:]
        if not piece:
            return []
        self._rest = piece
        entry = self._cut(newline=False, is_part=True)
        self._rest += kept
        return [entry]

    def end(self) -> list[Entry]:
        """The entries of an unfinished last line; none if the stream ended with a newline or was empty."""
        entries = []
        while self._rest:
            entries.append(self._cut(newline=False))
        return entries

    def _finished(self, lines: bytes) -> list[Entry]:
        """Lines without their last newline. The first may continue a line of which parts have gone already."""
        if not self._parts:
            texts = _ordinary(lines)
            if texts is not None:
                level, source = self._level, self._source
                if self._finder is None:
                    return [Entry(text, level, source) for text in texts]
                return [Entry(text, self._finder.level(text), source) for text in texts]
        entries: list[Entry] = []
        for line in lines.split(b"\n"):
            entries += self._finished_line(line)
        return entries

    def _finished_line(self, line: bytes) -> list[Entry]:
        self._rest = line
        entries = [self._cut(newline=True)]
        while self._rest:
            entries.append(self._cut(newline=True))
        self._parts = 0
        return entries

    def _cut(self, *, newline: bool, is_part: bool = False) -> Entry:
        """Take one entry's worth off the unfinished line; `newline` says whether one follows the whole line."""
        piece, self._rest = _first_piece(self._rest)
        metadata: dict[str, Any] = {}
        try:
            message = piece.decode()
        except UnicodeDecodeError:
            message = piece.decode(errors="replace")
            metadata["bytes"] = base64.b64encode(piece).decode()
        if not self._parts:
            self._line_level = self._finder.level(message) if self._finder else self._level
        if self._rest or self._parts or is_part:
            self._parts += 1
            metadata["part"] = self._parts
        if self._rest or not newline:
            metadata["newline"] = False
        return Entry(message, self._line_level, self._source, metadata=metadata or None)


class _Stored(Protocol):
    @property
    def message(self) -> str: ...
    @property
    def metadata(self) -> dict[str, Any] | None: ...


def raw_bytes(line: _Stored) -> bytes:
    """The bytes that this line stands for, its newline included. Metadata that means something else is ignored."""
    metadata = line.metadata or {}
    end = b"" if metadata.get("newline") is False else b"\n"
    encoded = metadata.get("bytes")
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True) + end
        except binascii.Error:
            pass
    return line.message.encode() + end


def _ordinary(lines: bytes) -> list[str] | None:
    """The lines as text if all of them are ordinary, else None."""
    try:
        texts = lines.decode().split("\n")
    except UnicodeDecodeError:
        return None
    # A character has at most four bytes: lines this short cannot be over the limit, and no line is encoded to find out.
    if len(lines) > LINE_LIMIT_BYTES and max(map(len, texts)) > LINE_LIMIT_BYTES // 4:
        return None
    return texts


def _first_piece(line: bytes) -> tuple[bytes, bytes]:
    """Split off what one entry can hold: 60 KiB of text, or 8 KiB if it is not all UTF-8."""
    end = _character_start(line, LINE_LIMIT_BYTES)
    if not _is_utf8(line[:end]):
        end = _character_start(line, RAW_LIMIT_BYTES)
    return line[:end], line[end:]


def _is_utf8(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def _whole_characters(piece: bytes) -> int:
    """Where the last character ends that is whole, if the piece ends within one."""
    for back in range(1, min(4, len(piece)) + 1):
        byte = piece[-back]
        if byte & 0xC0 != 0x80:
            length = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(piece) - back if length > back else len(piece)
    return len(piece)


class Joined(NamedTuple):
    """A line as a person reads it: its parts in one, with the last of them as `line`."""

    line: Any
    text: str


class Joiner:
    """Joins the parts of lines, of each source by itself: `add` gives what is whole by it, `open` what is not yet."""

    def __init__(self) -> None:
        self._open: dict[Any, Joined] = {}

    def add(self, line: _Stored) -> Joined | None:
        """The whole line that this one is, or ends; None while more of it is to come."""
        source = getattr(line, "source", None)
        metadata = line.metadata or {}
        part = metadata.get("part")
        before = self._open.pop(source, None) if isinstance(part, int) and part > 1 else None
        joined = Joined(line, (before.text if before else "") + line.message)
        if isinstance(part, int) and metadata.get("newline") is False and len(joined.text) < _JOINED_CHARS:
            self._open[source] = joined
            return None
        return joined

    def open(self) -> list[Joined]:
        """Lines of which the end has not come."""
        return list(self._open.values())


def last_state(text: str) -> str:
    """What a terminal would show of a line that was redrawn: the text behind its last carriage return."""
    return text.rstrip("\r").rpartition("\r")[2]


def _character_start(line: bytes, limit: int) -> int:
    """The last place at or before `limit` where a character begins, so that no character is cut in two."""
    if len(line) <= limit:
        return len(line)
    for end in range(limit, limit - 4, -1):
        if line[end] & 0xC0 != 0x80:
            return end
    return limit
