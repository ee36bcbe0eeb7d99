"""What a line of output says of its own level.

Owns the words and the places where they count: at the line's beginning, or behind its time stamp, in brackets or not,
in colours or not. A Python traceback is an error in its first and in its last line. Any other line has no level of its
own.
"""

from __future__ import annotations

import re

_WORDS = {
    "trace": "trace",
    "debug": "debug",
    "info": "info",
    "notice": "info",
    "warn": "warn",
    "warning": "warn",
    "err": "error",
    "error": "error",
    "panic": "fatal",
    "fatal": "fatal",
    "critical": "fatal",
    "crit": "fatal",
    "emerg": "fatal",
    "alert": "fatal",
}
_COLOUR = r"(?:\x1b\[[0-9;]*m)*"
_DAY = r"\d{4}[-/]\d\d[-/]\d\d|[A-Z][a-z]{2} [ \d]\d"
_TIME = r"\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
_STAMP = rf"[\[(<]?(?:(?:{_DAY})(?:[T ]{_TIME})?|{_TIME})[\])>]?[\s|:,-]*"
_WORD = "|".join(sorted(_WORDS, key=len, reverse=True))
_LEVEL = re.compile(rf"{_COLOUR}(?:{_STAMP})?{_COLOUR}[\[(<|]?({_WORD})(?![\w-])", re.IGNORECASE)
_TRACEBACK = "Traceback (most recent call last):"
_RAISED = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)(?::|$)")


class LevelFinder:
    """Lines of one stream, in order: `level` is what a line says of itself, else `otherwise`."""

    def __init__(self, otherwise: str) -> None:
        self._otherwise = otherwise
        self._in_traceback = False

    def level(self, line: str) -> str:
        """The level of the next line."""
        if self._in_traceback:
            if line[:1] in (" ", ""):
                return self._otherwise
            self._in_traceback = False
            return "error"
        if line.startswith(_TRACEBACK):
            self._in_traceback = True
            return "error"
        if match := _LEVEL.match(line):
            return _WORDS[match[1].lower()]
        return "error" if _RAISED.match(line) else self._otherwise
