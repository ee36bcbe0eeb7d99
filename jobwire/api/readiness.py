"""What a server says of itself at `/readyz`, whether it is ready or not. This wants no key, and gets none."""

from __future__ import annotations

import msgspec

from ..errors import Outage
from .http_client import Http
from .response_decoding import decoded
from .response_structs import Readiness


def read_readiness(http: Http) -> tuple[Readiness, str]:
    """What it tells, and why it is not ready, "" if it is. Raises what `Http.probe` raises, but for `Outage`."""
    try:
        return decoded(http.probe("/readyz"), Readiness), ""
    except Outage as outage:
        return _told_beside(outage), str(outage)


def _told_beside(outage: Outage) -> Readiness:
    try:
        return msgspec.convert(outage.details, Readiness)
    except msgspec.ValidationError:
        return Readiness()
