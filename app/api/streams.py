"""The two endpoints of streams: who may look, from where on, the first frame. Then the connection is that of `Viewers`.

Owns: the order of refusals (as everywhere, and before the upgrade), what the query and `Last-Event-ID` ask for.
"""

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple

from starlette.types import Message, Receive, Scope, Send

from app.api.admission import Gate
from app.api.body_reading import ClientGone
from app.api.call import Call
from app.api.cors import origin_of
from app.api.error_answers import READ_METHODS, bug_answer, error_answer
from app.api.query_parameters import Query, fields_of
from app.api.responses import Answer, Streamed
from app.jobs.keys_and_scopes import Identity
from app.metrics import catalog
from app.model.base64url import decode_base64url
from app.model.errors import ApiError, Refusal, invalid, job_not_found
from app.model.job import ENDED, NO_SPACE
from app.model.limits import SEQ_MOST
from app.settings import Settings
from app.streams.frames import Audience, Frame, Stream, connected_text
from app.streams.gap_frames import GapFrame, gaps_of_resume
from app.streams.job_topic import END
from app.streams.job_watch import JobWatch
from app.streams.topic import Viewer
from app.streams.viewers import Viewers
from app.streams.watch import Watch
from app.wire.connection import Connection, retry_text
from app.wire.handover import HAND_OVER

EVENT_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"connection", b"close"),
)
KEY_SUBPROTOCOL = "jobwire.key."
"""What a browser names its key with, which can set no header on a WebSocket: base64url, without padding."""


PASSING = (429, 500, 503)
"""Statuses of answers that may be others a moment later; what is wrong with a request or a key is final."""

FAULT_S = 5
"""In what time a fault of ours may pass."""


class Asked(NamedTuple):
    """Where a viewer wants to go on: positions (None: from now on) and the epoch in which they were given out."""

    after: int | None
    logs_after: int | None
    epoch: str | None
    again: bool
    """Whether a browser's EventSource connects again by itself."""

    knows_end: bool = False
    """Whether it has been told how the job ended."""


class StreamCall(Call):
    """A request for a stream: the key may also stand in the subprotocols, or in the query.

    There it wins over Authorization, which a browser may have from whoever asks for a password in front of us.
    """

    @property
    def key(self) -> str:
        named = key_of_subprotocols(self.scope.get("subprotocols", ())) or token_of_query(self.scope["query_string"])
        return super().key if b"x-api-key" in self.headers or not named else named

    @property
    def is_socket(self) -> bool:
        """Whether this is a WebSocket."""
        return bool(self.scope["type"] == "websocket")

    @property
    def returns(self) -> bool:
        """Whether this is an EventSource that had a stream before."""
        return not self.is_socket and bool(self.get_header(b"last-event-id"))


