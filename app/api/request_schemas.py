"""What clients send: the typed structs that decode bodies, and the checks that a type cannot say.

Unknown fields are ignored, of a doubled key the last wins, JSON that belongs to the user stays the bytes that it
was sent as.
"""

import contextlib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from app.api.body_reading import check_nesting, decode_body
from app.jobs.bulk_retry import Selection
from app.jobs.job_records import NewJob
from app.jobs.keys_and_scopes import SCOPES, SHORTHANDS
from app.logs.intake import ENTRIES_MOST, SOURCE_CHARS
from app.model.errors import Refusal, invalid, too_large
from app.model.json_items import NULL, array_elements
from app.model.limits import (
    BATCH_CLAIMS,
    BATCH_JOBS,
    CALLBACK_HEADERS_BYTES,
    CALLBACK_HEADERS_MOST,
    ERROR_BYTES,
    KIB,
    LIMIT_S_MOST,
    NAME_CHARS,
    NESTING_MOST,
    PAYLOAD_BYTES,
    POLL_JOBS,
    POLL_NAMES,
    RETRIES_MOST,
    RETRY_JOBS,
    STAGES_MOST,
    TIMEOUT_S_MOST,
    URL_CHARS,
    WAIT_S_MOST,
)
from app.model.nesting import nesting_steps
from app.model.steps import Steps
from app.model.times import MOST_MS, parse_ms
from app.webhooks.forbidden_addresses import Forbidden, Network, check_literal

Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS)]
Names = Name | Annotated[list[Name], Meta(max_length=POLL_NAMES)]
Percent = Annotated[int, Meta(ge=0, le=100)] | Annotated[float, Meta(ge=0, le=100)]
Retries = Annotated[int, Meta(ge=0, le=RETRIES_MOST)] | Annotated[float, Meta(ge=0, le=RETRIES_MOST, multiple_of=1)]
Timeout = Annotated[int, Meta(ge=1, le=TIMEOUT_S_MOST)] | Annotated[float, Meta(ge=1, le=TIMEOUT_S_MOST, multiple_of=1)]
Count = Annotated[int, Meta(ge=1, le=POLL_JOBS)] | Annotated[float, Meta(ge=1, le=POLL_JOBS, multiple_of=1)]
Limit = Annotated[int, Meta(ge=1, le=RETRY_JOBS)] | Annotated[float, Meta(ge=1, le=RETRY_JOBS, multiple_of=1)]
LimitSeconds = (
    Annotated[int, Meta(ge=1, le=LIMIT_S_MOST)] | Annotated[float, Meta(ge=1, le=LIMIT_S_MOST, multiple_of=1)]
)
DelaySeconds = Annotated[int, Meta(ge=0, le=TIMEOUT_S_MOST)] | Annotated[float, Meta(ge=0, le=TIMEOUT_S_MOST)]

AT_ONCE_BYTES = 131_072
"""A body up to this size is decoded in one step."""

CALLBACK_HEADERS_SPELLED = 8
"""How many times their bytes headers may have as JSON: escapes and blanks."""

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

ERROR_HEAD_BYTES = 16 * KIB
"""What stays of the beginning of an error that is cut to 64 KiB."""


class RetryDelay(Struct):
    """An exponential delay with full jitter: up to min(max, base * factor ^ attempt) seconds."""

    base: DelaySeconds
    factor: Annotated[int, Meta(ge=1, le=1000)] | Annotated[float, Meta(ge=1, le=1000)]
    max: DelaySeconds


class JobRequest(Struct, rename="camel"):
    """One job to create."""

    name: Name
    payload: Raw = field(default_factory=lambda: NULL)
    max_retries: Retries | None = 3
    timeout_seconds: Timeout | None = 300
    scheduled_for: str | None = None
    callback_url: str | None = None
    callback_headers: dict[str, str] | None = None
    retry_delay_seconds: DelaySeconds | RetryDelay | None = 0
    limit_seconds: LimitSeconds | None = None
    claim: bool | None = False


class Sizes(Struct, rename="camel"):
    """A job of which nothing but the length of what may be long is looked at."""

    payload: Raw = NULL
    callback_headers: Raw = NULL


