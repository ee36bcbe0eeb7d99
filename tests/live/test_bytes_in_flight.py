"""Bodies that stop coming and answers that nobody reads: what they hold, whom they keep waiting, and their end."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.settings import Settings
from tests.any_redis import AnyRedis
from tests.factories import Space, refused
from tests.live.stalling import (
    CREATE_BYTES,
    MIB,
    WHOLE_LOG,
    Stalling,
    in_flight,
    long_log,
    number,
    unread,
    upload,
)
from tests.server import Caller, Server
from tests.valkey import until

KEY_BYTES = Settings().key_inflight_bytes
ALL_BYTES = Settings().inflight_bytes
RSS_BYTES = 400 * MIB
NDJSON = "application/x-ndjson"
STALL_S = 2.0
ANSWERED = "jobwire_requests_total{"


class Hasty(Server):
    """A server that looks at its connections twice a second, and gives bodies and answers two seconds."""

    program = (
        "-c",
        "import app.wire.http_protocol, app.serve, app.wire.stalled_requests; app.serve.STALL_CHECK_TICKS = 5; "
        f"app.wire.http_protocol.BODY_S = {STALL_S}; app.wire.stalled_requests.ANSWER_S = {STALL_S}; "
        "from jobwire.commands import main; main()",
    )


@pytest.fixture(scope="module")
def patient(valkey: AnyRedis) -> Iterator[Space]:
    """A space of a server as it is by default."""
    with Server(valkey.url) as server:
        yield Space(server)


@pytest.fixture(scope="module")
def hasty(valkey: AnyRedis) -> Iterator[Space]:
    with Hasty(valkey.url) as server:
        yield Space(server)


@pytest.fixture
def stalls(patient: Space) -> Iterator[contextlib.ExitStack]:
    """What is put here is closed at the end of the test, and then nothing is in flight."""
    with contextlib.ExitStack() as stack:
        yield stack
    until(lambda: in_flight(patient.server) == 0)


def fill(space: Space, caller: Caller, stack: contextlib.ExitStack, goal_bytes: int) -> None:
    """Uploads of this key that stall, of so many bytes in all."""
    before, left = in_flight(space.server), goal_bytes
    while left:
        sent = min(left, CREATE_BYTES - 1)
        stack.enter_context(upload(space, caller, sent))
        left -= sent
    until(lambda: in_flight(space.server) == before + goal_bytes)


def test_a_key_whose_uploads_stall_is_refused_more_and_no_other_is(
    patient: Space, stalls: contextlib.ExitStack
) -> None:
    greedy, other = patient.caller("jobs:create"), patient.caller("jobs:create")
    fill(patient, greedy, stalls, KEY_BYTES - MIB)
    large = json.dumps({"name": "work", "payload": "x" * (MIB - 100)})
    body = refused(greedy.post(patient.jobs, content=f"[{large},{large}]"), 503, "unavailable")
    assert body["limit"] == {"keyInflightBytes": KEY_BYTES}
    assert greedy.post(patient.jobs, json={"name": "work"}).status_code == 201, "what is small goes on"
    assert other.post(patient.jobs, content=f"[{','.join([large] * 7)}]").status_code == 201


def test_a_refusal_says_when_to_come_back_and_comes_while_the_body_does(
    patient: Space, stalls: contextlib.ExitStack
) -> None:
    greedy = patient.caller("jobs:create")
    fill(patient, greedy, stalls, KEY_BYTES - MIB)
    with upload(patient, greedy, 2 * MIB) as one_more:
        head = one_more.sock.recv(10_000).lower()
    assert head.startswith(b"http/1.1 503 ")
    assert b"\r\nretry-after: 2\r\n" in head


def test_however_many_keys_take_what_they_can_there_is_room_for_another(
    patient: Space, stalls: contextlib.ExitStack
) -> None:
    for _ in range(4):
        greedy = patient.caller("jobs:create")
        for _ in range(KEY_BYTES // CREATE_BYTES + 1):
            with contextlib.suppress(ConnectionError):
                stalls.enter_context(upload(patient, greedy, CREATE_BYTES - 1))
    refusals = 'jobwire_limits_hit_total{limit="inflightBytes"}'
    assert number(patient.server, refusals) > 0
    assert in_flight(patient.server) < ALL_BYTES
    large = {"name": "work", "payload": "x" * (MIB - 100)}
    assert patient.caller("jobs:create").post(patient.jobs, json=large).status_code == 201


def test_a_poll_takes_no_job_whose_answer_there_might_be_no_room_for(
    patient: Space, stalls: contextlib.ExitStack
) -> None:
    space = Space(patient.server)
    job, greedy = space.create(), space.caller("jobs:create", "jobs:poll")
    fill(space, greedy, stalls, KEY_BYTES - 4 * MIB)
    refused(greedy.post(f"{space.jobs}/poll", json={}), 503, "unavailable")
    refused(greedy.post(f"/jobs/{job['id']}/claim"), 503, "unavailable")
    assert space.status(job) == "pending"
    assert [found["id"] for found in space.poll()] == [job["id"]]


def test_what_was_done_and_cannot_be_told_is_an_unknown_outcome_and_repeating_it_is_safe(
    patient: Space, stalls: contextlib.ExitStack
) -> None:
    space = Space(patient.server)
    greedy, again = space.caller("jobs:create"), {"idempotency-key": "once"}
    jobs = [{"name": "work"}] * 1000
    with contextlib.ExitStack() as stack:
        fill(space, greedy, stack, KEY_BYTES - 100_000)
        refused(greedy.post(space.jobs, json=jobs, headers=again), 503, "outcome_unknown")
    until(lambda: in_flight(space.server) == 0)
    repeated = greedy.post(space.jobs, json=jobs, headers=again)
    assert repeated.status_code == 201
    assert repeated.headers["idempotency-replayed"] == "true"
    assert space.all.get(f"{space.jobs}?limit=1").headers["x-total-count"] == "1000"


def test_a_hundred_stalled_uploads_and_a_hundred_unread_downloads_stay_under_400_mib(
    patient: Space, stalls: contextlib.ExitStack
) -> None:
    job = long_log(patient)
    uploading, paging, loading = (patient.caller("jobs:create", "jobs:read") for _ in range(3))
    for _ in range(100):
        with contextlib.suppress(ConnectionError):
            stalls.enter_context(upload(patient, uploading, CREATE_BYTES - 1))
    for _ in range(50):
        stalls.enter_context(unread(patient, paging, job + WHOLE_LOG))
        stalls.enter_context(unread(patient, loading, job + WHOLE_LOG, NDJSON))
    quick = [patient.all.get(job + "progress").elapsed.total_seconds() for _ in range(20)]
    assert sorted(quick)[10] < 1
    assert number(patient.server, 'jobwire_limits_hit_total{limit="inflightBytes"}') > 0
    assert ALL_BYTES / 2 < in_flight(patient.server) < ALL_BYTES
    assert patient.server.rss_bytes() < RSS_BYTES
    assert patient.all.post(job + "logs", json=["still well"]).status_code == 200


@pytest.mark.parametrize("what", ["log", "list"])
def test_pages_that_are_made_at_the_same_time_count_meanwhile(
    patient: Space, stalls: contextlib.ExitStack, what: str
) -> None:
    space = Space(patient.server)
    path = long_log(space) + WHOLE_LOG if what == "log" else large_jobs(space)
    callers = [space.caller("jobs:read") for _ in range(10)]
    done = number(space.server, ANSWERED)
    for _ in range(5):
        for caller in callers:
            stalls.enter_context(unread(space, caller, path))
    until(lambda: number(space.server, ANSWERED) >= done + 50, 30)
    assert peak_bytes(space.server) < RSS_BYTES


def large_jobs(space: Space) -> str:
    """The path of a list of nearly 8 MiB."""
    for _ in range(7):
        space.create(payload="x" * (MIB - 100))
    return space.jobs


def peak_bytes(server: Server) -> int:
    """The most memory that the process has held."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def test_what_a_compressed_body_inflates_to_counts_too(patient: Space, stalls: contextlib.ExitStack) -> None:
    greedy = patient.caller("jobs:create", "jobs:event")
    job = patient.create()
    fill(patient, greedy, stalls, KEY_BYTES - MIB)
    packed = gzip.compress(json.dumps(["x" * 60_000] * 40).encode())
    answer = greedy.post(f"/jobs/{job['id']}/logs", content=packed, headers={"content-encoding": "gzip"})
    refused(answer, 503, "unavailable")


