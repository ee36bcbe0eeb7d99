"""What each route of the API takes and answers: the table from which /openapi.json is made.

Owns: for each method of each path of app/api/routes.py, the types of body and answer, the query, and which errors
there are besides those that every call has. A test holds both tables to each other, and a live run to the service.
"""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from app.api.log_schemas import LogPage, LogsAppended
from app.api.logs import LINES_DEFAULT, LINES_MOST
from app.api.request_schemas import (
    BulkRetryRequest,
    CallEntry,
    Entries,
    EntriesObject,
    FailRequest,
    JobRequest,
    KillRequest,
    PollRequest,
    ProgressRequest,
    ReleaseRequest,
    SpaceRequest,
    TokenRequest,
)
from app.api.response_schemas import (
    BulkRetried,
    CallAnswered,
    DeliveredAnswer,
    Ended,
    EventPage,
    Failed,
    JobAnswer,
    JobDetails,
    Polled,
    ProgressShown,
    Released,
    Renewed,
    SpaceAnswer,
    StatsShown,
    TokenAnswer,
    WhoAmI,
)
from app.api.responses import NDJSON
from app.api.space_settings import SpacePatch
from app.model.job import Status
from app.model.limits import BATCH_CALLS, BATCH_JOBS, EVENTS_ANSWERED, SEQ_MOST

_ANY_STATUS = f"({'|'.join(Status)})"
STATUSES = Annotated[str, Meta(pattern=f"^{_ANY_STATUS}(,{_ANY_STATUS})*$")]
SEQ = Annotated[int, Meta(ge=0, le=SEQ_MOST)]

BODY_ERRORS = ("unsupported_media_type", "too_large", "invalid_json")
CHECKED_ERRORS = (*BODY_ERRORS, "invalid_request")
LEASE_ERRORS = ("job_not_found", "lease_lost", "invalid_state")
IDEMPOTENCY_ERRORS = ("idempotency_mismatch",)
FULL_ERRORS = ("space_full",)

RESIZE_EXAMPLE = {"name": "resize", "payload": {"image": 7}, "maxRetries": 2}
PROGRESS_EXAMPLE = {"percent": 40, "message": "scaling", "subProgress": {"upload": {"percent": 10}}}
CALLS_EXAMPLE = [
    {"verb": "complete", "jobId": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "leaseToken": "kX3J...", "body": {"width": 640}}
]
LINES_EXAMPLE = ["opened image 7", {"message": "no alpha channel", "level": "warn", "metadata": {"image": 7}}]


class Parameter(NamedTuple):
    """A member of the query, or a header."""

    name: str
    kind: Any
    meaning: str
    place: str = "query"


class Operation(NamedTuple):
    """One method of one path. `body` is the type of the JSON that it takes (None: nothing), `answer` what it gives."""

    summary: str
    tag: str
    answer: Any = None
    body: Any = None
    status: int = 200
    errors: Sequence[str] = ()
    parameters: Sequence[Parameter] = ()
    body_needed: bool = True
    example: Any = None
    also: Sequence[str] = ()
    """Further media types of the body, or, of a GET, of the answer."""
    headers: Sequence[tuple[str, str]] = ()
    """Headers of the answer, and what they mean."""


LEASE_TOKEN = Parameter(
    "x-lease-token", str, "The lease token of the caller; if it is not the job's latest, the answer is 409.", "header"
)
IDEMPOTENCY_KEY = Parameter(
    "idempotency-key",
    Annotated[str, Meta(min_length=1, max_length=128, pattern="^[ -~]+$")],
    "The same request with the same Idempotency-Key is done once and answered like the first.",
    "header",
)
TRACEPARENT_HEADER = Parameter(
    "traceparent",
    str,
    "The trace that the jobs belong to, as W3C Trace Context; kept and shown with the jobs.",
    "header",
)
LIST_QUERY = (
    Parameter("status", STATUSES, "Only jobs of this status, or of several, comma-separated."),
    Parameter("limit", Annotated[int, Meta(ge=1, le=100)], "How many; 50."),
    Parameter("offset", SEQ, "How many of the newest to skip; 0."),
    Parameter("cursor", str, "Where the page begins: the x-next-cursor of the page before; not together with offset."),
)
EVENTS_QUERY = (
    Parameter("after", SEQ, "Only events after this seq; 0."),
    Parameter("limit", Annotated[int, Meta(ge=1, le=EVENTS_ANSWERED)], "How many; 200."),
)
LOGS_QUERY = (
    Parameter("after", SEQ, "Only lines after this seq; not together with before."),
    Parameter("before", Annotated[int, Meta(ge=1, le=SEQ_MOST)], "Only lines before this seq."),
    Parameter("limit", Annotated[int, Meta(ge=1, le=LINES_MOST)], f"How many; {LINES_DEFAULT}."),
    Parameter("level", str, "Only these levels, comma-separated or repeated."),
    Parameter("q", str, 'Up to 16 words that must all occur, in any case; "a phrase" in quotes.'),
)

