"""What clients get of logs: the typed structs that encode answers, and those that describe a line as it is written."""

from typing import Any

from msgspec import Struct

from app.logs.levels import Level
from app.logs.lines import Row


class LogCursor(Struct, rename="camel"):
    """The range of lines that was examined, whether there is more in its direction, and the oldest line kept."""

    mode: str
    oldest_seq: int | None
    newest_seq: int | None
    has_more: bool
    first_seq: int | None


class LogLine(Struct, rename="camel"):
    """One line of a log, as app/logs/lines.py writes it. `loggedAt` is the entry's own time, or `createdAt`."""

    id: str
    seq: int
    level: Level
    message: str
    source: str | None
    metadata: dict[str, Any] | None
    logged_at: str
    created_at: str


class RowPage(Struct):
    """Lines of a job's log, ascending: Rows, which are LogLines in other words."""

    logs: list[Row]
    cursor: LogCursor


class LogPage(Struct):
    """Lines of a job's log, ascending."""

    logs: list[LogLine]
    cursor: LogCursor


class LogsAppended(Struct, rename="camel"):
    """How many lines were stored under which numbers (nulls for an empty batch), and how many messages were cut."""

    inserted: int
    from_seq: int | None
    to_seq: int | None
    truncated: int
    status: str
    success: bool = True
