"""One table of everything that a client is told: code -> HTTP status -> WebSocket close code.

Two kinds of exceptions say why a call is not done. A `Refusal` is a rule's no: the same call is refused again. An
`Outage` is nobody's fault: the same call may be done a moment later. Both are raised anywhere below the handlers, and
the edge (app/api) answers them in one place. Bugs are other exceptions, and become `internal`.
"""

from typing import Any, NamedTuple


class Kind(NamedTuple):
    """How one code leaves: as an HTTP status, and as a close code on a WebSocket that is already open (RFC 6455)."""

    status: int
    close: int


KINDS: dict[str, Kind] = {
    "not_found": Kind(404, 1008),
    "method_not_allowed": Kind(405, 1008),
    "unauthorized": Kind(401, 1008),
    "missing_scope": Kind(403, 1008),
    "wrong_space": Kind(403, 1008),
    "origin_not_allowed": Kind(403, 1008),
    "space_not_found": Kind(404, 1008),
    "token_not_found": Kind(404, 1008),
    "rate_limited": Kind(429, 1013),
    "unsupported_media_type": Kind(415, 1003),
    "too_large": Kind(413, 1009),
    "invalid_json": Kind(400, 1007),
    "invalid_request": Kind(400, 1008),
    "invalid_entry": Kind(400, 1008),
    "job_not_found": Kind(404, 1008),
    "lease_lost": Kind(409, 1008),
    "invalid_state": Kind(409, 1008),
    "idempotency_mismatch": Kind(422, 1008),
    "space_full": Kind(503, 1013),
    "unavailable": Kind(503, 1013),
    "outcome_unknown": Kind(503, 1013),
    "internal": Kind(500, 1011),
}


class ApiError(Exception):
    """What the contract answers in place of a result: a code of KINDS, a sentence for a person, keys for a program."""

    def __init__(self, code: str, text: str, *, headers: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.headers = headers or {}
        self.more = more

    @property
    def kind(self) -> Kind:
        """The HTTP status and the close code."""
        return KINDS[self.code]

    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        return {"error": self.text, "code": self.code, **self.more}


class Refusal(ApiError):
    """A rule says no. Nothing was stored."""


class NotFound(Refusal):
    """There is no such job, or no such space."""


class TooLarge(Refusal):
    """Over a limit."""


class Outage(ApiError):
    """It cannot be done now, or nobody knows whether it was: Redis is away, or there is no room for it."""

    @property
    def why(self) -> str:
        """The reason, for the operator: without what the caller may do about it."""
        return self.text


class Unavailable(Outage):
    """Nothing was done."""


class OutcomeUnknown(Outage):
    """It may have been done."""

    @property
    def why(self) -> str:
        return self.text.removesuffix(REPEATING)


def unavailable(why: str, *, retry_after_s: int = 1, **more: Any) -> Unavailable:
    """It cannot be done now, and nothing was done."""
    return Unavailable("unavailable", why, headers={"retry-after": str(retry_after_s)}, **more)


def space_full(most_bytes: int) -> Refusal:
    """What the space's jobs and events may take is taken; room comes when jobs are removed."""
    text = (
        f"The jobs and events of this space have reached the space's limit of {most_bytes} bytes: delete jobs, or wait."
    )
    return Refusal("space_full", text, headers={"retry-after": "10"}, limit={"spaceBytes": most_bytes})


REPEATING = " Repeating it with its Idempotency-Key or lease token is safe."
UNANSWERED = "Redis did not answer in time: the call may or may not have been done."


def outcome_unknown(why: str = UNANSWERED) -> OutcomeUnknown:
    """The link broke after the command was sent, or what it answered cannot be told."""
    return OutcomeUnknown(
        "outcome_unknown",
        why + REPEATING,
        headers={"retry-after": "1"},
    )


def invalid(text: str, **more: Any) -> Refusal:
    """A request whose JSON is fine but whose content is not."""
    return Refusal("invalid_request", text, **more)


def job_not_found() -> NotFound:
    """No such job, or a string that is no id."""
    return NotFound("job_not_found", "Job not found")


def space_not_found() -> NotFound:
    """No such space; only the root key is told so."""
    return NotFound("space_not_found", "Space not found")


def too_large(text: str, limit: str, most: int, **more: Any) -> TooLarge:
    """Over a limit: `limit` names it in the client's words, `most` is how much would have been taken."""
    return TooLarge("too_large", text, limit={limit: most}, **more)
