"""For those who look: a job, its events, its progress, the list of jobs."""

import msgspec
from msgspec import UNSET, Raw

from app.api.answers import NULL, JobAnswer, JobDetails, event_answer, job_fields, when
from app.api.http import Answer, Call, answer
from app.api.query import Query
from app.api.shapes import EventCursor, EventPage, ProgressShown
from app.job import EVENTS_ANSWERED, Status
from app.settings import Settings
from app.store import Fields, Store

MASK = "***"


class Reader:
    """The handlers that change nothing."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._mask = settings.mask_callback_headers

    async def list(self, call: Call) -> Answer:
        """GET /spaces/:spaceId/jobs"""
        query = Query(call)
        status = query.word("status", tuple(Status))
        limit = query.integer("limit", 50, 1, 100)
        offset = query.integer("offset", 0, 0, 2**53)
        jobs, total = await self._store.page(call.space, status, offset, limit)
        found = [JobAnswer(**job_fields(call.space, id_, fields)) for id_, fields in jobs]
        return answer(found, headers=((b"x-total-count", b"%d" % total),))

    async def get(self, call: Call) -> Answer:
        """GET /jobs/:jobId"""
        fields, events = await self._store.job(call.space, call.job)
        details = JobDetails(
            **job_fields(call.space, call.job, fields),
            callback_url=fields["callbackUrl"].decode() if "callbackUrl" in fields else None,
            callback_headers=self._callback_headers(call, fields),
            checkpoint=Raw(fields["checkpoint"]) if "checkpoint" in fields else NULL,
            events=[event_answer(call.space, call.job, event) for event in events.events],
            events_truncated=True if len(events.events) < events.newest else UNSET,
        )
        return answer(details)

    async def events(self, call: Call) -> Answer:
        """GET /jobs/:jobId/events"""
        query = Query(call)
        after = query.integer("after", 0, 0, 2**53)
        limit = query.integer("limit", 200, 1, EVENTS_ANSWERED)
        page = await self._store.events(call.space, call.job, after, limit)
        last = page.events[-1].seq if page.events else after
        found = [event_answer(call.space, call.job, event) for event in page.events]
        return answer(EventPage(found, EventCursor(page.first_kept, last, last < page.newest)))

    async def progress(self, call: Call) -> Answer:
        """GET /jobs/:jobId/progress"""
        progress, at_ms = await self._store.fields(call.space, call.job, "progress", "progressAt")
        shown = NULL if progress is None else Raw(progress)
        return answer(ProgressShown(call.job, shown, when(at_ms)))

    def _callback_headers(self, call: Call, fields: Fields) -> dict[str, str] | None:
        if "callbackHeaders" not in fields:
            return None
        headers: dict[str, str] = msgspec.json.decode(fields["callbackHeaders"])
        if self._mask and "jobs:create" not in call.identity.scopes:
            return dict.fromkeys(headers, MASK)
        return headers
