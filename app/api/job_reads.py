"""For those who look: a job, its events, its progress, the list of jobs."""

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Raw

from app.api.call import Call
from app.api.query_parameters import Query
from app.api.response_schemas import (
    EventCursor,
    EventPage,
    JobAnswer,
    JobDetails,
    ProgressShown,
    event_answer,
    job_fields,
    when,
)
from app.api.responses import Answer, json_answer
from app.jobs.job_records import HashFields, Listed
from app.jobs.job_store import JobStore, list_slices
from app.jobs.list_cursors import Cursors
from app.model.errors import invalid
from app.model.job import Status
from app.model.json_items import NULL
from app.model.limits import EVENTS_ANSWERED, PAGE_BYTES, SEQ_MOST
from app.settings import Settings
from app.wire.bytes_in_flight import Hold

MASKED_HEADER = "***"
NEXT_CURSOR = b"x-next-cursor"


class ReaderHandlers:
    """The handlers that change nothing."""

    def __init__(self, store: JobStore, cursors: Cursors, settings: Settings) -> None:
        self._store = store
        self._cursors = cursors
        self._mask = settings.mask_callback_headers

    async def list(self, call: Call) -> Answer:
        """GET /spaces/:spaceId/jobs"""
        query = Query(call)
        statuses = query.get_words("status", tuple(Status))
        limit = query.get_integer("limit", 50, 1, 100)
        offset = query.get_integer("offset", 0, 0, SEQ_MOST)
        filters, below = {"status": statuses} if statuses else {}, 0
        if (cursor := query.get_text("cursor")) is not None:
            if query.get_text("offset") is not None:
                raise invalid("Give offset or cursor, not both.")
            below = await self._cursors.check(cursor, "jobs", call.space, filters)
        listing = await self._store.list_jobs(call.space, statuses, limit, below=below, skipped=offset)
        pieces, end = await fill_page(self._store, call.space, statuses, listing.jobs, call.hold)
        headers = [(b"x-total-count", b"%d" % listing.total)]
        if listing.more or (listing.jobs and listing.jobs[-1].created != end):
            headers.append((NEXT_CURSOR, (await self._cursors.sign("jobs", call.space, filters, end)).encode()))
        return Answer(200, b"[" + b",".join(pieces) + b"]", headers)

    async def get(self, call: Call) -> Answer:
        """GET /jobs/:jobId"""
        fields, events = await self._store.read_job(call.space, call.job)
        details = JobDetails(
            **job_fields(call.space, call.job, fields),
            callback_url=fields["callbackUrl"].decode() if "callbackUrl" in fields else None,
            callback_headers=self._callback_headers(call, fields),
            checkpoint=Raw(fields["checkpoint"]) if "checkpoint" in fields else NULL,
            events=[event_answer(call.space, call.job, event) for event in events.events],
            events_truncated=True if len(events.events) < events.newest else UNSET,
        )
        return json_answer(details)

    async def events(self, call: Call) -> Answer:
        """GET /jobs/:jobId/events"""
        query = Query(call)
        after = query.get_integer("after", 0, 0, SEQ_MOST)
        limit = query.get_integer("limit", 200, 1, EVENTS_ANSWERED)
        page = await self._store.read_events(call.space, call.job, after, limit)
        last = page.events[-1].seq if page.events else after
        answers = [event_answer(call.space, call.job, event) for event in page.events]
        return json_answer(EventPage(answers, EventCursor(page.first_kept, last, last < page.newest)))

    async def progress(self, call: Call) -> Answer:
        """GET /jobs/:jobId/progress"""
        progress, at_ms = await self._store.read_fields(call.space, call.job, "progress", "progressAt")
        shown = NULL if progress is None else Raw(progress)
        return json_answer(ProgressShown(call.job, shown, when(at_ms)))

    def _callback_headers(self, call: Call, fields: HashFields) -> dict[str, str] | None:
        if "callbackHeaders" not in fields:
            return None
        headers: dict[str, str] = msgspec.json.decode(fields["callbackHeaders"])
        if self._mask and "jobs:create" not in call.identity.scopes:
            return dict.fromkeys(headers, MASKED_HEADER)
        return headers


async def fill_page(
    store: JobStore, space: str, statuses: Sequence[str], jobs: Sequence[Listed], hold: Hold
) -> tuple[list[bytes], int]:
    """The objects of a page, up to its bound in bytes, and the creation counter of the last job looked at.

    A job that has moved on or gone since it was listed is left out. `hold` is told how much there is.
    """
    pieces: list[bytes] = []
    size_bytes = end = 0
    for piece in list_slices(jobs):
        for job, fields in zip(piece, await store.read_hashes(space, piece), strict=True):
            if fields and (not statuses or fields["status"].decode() in statuses):
                shown = msgspec.json.encode(JobAnswer(**job_fields(space, job.id, fields)))
                size_bytes += len(shown) + 1
                if pieces and size_bytes > PAGE_BYTES:
                    return pieces, end
                pieces.append(shown)
            end = job.created
        hold(size_bytes)
    return pieces, end