class PollRequest(Struct, rename="camel"):
    """How many jobs, of which names, how long to wait for one, and whether they are acked in the same step."""

    count: Count | None = 1
    types: Names | UnsetType | None = UNSET
    type: Names | UnsetType | None = UNSET
    names: Names | UnsetType | None = UNSET
    name: Names | UnsetType | None = UNSET
    wait_seconds: Annotated[int, Meta(ge=0, le=WAIT_S_MOST)] | Annotated[float, Meta(ge=0, le=WAIT_S_MOST)] | None = 0
    ack: bool | None = False

    def filter(self) -> list[str]:
        """The names to choose from; none means any."""
        given = [value for value in (self.types, self.type, self.names, self.name) if value not in (UNSET, None)]
        first = given[0] if given else []
        return [first] if isinstance(first, str) else list(dict.fromkeys(first or ()))


class FailRequest(Struct, rename="camel"):
    """Why an attempt failed, whether another may follow, when, and whether the caller takes it at once."""

    error: str | None = None
    retry: bool | None = True
    retry_after_seconds: DelaySeconds | None = None
    claim: bool | None = False


class ReleaseRequest(Struct, rename="camel"):
    """A job that is given back: how long it waits before anybody may have it, and why."""

    delay_seconds: DelaySeconds | None = 0
    reason: str | None = None


class CallEntry(Struct, rename="camel"):
    """One call of a batch, with the body that it would have by itself."""

    verb: Literal["ack", "progress", "checkpoint", "event", "keepalive", "complete", "fail", "release"]
    job_id: str
    lease_token: str | None = None
    body: Raw = field(default_factory=lambda: NULL)


class KillRequest(Struct):
    """Why a job is killed."""

    reason: str | None = None


class BulkRetryRequest(Struct):
    """A bulk retry of dead or killed jobs: created at `after` or later and before `before`, at most `limit` of them."""

    status: Literal["dead", "killed"]
    name: Name | None = None
    after: str | None = None
    before: str | None = None
    limit: Limit | None = 1000

    def selection(self) -> Selection:
        """The jobs that are meant. Refusal `invalid_request` for a moment that is none."""
        from_ms = 0 if self.after is None else time_ms(self.after, "after")
        till_ms = MOST_MS if self.before is None else time_ms(self.before, "before")
        return Selection(self.status, self.name or "", from_ms, till_ms)


class Stage(Struct, omit_defaults=True):
    """One part of a progress."""

    percent: Percent
    message: str | None = None


class ProgressRequest(Struct, rename="camel", omit_defaults=True):
    """How far a job is."""

    percent: Percent
    message: Annotated[str, Meta(min_length=1)]
    sub_progress: Annotated[dict[str, Stage], Meta(max_length=STAGES_MOST)] | None = None


class SpaceRequest(Struct):
    """A space to make."""

    name: Name


class TokenRequest(Struct, rename="camel"):
    """A key to make."""

    name: Name
    scopes: Annotated[list[str], Meta(min_length=1, max_length=50)]
    expires_at: str | None = None

    def check(self) -> None:
        """Refusal `invalid_request` for a scope that there is not."""
        for scope in self.scopes:
            if scope not in SCOPES and scope not in SHORTHANDS:
                raise invalid(f"There is no scope {scope[:50]!r}; scopes are {', '.join([*SCOPES, *SHORTHANDS])}.")


JOB_BODY = msgspec.json.Decoder(JobRequest)
_SIZES = msgspec.json.Decoder(Sizes)
JOBS_BODY = msgspec.json.Decoder(list[JobRequest])
POLL_BODY = msgspec.json.Decoder(PollRequest)
FAIL_BODY = msgspec.json.Decoder(FailRequest)
RELEASE_BODY = msgspec.json.Decoder(ReleaseRequest)
CALL_BODY = msgspec.json.Decoder(CallEntry)
CALLS_BODY = msgspec.json.Decoder(list[CallEntry])
KILL_BODY = msgspec.json.Decoder(KillRequest)
BULK_RETRY_BODY = msgspec.json.Decoder(BulkRetryRequest)
PROGRESS_BODY = msgspec.json.Decoder(ProgressRequest)
SPACE_BODY = msgspec.json.Decoder(SpaceRequest)
TOKEN_BODY = msgspec.json.Decoder(TokenRequest)


