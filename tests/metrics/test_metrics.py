"""GET /metrics: what is counted, by which labels, over how many processes, and what it costs."""

import asyncio
import json
import re
import time
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from app.api.routes import route_table
from app.metrics import catalog
from app.metrics.catalog import INSTRUMENTS, OVERVIEW_AGE_SECONDS, REDIS_UP, SPACES, Counter, Histogram, Instrument
from app.metrics.exposition import _PROCESS
from app.redis_links.scripts import SCRIPTS
from tests.any_redis import NewRedis
from tests.faults.service import Service
from tests.room import Room, new_room
from tests.server import free_port
from tests.test_house import DOCS, _NoHandlers
from tests.test_processes import ROOT_KEY, answers, environment, running
from tests.valkey import until

ANSWERED_S = 0.02

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """Every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"jobwire_{name}", frozenset(labels.items())), 0.0)


async def scrape(room: Room) -> Samples:
    async with room.client() as client:
        reply = await client.get("http://test/metrics")
    assert reply.status_code == 200
    return parsed(reply.text)


class Growth:
    """How much each sample grew since the begin: other tests count in the same process."""

    def __init__(self, before: Samples) -> None:
        self._before = before

    async def since(self, room: Room, name: str, **labels: str) -> float:
        return value(await scrape(room), name, **labels) - value(self._before, name, **labels)


async def new_space(room: Room, client: httpx.AsyncClient) -> str:
    room.space = (await client.post("/spaces", json={"name": "tests"})).json()["id"]
    return f"/spaces/{room.space}/jobs"


async def test_requests_are_counted_by_route_method_and_status(room: Room) -> None:
    grown = Growth(await scrape(room))
    async with room.client() as client:
        jobs = await new_space(room, client)
        await client.post(jobs, json={"name": "a"})
        await client.post(jobs, json={"name": ""})
        await client.get(jobs)
    route = "/spaces/{space_id}/jobs"
    for method, status in (("POST", "201"), ("POST", "400"), ("GET", "200")):
        assert await grown.since(room, "requests_total", route=route, method=method, status=status) == 1
    assert await grown.since(room, "request_seconds_count", route=route, method="POST") == 2
    assert await grown.since(room, "refusals_total", code="invalid_request") == 1


async def test_no_label_has_a_value_from_outside(room: Room) -> None:
    async with room.client() as client:
        await client.request("BREW", "/jobs/x")
        await client.get("/evil/path")
        await client.post("/jobs/x/ack", headers={"x-api-key": "evil"})
    samples = await scrape(room)
    stand_in: Any = _NoHandlers()
    known = {
        "route": set(route_table(stand_in)),
        "method": {"GET", "HEAD", "POST", "PATCH", "DELETE"},
        "script": set(SCRIPTS),
    }
    for _, labels in samples:
        for name, found in labels:
            assert found in known.get(name, {found})
            assert "evil" not in found


async def test_transitions_are_counted_by_the_event_that_tells_of_them(room: Room) -> None:
    grown = Growth(await scrape(room))
    async with room.client() as client:
        jobs = await new_space(room, client)
        await client.post(jobs, json=[{"name": "a", "maxRetries": 1}] * 3 + [{"name": "b", "claim": True}])
        one, two, three = (await client.post(f"{jobs}/poll", json={"count": 3})).json()["jobs"]
        for path in ("ack", "complete", "complete"):
            await client.post(f"/jobs/{one['id']}/{path}")
        await client.post(f"/jobs/{two['id']}/fail")
        await client.post(f"/jobs/{two['id']}/claim")
        await client.post(f"/jobs/{two['id']}/fail")
        await client.post(f"/jobs/{three['id']}/release")
        await client.post(f"/jobs/{three['id']}/kill")
        await client.post(f"/jobs/{three['id']}/retry")
        await client.post(f"{jobs}/retry", json={"status": "dead"})
    wanted = {
        "created": 4,
        "delivered": 5,
        "started": 1,
        "retried": 1,
        "dead": 1,
        "killed": 1,
        "requeued": 2,
        "released": 1,
    }
    found = {event: await grown.since(room, "transitions_total", event=event) for event in wanted}
    assert found == wanted


async def test_leases_that_ran_out_are_counted_by_what_became_of_the_job(room: Room) -> None:
    grown = Growth(await scrape(room))
    async with room.client() as client:
        jobs = await new_space(room, client)
        shape = {"name": "a", "timeoutSeconds": 1, "claim": True}
        made = (await client.post(jobs, json=[shape, shape, {**shape, "maxRetries": 0}])).json()
        for job in made[1:]:
            await client.post(f"/jobs/{job['id']}/ack")
    deadline = time.monotonic() + 10
    while sum([await grown.since(room, "lease_expiries_total", outcome=kind) for kind in OUTCOMES]) < 3:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
        await room.backend.store.end_leases(room.space, 50)
    assert [await grown.since(room, "lease_expiries_total", outcome=kind) for kind in OUTCOMES] == [1, 1, 1]


OUTCOMES = ("delivery_timeout", "retried", "dead")


async def test_lines_limits_and_parked_polls_are_counted(room: Room) -> None:
    grown = Growth(await scrape(room))
    async with room.client() as client:
        jobs = await new_space(room, client)
        (job,) = (await client.post(jobs, json=[{"name": "a", "claim": True}])).json()
        await client.post(f"/jobs/{job['id']}/logs", json=["one", "two", "x" * 70_000])
        await client.post(f"/jobs/{job['id']}/progress", content=b" " * 20_000)
        poll = asyncio.create_task(client.post(f"{jobs}/poll", json={"waitSeconds": 20}))
        deadline = time.monotonic() + 10
        while await grown.since(room, "parked_polls") < 1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        await client.post(jobs, json={"name": "b"})
        assert len((await poll).json()["jobs"]) == 1
    assert await grown.since(room, "parked_polls") == 0
    assert await grown.since(room, "log_lines_total") == 3
    assert await grown.since(room, "log_bytes_total") > 60_000
    assert await grown.since(room, "limits_hit_total", limit="messageBytes") == 1
    assert await grown.since(room, "limits_hit_total", limit="bodyBytes") == 1


async def test_the_sums_over_all_spaces_are_shown(room: Room) -> None:
    async with room.client() as client:
        for _ in range(3):
            await client.post(await new_space(room, client), json=[{"name": "a"}] * 2)
        (job, *_) = (await client.post(f"/spaces/{room.space}/jobs/poll", json={})).json()["jobs"]
        await client.post(f"/jobs/{job['id']}/kill")
    deadline = time.monotonic() + 10
    while not value(samples := await scrape(room), "spaces"):
        assert time.monotonic() < deadline
    shown = {status: value(samples, "jobs", status=status) for status in ("pending", "killed", "running")}
    assert shown == {"pending": 5, "killed": 1, "running": 0}
    assert value(samples, "spaces") == 3
    assert value(samples, "queue_age_seconds") > 0
    assert value(samples, "redis_up") == 1
    assert value(samples, "redis_memory_bytes", kind="used") > 100_000
    assert value(samples, "redis_round_trip_seconds_count") > 0
    assert value(samples, "event_loop_lag_seconds_count") >= 0


def test_streams_are_counted_while_they_are_open() -> None:
    with Service() as service:
        job = service.create(claim=True)["id"]

        def shown(name: str, **labels: str) -> float:
            return value(parsed(httpx.get(f"{service.url}/metrics").text), name, **labels)

        address = f"{service.url.replace('http', 'ws')}/api/v1/realtime/{job}"
        with connect(address, additional_headers={"x-api-key": service.root_key}) as viewer:
            viewer.recv(10)
            until(lambda: shown("streams_open", kind="job") == 1)
            before = shown("stream_frames_total")
            service.call("POST", f"/jobs/{job}/progress", {"percent": 1, "message": "x"})
            viewer.recv(10)
            assert shown("stream_frames_total") > before
        until(lambda: shown("streams_open", kind="job") == 0)
        until(lambda: shown("hint_lag_seconds_count") > 0)


async def test_while_redis_is_away_metrics_answer_at_once_and_say_so(new_redis: NewRedis) -> None:
    with new_redis() as server:
        async with new_room(server) as room:
            await scrape(room)
            server.kill()
            deadline = time.monotonic() + 10
            while value(await scrape(room), "redis_up"):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)


async def test_metrics_answer_within_20_ms_with_a_thousand_spaces_and_every_route_and_script(room: Room) -> None:
    for _ in range(1000):
        await room.backend.spaces.create("one of many")
    async with room.client() as client:
        stand_in: Any = _NoHandlers()
        for path, actions in route_table(stand_in).items():
            for method in actions:
                await client.request(method, path)
        times = []
        for _ in range(20):
            begun = time.perf_counter()
            await client.get("http://test/metrics")
            times.append(time.perf_counter() - begun)
    assert min(times) < ANSWERED_S


async def test_openmetrics_are_answered_to_who_asks_for_them(room: Room) -> None:
    async with room.client() as client:
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        reply = await client.get("http://test/metrics", headers=accept)
        assert reply.headers["content-type"].startswith("application/openmetrics-text")
        families = openmetrics.text_string_to_metric_families(reply.text)  # type: ignore[no-untyped-call]  # untyped
        assert "jobwire_requests" in {family.name for family in families}
        assert (await client.post("http://test/metrics")).status_code == 405


def test_two_workers_show_the_same_sum_whichever_is_asked(new_redis: NewRedis) -> None:
    """Each connection goes to either worker; whoever answers knows what both have counted."""
    with new_redis() as valkey:
        port = free_port()
        env = environment(REDIS_URL=valkey.url, JOBWIRE_ROOT_KEY=ROOT_KEY, JOBWIRE_RATE="0")
        url = f"http://127.0.0.1:{port}"
        with running("web", "--port", str(port), "--workers", "2", env=env):
            until(lambda: answers(f"{url}/readyz"), 20)
            for _ in range(40):
                assert httpx.get(f"{url}/api/v1/spaces", headers={"x-api-key": ROOT_KEY}).status_code == 200
            labels = {"route": "/spaces", "method": "GET", "status": "200"}
            for _ in range(10):
                assert value(parsed(httpx.get(f"{url}/metrics").text), "requests_total", **labels) == 40


def test_a_sweeper_answers_metrics_at_its_own_port(new_redis: NewRedis) -> None:
    with new_redis() as valkey:
        port = free_port()
        with running("sweeper", "--metrics", str(port), env=environment(REDIS_URL=valkey.url)):
            until(lambda: answers(f"http://127.0.0.1:{port}/metrics"), 20)
            until(
                lambda: (
                    value(
                        parsed(httpx.get(f"http://127.0.0.1:{port}/metrics").text),
                        "script_seconds_count",
                        script="outage_mark",
                    )
                    > 0
                )
            )


MONITORING = DOCS / "monitoring"
NAMED = re.compile(r"\b(?:jobwire|process)_[a-z_]+")


def shown() -> set[str]:
    """The name of every sample that there can be."""
    suffixes = {Histogram: ("_bucket", "_count", "_sum"), Counter: ("_total",)}
    ours = {instrument.name + suffix for instrument in INSTRUMENTS for suffix in suffixes.get(type(instrument), ("",))}
    return ours | {family.name for family in _PROCESS.collect()}


@pytest.mark.parametrize("name", ["grafana.json", "alerts.yml"])
def test_every_metric_that_the_dashboard_and_the_alerts_name_exists(name: str) -> None:
    text = (MONITORING / name).read_text()
    expressions = " ".join(re.findall(r'"?expr"?: (?:>-\n(?:\s{10}.*\n)+|.*)', text))
    named = set(NAMED.findall(re.sub(r'\{[^}]*\}|"uid.*?"', "", expressions)))
    assert len(named) > 8
    assert named <= shown()


def test_every_metric_is_on_the_dashboard_but_for_those_that_only_alerts_need() -> None:
    board = (MONITORING / "grafana.json").read_text()
    for instrument in INSTRUMENTS:
        if instrument not in (SPACES, OVERVIEW_AGE_SECONDS, REDIS_UP):
            assert instrument.name in board, instrument.name


def test_a_constant_is_called_as_its_metric_is() -> None:
    named = {name: value.name for name, value in vars(catalog).items() if isinstance(value, Instrument)}
    assert named == {instrument.name.removeprefix("jobwire_").upper(): instrument.name for instrument in INSTRUMENTS}


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda instrument: instrument.name)
def test_every_metric_stands_in_the_docs(instrument: Instrument) -> None:
    suffix = "_total" if isinstance(instrument, Counter) else ""
    labels = ", ".join(f"`{label}`" for label in instrument.labels) or "-"
    assert f"| `{instrument.name}{suffix}` | {labels} | {instrument.meaning} |" in (DOCS / "monitoring.md").read_text()


def test_the_dashboard_is_json_with_a_target_in_every_panel() -> None:
    board = json.loads((MONITORING / "grafana.json").read_text())
    assert all(panel["type"] == "row" or panel["targets"] for panel in board["panels"])
