"""Watching a job or a space: every frame of its stream once and in order, through outages of network and server.

    for frame in jobwire.follow(job_id):
        print(frame.type, frame.data)

Owns the position: it is the id of the last frame that was given, and the stream goes on behind it. What cannot be
replayed comes as a frame of type `gap`. docs/streams.md has all frames.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import closing, suppress
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from ..api.backoff import Backoff
from ..api.http_client import Body, Query
from ..api.jobs import Jobs
from ..api.response_structs import ENDED, value_of
from ..errors import NotConfigured, NotDone, Outage
from .event_stream import CONTENT_TYPE, events

OnOutage = Callable[[bool], None]

_AHEAD = 256
"""How many frames the thread of `follow_async` may be ahead of its reader."""


class StreamFrame(msgspec.Struct, rename="camel", kw_only=True):
    """One frame of a stream. `seq` is None where the caller may not see positions; `data` is read on demand."""

    type: str = ""
    job_id: str | None = None
    job_name: str | None = None
    status: str | None = None
    seq: int | None = None
    timestamp: str | None = None
    data_json: msgspec.Raw = msgspec.field(name="data", default=msgspec.Raw(b"null"))
    counts: dict[str, int] | None = None
    stream: str | None = None
    first: int | None = msgspec.field(name="from", default=None)
    last: int | None = msgspec.field(name="to", default=None)
    reason: str | None = None
    missed: bool | None = None

    @property
    def data(self) -> Any:
        return value_of(self.data_json)

    @property
    def is_end(self) -> bool:
        """Whether the job has ended with this frame."""
        return self.type in ENDED or self.type == "end"


def follow(
    job: str | None = None,
    *,
    logs: bool = False,
    after: int | None = None,
    logs_after: int | None = None,
    jobs: Jobs | None = None,
    on_outage: OnOutage = lambda away: None,
) -> Iterator[StreamFrame]:
    """The frames of a job until its end, or of the space of `jobs` for ever.

    A job is followed from now on, or from behind the event `after` and the line `logs_after` (0: from the first). With
    `logs` its lines come too. Outages are waited out; `on_outage` is told when one begins (True) and ends (False).
    Without `jobs` the settings of the environment hold. Raises `Refused` when coming back makes no sense.
    """
    jobs = jobs or Jobs.from_env("reader")
    return _Watch(jobs, _asked(jobs, job, logs=logs, after=after, logs_after=logs_after), on_outage).frames()


async def follow_async(
    job: str | None = None,
    *,
    logs: bool = False,
    after: int | None = None,
    logs_after: int | None = None,
    jobs: Jobs | None = None,
    on_outage: OnOutage = lambda away: None,
) -> AsyncIterator[StreamFrame]:
    """`follow` for asyncio: a thread reads, at most some hundred frames ahead, and ends with the iteration.

    `on_outage` is called on that thread.
    """
    jobs = jobs or Jobs.from_env("reader")
    watch = _Watch(jobs, _asked(jobs, job, logs=logs, after=after, logs_after=logs_after), on_outage)
    loop, room = asyncio.get_running_loop(), threading.Semaphore(_AHEAD)
    read: asyncio.Queue[StreamFrame | Exception | None] = asyncio.Queue()

    def give(item: StreamFrame | Exception | None) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody reads any more
            loop.call_soon_threadsafe(read.put_nowait, item)

    def work() -> None:
        try:
            with closing(watch.frames()) as frames:
                for frame in frames:
                    room.acquire()
                    if watch.is_stopped:
                        return
                    give(frame)
            give(None)
        except Exception as error:
            give(error)

    threading.Thread(target=work, name="jobwire-follow", daemon=True).start()
    try:
        while (item := await read.get()) is not None:
            if isinstance(item, Exception):
                raise item
            room.release()
            yield item
    finally:
        watch.stop()
        room.release()


class _Asked(NamedTuple):
    path: str
    query: Query
    of_job: bool


def _asked(jobs: Jobs, job: str | None, *, logs: bool, after: int | None, logs_after: int | None) -> _Asked:
    if job is not None:
        query: Query = {"after": after, "logsAfter": logs_after, "logs": "true" if logs else None}
        return _Asked(f"/realtime/{quote(job, safe='')}", query, of_job=True)
    if logs or logs_after is not None:
        raise NotConfigured("The stream of a space has no log lines: name a job.")
    return _Asked(f"/realtime{jobs.space_path}", {"since": after}, of_job=False)


class _Watch:
    """One stream through all its connections."""

    def __init__(self, jobs: Jobs, asked: _Asked, on_outage: OnOutage) -> None:
        self._http = jobs.http
        self._asked = asked
        self._on_outage = on_outage
        self._backoff = Backoff()
        self._position = ""
        self._retry_s = 0.0
        """What the server asked for in its goodbye, after which no frame came."""
        self._is_away = False
        self._is_over = False
        self._stopped = threading.Event()
        self._body: Body | None = None

    def stop(self) -> None:
        """End: whoever reads, or pauses, is woken."""
        self._stopped.set()
        if self._body is not None:
            self._body.interrupt()

    @property
    def is_stopped(self) -> bool:
        """Whether nobody wants more."""
        return self._stopped.is_set()

    def frames(self) -> Generator[StreamFrame, None, None]:
        """All of them; returns when the job has ended or after `stop`."""
        while not self._is_over and not self._stopped.is_set():
            try:
                yield from self._connected()
            except Outage as outage:
                self._note(away=True)
                self._stopped.wait(max(self._retry_s, self._backoff.pause_s(outage)))

    def _connected(self) -> Iterator[StreamFrame]:
        """The frames of one connection. Raises `NotDone` when it ends before the job does."""
        headers = {"Last-Event-ID": self._position} if self._position else {}
        kind, body = self._http.stream(self._asked.path, query=self._asked.query, accept=CONTENT_TYPE, headers=headers)
        self._body = body
        if self.is_stopped:
            body.close()
            return
        if not kind.startswith(CONTENT_TYPE):  # 204: the job has ended, and nothing is left
            self._is_over = True
            return
        with closing(body):
            for event in events(self._until_stopped(body)):
                self._retry_s = 0.0 if event.data else (event.retry_ms or 0) / 1000
                if not event.data:
                    continue
                frame = msgspec.json.decode(event.data, type=StreamFrame)
                frame.type = frame.type or event.type
                self._position = event.id or self._position
                self._note(away=False)
                self._is_over = self._asked.of_job and frame.is_end
                yield frame
                if self._is_over:
                    return
        raise NotDone("The stream ended.")

    def _until_stopped(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self._stopped.is_set():
                return
            yield chunk

    def _note(self, *, away: bool) -> None:
        if not away:
            self._backoff.reset()
        if away != self._is_away:
            self._is_away = away
            self._on_outage(away)