class Streams:
    """GET /realtime/..., as WebSocket or as server-sent events."""

    def __init__(self, viewers: Viewers, gate: Gate, settings: Settings) -> None:
        self._viewers = viewers
        self._gate = gate
        self._settings = settings
        self._public_origin = origin_of(settings.public_url)

    def paths(self) -> Mapping[str, "Endpoint"]:
        """Every path below the base."""
        return {
            "/realtime/{job_id}": Endpoint(self.job),
            "/realtime/spaces/{space_id}": Endpoint(self.space),
        }

    def _check_origin(self, call: StreamCall) -> None:
        """A browser lets any page open a WebSocket: RFC 6455, 10.2. Refusal `origin_not_allowed`."""
        origin, allowed = call.get_header(b"origin"), self._settings.origins
        if not call.is_socket or not origin or "*" in allowed or origin in allowed:
            return
        if origin != self._public_origin and origin.partition("://")[2] != call.get_header(b"host"):
            raise Refusal("origin_not_allowed", f"Pages of {origin[:200]} may not call.")

    # A job

    async def job(self, call: StreamCall, hand_over: "HandOver") -> Answer | None:
        """GET /realtime/:jobId"""
        self._check_origin(call)
        identity = await self._admit_to_job(call)
        full = identity is not None and "jobs:read" in identity.scopes
        query = Query(call)
        lines = query.get_word("logs", ("true", "false")) == "true"
        audience = (Audience.LINES if lines else Audience.FULL) if full else Audience.NARROW
        asked = asked_of_job(query, call.get_header(b"last-event-id"))
        if call.space == NO_SPACE:
            raise job_not_found()
        watch = await self._viewers.watch_job(call.space, call.job)
        viewer = Viewer(audience)
        if not full:
            if asked.knows_end and watch.topic.status in ENDED:
                return Answer(204, b"")
            return await self._begin(identity, hand_over, viewer, watch, [])
        await watch.open_logs()
        seq, log_seq = await watch.read_in_step(lambda: find_resume_points(watch, asked))
        topic = watch.topic
        viewer.seq = topic.events.head if seq is None else seq
        viewer.log_seq = topic.log_head if log_seq is None else log_seq
        lost = gaps_of_resume(call.job, viewer, asked.after or 0, asked.logs_after or 0)
        nothing_left = viewer.seq == topic.events.head and viewer.log_seq == topic.log_head and not lost
        if asked.again and topic.status in ENDED and nothing_left:
            return Answer(204, b"")
        return await self._begin(identity, hand_over, viewer, watch, lost)

    async def _admit_to_job(self, call: StreamCall) -> Identity | None:
        """Who calls; None for somebody without a key, who sees progress. Refusals as of the gate."""
        if not call.key and self._settings.anonymous_progress:
            self._viewers.require_room_for_anonymous()
            call.space = await self._gate.space_of(call.job) or NO_SPACE
            return None
        return await self._gate.admit(call, "jobs:read:progress")

    async def _begin(
        self, identity: Identity | None, hand_over: "HandOver", viewer: Viewer, watch: JobWatch, lost: list[GapFrame]
    ) -> Answer | None:
        """The first frames. The last of them has an id: who breaks off before it is told again what was lost."""
        topic, full = watch.topic, viewer.audience is not Audience.NARROW
        if identity is None:
            self._viewers.require_room_for_anonymous()
        connection = await hand_over_in_step(hand_over, watch)
        if connection is None:
            return None
        viewer.connection = connection
        viewer.progress_ms = topic.progress.at_ms if topic.progress else 0
        if not full:
            viewer.seq = topic.events.head
        first: list[Frame] = [topic.init_frame(viewer.seq, viewer.log_seq, watch.now_ms(Stream.EVENTS)), *lost]
        *texts, last = (frame.text_for(viewer.audience) or b"" for frame in first)
        for text in texts:
            connection.write(connection.wrap(text, ""))
        connection.write(connection.wrap(last, topic.viewer_position(viewer)))
        self._viewers.admit_viewer(viewer, connection, watch, identity)
        if not full and topic.status in ENDED:
            topic.end_narrow_viewer(viewer, topic.status)
        return None

    # A space

    async def space(self, call: StreamCall, hand_over: "HandOver") -> Answer | None:
        """GET /realtime/spaces/:spaceId"""
        self._check_origin(call)
        identity = await self._gate.admit(call, "jobs:read")
        query = Query(call)
        since, instance_id = asked_of_space(query, call.get_header(b"last-event-id"))
        watch = await self._viewers.watch_space(call.space)
        seq, missed = await watch.read_in_step(lambda: watch.find_resume_point(since, instance_id))
        connection = await hand_over_in_step(hand_over, watch)
        if connection is None:
            return None
        topic = watch.topic
        viewer = Viewer(Audience.SPACE)
        viewer.connection = connection
        viewer.seq = topic.events.head if seq is None else seq
        first = connected_text(viewer.seq, topic.instance_id, topic.counts, missed=missed)
        connection.write(connection.wrap(first, topic.viewer_position(viewer)))
        self._viewers.admit_viewer(viewer, connection, watch, identity)
        return None


HandOver = Callable[[], Awaitable[Connection]]


async def hand_over_in_step(hand_over: HandOver, watch: Watch) -> Connection | None:
    """The connection; None, and it is broken off, when positions may have changed while it was being taken."""
    before = watch.comparisons
    connection = await hand_over()
    if watch.comparisons == before:
        return connection
    connection.abort()
    return None


async def find_resume_points(watch: JobWatch, asked: Asked) -> tuple[int | None, int | None]:
    """How far the two positions that were asked for may be continued; None for one that was not asked for."""
    seq, log_seq = asked.after, asked.logs_after
    return (
        None if seq is None else await watch.find_resume_point(Stream.EVENTS, seq, asked.epoch),
        None if log_seq is None else await watch.find_resume_point(Stream.LOGS, log_seq, asked.epoch),
    )


