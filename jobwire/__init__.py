"""The client half of jobwire: what other programs import, and the commands `run`, `tail`, `logs`, `jobs` ....

Knows the HTTP API and nothing of the server's own code, so it works beside any package called `app`.
"""

from .api.admin import Admin
from .api.jobs import Jobs
from .api.response_structs import (
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
from .log_lines.entry import Entry
from .log_shipping.logging_handler import LogHandler
from .log_shipping.shipper import LogShipper, ShipperStopped
from .reading.stream_following import StreamFrame, follow, follow_async
from .version import __version__

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
