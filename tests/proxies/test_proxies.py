"""What works without a proxy works through one: requests, streams, polls, big bodies, a path before ours."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.factories import refused
from tests.proxies.conftest import PREFIX, Front
from tests.valkey import until

pytestmark = pytest.mark.parametrize("prefix", ["", PREFIX])

MIB = 1_048_576


@pytest.fixture
def job(front: Front) -> Iterator[dict[str, Any]]:
    """A running job, ended after the test so that no poll of another gets it."""
    made = front.space.job_in("running")
    yield made
    front.space.call(made, "kill", {})


def watching(front: Front, path: str, prefix: str, **more: Any) -> ClientConnection:
    """A WebSocket through the proxy."""
    url = f"{front.proxy.url}{prefix}/api/v1{path}".replace("https", "wss")
    headers = {"x-api-key": front.key}
    opened: ClientConnection = connect(url, additional_headers=headers, ssl=front.proxy.context, proxy=None, **more)
    return opened


def frames(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """The frames of an event stream, as they come."""
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_a_job_lives_its_life(front: Front, prefix: str) -> None:
    made = front.send("POST", front.space.jobs, prefix=prefix, json={"name": f"life{prefix[1:]}"})
    assert made.status_code == 201
    body = {"names": f"life{prefix[1:]}"}
    taken = front.send("POST", f"{front.space.jobs}/poll", prefix=prefix, json=body).json()["jobs"]
    assert [job["id"] for job in taken] == [made.json()["id"]]
    done = front.send("POST", f"/jobs/{taken[0]['id']}/complete", prefix=prefix, json={"width": 640})
    assert done.json() == {"success": True, "status": "completed"}
    assert front.send("GET", f"/jobs/{taken[0]['id']}", prefix=prefix).json()["result"] == {"width": 640}


def test_a_websocket_hears_what_happens(front: Front, prefix: str, job: dict[str, Any]) -> None:
    with watching(front, f"/realtime/{job['id']}", prefix) as viewer:
        assert json.loads(viewer.recv(10))["type"] == "init"
        front.space.do(job, "progress", {"percent": 40, "message": "scaling"})
        assert json.loads(viewer.recv(10))["data"]["percent"] == 40


def test_an_event_stream_is_passed_on_frame_by_frame(front: Front, prefix: str, job: dict[str, Any]) -> None:
    url, headers = f"{prefix}/api/v1/realtime/{job['id']}", {"x-api-key": front.key}
    with front.proxy.http.stream("GET", url, headers=headers) as answer:
        coming = frames(answer)
        assert next(coming)["type"] == "init"
        for percent in (10, 20, 30):
            front.space.do(job, "progress", {"percent": percent, "message": "scaling"})
            assert next(coming)["data"]["percent"] == percent


def test_a_parked_poll_is_answered_as_soon_as_there_is_a_job(front: Front, prefix: str) -> None:
    answers: list[httpx.Response] = []
    body = {"waitSeconds": 30, "names": "awaited"}
    path = f"{front.space.jobs}/poll"
    waiting = threading.Thread(target=lambda: answers.append(front.send("POST", path, prefix=prefix, json=body)))
    waiting.start()
    until(lambda: front.parked == 1)
    made = front.space.create(name="awaited")
    waiting.join(20)
    assert [job["id"] for job in answers[0].json()["jobs"]] == [made["id"]]


def test_a_parked_poll_whose_client_has_gone_takes_nothing(front: Front, prefix: str) -> None:
    name = f"missed{prefix[1:]}"
    body = json.dumps({"waitSeconds": 30, "names": name}).encode()
    with front.proxy.socket() as sock:
        sock.sendall(
            f"POST {prefix}/api/v1{front.space.jobs}/poll HTTP/1.1\r\nhost: localhost:{front.proxy.port}\r\n"
            f"x-api-key: {front.key}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        until(lambda: front.parked == 1)
    until(lambda: front.parked == 0)
    assert front.space.status(front.space.create(name=name)) == "pending"


def test_five_mebibytes_of_lines_pass(front: Front, prefix: str, job: dict[str, Any]) -> None:
    lines = b"\n".join(b'"%b"' % (b"x" * 1020) for _ in range(5 * MIB // 1023))
    headers = {"content-type": "application/x-ndjson"}
    answer = front.send("POST", f"/jobs/{job['id']}/logs", prefix=prefix, content=lines, headers=headers)
    assert answer.json()["inserted"] == 5 * MIB // 1023


def test_a_body_that_is_too_large_is_refused_in_our_words(front: Front, prefix: str, job: dict[str, Any]) -> None:
    answer = front.send("POST", f"/jobs/{job['id']}/logs", prefix=prefix, content=b"[" + b" " * 6 * MIB + b"]")
    assert refused(answer, 413, "too_large")["limit"]


def test_the_log_names_the_client_and_not_what_the_client_says(front: Front, prefix: str) -> None:
    with front.proxy.socket("127.0.0.7") as sock:
        sock.sendall(
            f"GET {prefix}/api/v1/jobs/of-{prefix[1:]} HTTP/1.1\r\nhost: localhost:{front.proxy.port}\r\n"
            f"x-forwarded-for: 8.8.8.8\r\nx-api-key: {front.key}\r\nconnection: close\r\n\r\n".encode()
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 404")
    path = f'"/api/v1/jobs/of-{prefix[1:]}"'

    def lines() -> list[str]:
        return [line for server in front.servers for line in server.log().splitlines() if path in line]

    until(lines)
    assert [json.loads(line)["client"] for line in lines()] == ["127.0.0.7"]


def test_the_realtime_url_of_a_job_can_be_opened(front: Front, prefix: str) -> None:
    url = front.space.create(name=f"url{prefix[1:]}")["realtimeUrl"]
    assert url.startswith(f"wss://localhost:{front.proxy.port}{PREFIX}/")
    with connect(url, additional_headers={"x-api-key": front.key}, ssl=front.proxy.context, proxy=None) as viewer:
        assert json.loads(viewer.recv(10))["type"] == "init"


def test_a_page_of_the_public_url_may_open_streams(front: Front, prefix: str, job: dict[str, Any]) -> None:
    with watching(front, f"/realtime/{job['id']}", prefix, origin=front.proxy.url) as viewer:
        assert json.loads(viewer.recv(10))["type"] == "init"


def test_a_body_behind_an_offer_of_http2_is_read_as_a_body(front: Front, prefix: str, job: dict[str, Any]) -> None:
    inner = json.dumps({"name": "smuggled"}).encode()
    body = (
        f"POST /api/v1{front.space.jobs} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {front.key}\r\n"
        f"content-length: {len(inner)}\r\n\r\n".encode()
        + inner
    )
    head = (
        f"POST {prefix}/api/v1/jobs/{job['id']}/complete HTTP/1.1\r\nhost: localhost:{front.proxy.port}\r\n"
        "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with front.proxy.socket() as sock:
        sock.sendall(head.encode() + body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 401")
        answer = front.send("GET", front.space.jobs, params={"limit": 100})
    assert "smuggled" not in [made["name"] for made in answer.json()]
    assert front.space.status(job) == "running"


def test_a_json_body_arrives_beside_an_offer_of_http2(front: Front, prefix: str) -> None:
    taken = front.space.job_in("running")
    headers = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAEAAEAAAAIAAAAB"}
    done = front.send("POST", f"/jobs/{taken['id']}/complete", prefix=prefix, json={"width": 640}, headers=headers)
    assert done.json() == {"success": True, "status": "completed"}
    assert front.space.get(taken)["result"] == {"width": 640}