class Endpoint:
    """One path, for both transports: the ASGI application behind its routes."""

    def __init__(self, handler: Callable[[StreamCall, HandOver], Awaitable[Answer | None]]) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = StreamCall(scope, receive)
        answering = send
        if call.is_socket:
            await receive()
            answering = deny_upgrade(send)

        async def hand_over() -> Connection:
            if not call.is_socket:
                await send(event_stream_head())
                if call.scope["method"] == "HEAD":
                    await send({"type": "http.response.body", "body": b""})
                    raise ClientGone
            connection: Connection | None = scope["extensions"][HAND_OVER]()
            if connection is None:
                raise ClientGone
            return connection

        try:
            result = await self._answer(call, hand_over)
        except ClientGone:
            return
        if result is not None:
            await result.send(answering)

    async def _answer(self, call: StreamCall, hand_over: HandOver) -> Answer | Streamed | None:
        """An answer in place of a stream. A viewer that returns gets none that is final for what may pass."""
        try:
            if not call.is_socket and call.scope["method"] not in ("GET", "HEAD"):
                raise Refusal(
                    "method_not_allowed", f"This path allows {READ_METHODS}.", headers={"allow": READ_METHODS}
                )
            return await self._handler(call, hand_over)
        except ApiError as error:
            catalog.count_refusal(error.code, error.more.get("limit", ()))
            passes_s, result = int(error.headers.get("retry-after", FAULT_S)), error_answer(error)
        except ClientGone:
            raise
        except Exception:
            passes_s, result = FAULT_S, bug_answer(call.scope)
        return ask_to_return(passes_s) if call.returns and result.status in PASSING else result


def event_stream_head() -> Message:
    """The head of an event stream; a new one each time, for middleware writes into it."""
    return {"type": "http.response.start", "status": 200, "headers": list(EVENT_STREAM_HEADERS)}


def ask_to_return(passes_s: int) -> Streamed:
    """An event stream that ends at once, and is asked for again after once to three times what passes in that time.

    An EventSource never tries again after any status but 200:
    https://html.spec.whatwg.org/multipage/server-sent-events.html#sse-processing-model
    """
    body = retry_text(random.randint(1000 * passes_s, 3000 * passes_s))

    async def run(send: Send) -> None:
        await send(event_stream_head())
        await send({"type": "http.response.body", "body": body})

    return Streamed(run)


def key_of_subprotocols(subprotocols: Iterable[str]) -> str:
    """The key that a WebSocket's subprotocols name, "" without one. What is no base64url is no key of ours."""
    for name in subprotocols:
        if name.startswith(KEY_SUBPROTOCOL):
            return text_of_base64url(name.removeprefix(KEY_SUBPROTOCOL))
    return ""


def text_of_base64url(text: str) -> str:
    """What base64url without its padding stands for; the text itself where it stands for none."""
    try:
        return decode_base64url(text).decode()
    except ValueError:
        return text


def token_of_query(query: bytes) -> str:
    """The last `token` of a query, "" without one. Refusal `invalid_request` for one of too many fields."""
    return fields_of(query).get("token", [""])[-1] if b"token" in query else ""


def deny_upgrade(send: Send) -> Send:
    """A `send` that refuses a WebSocket with an HTTP answer (ASGI's WebSocket denial response)."""

    async def deny(message: Mapping[str, Any]) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    return deny


def asked_of_job(query: Query, last_event_id: str) -> Asked:
    """What a job stream begins with; `Last-Event-ID` wins. Refusal `invalid_request`."""
    after, logs_after = optional_seq(query, "after"), optional_seq(query, "logsAfter")
    if not last_event_id:
        return Asked(after, logs_after, query.get_text("epoch"), again=False)
    epoch, *positions = last_event_id.split(".")
    if positions == ["", END]:
        return Asked(None, None, epoch, again=True, knows_end=True)
    if len(positions) != 2 or not all(is_seq(text) or not text for text in positions):
        raise invalid("Last-Event-ID is not an id of this stream.")
    seq, log_seq = (int(text) if text else None for text in positions)
    return Asked(seq, log_seq, epoch, again=True)


def asked_of_space(query: Query, last_event_id: str) -> tuple[int | None, str | None]:
    """Since which seq of which instance; `Last-Event-ID` wins. Refusal `invalid_request`."""
    since, instance_id = optional_seq(query, "since"), query.get_text("streamInstanceId")
    if not last_event_id:
        return since, instance_id
    instance_id, _, seq = last_event_id.rpartition(".")
    if not is_seq(seq):
        raise invalid("Last-Event-ID is not an id of this stream.")
    return int(seq), instance_id


def optional_seq(query: Query, name: str) -> int | None:
    """A seq, or None without the parameter. Refusal `invalid_request`."""
    return None if query.get_text(name) is None else query.get_integer(name, 0, 0, SEQ_MOST)


def is_seq(text: str) -> bool:
    """Whether a text is a seq."""
    return text.isascii() and text.isdigit() and len(text) < 17