def decode_jobs_steps(body: bytes) -> Steps[tuple[list[NewJob], bool]]:
    """The jobs of a create, and whether they were an array. A refusal has `index` in an array."""
    many = body.lstrip()[:1] == b"["
    if len(body) > AT_ONCE_BYTES:
        requests = yield from _large_requests_steps(body, many=many)
    else:
        decoded = decode_body(JOBS_BODY if many else JOB_BODY, body, nesting=not many)
        requests = decoded if many else [decoded]
    if not requests:
        raise invalid("An array of jobs holds at least one.")
    if len(requests) > BATCH_JOBS:
        raise _too_many_jobs()
    if len(claims := [index for index, request in enumerate(requests) if request.claim]) > BATCH_CLAIMS:
        text = f"An array of jobs claims at most {BATCH_CLAIMS} of them."
        raise too_large(text, "claims", BATCH_CLAIMS, index=claims[BATCH_CLAIMS])
    jobs = []
    for index, request in enumerate(requests):
        jobs.append(_new_job(request, {"index": index} if many else {}))
        yield
    return jobs, many


def _large_requests_steps(body: bytes, *, many: bool) -> Steps[list[JobRequest]]:
    """The jobs of a body of up to 8 MiB, one in a step."""
    requests: list[JobRequest] = []
    try:
        for text in array_elements(body, len(body)) if many else (body,):
            if len(requests) == BATCH_JOBS:
                raise _too_many_jobs()
            place = {"index": len(requests)} if many else {}
            yield
            _check_sizes(text, place)
            yield
            requests.append(decode_element(JOB_BODY, text, place))
    except RecursionError:
        raise Refusal("invalid_json", f"The body is nested deeper than {NESTING_MOST}.") from None
    except msgspec.DecodeError as error:
        raise Refusal("invalid_json", f"The body is not JSON: {error}.") from None
    if not many and (yield from nesting_steps(body, NESTING_MOST + 1)):
        raise Refusal("invalid_json", f"The body is nested deeper than {NESTING_MOST}.")
    return requests


def decode_element(decoder: "msgspec.json.Decoder[Any]", text: bytes, place: dict[str, Any]) -> Any:
    """What one element of a body says, whose `index` is in `place`; refused as decode_body refuses the whole body."""
    try:
        return decode_body(decoder, text, nesting=False)
    except Refusal as refusal:
        if not place:
            raise
        whole, part = f" - at `body[{place['index']}]", " - at `body"
        text_of_it = refusal.text.replace(part, whole, 1)
        if part not in refusal.text:
            text_of_it = f"{refusal.text.removesuffix('.')}{whole}`."
        raise type(refusal)(refusal.code, text_of_it, **place) from None


def _check_sizes(text: bytes, place: dict[str, int]) -> None:
    """What is too large is told first, and before it is decoded. Refusal `too_large`."""
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        sizes = _SIZES.decode(text)
        _check_payload(sizes.payload, place)
        if len(memoryview(sizes.callback_headers)) > CALLBACK_HEADERS_SPELLED * CALLBACK_HEADERS_BYTES:
            raise _too_large_headers("callbackHeaders", place)


def _too_many_jobs() -> Refusal:
    return too_large(f"An array of jobs holds at most {BATCH_JOBS}.", "jobs", BATCH_JOBS, index=BATCH_JOBS)


