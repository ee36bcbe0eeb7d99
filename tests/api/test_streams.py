"""Streams under settings and numbers that the shared server of the contract tests does not have."""

import json
import os
import time
from collections.abc import Iterator

import pytest

from app.redis_links.scripts import SCRIPTS, SHARDED
from tests.any_redis import AnyRedis
from tests.factories import Space
from tests.live.raw import TEXT, RawSocket
from tests.server import Server
from tests.valkey import client_of, until
from tests.viewers import EventViewer, SocketViewer, refusal


@pytest.fixture(scope="module")
def space(valkey: AnyRedis) -> Iterator[Space]:
    with Server(valkey.url, JOBWIRE_ORIGINS="https://page.example", JOBWIRE_ANONYMOUS_PROGRESS="0") as server:
        yield Space(server)


@pytest.fixture(scope="module")
def open_space(valkey: AnyRedis) -> Iterator[Space]:
    with Server(valkey.url) as server:
        yield Space(server)


def test_anonymous_progress_may_be_forbidden(space: Space) -> None:
    path = f"/realtime/{space.create()['id']}"
    status, body = refusal(space.server, path)
    assert (status, body["code"]) == (401, "unauthorized")
    assert space.server.caller(None).get(path).status_code == 401
    with SocketViewer(space.server, path, space.public.key) as viewer:
        assert viewer.until(lambda frame: frame["type"] == "init")


def test_pages_of_other_origins_are_refused(space: Space) -> None:
    path = f"/realtime/{space.create()['id']}?token={space.all.key}"
    status, body = refusal(space.server, path, origin="https://evil.example")
    assert (status, body["code"]) == (403, "origin_not_allowed")
    for origin in ("https://page.example", space.server.url):
        with pytest.raises(AssertionError, match="accepted"):
            refusal(space.server, path, origin=origin)


def test_the_rate_of_a_key_counts_for_streams(valkey: AnyRedis) -> None:
    with Server(valkey.url, JOBWIRE_RATE="5") as server:
        space = Space(server)
        path = f"/realtime/{space.create()['id']}"
        found = set()
        for _ in range(30):
            found.add(space.caller("jobs:read").get("/nowhere").status_code)
            answers = [refusal(server, path + "?after=x", space.all.key)[0] for _ in range(10)]
            found |= set(answers)
            if 429 in found:
                break
        assert 429 in found


def test_two_thousand_events_and_ten_viewers_of_each_kind_agree(open_space: Space) -> None:
    space, key = open_space, str(open_space.all.key)
    job = space.create(claim=True)
    path = f"/realtime/{job['id']}?after=0&logs=true&logsAfter=0"
    kinds = [SocketViewer, EventViewer] * 10
    viewers = [kind(space.server, path, key) for kind in kinds]
    for number in range(400):
        space.do(job, "event", number)
        if number % 4 == 0:
            space.do(job, "logs", [f"{number}"] * (number % 7))
    space.do(job, "complete")
    for viewer in viewers:
        viewer.until(lambda frame: frame["type"] == "completed", 30)
        viewer.__exit__(None, None, None)
    assert {tuple(viewer.seqs()) for viewer in viewers} == {tuple(range(1, 404))}
    newest = space.all.get(f"/jobs/{job['id']}/logs").json()["cursor"]["newestSeq"]
    assert {tuple(viewer.lines()) for viewer in viewers} == {tuple(range(1, newest + 1))}


def test_a_slow_reader_gets_everything_at_its_own_pace_in_bounded_memory(open_space: Space) -> None:
    space, key = open_space, str(open_space.all.key)
    job = space.create(claim=True)
    with (
        RawSocket(space.server, f"/realtime/{job['id']}?after=0", key, receive_bytes=4096) as slow,
        SocketViewer(space.server, f"/realtime/{job['id']}", key) as quick,
    ):
        quick.until(lambda frame: frame["type"] == "init")
        before = space.server.rss_bytes()
        for number in range(150):
            space.do(job, "event", {"number": number, "filling": "x" * 100_000})
        quick.until_seq(152)
        assert space.server.rss_bytes() - before < 20_000_000
        seqs: list[int] = []
        while not seqs or seqs[-1] < 152:
            frame = slow.read()
            if frame.opcode == TEXT:
                said = json.loads(frame.payload)
                if said["type"] != "init":
                    seqs.append(said["seq"])
        assert seqs == list(range(1, 153))


