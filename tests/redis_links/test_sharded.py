"""Messages by sharded pub/sub, as a cluster wants them: what comes live still comes live, and on no other way."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app.model.redis_keys import Keys
from tests.any_redis import AnyRedis
from tests.factories import Space
from tests.server import Server
from tests.valkey import until
from tests.viewers import SocketViewer

pytestmark = pytest.mark.one_server("messages of a cluster are sharded in every test")


@pytest.fixture(scope="module")
def space(valkey: AnyRedis) -> Iterator[Space]:
    with Server(valkey.url, JOBWIRE_SHARDED_PUBSUB="1") as server:
        yield Space(server)


def subscribed(valkey: AnyRedis) -> set[str]:
    assert valkey.cli("PUBSUB", "CHANNELS") == [], "nothing goes the plain way"
    return {channel.decode() for channel in valkey.cli("PUBSUB", "SHARDCHANNELS")}


def test_events_progress_and_lines_reach_a_viewer(valkey: AnyRedis, space: Space) -> None:
    keys, job = Keys(space.server.prefix), space.create(claim=True)
    with SocketViewer(space.server, f"/realtime/{job['id']}?logs=true", str(space.all.key)) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        assert subscribed(valkey) >= {keys.live(space.id, job["id"]), keys.log_live(job["id"])}
        space.do(job, "ack")
        space.do(job, "progress", {"percent": 10, "message": "on its way"})
        viewer.until(lambda frame: frame["type"] == "progress")
        space.do(job, "logs", ["one", "two"])
        space.do(job, "complete")
        viewer.until(lambda frame: frame["type"] == "completed")
        assert viewer.types() == ["init", "started", "progress", "logs", "completed"]


def test_a_job_that_becomes_pending_wakes_who_waits(valkey: AnyRedis, space: Space) -> None:
    wake = Keys(space.server.prefix).wake(space.id)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(space.poll, waitSeconds=20)
        until(lambda: wake in subscribed(valkey))
        job = space.create()
        assert [taken["id"] for taken in waiting.result(10)] == [job["id"]]


def test_the_server_is_ready(space: Space) -> None:
    until(lambda: httpx.get(f"{space.server.url}/readyz").status_code == 200)