# Their end


@pytest.mark.parametrize("accept", ["application/json", NDJSON])
def test_an_answer_of_which_nothing_is_taken_ends_its_connection(hasty: Space, accept: str) -> None:
    job = long_log(hasty)
    ended = number(hasty.server, 'jobwire_stalled_connections_total{what="answer"}')
    with unread(hasty, hasty.all, job + WHOLE_LOG, accept) as still:
        until(lambda: in_flight(hasty.server) > 0)
        begun_s = time.monotonic()
        until(lambda: in_flight(hasty.server) == 0)
        assert time.monotonic() - begun_s > STALL_S / 2
        assert number(hasty.server, 'jobwire_stalled_connections_total{what="answer"}') == ended + 1
        assert still.is_ended(STALL_S)


@pytest.mark.parametrize("accept", ["application/json", NDJSON])
def test_an_answer_that_is_taken_little_by_little_is_never_cut(hasty: Space, accept: str) -> None:
    job = long_log(hasty)
    with unread(hasty, hasty.all, job + WHOLE_LOG, accept) as slow:
        begun_s, got = time.monotonic(), b""
        while time.monotonic() - begun_s < 4 * STALL_S:
            got += slow.sock.recv(4096)
            time.sleep(0.05)  # the pace of this reader, not a wait
        assert in_flight(hasty.server) > 0, "it was slow indeed"
        head, _, body = (got + slow.rest()).partition(b"\r\n\r\n")
    if accept == NDJSON:
        assert body.endswith(b"\r\n0\r\n\r\n")
        assert body.count(b'"level"') == 9 * 17
    else:
        assert f"content-length: {len(body)}\r\n".encode() in head
    until(lambda: in_flight(hasty.server) == 0)


