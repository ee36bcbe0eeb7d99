"""The client half of jobwire: what other programs import, and the commands `run`, `tail`, `logs`, `jobs` ....

Knows the HTTP API and nothing of the server's own code, so it works beside any package called `app`.
"""

from .admin import Admin
from .entry import Entry
from .errors import (
    AccessDenied,
    InvalidState,
    JobwireError,
    LeaseLost,
    NotConfigured,
    NotDone,
    NotFound,
    Outage,
    OutcomeUnknown,
    RateLimited,
    Refused,
)
from .handler import LogHandler
from .jobs import Jobs
from .record import (
    Appended,
    BulkRetry,
    Delivery,
    Ends,
    Failure,
    Job,
    LogLine,
    LogPage,
    NameStats,
    Progress,
    Renewal,
    Space,
    SpaceStats,
    Token,
)
from .shipper import LogShipper, ShipperStopped
from .version import __version__
from .watching import StreamFrame, follow, follow_async

__all__ = [
    "AccessDenied",
    "Admin",
    "Appended",
    "BulkRetry",
    "Delivery",
    "Ends",
    "Entry",
    "Failure",
    "InvalidState",
    "Job",
    "Jobs",
    "JobwireError",
    "LeaseLost",
    "LogHandler",
    "LogLine",
    "LogPage",
    "LogShipper",
    "NameStats",
    "NotConfigured",
    "NotDone",
    "NotFound",
    "Outage",
    "OutcomeUnknown",
    "Progress",
    "RateLimited",
    "Refused",
    "Renewal",
    "ShipperStopped",
    "Space",
    "SpaceStats",
    "StreamFrame",
    "Token",
    "__version__",
    "follow",
    "follow_async",
]
