"""The verbs of a job, as the HTTP API has them: one method, one request.

Owns the mapping of verbs to paths and of answers to structs. Never repeats a call, never waits beyond one answer:
what may be repeated, and when, is decided by those who hold the job (`run`, `log_shipping`). Safe to share
between threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self
from urllib.parse import quote

import msgspec

from ..configuration.settings import load
from ..errors import NotConfigured
from ..log_lines import entry
from .http_client import Answer, Http, Query
from .response_decoding import decoded
from .response_structs import (
    Appended,
    BulkRetry,
    CallAnswered,
    Delivery,
    Failure,
    Job,
    LogLine,
    LogPage,
    Progress,
    Released,
    Renewal,
)

_PAGE_JOBS = 100
_PAGE_LINES = 500
_NDJSON = "application/x-ndjson"


class Jobs:
    """The jobs of one space: `Jobs(url, key, space)`, or `Jobs.from_env()` as the commands do it.

    `space` is needed by create, list, poll and calls only. Every method raises `NotDone`, `OutcomeUnknown` or
    `Refused`.
    """

    def __init__(self, url: str, key: str | None, space: str | None = None, *, http: Http | None = None) -> None:
        self.http = http or Http(url, key)
        self._space = space

    @classmethod
    def from_env(cls, role: str = "root", environ: Mapping[str, str] | None = None) -> Self:
        """From JOBWIRE_URL, JOBWIRE_KEY and JOBWIRE_SPACE, else from the credentials of the local `jobwire up`.

        `role` is the local key to use: root, producer, worker or reader. Raises `NotConfigured`.
        """
        config = load(os.environ if environ is None else environ, role)
        return cls(config.url, config.key, config.space)

    @property
    def space(self) -> str | None:
        """The space's id, if one is known."""
        return self._space

    # --- producing ---------------------------------------------------------------------------------------------------

    def create(self, name: str, *, idempotency_key: str | None = None, **fields: Any) -> Job:
        """Create a job. `fields` are the contract's, in snake_case (`max_retries=0`, `claim=True`, ...)."""
        body = msgspec.json.encode({"name": name, **{_camel(field): value for field, value in fields.items()}})
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
        return decoded(self.http.call("POST", self._space_path("/jobs"), body=body, headers=headers), Job)

    def kill(self, job_id: str, reason: str | None = None) -> Renewal:
        """End a job from outside; its worker learns it at its next call."""
        return decoded(self._post(job_id, "kill", {} if reason is None else {"reason": reason}), Renewal)

    def retry(self, job_id: str) -> Renewal:
        """Put a dead or killed job back to pending."""
        return decoded(self._post(job_id, "retry"), Renewal)

    def delete(self, job_id: str) -> None:
        """Remove an ended job with its events and its log. The root key may do this."""
        self.http.call("DELETE", job_path(job_id))

    def retry_many(
        self,
        status: str,
        *,
        name: str | None = None,
        after: str | None = None,
        before: str | None = None,
        limit: int | None = None,
    ) -> BulkRetry:
        """Bulk retry: put dead or killed jobs back to pending, oldest first; times are RFC 3339, of creation."""
        fields = {"status": status, "name": name, "after": after, "before": before, "limit": limit}
        body = msgspec.json.encode({field: value for field, value in fields.items() if value is not None})
        return decoded(self.http.call("POST", self._space_path("/jobs/retry"), body=body, extra_wait_s=60), BulkRetry)

    # --- reading -----------------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """The job, with its newest events."""
        return decoded(self.http.call("GET", job_path(job_id)), Job)

    def list_jobs(self, *, status: str | None = None, limit: int = 50, offset: int = 0) -> list[Job]:
        """The newest first, in as many calls as `limit` takes. `status` may be several, comma-separated."""
        pages = self.list_pages(status=status, limit=limit, offset=offset)
        return [job for page in pages for job in decoded(page, list[Job])]

    def list_pages(self, *, status: str | None = None, limit: int = 50, offset: int = 0) -> Iterator[Answer]:
        """The same page by page, as the server answers them: arrays that have `limit` jobs together, or all there are.

        Large jobs make small pages. A job that has this status all the time is on one of them, and on no other.
        """
        place: Query = {"offset": offset}
        while limit > 0:
            query: Query = {"status": status, "limit": min(limit, _PAGE_JOBS), **place}
            page = self.http.call("GET", self._space_path("/jobs"), query=query)
            yield page
            limit -= len(decoded(page, list[msgspec.Raw]))
            if "x-next-cursor" not in page.headers:
                return
            place = {"cursor": page.headers["x-next-cursor"]}

    def count(self, status: str | None = None) -> int:
        """How many jobs there are, of one status or of all."""
        answer = self.http.call("GET", self._space_path("/jobs"), query={"status": status, "limit": 1})
        return int(answer.headers["x-total-count"])

    def progress_of(self, job_id: str) -> Progress:
        """The last reported progress."""
        return decoded(self.http.call("GET", job_path(job_id, "progress")), Progress)

    def log_page(
        self,
        job_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = _PAGE_LINES,
        level: str | None = None,
        q: str | None = None,
    ) -> LogPage:
        """One page of lines: after a seq, before a seq, or the newest. `level` may be several, comma-separated."""
        query: Query = {"after": after, "before": before, "limit": limit, "level": level, "q": q}
        return decoded(self.http.call("GET", job_path(job_id, "logs"), query=query), LogPage)

    def log_lines(
        self, job_id: str, *, after: int = 0, level: str | None = None, q: str | None = None
    ) -> Iterator[LogLine]:
        """Every matching line after a seq, with flat memory: a download where the server has it, else pages."""
        query: Query = {"after": after, "limit": _PAGE_LINES, "level": level, "q": q}
        content_type, chunks = self.http.stream(
            job_path(job_id, "logs"), query=query, accept=f"{_NDJSON}, application/json;q=0.5"
        )
        if content_type.startswith(_NDJSON):
            yield from _ndjson_lines(chunks)
            return
        page = msgspec.json.decode(b"".join(chunks), type=LogPage)
        yield from page.logs
        while page.cursor.has_more and page.cursor.newest_seq is not None:
            page = self.log_page(job_id, after=page.cursor.newest_seq, level=level, q=q)
            yield from page.logs

    # --- working -----------------------------------------------------------------------------------------------------

    def poll(
        self, *, count: int = 1, names: Iterable[str] = (), wait_s: float = 0, ack: bool = False
    ) -> list[Delivery]:
        """Take up to `count` pending jobs, waiting up to `wait_s` (30 at most) for the first.

        With `ack` they are running: no ack is needed.
        """
        fields: dict[str, Any] = {"count": count, "types": [*names], "waitSeconds": wait_s}
        fields |= {"ack": True} if ack else {}
        body = msgspec.json.encode(fields)
        answer = self.http.call("POST", self._space_path("/jobs/poll"), body=body, extra_wait_s=wait_s)
        return decoded(answer, dict[str, list[Delivery]])["jobs"]

    def claim(self, job_id: str) -> Delivery:
        """Take this very job; `InvalidState` if it is not pending."""
        return decoded(self._post(job_id, "claim"), Delivery)

    def ack(self, job_id: str, lease_token: str | None = None) -> Renewal:
        """Delivered -> running. Repeatable with the same token."""
        return decoded(self._post(job_id, "ack", lease_token=lease_token), Renewal)

    def keepalive(self, job_id: str, lease_token: str | None = None) -> Renewal:
        """Start the lease anew. Repeatable."""
        return decoded(self._post(job_id, "keepalive", lease_token=lease_token), Renewal)

    def complete(self, job_id: str, result: Any = None, lease_token: str | None = None) -> Renewal:
        """End it well. Repeatable with the same result and token."""
        return decoded(self._post(job_id, "complete", result, lease_token=lease_token), Renewal)

    def fail(
        self,
        job_id: str,
        error: str | None = None,
        *,
        retry: bool = True,
        claim: bool = False,
        lease_token: str | None = None,
    ) -> Failure:
        """End this attempt badly; `retry=False` forbids another, `claim=True` takes it in the same step.

        Not repeatable blindly: a second fail may hit the next attempt if no token is given. With a claim and a token it
        is repeatable.
        """
        fields: dict[str, Any] = {"error": error}
        fields |= {} if retry else {"retry": False}
        fields |= {"claim": True} if claim else {}
        return decoded(self._post(job_id, "fail", fields, lease_token=lease_token), Failure)

    def release(
        self,
        job_id: str,
        reason: str | None = None,
        *,
        delay_s: float = 0,
        lease_token: str | None = None,
    ) -> Released:
        """Give it back, for another worker or for later; no retry is used. Repeatable with the same token."""
        fields = {"reason": reason, "delaySeconds": delay_s}
        return decoded(self._post(job_id, "release", fields, lease_token=lease_token), Released)

    def calls(self, calls: Iterable[Mapping[str, Any]]) -> list[CallAnswered]:
        """Up to 1000 calls of a worker in one request, in their order; each is answered by itself.

        Each is `{"verb", "jobId", "leaseToken"?, "body"?}`, as the API has it. Repeatable where each of its calls is.
        """
        body = msgspec.json.encode([*calls])
        return decoded(self.http.call("POST", self._space_path("/calls"), body=body), list[CallAnswered])

    def progress(
        self, job_id: str, percent: float, message: str, *, lease_token: str | None = None, **sub_progress: Any
    ) -> Renewal:
        """Report how far it is; `sub_progress` is stage=percent or stage={"percent": ..., "message": ...}."""
        fields: dict[str, Any] = {"percent": percent, "message": message}
        if sub_progress:
            fields["subProgress"] = {
                stage: value if isinstance(value, dict) else {"percent": value} for stage, value in sub_progress.items()
            }
        return decoded(self._post(job_id, "progress", fields, lease_token=lease_token), Renewal)

    def checkpoint(self, job_id: str, data: Mapping[str, Any], lease_token: str | None = None) -> Renewal:
        """Keep what the next attempt needs to go on from here."""
        return decoded(self._post(job_id, "checkpoint", data, lease_token=lease_token), Renewal)

    def event(self, job_id: str, data: Any, lease_token: str | None = None) -> Renewal:
        """Add an event of one's own to the job's history."""
        return decoded(self._post(job_id, "event", data, lease_token=lease_token), Renewal)

    def append_logs(self, job_id: str, ndjson: bytes, idempotency_key: str | None = None) -> Appended:
        """Append a batch as `entry.encode` makes it. Repeatable with the same key and the same bytes."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
        answer = self.http.call(
            "POST", job_path(job_id, "logs"), body=ndjson, content_type=entry.CONTENT_TYPE, headers=headers
        )
        return decoded(answer, Appended)

    def _post(self, job_id: str, verb: str, fields: Any = None, *, lease_token: str | None = None) -> Answer:
        body = None if fields is None else msgspec.json.encode(fields)
        headers = {"x-lease-token": lease_token} if lease_token else None
        return self.http.call("POST", job_path(job_id, verb), body=body, headers=headers)

    def _space_path(self, rest: str) -> str:
        return self.space_path + rest

    @property
    def space_path(self) -> str:
        """`/spaces/<id>`; raises `NotConfigured` without a space."""
        if not self._space:
            raise NotConfigured("This needs a space: set JOBWIRE_SPACE to its id.")
        return "/spaces/" + quote(self._space, safe="")


def job_path(job_id: str, verb: str = "") -> str:
    """The path of a job, or of one of its verbs; what is no id stays one path segment."""
    path = "/jobs/" + quote(job_id, safe="")
    return f"{path}/{verb}" if verb else path


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _ndjson_lines(chunks: Iterator[bytes]) -> Iterator[LogLine]:
    decoder = msgspec.json.Decoder(LogLine)
    rest = b""
    for chunk in chunks:
        whole, newline, tail = (rest + chunk).rpartition(b"\n")
        if newline:
            yield from decoder.decode_lines(whole)
        rest = tail
    if rest:
        yield decoder.decode(rest)