def test_an_upload_that_stops_lets_go_of_what_it_held(hasty: Space) -> None:
    with upload(hasty, hasty.all, 3 * MIB) as still:
        until(lambda: in_flight(hasty.server) == 3 * MIB)
        assert still.is_ended(10)
    until(lambda: in_flight(hasty.server) == 0)


def test_whatever_becomes_of_requests_nothing_stays_counted(hasty: Space) -> None:
    job = long_log(hasty)
    chance = random.Random(7)
    scenes = [scene for scene in SCENES for _ in range(8)]
    chance.shuffle(scenes)
    with ThreadPoolExecutor(12) as threads:
        for done in [threads.submit(scene, hasty, job) for scene in scenes]:
            done.result()
    until(lambda: in_flight(hasty.server) == 0, 30)
    assert number(hasty.server, "jobwire_bugs_total") == 0


def whole(space: Space, job: str) -> None:
    """Everything goes through, or is refused for want of room."""
    assert space.all.get(job + WHOLE_LOG).status_code in (200, 503)
    large = {"name": "work", "payload": "x" * (MIB - 100)}
    assert space.all.post(space.jobs, json=[large] * 3).status_code in (201, 503)


def cut_upload(space: Space, job: str) -> None:
    """The client goes in the middle of its body."""
    with upload(space, space.all, 2 * MIB):
        pass


def stalled_upload(space: Space, job: str) -> None:
    """The server goes."""
    with upload(space, space.all, MIB) as still:
        assert still.is_ended(20)


def cut_answer(space: Space, job: str) -> None:
    """The client goes in the middle of the answer."""
    for accept in ("application/json", NDJSON):
        with unread(space, space.all, job + WHOLE_LOG, accept) as cut:
            assert cut.sock.recv(100)


def stalled_answer(space: Space, job: str) -> None:
    """Nobody reads, and nobody goes."""
    with unread(space, space.all, job + WHOLE_LOG) as still:
        time.sleep(2 * STALL_S)  # what this client does
        assert still.is_ended(20)


def refused_bodies(space: Space, job: str) -> None:
    """Too large, no JSON, no such job, no key."""
    for path, size, status in (
        (space.jobs, CREATE_BYTES + 1, 413),
        (space.jobs, 2 * MIB, 400),
        ("/jobs/none/logs", 2 * MIB, 400),
        ("/jobs/none/event", 200_000, 400),
    ):
        assert space.all.post(path, content=b"x" * size).status_code in (status, 503)
    chunked = space.all.post(space.jobs, content=(b"x" * MIB for _ in range(10)))
    assert chunked.status_code in (413, 503)


def pipelined(space: Space, job: str) -> None:
    """Two large answers on one connection, or refusals."""
    head = f"GET /api/v1{job}{WHOLE_LOG} HTTP/1.1\r\nhost: test\r\nx-api-key: {space.all.key}\r\n"
    with Stalling(space.server, f"{head}\r\n{head}connection: close\r\n\r\n".encode()) as both:
        assert both.rest().count(b"HTTP/1.1 ") == 2


SCENES = (whole, cut_upload, stalled_upload, cut_answer, stalled_answer, refused_bodies, pipelined)
