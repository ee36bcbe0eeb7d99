"""/asyncapi.json: every frame of a job's and of a space's stream is one of those that it describes."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import ClientConnection, connect

from app.api.asyncapi import Connected, End, Gap, Init, JobEvent, Logs, SpaceEvent, asyncapi_document
from app.api.routes import BASE
from tests.faults.service import Service

DOCUMENT = asyncapi_document(BASE)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


def watch(service: Service, path: str) -> ClientConnection:
    address = f"{service.url.replace('http', 'ws')}/api/v1/realtime/{path}"
    return connect(address, additional_headers={"x-api-key": service.root_key})


def checked(text: str | bytes, first: Any, event: Any) -> str:
    """The type of a frame, which must have the members of its struct and no others."""
    found = json.loads(text)
    kinds = {"init": Init, "connected": Connected, "logs": Logs, "gap": Gap}
    kind: Any = kinds.get(found["type"], event)
    assert kind in (first, event, Logs, Gap)
    msgspec.convert(found, kind)
    return str(found["type"])


def live(service: Service, job: dict[str, Any]) -> None:
    """A whole life of a claimed job."""
    path = f"/jobs/{job['id']}"
    service.call("POST", f"{path}/ack")
    service.call("POST", f"{path}/progress", {"percent": 1, "message": "x", "subProgress": {"a": {"percent": 2}}})
    service.call("POST", f"{path}/checkpoint", {"page": 1})
    service.call("POST", f"{path}/event", ["mine"])
    service.call("POST", f"{path}/logs", ["line", {"message": "m", "metadata": {"a": 1}}])
    service.call("POST", f"{path}/release", {"reason": "deploy"})
    service.call("POST", f"{path}/claim")
    service.call("POST", f"{path}/fail", {"error": "no"})
    service.call("POST", f"{path}/kill")
    service.call("POST", f"{path}/retry")
    service.call("POST", f"{path}/claim")
    service.call("POST", f"{path}/complete", {"done": "x" * 5000})


def frames_until_completed(viewer: ClientConnection, first: Any, event: Any) -> set[str]:
    seen = set()
    while "completed" not in seen:
        seen.add(checked(viewer.recv(10), first, event))
    return seen


def test_every_frame_of_a_job_is_described(service: Service) -> None:
    job = service.create(claim=True)
    with watch(service, f"{job['id']}?logs=true&after=0&logsAfter=0") as viewer:
        live(service, job)
        seen = frames_until_completed(viewer, Init, JobEvent)
    wanted = {"init", "created", "delivered", "started", "progress", "checkpoint", "event", "logs", "retried"}
    assert wanted | {"released", "killed", "requeued", "completed"} == seen


def test_every_frame_of_a_space_is_described(service: Service) -> None:
    with watch(service, f"spaces/{service.space}") as viewer:
        live(service, service.create(claim=True))
        assert {"connected", "created", "progress", "completed"} <= frames_until_completed(
            viewer, Connected, SpaceEvent
        )


def test_what_an_anonymous_viewer_sees_is_described(service: Service) -> None:
    job = service.create(claim=True)
    with connect(f"{service.url.replace('http', 'ws')}/api/v1/realtime/{job['id']}") as viewer:
        service.call("POST", f"/jobs/{job['id']}/progress", {"percent": 1, "message": "x"})
        service.call("POST", f"/jobs/{job['id']}/complete")
        assert {"init", "progress", "completed"} == frames_until_completed(viewer, Init, JobEvent)
        with pytest.raises(ConnectionClosedOK) as closed:
            viewer.recv(10)
    assert closed.value.rcvd is not None
    assert msgspec.json.decode(closed.value.rcvd.reason, type=End) == End("completed")


def test_a_gap_is_described(service: Service) -> None:
    job = service.create(claim=True)
    with watch(service, f"{job['id']}?after=50") as viewer:
        assert [checked(viewer.recv(10), Init, JobEvent) for _ in "ab"] == ["init", "gap"]


def test_the_document_is_served_and_its_references_lead_somewhere(service: Service) -> None:
    found = httpx.get(f"{service.url}/asyncapi.json").json()
    assert found == json.loads(json.dumps(DOCUMENT))
    for part in json.dumps(found).split('"$ref": "#/')[1:]:
        place: Any = found
        for word in part.split('"')[0].split("/"):
            place = place[word]
