"""What the service logs of requests, the ids that it gives them, and that no key is ever in a log."""

import contextlib
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from app.metrics.service_log import JsonFormatter, TextFormatter, mask_secrets
from tests.faults.service import Service
from tests.room import Room
from tests.valkey import until

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SHOUTED = "emit_" + "S" * 43


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(env={"JOBWIRE_LOG": "json"}) as service:
        yield service


def lines(service: Service) -> list[dict[str, Any]]:
    """Every line of the log, which must all be JSON."""
    return [json.loads(line) for line in service.log.splitlines() if line.endswith("}")]


def line_of(service: Service, request_id: str) -> dict[str, Any]:
    """The line of one request, as soon as it is there."""
    until(lambda: any(line.get("requestId") == request_id for line in lines(service)))
    (found,) = (line for line in lines(service) if line.get("requestId") == request_id)
    return found


def test_a_request_is_one_json_line_with_the_id_that_the_client_got(service: Service) -> None:
    reply = httpx.get(
        f"{service.url}/api/v1/spaces/{service.space}/jobs?limit=0", headers={"x-api-key": service.root_key}
    )
    found = line_of(service, reply.headers["x-request-id"])
    assert (found["method"], found["path"], found["status"]) == ("GET", f"/api/v1/spaces/{service.space}/jobs", 400)
    assert found["ms"] > 0
    assert found["logger"] == "jobwire.request"


def test_every_line_of_the_service_is_json(service: Service) -> None:
    service.create()
    for line in service.log.splitlines():
        assert {"at", "level", "logger"} <= json.loads(line).keys()


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/openapi.json", "/", "/nowhere", "/api/v1/spaces"])
def test_an_id_goes_in_and_comes_out_everywhere(service: Service, path: str) -> None:
    reply = httpx.get(service.url + path, headers={"x-request-id": "mine-1:2/3"})
    assert reply.headers["x-request-id"] == "mine-1:2/3"


@pytest.mark.parametrize("sent", ["", "two words", "x" * 129, "{}"])
def test_an_id_that_is_none_is_replaced(service: Service, sent: str) -> None:
    one, two = (httpx.get(f"{service.url}/healthz", headers={"x-request-id": sent}) for _ in "ab")
    assert sent != one.headers["x-request-id"] != two.headers["x-request-id"]


def test_no_key_is_in_the_log_however_it_was_sent(service: Service) -> None:
    job = service.create()
    for sent in (
        {"headers": {"x-api-key": service.root_key}},
        {"headers": {"authorization": f"Bearer {service.root_key}"}},
        {"headers": {"x-api-key": SHOUTED}},
        {"params": {"token": service.root_key}},
        {"params": {"token": SHOUTED, "x": "1"}},
    ):
        httpx.get(f"{service.url}/api/v1/jobs/{job['id']}", **sent)
        httpx.get(f"{service.url}/{SHOUTED}", **sent)
    address = f"{service.url.replace('http', 'ws')}/api/v1/realtime/{job['id']}?token={service.root_key}"
    with connect(address) as viewer:
        viewer.recv(10)
    with contextlib.suppress(httpx.ReadTimeout):
        httpx.get(address.replace("ws:", "http:"), timeout=0.5)
    made = service.call("POST", f"/spaces/{service.space}/tokens", {"name": "k", "scopes": ["jobs:read"]})
    last = httpx.get(f"{service.url}/healthz")
    line_of(service, last.headers["x-request-id"])
    for secret in (service.root_key, SHOUTED, made.body["key"]):
        assert secret not in service.log
    assert "emit_***" in service.log


async def test_a_bug_is_logged_under_the_id_that_the_client_got(caplog: pytest.LogCaptureFixture, room: Room) -> None:
    await room.backend.spaces.create("x")
    room.backend.spaces.list_spaces = None  # type: ignore[method-assign,assignment]  # so that calling it is a bug
    async with room.client() as client:
        reply = await client.get("/spaces", headers={"x-request-id": "the-request"})
    assert (reply.status_code, reply.json()["requestId"]) == (500, "the-request")
    assert reply.headers["x-request-id"] == "the-request"
    assert "the-request" in caplog.text


def test_keys_and_secrets_are_masked_in_both_forms() -> None:
    text = f"a {SHOUTED} b whsec_{'A' * 32} c"
    record = logging.LogRecord("x", logging.INFO, "", 1, "%s", (text,), None)
    assert mask_secrets(text) == "a emit_*** b whsec_*** c"
    assert json.loads(JsonFormatter().format(record))["message"] == mask_secrets(text)
    assert SHOUTED not in TextFormatter("%(message)s").format(record)


def test_a_traceparent_is_kept_on_the_job_and_shown_to_all(service: Service) -> None:
    job = service.call("POST", f"/spaces/{service.space}/jobs", {"name": "traced"}, traceparent=TRACE).body
    assert job["traceparent"] == TRACE
    assert service.job(job["id"])["traceparent"] == TRACE
    (taken,) = service.poll(names=["traced"])
    assert taken["traceparent"] == TRACE
    until(lambda: any(line.get("traceparent") == TRACE for line in lines(service)))


@pytest.mark.parametrize("sent", ["00-0-0-0", TRACE.upper(), "00-" + "0" * 32 + "-00f067aa0ba902b7-01", TRACE + "-x"])
def test_what_is_no_traceparent_is_ignored(service: Service, sent: str) -> None:
    job = service.call("POST", f"/spaces/{service.space}/jobs", {"name": "untraced"}, traceparent=sent)
    assert job.status == 201
    assert "traceparent" not in job.body


def test_a_batch_shares_its_trace(service: Service) -> None:
    made = service.call(
        "POST", f"/spaces/{service.space}/jobs", [{"name": "b"}, {"name": "b", "claim": True}], traceparent=TRACE
    )
    assert [job["traceparent"] for job in made.body] == [TRACE, TRACE]
    assert service.job(made.body[1]["id"])["status"] == "delivered"
