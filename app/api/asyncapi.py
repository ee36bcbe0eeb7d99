"""GET /asyncapi.json: the streams for machines, as AsyncAPI 3.0. A test holds what the service sends to these structs.

https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

from app.api.log_schemas import LogLine
from app.api.openapi import REFERENCE, Json
from app.model.job import Status
from jobwire.version import __version__

STATUS = Literal["scheduled", "pending", "delivered", "running", "completed", "dead", "killed"]


class Strict(Struct, rename="camel", forbid_unknown_fields=True):
    """A frame has these members and no others."""


class Init(Strict, tag_field="type", tag="init"):
    """The first frame of a job: frames after `seq` and `logSeq` follow. `data` is the last progress, or null.

    It comes again when an epoch begins.
    """

    job_id: str
    status: STATUS
    data: dict[str, Any] | None
    seq: int | None
    log_seq: int | None
    epoch: str
    timestamp: str


class JobEvent(Strict):
    """One event of a job; `seq` counts them from 1. A progress carries the seq of the event before it."""

    type: Literal[
        "created",
        "pending",
        "delivered",
        "started",
        "progress",
        "checkpoint",
        "event",
        "retried",
        "delivery_timeout",
        "released",
        "completed",
        "dead",
        "killed",
        "requeued",
        "callback_sent",
        "callback_failed",
    ]
    job_id: str
    status: STATUS
    seq: int | None
    timestamp: str
    data: Any = None
    omitted: bool = False
    """Data that do not fit into a frame, or are over 4 KiB on the stream of a space, are null; the job has them."""


class Lines(Strict):
    """Which lines were appended, and with `logs=true` the lines themselves."""

    from_seq: int
    to_seq: int
    inserted: int
    entries: list[LogLine] | None = None


class Logs(Strict, tag_field="type", tag="logs"):
    """Lines were appended to the log."""

    job_id: str
    status: STATUS
    data: Lines
    timestamp: str


class Gap(Strict, tag_field="type", tag="gap"):
    """What was asked for and cannot be replayed: it was trimmed, or the store has lost it."""

    job_id: str
    stream: Literal["events", "logs"]
    to: int
    reason: Literal["trimmed", "rolled_back"]
    from_: int = msgspec.field(name="from")


class Connected(Strict, tag_field="type", tag="connected"):
    """The first frame of a space. `missed`: what came after `since` cannot be replayed.

    It comes again when an epoch begins, or when something was missed.
    """

    seq: int
    stream_instance_id: str
    missed: bool
    counts: dict[str, int]


class SpaceEvent(JobEvent):
    """One event of a job of the space; `seq` counts the events of the space."""

    job_name: str = ""
    counts: dict[str, int] | None = None


class End(Strict):
    """How the job ended, for callers without `jobs:read`: the event `end` of an event stream, with nothing after it.

    On a WebSocket it is the reason of the close, 1000.
    """

    status: Literal["completed", "dead", "killed"]


JOB_FRAMES = (Init, JobEvent, Logs, Gap, End)
SPACE_FRAMES = (Connected, SpaceEvent)
JOB_QUERY = {
    "token": "The key; without one only progress is shown.",
    "logs": "true puts the lines themselves into the frames.",
    "after": "Replay events after this seq.",
    "logsAfter": "Replay lines after this seq.",
    "epoch": "The epoch in which these seqs were given out.",
}
SPACE_QUERY = {
    "token": "The key.",
    "since": "Replay events after this seq.",
    "streamInstanceId": "The instance in which it was given out.",
}

SOCKET_HEADERS = {
    "Sec-WebSocket-Protocol": "jobwire, jobwire.key.<the key in base64url, without padding>: where no header is set."
}


def asyncapi_document(base: str) -> Json:
    """The whole document."""
    frames = (*JOB_FRAMES, *SPACE_FRAMES)
    frame_schemas, schemas = msgspec.json.schema_components(frames, ref_template=REFERENCE)
    payloads = {kind.__name__: schema for kind, schema in zip(frames, frame_schemas, strict=True)}
    messages = {name: {"name": name, "contentType": "application/json", "payload": p} for name, p in payloads.items()}
    job = describe_channel(
        f"{base}/realtime/{{jobId}}", "One job: its events, progress and log.", JOB_FRAMES, JOB_QUERY
    )
    space = describe_channel(f"{base}/realtime/spaces/{{spaceId}}", "All jobs of a space.", SPACE_FRAMES, SPACE_QUERY)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "jobwire's streams",
            "version": __version__,
            "description": "Each as a WebSocket, or, without an upgrade, as server-sent events with the same objects. "
            "No frame has a line break or is over 1,000,000 bytes. "
            f"A status is one of {', '.join(Status)}.",
        },
        "channels": {"job": job, "space": space},
        "operations": {
            "watchJob": {"action": "send", "channel": {"$ref": "#/channels/job"}},
            "watchSpace": {"action": "send", "channel": {"$ref": "#/channels/space"}},
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def describe_channel(address: str, meaning: str, frames: tuple[type[Struct], ...], query: dict[str, str]) -> Json:
    """One stream."""
    name = address[address.index("{") + 1 : address.index("}")]
    asked, sent = (
        {
            "type": "object",
            "properties": {word: {"type": "string", "description": text} for word, text in words.items()},
        }
        for words in (query, SOCKET_HEADERS)
    )
    return {
        "address": address,
        "description": meaning,
        "parameters": {name: {"description": f"The {name.removesuffix('Id')}'s id."}},
        "messages": {kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in frames},
        "bindings": {"ws": {"method": "GET", "query": asked, "headers": sent}},
    }