Jobs = Annotated[list[JobRequest], Meta(min_length=1, max_length=BATCH_JOBS)]
Calls = Annotated[list[CallEntry], Meta(min_length=1, max_length=BATCH_CALLS)]
AnyObject = dict[str, Any]


def describe_lease_call(
    summary: str, body: Any = None, answer: Any = Renewed, *errors: str, needed: bool = False, example: Any = None
) -> Operation:
    """A call about one job, with its lease token."""
    all_errors = (*BODY_ERRORS, *errors, *LEASE_ERRORS)
    return Operation(summary, "worker", answer, body, 200, all_errors, (LEASE_TOKEN,), needed, example)


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/spaces/{space_id}/jobs"): Operation(
        "Create one job, or an array of them: all or none.",
        "producer",
        JobAnswer | list[JobAnswer],
        JobRequest | Jobs,
        201,
        (*CHECKED_ERRORS, *IDEMPOTENCY_ERRORS, *FULL_ERRORS),
        (IDEMPOTENCY_KEY, TRACEPARENT_HEADER),
        example=RESIZE_EXAMPLE,
    ),
    ("GET", "/spaces/{space_id}/jobs"): Operation(
        "Jobs, newest created first. A page ends after `limit` jobs or 8 MiB; x-next-cursor leads to the next.",
        "reader",
        list[JobAnswer],
        errors=("invalid_request",),
        parameters=LIST_QUERY,
        headers=(
            ("x-total-count", "How many jobs match in all."),
            ("x-next-cursor", "Only when there are more jobs: send it back as cursor to get the next page."),
        ),
    ),
    ("POST", "/spaces/{space_id}/jobs/poll"): Operation(
        "Take the oldest pending jobs, of some names or of any. With waitSeconds, wait until there is one; with ack "
        "(needs `jobs:ack` too) they are running.",
        "worker",
        Polled,
        PollRequest,
        errors=CHECKED_ERRORS,
        body_needed=False,
        example={"count": 1, "names": ["resize"], "waitSeconds": 0},
    ),
    ("POST", "/spaces/{space_id}/calls"): Operation(
        "Many calls of a worker in one request, done in their order. Each needs the scope of its own route, and is "
        "answered with the status and the body that it would get there.",
        "worker",
        list[CallAnswered],
        Calls,
        errors=CHECKED_ERRORS,
        example=CALLS_EXAMPLE,
    ),
    ("POST", "/spaces/{space_id}/jobs/retry"): Operation(
        "Bulk retry: let many dead or killed jobs run again, oldest created first.",
        "producer",
        BulkRetried,
        BulkRetryRequest,
        errors=CHECKED_ERRORS,
        example={"status": "dead", "name": "resize", "limit": 100},
    ),
    ("GET", "/jobs/{job_id}"): Operation(
        "One job with its newest events.", "reader", JobDetails, errors=("job_not_found",)
    ),
    ("DELETE", "/jobs/{job_id}"): Operation(
        "Delete an ended job and all its data.",
        "operator",
        status=204,
        errors=("job_not_found", "invalid_state"),
    ),
    ("GET", "/jobs/{job_id}/events"): Operation(
        "A page of events, oldest first.",
        "reader",
        EventPage,
        errors=("invalid_request", "job_not_found"),
        parameters=EVENTS_QUERY,
    ),
    ("GET", "/jobs/{job_id}/progress"): Operation(
        "The latest progress.", "reader", ProgressShown, errors=("job_not_found",)
    ),
    ("GET", "/jobs/{job_id}/logs"): Operation(
        "Lines of the log: after a seq, before one, or the newest. As NDJSON, every line from `after` to the end.",
        "reader",
        LogPage,
        errors=("invalid_request", "job_not_found"),
        parameters=LOGS_QUERY,
        also=(NDJSON,),
    ),
    ("POST", "/jobs/{job_id}/logs"): Operation(
        "Append lines to the log, as one batch.",
        "worker",
        LogsAppended,
        Entries | EntriesObject,
        errors=(*CHECKED_ERRORS, "invalid_entry", "job_not_found", *IDEMPOTENCY_ERRORS),
        parameters=(IDEMPOTENCY_KEY,),
        example=LINES_EXAMPLE,
        also=(NDJSON,),
    ),
    ("POST", "/jobs/{job_id}/claim"): describe_lease_call("Take this pending job.", None, DeliveredAnswer),
    ("POST", "/jobs/{job_id}/ack"): describe_lease_call("Begin."),
    ("POST", "/jobs/{job_id}/keepalive"): describe_lease_call("Renew the lease."),
    ("POST", "/jobs/{job_id}/progress"): describe_lease_call(
        "Report progress.", ProgressRequest, Renewed, "invalid_request", needed=True, example=PROGRESS_EXAMPLE
    ),
    ("POST", "/jobs/{job_id}/checkpoint"): describe_lease_call(
        "Store what the next attempt needs.",
        AnyObject,
        Renewed,
        "invalid_request",
        needed=True,
        example={"page": 7},
    ),
    ("POST", "/jobs/{job_id}/event"): describe_lease_call(
        "Add an event of your own.", Any, Renewed, *FULL_ERRORS, example={"found": 3}
    ),
    ("POST", "/jobs/{job_id}/complete"): describe_lease_call(
        "The job is done; the body is the result.", Any, Ended, example={"width": 640}
    ),
    ("POST", "/jobs/{job_id}/fail"): describe_lease_call(
        "This attempt failed.", FailRequest, Failed, "invalid_request", example={"error": "out of memory"}
    ),
    ("POST", "/jobs/{job_id}/release"): describe_lease_call(
        "Give the job back: no retry is used, the checkpoint stays.",
        ReleaseRequest,
        Released,
        "invalid_request",
        example={"delaySeconds": 30, "reason": "deploy"},
    ),
    ("POST", "/jobs/{job_id}/kill"): describe_lease_call(
        "End the job from outside.", KillRequest, Ended, "invalid_request", example={"reason": "not needed any more"}
    )._replace(tag="producer"),
    ("POST", "/jobs/{job_id}/retry"): describe_lease_call("Let a dead or killed job run again.", None, Ended)._replace(
        tag="producer"
    ),
    ("POST", "/jobs/{job_id}/callback/retry"): Operation(
        "Send the callback of an ended job again.",
        "producer",
        Ended,
        errors=(*CHECKED_ERRORS, "job_not_found", "invalid_state"),
    ),
    ("POST", "/spaces"): Operation(
        "Make a space.", "operator", SpaceAnswer, SpaceRequest, 201, CHECKED_ERRORS, example={"name": "builds"}
    ),
    ("GET", "/spaces"): Operation("All spaces, oldest first.", "operator", list[SpaceAnswer]),
    ("GET", "/spaces/{space_id}"): Operation("One space with its jobs by status.", "operator", SpaceAnswer),
    ("PATCH", "/spaces/{space_id}"): Operation(
        "Change a space's name, secrets, push or Slack webhook.",
        "operator",
        SpaceAnswer,
        SpacePatch,
        errors=CHECKED_ERRORS,
        body_needed=False,
        example={"name": "builds of the night"},
    ),
    ("DELETE", "/spaces/{space_id}"): Operation("Delete a space and everything in it.", "operator", status=204),
    ("GET", "/spaces/{space_id}/stats"): Operation(
        "By name: how many jobs ended how in the last hour and day, how long they took, how many are pending.",
        "reader",
        StatsShown,
    ),
    ("POST", "/spaces/{space_id}/tokens"): Operation(
        "Create a key; it is shown this once.",
        "operator",
        TokenAnswer,
        TokenRequest,
        201,
        CHECKED_ERRORS,
        example={"name": "builder", "scopes": ["jobs:worker"]},
    ),
    ("GET", "/spaces/{space_id}/tokens"): Operation("The valid keys of a space.", "operator", list[TokenAnswer]),
    ("DELETE", "/spaces/{space_id}/tokens/{token_id}"): Operation(
        "Revoke a key.", "operator", status=204, errors=("token_not_found",)
    ),
    ("GET", "/whoami"): Operation("The key's space and scopes.", "reader", WhoAmI),
}
"""By method and path below the base."""
