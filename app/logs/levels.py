"""The levels of log lines, and the other spellings that are read as one of them. No I/O."""

from enum import Enum


class Level(Enum):
    """How grave a line is. Other spellings are read as one of these."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"
    FATAL = "fatal"

    @classmethod
    def _missing_(cls, value: object) -> "Level | None":
        return SPELLINGS.get(value.lower()) if isinstance(value, str) else None


SPELLINGS = {level.value: level for level in Level} | {
    "warning": Level.WARN,
    "err": Level.ERROR,
    "critical": Level.FATAL,
    "notice": Level.INFO,
}


LEVELS = tuple(level.value for level in Level)
"""Their names, the least grave first: a sealed block has their places."""
