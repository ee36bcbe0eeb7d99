"""Reading a log: its newest lines, all of it, or on and on until the job ends.

Owns the cursors. Every line is given once, in order: after an outage reading goes on behind the last line that was
seen, and a job's end counts only when it was seen before a read that found nothing more. When the service has lost
lines that it had given, those that took their place are given, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..api.backoff import Backoff
from ..api.jobs import Jobs
from ..api.response_structs import ENDED, Job, LogLine, LogPage
from ..errors import AccessDenied, NotDone, Outage, Refused
from .event_stream import END, NoStream, frames

_Answered = TypeVar("_Answered")

PAGE_LINES = 500
_SHORTEST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 1.0
_DOWNLOAD_PATIENCE_S = 30.0


def newest_lines(jobs: Jobs, job_id: str, count: int, *, level: str | None = None) -> tuple[list[LogLine], int]:
    """The newest `count` matching lines in ascending order, and the seq from which to go on."""
    page = jobs.log_page(job_id, limit=max(1, min(count, PAGE_LINES)), level=level)
    resume_after = page.cursor.newest_seq or 0
    lines = page.logs
    while len(lines) < count and page.cursor.has_more and page.cursor.oldest_seq:
        page = jobs.log_page(job_id, before=page.cursor.oldest_seq, limit=PAGE_LINES, level=level)
        lines = page.logs + lines
    return (lines[-count:] if count else []), resume_after


def all_lines(
    jobs: Jobs, job_id: str, *, after: int = 0, level: str | None = None, q: str | None = None
) -> Iterator[LogLine]:
    """Every matching line up to the present end. A download that breaks off is taken up behind its last line."""
    backoff = Backoff()
    give_up_at_s = time.monotonic() + _DOWNLOAD_PATIENCE_S
    while True:
        try:
            for line in jobs.log_lines(job_id, after=after, level=level, q=q):
                yield line
                after = line.seq
                give_up_at_s = time.monotonic() + _DOWNLOAD_PATIENCE_S
            return
        except Outage as outage:
            pause_s = backoff.pause_s(outage)
            if after == 0 or time.monotonic() + pause_s > give_up_at_s:
                raise
            time.sleep(pause_s)


def until_ended(
    jobs: Jobs,
    job_id: str,
    *,
    within_s: float | None = None,
    on_outage: Callable[[bool], None] = lambda away: None,
) -> Job:
    """The job once it has ended; as it is after `within_s` seconds if it has not. Outages are waited out.

    Raises `Refused` for a job that is not there.
    """
    backoff, pause_s, is_away = Backoff(), _SHORTEST_PAUSE_S, False
    give_up_at_s = None if within_s is None else time.monotonic() + within_s
    job: Job | None = None
    while job is None or not job.has_ended:
        left_s = None if give_up_at_s is None else give_up_at_s - time.monotonic()
        if job is not None and left_s is not None and left_s <= 0:
            break
        try:
            job = jobs.get(job_id)
            wait_s, away = pause_s, False
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
            backoff.reset()
        except Outage as outage:
            if left_s is not None and left_s <= 0:
                raise
            wait_s, away = backoff.pause_s(outage), True
        if away != is_away:
            is_away = away
            on_outage(away)
        if job is None or not job.has_ended:
            time.sleep(wait_s if left_s is None else max(0.0, min(wait_s, left_s)))
    return job


class Follow:
    """Iterates over batches of lines until the job has ended and everything was read; `job` is the ended job then.

    `status` says how it ended. A key that reads no more than progress gets no lines, and this but not the `job`.
    Lines come by the job's stream; by pages where there is none, or where a search (`q`) chooses them. Outages are
    waited out; `on_outage` is told when one begins (True) and ends (False).
    """

    def __init__(
        self,
        jobs: Jobs,
        job_id: str,
        *,
        after: int = 0,
        level: str | None = None,
        q: str | None = None,
        on_outage: Callable[[bool], None] = lambda away: None,
    ) -> None:
        self._jobs = jobs
        self._job_id = job_id
        self._after = after
        self._level = level
        self._q = q
        self._levels = frozenset(word.strip().lower() for word in (level or "").split(",") if word.strip())
        self._epoch = ""
        self._on_outage = on_outage
        self._backoff = Backoff()
        self._is_away = False
        self.job: Job | None = None
        self.status = ""

    def __iter__(self) -> Iterator[list[LogLine]]:
        while not self.status and not self._q:
            try:
                yield from self._streamed()
            except (NoStream, Refused) as refused:
                if isinstance(refused, AccessDenied) or getattr(refused, "code", "") == "job_not_found":
                    raise
                break
            except Outage as outage:
                self._note(away=True)
                time.sleep(self._backoff.pause_s(outage))
        if not self.status:
            yield from self._polled()

    def _streamed(self) -> Iterator[list[LogLine]]:
        """Batches from one connection to the job's stream; when it ends, `status` is set if the job has ended."""
        path = f"/realtime/{self._job_id}"
        for frame in frames(self._jobs.http, path, logs_after=self._after, epoch=self._epoch):
            if frame.type == "init":
                self._note(away=False)
                self._backoff.reset()
                self._epoch = frame.epoch
                if frame.log_seq is not None:
                    self._after = min(self._after, frame.log_seq)
                    if frame.status in ENDED:
                        raise NoStream
            elif frame.type == "logs":
                appended = frame.lines()
                self._after = appended.to_seq
                lines = [line for line in appended.entries if not self._levels or line.level in self._levels]
                if lines:
                    yield lines
            elif frame.type == "gap" and frame.stream == "logs":
                self._after = frame.last if frame.reason == "trimmed" else frame.first - 1
            elif frame.type == END:
                self.status = frame.status
                return
            elif frame.is_end:
                self._check_for_end()
                return
        raise NotDone("The stream ended.")

    def _polled(self) -> Iterator[list[LogLine]]:
        """Batches by pages: of a job that has ended, or of a service without streams."""
        pause_s = _SHORTEST_PAUSE_S
        while True:
            page = self._insist(self._next_page)
            if page.logs:
                yield page.logs
                pause_s = _SHORTEST_PAUSE_S
            elif self.job is not None:
                return
            if page.cursor.has_more:
                continue
            if not page.logs:
                self._check_for_end()
            if self.job is None:
                time.sleep(pause_s)
                pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)

    def _next_page(self) -> LogPage:
        page = self._jobs.log_page(self._job_id, after=self._after, limit=PAGE_LINES, level=self._level, q=self._q)
        self._after = max(self._after, page.cursor.newest_seq or 0)
        return page

    def _check_for_end(self) -> None:
        job = self._insist(lambda: self._jobs.get(self._job_id))
        if job.has_ended:
            self.job, self.status = job, job.status

    def _insist(self, call: Callable[[], _Answered]) -> _Answered:
        while True:
            try:
                answer = call()
            except Outage as outage:
                self._note(away=True)
                time.sleep(self._backoff.pause_s(outage))
            else:
                self._note(away=False)
                self._backoff.reset()
                return answer

    def _note(self, *, away: bool) -> None:
        if away != self._is_away:
            self._is_away = away
            self._on_outage(away)
