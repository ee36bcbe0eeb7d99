"""The rest of what clients get: the small answers of workers, readers and operators, as structs, so that the OpenAPI
document is made of what is really sent. Entries of logs stand here as clients may write them, too.
"""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from app.api.answers import DeliveredAnswer, EventAnswer
from app.logs.intake import ENTRIES_MOST, SOURCE_CHARS
from app.logs.levels import Level
from app.logs.lines import Row


class Ended(Struct):
    """A call that changed a job's status went through."""

    status: str
    success: bool = True


class Renewed(Struct, rename="camel"):
    """A worker's call went through: where the job stands, and when its lease ends (null without one)."""

    status: str
    timeout_at: str | None
    success: bool = True


class Failed(Struct, rename="camel"):
    """A failed attempt: where the job stands, whether another follows, and the lease of one that was claimed."""

    status: str
    will_retry: bool
    attempt_number: int
    success: bool = True
    lease_token: str | UnsetType = UNSET


class BulkRetried(Struct):
    """How many jobs run again after a bulk retry, and whether some are left for a further call."""

    retried: int
    more: bool
    success: bool = True


class Polled(Struct):
    """What a worker got."""

    jobs: list[DeliveredAnswer]


class ProgressShown(Struct, rename="camel"):
    """The latest progress of a job; nulls before the first one."""

    job_id: str
    progress: Raw
    timestamp: str | None


class EventCursor(Struct, rename="camel"):
    """The oldest event kept, the last one of this page, and whether there are more after it."""

    first_seq: int
    newest_seq: int
    has_more: bool


class EventPage(Struct):
    """Events of a job, oldest first."""

    events: list[EventAnswer]
    cursor: EventCursor


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


class WhoAmI(Struct, rename="camel"):
    """What a key may do, and in which space (null: the root key, in all of them)."""

    space: str | None
    space_name: str | None
    scopes: list[str]
    root: bool


class Problem(Struct):
    """Every error: a sentence for a person, a stable word for a program, and further members where they help."""

    error: str
    code: str


class Entry(Struct):
    """One log line. `timestamp` is RFC 3339; levels are read in any case, warning, err, critical and notice too."""

    message: str
    level: str | None = "info"
    timestamp: str | None = None
    source: Annotated[str, Meta(max_length=SOURCE_CHARS)] | None = None
    metadata: dict[str, Any] | None = None


Entries = Annotated[list[str | Entry], Meta(max_length=ENTRIES_MOST)]


class EntriesObject(Struct):
    """A batch of log lines as an object."""

    logs: Entries


class EndsShown(Struct, rename="camel"):
    """How jobs ended, and how long half and 95 of 100 of the completed took at most (null where none completed)."""

    completed: int
    dead: int
    killed: int
    p50_ms: int | None
    p95_ms: int | None


class NameShown(Struct, rename="camel"):
    """One name (null: all those beyond the thousand that an hour counts by name), and its pending jobs."""

    name: str | None
    last_hour: EndsShown
    last_day: EndsShown
    pending: int
    oldest_pending_at: str | None


class StatsShown(Struct, rename="camel"):
    """A space's names, the busiest first, and since when its oldest pending job waits."""

    names: list[NameShown]
    oldest_pending_at: str | None
