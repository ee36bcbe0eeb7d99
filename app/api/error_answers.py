"""The answers that an error stands for: a refusal, an outage, a path or a method that there is not, a bug of ours.

Never: decides what is refused, or with which status and code: app/model/errors.py has the table.
"""

import logging
import secrets

import msgspec
from starlette.types import Scope

from app.api.request_log import SCOPE_REQUEST_ID
from app.api.responses import Answer
from app.metrics import catalog
from app.model.errors import ApiError, Refusal

log = logging.getLogger("jobwire.api")

READ_METHODS = "GET, HEAD"
"""The methods of a path that is only read, as the header `Allow` has them."""


def error_answer(error: ApiError) -> Answer:
    """The answer that a refusal or an outage stands for."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in error.headers.items()]
    return Answer(error.kind.status, msgspec.json.encode(error.body()), headers)


def not_found_answer() -> Answer:
    """The answer for a path that does not exist."""
    return error_answer(Refusal("not_found", "No such path."))


def method_refused_answer(allow: str) -> Answer:
    """The answer for a path that has other methods."""
    return error_answer(Refusal("method_not_allowed", f"This path allows {allow}.", headers={"allow": allow}))


def bug_answer(scope: Scope, error: BaseException | None = None) -> Answer:
    """The answer when our own code failed with `error`, or with the exception that is being handled.

    It is told to the log, with an id that the client is told, too.
    """
    catalog.BUGS.inc()
    known: bytes = scope.get(SCOPE_REQUEST_ID) or secrets.token_hex(8).encode()
    request_id = known.decode()
    what = (request_id, scope.get("method"), scope["path"])
    log.error("request %s failed: %s %s", *what, exc_info=error or True)
    return error_answer(ApiError("internal", "This is a bug in jobwire. It has been logged.", requestId=request_id))
