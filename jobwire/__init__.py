"""The client half of jobwire: what other programs import, and the commands `run`, `tail`, `logs`, `jobs` ....

Knows the HTTP API and nothing of the server's own code, so it works beside any package called `app`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .api.admin import Admin
    from .api.jobs import Jobs
    from .api.response_structs import (
        Appended,
        BulkRetry,
        CallAnswered,
        Delivery,
        Ends,
        Failure,
        Job,
        LogLine,
        LogPage,
        NameStats,
        Progress,
        Released,
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

__all__ = [
    "AccessDenied",
    "Admin",
    "Appended",
    "BulkRetry",
    "CallAnswered",
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
    "Released",
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

_PLACES = {
    ".api.admin": "Admin",
    ".api.jobs": "Jobs",
    ".api.response_structs": (
        "Appended BulkRetry CallAnswered Delivery Ends Failure Job LogLine LogPage NameStats Progress Released Renewal "
        "Space SpaceStats Token"
    ),
    ".errors": (
        "AccessDenied InvalidState JobwireError LeaseLost NotConfigured NotDone NotFound Outage "
        "OutcomeUnknown RateLimited Refused"
    ),
    ".log_lines.entry": "Entry",
    ".log_shipping.logging_handler": "LogHandler",
    ".log_shipping.shipper": "LogShipper ShipperStopped",
    ".reading.stream_following": "StreamFrame follow follow_async",
}
"""Where each public name is: a program pays for what it uses."""
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _PLACE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACE_OF[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