def test_a_hint_that_is_lost_is_repaired_within_two_seconds(valkey: AnyRedis, open_space: Space) -> None:
    """What a publish tells is taken from Redis directly, behind the server's back: nothing is published."""
    space, key = open_space, str(open_space.all.key)
    job = space.create(claim=True)
    item = json.dumps(["event", int(time.time() * 1000), "silent", "delivered"], separators=(",", ":"))
    hash_key = f"{space.server.prefix}:{{{space.id}}}:job:{job['id']}"
    with (
        SocketViewer(space.server, f"/realtime/{job['id']}", key) as viewer,
        client_of(valkey.url) as client,
    ):
        viewer.until(lambda frame: frame["type"] == "init")
        with client.pipeline() as pipe:
            pipe.rpush(f"{hash_key}:events", item)
            pipe.hincrby(hash_key, "eventSeq", 1)
            pipe.execute()
        begun = time.monotonic()
        assert viewer.until_seq(3, 5)["data"] == "silent"
        assert time.monotonic() - begun < 2.2
        progress = json.dumps({"percent": 7, "message": "silent"})
        client.hset(hash_key, mapping={"progress": progress, "progressAt": int(time.time() * 1000)})
        begun = time.monotonic()
        assert viewer.until(lambda frame: frame["type"] == "progress", 5)["data"]["percent"] == 7
        assert time.monotonic() - begun < 2.2


@pytest.mark.parametrize("garbage", [b"", b"{", b"\xff", b'{"type":1}', b"1 2", b"a b c", b"[]"])
def test_garbage_on_the_channels_means_nothing(valkey: AnyRedis, open_space: Space, garbage: bytes) -> None:
    space, key = open_space, str(open_space.all.key)
    job = space.create(claim=True)
    prefix = space.server.prefix
    with SocketViewer(space.server, f"/realtime/{job['id']}?logs=true", key) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        for channel in (f"{{{space.id}}}:live:{job['id']}", f"{{{job['id']}}}:log:live"):
            assert valkey.publish(f"{prefix}:{channel}", garbage) == 1
        space.do(job, "logs", ["fine"])
        space.do(job, "event", 1)
        viewer.until_seq(3)
        viewer.until(lambda frame: frame["type"] == "logs")
    assert viewer.is_open is False


def hashes(script: str) -> set[bytes]:
    """What a script is called by, on one server and on a cluster."""
    return {SCRIPTS[script].sha.encode(), SHARDED[script].sha.encode()}


@pytest.mark.since("COMMANDLOG", redis=None, valkey=(8, 1))
def test_many_viewers_of_one_job_cost_few_reads(valkey: AnyRedis, open_space: Space) -> None:
    space, key = open_space, str(open_space.all.key)
    job = space.create(claim=True)
    for number in range(100):
        space.do(job, "event", number)
    valkey.cli("CONFIG", "SET", "commandlog-large-request-max-len", 10_000, "commandlog-request-larger-than", 1)
    valkey.cli("COMMANDLOG", "RESET", "large-request")
    path = f"/realtime/{job['id']}?after=50"
    viewers = [SocketViewer(space.server, path, key) for _ in range(100)]
    for viewer in viewers:
        viewer.until_seq(102)
        viewer.__exit__(None, None, None)
    notes = valkey.cli("COMMANDLOG", "GET", 10_000, "large-request")
    valkey.cli("CONFIG", "SET", "commandlog-request-larger-than", -1)
    reading = {sha for name in ("job_watch", "job_events", "job_read") for sha in hashes(name)}
    assert 1 <= sum(note[3][1] in reading for note in notes if len(note[3]) > 1) <= 3


@pytest.mark.since("COMMANDLOG", redis=None, valkey=(8, 1))
def test_the_first_viewer_of_a_job_costs_two_reads(valkey: AnyRedis, open_space: Space) -> None:
    """Valkey's log of large requests, set to note all of them, has what clients sent and not what scripts called."""
    space, key = open_space, str(open_space.all.key)
    job = space.create(claim=True)
    valkey.cli("CONFIG", "SET", "commandlog-large-request-max-len", 1000, "commandlog-request-larger-than", 1)
    with SocketViewer(space.server, f"/realtime/{job['id']}", key) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        space.do(job, "event", 1)
        viewer.until_seq(3)
    notes = valkey.cli("COMMANDLOG", "GET", 1000, "large-request")
    valkey.cli("CONFIG", "SET", "commandlog-request-larger-than", -1)
    sent = [note[3] for note in notes if any(job["id"].encode() in word for word in note[3])]
    assert sum(words[1] in hashes("job_event") for words in sent) == 1
    assert sum(words[1] in hashes("job_watch") for words in sent) == 1
    assert sum(words[2:] == [b"firstSeq", b"lastSeq"] for words in sent) == 1


def test_connections_that_end_leave_nothing_behind(open_space: Space) -> None:
    space, key = open_space, str(open_space.all.key)
    job = space.create(claim=True)
    files = f"/proc/{space.server.pid}/fd"
    before = len(os.listdir(files))
    for _ in range(30):
        with RawSocket(space.server, f"/realtime/{job['id']}", key) as socket:
            socket.read()
        with EventViewer(space.server, f"/realtime/{job['id']}", key) as viewer:
            viewer.until(lambda frame: frame["type"] == "init")
    until(lambda: len(os.listdir(files)) <= before + 4)
