"""Messages of a history that the store has not got: a primary sends them that was replaced while it stood still. What
they told is taken back as soon as the store's own messages contradict them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.factories import Space
from tests.live.checker import Truth, settle
from tests.live.crowd import Crowd
from tests.live.followers import JobFollower, SpaceFollower
from tests.server import Server
from tests.valkey import client_of, until

pytestmark = pytest.mark.valkey_only("its messages are the real ones")


def is_sharded(client: Any) -> bool:
    """Whether scripts publish to the channel's shard: on a cluster they do."""
    return isinstance(client, redis.RedisCluster)


def publish(client: Any, channel: str, message: str) -> None:
    """Tell those who listen to a channel, as scripts do."""
    assert client.execute_command("SPUBLISH" if is_sharded(client) else "PUBLISH", channel, message) > 0


class Watched:
    """A job that runs, with an event and lines, and viewers of it and of its space."""

    def __init__(self, server: Server, space: Space) -> None:
        self.server, self.space = server, space
        self.job = space.create(claim=True)
        space.do(self.job, "ack")
        self.write("before")
        key = str(space.all.key)
        self.viewers: list[Any] = [
            *(JobFollower(lambda: server.url, self.job["id"], key, by_events=by_events) for by_events in (False, True)),
            SpaceFollower(lambda: server.url, space.id, key),
        ]
        self.crowd = Crowd(self.viewers)
        settle(self.crowd, self.truth)

    def write(self, text: str) -> None:
        """An event and two lines."""
        self.space.do(self.job, "event", {"at": text})
        self.space.do(self.job, "logs", [text, text])

    def truth(self) -> Truth:
        return Truth(self.server.redis_url, self.server.prefix, self.space.id, [self.job["id"]])

    def stray(self) -> None:
        """The messages of the next event and of three more lines, which are nowhere."""
        prefix, space, job = self.server.prefix, self.space.id, self.job["id"]
        with client_of(self.server.redis_url) as client:
            ((_, newest),) = client.xrevrange(f"{prefix}:{{{space}}}:feed", count=1)
            event = json.loads(newest[b"event"])
            event |= {"seq": event["seq"] + 1, "feed": event["feed"] + 1, "data": {"at": "nowhere"}}
            for channel in (f"{prefix}:{{{space}}}:live:{job}", f"{prefix}:{{{space}}}:live"):
                publish(client, channel, json.dumps(event))
            at_ms, seq = event["at"], self.truth().line_seqs[job]
            lines = json.dumps([{"message": "nowhere"}] * 3)
            publish(client, f"{prefix}:{{{job}}}:log:live", f"{seq + 1} {seq + 3} {at_ms} {lines}")


@pytest.fixture
def watched(server: Server, space: Space) -> Iterator[Watched]:
    made = Watched(server, space)
    yield made
    made.crowd.close()


def test_what_only_messages_told_is_taken_back_when_the_store_has_something_else(watched: Watched) -> None:
    before = watched.truth()
    watched.stray()
    job, line_seq = watched.job["id"], before.line_seqs[watched.job["id"]]
    until(lambda: all(viewer.lines.position == line_seq + 3 for viewer in watched.crowd.job_followers))
    until(lambda: all(v.events.position == before.jobs[job].event_seq + 1 for v in watched.crowd.job_followers))
    watched.write("after")
    settle(watched.crowd, watched.truth)
    for viewer in watched.crowd.job_followers:
        assert [reason for *_, reason in viewer.events.gaps] == ["rolled_back"]
        assert [reason for *_, reason in viewer.lines.gaps] == ["rolled_back"]


def test_what_the_store_has_is_not_taken_back_because_of_a_message_that_contradicts_it(watched: Watched) -> None:
    with client_of(watched.server.redis_url) as client:
        channel = f"{watched.server.prefix}:{{{watched.space.id}}}:live"
        hints = client.pubsub()
        (hints.ssubscribe if is_sharded(client) else hints.subscribe)(channel)
        told: list[dict[str, Any]] = []

        def is_told(kind: str) -> bool:
            told.extend(filter(None, [hints.get_sharded_message(timeout=1)]))
            return bool(told) and told[-1]["type"] in (kind, f"s{kind}")

        until(lambda: is_told("subscribe"))
        watched.write("true")
        until(lambda: is_told("message"))
        event = json.loads(told[-1]["data"])
        settle(watched.crowd, watched.truth)
        publish(client, channel, json.dumps({**event, "data": {"at": "nowhere"}}))
        publish(client, f"{channel}:{watched.job['id']}", json.dumps({**event, "data": {"at": "nowhere"}}))
        hints.close()
    watched.write("after")
    settle(watched.crowd, watched.truth)
    assert not any(viewer.events.gaps for viewer in watched.crowd.job_followers)
    assert not watched.viewers[-1].feed.gaps
