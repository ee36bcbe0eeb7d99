"""Text for a terminal: hostile text made harmless, colours, tables.

Owns what may reach a person's screen. A log line can hold anything a terminal would obey: cursor moves, title
changes, reversed text. `harmless` lets none of it through: colour sequences are left out, every other control
character is shown as an escape.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

import click

_COLOUR_SEQUENCE = re.compile(r"\x1b\[[0-9;:]*m")

# C0 but tab, DEL, C1, the line and paragraph separators, and everything that turns the direction of text.
_CONTROLS = (
    set(range(0x20))
    | set(range(0x7F, 0xA0))
    | {0x061C, 0x200E, 0x200F, 0x2028, 0x2029, 0xFEFF}
    | set(range(0x202A, 0x202F))
    | set(range(0x2066, 0x206A))
) - {0x09}
_SHOWN = MappingProxyType({code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _CONTROLS})
_JSON_ESCAPES = MappingProxyType({code: f"\\u{code:04x}" for code in _CONTROLS if code >= 0x7F})
_INDENT = "    "
_LAST_CELL = 8
"""How many cells the last column of a table keeps, however narrow the terminal is."""

_LEVEL_STYLES: Mapping[str, str] = MappingProxyType(
    {"trace": "2", "debug": "2", "warn": "33", "error": "31", "fatal": "1;31"}
)
_STATUS_STYLES: Mapping[str, str] = MappingProxyType(
    {"scheduled": "2", "delivered": "36", "running": "36", "completed": "32", "dead": "31", "killed": "35"}
)


def harmless(text: str) -> str:
    """One line of text that no terminal obeys."""
    if text.isprintable():
        return text
    return _COLOUR_SEQUENCE.sub("", text).translate(_SHOWN)


def harmless_lines(message: str) -> str:
    """A log message that no terminal obeys: its own newlines stay, with what follows them indented, so that a message
    cannot pass for two."""
    if message.isprintable():
        return message
    return ("\n" + _INDENT).join(harmless(line.removesuffix("\r")) for line in message.split("\n"))


class Paint:
    """Colours, if they are wanted."""

    def __init__(self, coloured: bool) -> None:
        self._coloured = coloured

    @classmethod
    def for_stdout(cls) -> Paint:
        """Coloured on a terminal, unless NO_COLOR is set or the terminal is dumb."""
        wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(wanted and sys.stdout.isatty())

    def level(self, level: str, text: str) -> str:
        """The text in the colour of a log level."""
        return self._styled(_LEVEL_STYLES.get(level), text)

    def status(self, status: str, text: str | None = None) -> str:
        """The text (the status itself by default) in the colour of a job's status."""
        return self._styled(_STATUS_STYLES.get(status), status if text is None else text)

    def dim(self, text: str) -> str:
        return self._styled("2", text)

    def _styled(self, style: str | None, text: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._coloured and style else text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of left-justified columns; the cells must be harmless already and without colours.

    On a terminal the last column is cut so that no line is wider than it.
    """
    widths = [max(map(cells, column)) for column in zip(header, *rows, strict=True)]
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * (len(widths) - 1)
        widths[-1] = max(_LAST_CELL, min(widths[-1], room))
    return [
        "  ".join(_fitted(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]


def cells(text: str) -> int:
    """How many cells of a terminal a text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fitted(text: str, width: int) -> str:
    """The text in exactly so many cells, cut with an ellipsis if it has more."""
    have = cells(text)
    if have <= width:
        return text + " " * (width - have)
    kept, used = "", 0
    for character in text:
        used += _cells_of(character)
        if used > width - 1:
            break
        kept += character
    return kept + "…" + " " * (width - 1 - cells(kept))


def print_json(body: bytes) -> None:
    """As the server wrote it, numbers too; what a terminal would obey stands as an escape of JSON."""
    sys.stdout.buffer.write(harmless_json(body.rstrip(b"\n")) + b"\n")


def harmless_json(body: bytes) -> bytes:
    """The same JSON, with U+007F to U+009F and what turns the direction of text as `\\uXXXX`."""
    if body.isascii() and b"\x7f" not in body:
        return body
    return body.decode(errors="replace").translate(_JSON_ESCAPES).encode()


def age(moment: str | None) -> str:
    """How long ago, in its largest unit: 5s, 12m, 3h, 8d; `-` for no moment."""
    try:
        then = datetime.fromisoformat(moment or "")
    except ValueError:
        return "-"
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def duration(ms: int | None) -> str:
    """How long, in its largest units: 820ms, 4.2s, 3m20s, 2h05m, 3d04h; `-` for None."""
    if ms is None:
        return "-"
    if ms < 10_000:
        return f"{ms}ms" if ms < 1000 else f"{ms / 1000:.1f}s"
    seconds = ms // 1000
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= length:
            return f"{seconds // length}{unit}{seconds % length // part:02}{smaller}"
    return f"{seconds}s"


def size(count: int | None) -> str:
    """How many bytes, in their largest unit: 820 B, 4.2 KiB, 64.0 MiB, 2.0 GiB; `-` for None."""
    if count is None:
        return "-"
    for unit, length in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count} B"


def echo_facts(pairs: Sequence[tuple[str, str]]) -> None:
    """A thing, one fact a line; the values are made harmless here."""
    paint = Paint.for_stdout()
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        click.echo(f"{paint.dim(name.ljust(width))}  {harmless(value)}")