def decode_or_default(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    """What the body says; an empty one says what an empty object says."""
    return decode_body(decoder, body if body.strip() else b"{}")


def whole_number(value: float | None, default: int) -> int:
    """A whole number, which may have been sent as 1.0; null means the default."""
    return default if value is None else int(value)


def time_ms(text: str, what: str, **more: Any) -> int:
    """A moment in ms. Refusal `invalid_request` that names the field."""
    try:
        return parse_ms(text)
    except ValueError as error:
        raise invalid(f"{what}: {error}.", **more) from None


def check_text(text: str | None, what: str) -> None:
    """Refusal `too_large` for an error or reason over 64 KiB."""
    if text is not None and len(text) * 4 > ERROR_BYTES and len(text.encode()) > ERROR_BYTES:
        raise too_large(f"{what} is larger than {ERROR_BYTES} bytes.", f"{what}Bytes", ERROR_BYTES)


def cut_text(text: str) -> str:
    """An error of at most 64 KiB of UTF-8 as it is; of a longer one the first 16 KiB and the last 48 KiB, with a mark
    between. A traceback says at its end what happened."""
    if len(text) * 4 <= ERROR_BYTES:
        return text
    raw = text.encode()
    if len(raw) <= ERROR_BYTES:
        return text
    head, tail = (
        raw[:ERROR_HEAD_BYTES].decode(errors="ignore"),
        raw[ERROR_HEAD_BYTES - ERROR_BYTES :].decode(errors="ignore"),
    )
    return f"{head}\n... {len(raw) - ERROR_BYTES} bytes left out ...\n{tail}"


def _check_payload(payload: bytes | Raw, place: dict[str, int]) -> None:
    if len(bytes(payload)) > PAYLOAD_BYTES:
        raise too_large(f"payload is larger than {PAYLOAD_BYTES} bytes.", "payloadBytes", PAYLOAD_BYTES, **place)


def _new_job(request: JobRequest, place: dict[str, int]) -> NewJob:
    payload = bytes(request.payload)
    _check_payload(payload, place)
    check_nesting(payload, "payload", **place)
    scheduled = request.scheduled_for
    if request.claim and scheduled is not None:
        raise invalid("A job cannot have both claim and scheduledFor.", **place)
    return NewJob(
        request.name,
        payload,
        whole_number(request.max_retries, 3),
        whole_number(request.timeout_seconds, 300),
        None if scheduled is None else time_ms(scheduled, "scheduledFor", **place),
        "" if request.callback_url is None else _callback_url(request.callback_url, place),
        b"" if request.callback_headers is None else _callback_headers(request.callback_headers, place),
        _retry_delay(request.retry_delay_seconds),
        bool(request.claim),
        None if request.limit_seconds is None else whole_number(request.limit_seconds, 0),
    )


def _callback_url(url: str, place: dict[str, int]) -> str:
    try:
        parts = urlsplit(url[: URL_CHARS + 1])
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or len(url) > URL_CHARS or _CONTROL.search(url) or " " in url:
        text = f"callbackUrl is an http or https URL without user info, of at most {URL_CHARS} characters."
        raise invalid(text, **place)
    return url


def check_callbacks_steps(jobs: Sequence[NewJob], allowed: Sequence[Network], *, many: bool) -> Steps[None]:
    """Refusal `invalid_request` for a callbackUrl that will never be called. One in a step: a name may take a ms."""
    for index, job in enumerate(jobs):
        if job.callback_url:
            check_address(job.callback_url, "callbackUrl", allowed, {"index": index} if many else {})
            yield


def check_address(url: str, what: str, allowed: Sequence[Network], place: dict[str, int]) -> None:
    """Refusal `invalid_request` for a URL that will never be called."""
    try:
        check_literal(url, allowed)
    except Forbidden as error:
        raise invalid(f"{what}: {error}", **place) from None


def check_headers(headers: dict[str, str], what: str, place: dict[str, int]) -> None:
    """Refusals invalid_request, too_large for headers that cannot be sent, or not all of them."""
    if len(headers) > CALLBACK_HEADERS_MOST:
        raise invalid(f"{what} has at most {CALLBACK_HEADERS_MOST} entries.", **place)
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or _CONTROL.search(value):
            raise invalid(f"{what} has a name or value with characters that no header has.", **place)
    if sum(len(name.encode()) + len(value.encode()) for name, value in headers.items()) > CALLBACK_HEADERS_BYTES:
        raise _too_large_headers(what, place)


def _too_large_headers(what: str, place: dict[str, int]) -> Refusal:
    return too_large(
        f"{what} is larger than {CALLBACK_HEADERS_BYTES} bytes.", f"{what}Bytes", CALLBACK_HEADERS_BYTES, **place
    )


def _callback_headers(headers: dict[str, str], place: dict[str, int]) -> bytes:
    check_headers(headers, "callbackHeaders", place)
    return msgspec.json.encode(headers)


def _retry_delay(delay: float | RetryDelay | None) -> str:
    """The delay as lua/include/retry_delay.lua reads it: `seconds`, or `base factor max`; "" for none."""
    if isinstance(delay, RetryDelay):
        return _numbers((delay.base, delay.factor, delay.max))
    return _numbers((delay,)) if delay else ""


def _numbers(values: Sequence[int | float]) -> str:
    return " ".join(f"{value:.6f}" for value in values)


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
