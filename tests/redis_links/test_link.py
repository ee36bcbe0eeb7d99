"""The link to Redis: answers in order, failures that tell the truth, and nothing ever sent twice."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop
from redis.asyncio.connection import Connection

from app.model.errors import Outage
from app.redis_links import link as link_module
from app.redis_links.dialling import BySentinel, Plain, connected, connector
from app.redis_links.link import REDIS_REFUSALS, RedisFault, ScriptUnknown, ServerLink
from app.redis_links.scripts import Scripts
from tests.any_redis import AnyRedis
from tests.room import Room, refusal_of
from tests.sweeping import eventually, truth

PONG = b"+PONG\r\n"
Answer = Callable[[bytes], bytes | None]


class FakeRedis:
    """A server that answers what it is told to: None closes the connection, b"" says nothing."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self.connections = 0
        self.tasks: list[asyncio.Task[None]] = []
        self._writer: asyncio.StreamWriter | None = None

    def say(self, data: bytes) -> None:
        """Send this, asked or not."""
        assert self._writer is not None
        self._writer.write(data)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        self._writer = writer
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if b"CLIENT" in data or b"SETINFO" in data:
                    writer.write(b"+OK\r\n" * data.count(b"SETINFO"))
                    continue
                self.heard.append(data)
                said = self.answer(data)
                if said is None:
                    break
                writer.write(said)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def linked(answer: Answer, *, timeout_s: float = 3.0) -> AsyncIterator[tuple[ServerLink, FakeRedis]]:
    """A link that stands, to a fake server."""
    fake = FakeRedis(answer)
    server = await asyncio.start_server(fake, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    link = ServerLink(connector(f"redis://127.0.0.1:{port}", timeout_s), name="test", timeout_s=timeout_s)
    link.start()
    try:
        await link.ready(5)
        yield link, fake
    finally:
        await link.close()
        server.close()
        await asyncio.gather(*fake.tasks)


async def test_answers_belong_to_their_calls_however_many_wait(room: Room) -> None:
    answers = await asyncio.gather(*(room.call("ECHO", number) for number in range(5000)))
    assert answers == [b"%d" % number for number in range(5000)]


async def test_a_command_whose_answer_is_lost_is_unknown_and_was_sent_once() -> None:
    async with linked(lambda data: None if b"INCR" in data else PONG) as (link, fake):
        assert (await refusal_of(link.call("INCR", "k"))).code == "outcome_unknown"
        await eventually(lambda: truth(link.up))
        assert await link.call("PING") == b"PONG"
        assert sum(data.count(b"INCR") for data in fake.heard) == 1
        assert fake.connections == 2


async def test_a_server_that_says_nothing_breaks_the_link_after_the_timeout() -> None:
    async with linked(lambda data: b"", timeout_s=0.3) as (link, fake):
        begun = asyncio.get_running_loop().time()
        refusals = await asyncio.gather(*(refusal_of(link.call("INCR", "k")) for _ in range(3)))
        assert {refusal.code for refusal in refusals} == {"outcome_unknown"}
        assert 0.3 <= asyncio.get_running_loop().time() - begun < 1
        assert sum(data.count(b"INCR") for data in fake.heard) == 3


async def test_an_answer_that_is_long_in_coming_is_no_stall_while_bytes_arrive() -> None:
    async with linked(lambda data: b"", timeout_s=0.4) as (link, fake):
        call = asyncio.ensure_future(link.call("GET", "k"))
        await eventually(lambda: truth(fake.heard))
        begun = asyncio.get_running_loop().time()
        fake.say(b"$20\r\n")
        for _ in range(20):
            await asyncio.sleep(0.06)
            fake.say(b"x")
        fake.say(b"\r\n")
        assert await call == b"x" * 20
        assert asyncio.get_running_loop().time() - begun > 2 * link.timeout_s
        assert fake.connections == 1


async def test_an_answer_that_stops_half_way_is_a_stall() -> None:
    async with linked(lambda data: b"$1000\r\nhalf of it", timeout_s=0.3) as (link, _):
        assert (await refusal_of(link.call("GET", "k"))).code == "outcome_unknown"


def test_time_in_which_this_process_stood_still_is_no_silence_of_the_server(valkey: AnyRedis) -> None:
    async def work() -> None:
        link = ServerLink(connector(valkey.url, 0.3), name="test", timeout_s=0.3)
        link.start()
        for _ in range(3):
            await link.ready(5)
            call = asyncio.ensure_future(link.call("PING"))
            await asyncio.sleep(0.01)
            call = asyncio.ensure_future(link.call("PING"))
            asyncio.get_running_loop().call_soon(stand_still, 2 * link.timeout_s)
            assert await call == b"PONG"
        await link.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())


def stand_still(seconds: float) -> None:
    """Keep the event loop from everything else."""
    time.sleep(seconds)


async def test_a_connection_that_is_lost_as_soon_as_it_stands_is_made_anew_ever_later() -> None:
    async with linked(lambda data: PONG) as (link, fake):
        begun = asyncio.get_running_loop().time()
        for connections in range(2, 7):
            await eventually(lambda: truth(link.up))
            link.reconnect()
            await eventually(lambda: truth(fake.connections >= connections))  # noqa: B023
        assert asyncio.get_running_loop().time() - begun >= sum(link_module.RECONNECT_S * 2**n for n in range(5))


async def test_a_connection_that_is_lost_when_it_has_stood_is_made_anew_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "STOOD_S", 0.0)
    monkeypatch.setattr(link_module, "RECONNECT_MOST_S", 60.0)
    async with linked(lambda data: PONG) as (link, fake):
        for connections in range(2, 12):  # with pauses that double, the last one alone takes 10 s
            await eventually(lambda: truth(link.up))
            link.reconnect()
            await eventually(lambda: truth(fake.connections >= connections), within_s=5)  # noqa: B023


class Swallowing:
    """A connection of a library that goes on when it is cancelled while it shakes hands."""

    def __init__(self) -> None:
        self.is_open = False

    async def connect(self) -> None:
        self.is_open = True
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    async def disconnect(self, nowait: bool) -> None:
        self.is_open = not nowait


async def test_a_link_that_is_closed_while_a_connection_is_made_ends_and_leaves_none() -> None:
    made: Any = Swallowing()
    connecting = asyncio.ensure_future(connected(made))
    await eventually(lambda: truth(made.is_open))
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert not made.is_open


async def test_a_call_while_there_is_no_connection_is_unavailable_and_never_sent() -> None:
    link = ServerLink(connector("redis://127.0.0.1:1", 1.0), name="test", timeout_s=1.0)
    link.start()
    assert (await refusal_of(link.call("INCR", "k"))).code == "unavailable"
    assert (await refusal_of(link.pipeline(("INCR", "k"), ("INCR", "k")))).code == "unavailable"
    link.cast("INCR", "k")
    await link.close()


async def test_a_link_that_goes_at_the_moment_of_a_call_refuses_it_and_shifts_no_later_answer(room: Room) -> None:
    link = room.backend.control.server_of("any")
    link._drop()
    link._up.set()
    assert (await refusal_of(link.call("ECHO", "lost"))).code == "unavailable"
    link._up.clear()
    await link.ready(5)
    assert [await link.call("ECHO", word) for word in ("a", "b", "c")] == [b"a", b"b", b"c"]


async def test_too_many_waiting_calls_are_refused_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "IN_FLIGHT", 10)
    async with linked(lambda data: b"") as (link, fake):
        waiting = [asyncio.ensure_future(link.call("INCR", "k")) for _ in range(8)]
        await eventually(lambda: truth(sum(data.count(b"INCR") for data in fake.heard) == 8))
        assert (await refusal_of(link.pipeline(*[("DECR", "k")] * 3))).code == "unavailable"
        for call in waiting:
            call.cancel()
        assert not any(b"DECR" in data for data in fake.heard)


async def test_a_pipeline_raises_its_first_failure_when_all_has_been_answered(room: Room) -> None:
    link = room.backend.control.server_of("any")
    with pytest.raises(RedisFault, match="FIRST"):
        await link.pipeline(("FIRST",), ("ECHO", "between"), ("SECOND",))
    assert not link._waiting
    assert await link.pipeline(("ECHO", "a"), ("ECHO", "b")) == [b"a", b"b"]


async def test_a_pipeline_that_is_given_up_shifts_no_later_answer(room: Room) -> None:
    link = room.backend.control.server_of("any")
    given_up = asyncio.ensure_future(link.pipeline(("ECHO", "a"), ("FIRST",), ("SECOND",)))
    await asyncio.sleep(0)  # the task has made its calls
    assert len(link._waiting) >= 3
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert [await link.call("ECHO", word) for word in ("a", "b")] == [b"a", b"b"]


@pytest.mark.parametrize("word", REDIS_REFUSALS)
async def test_error_replies_after_which_nothing_was_done_are_unavailable(word: str) -> None:
    async with linked(lambda data: f"-{word} because\r\n".encode()) as (link, _):
        refusal = await refusal_of(link.call("SET", "k", "v"))
        assert (refusal.code, refusal.text) == ("unavailable", REDIS_REFUSALS[word])
        assert refusal.headers["retry-after"]


@pytest.mark.one_server("it is about one link; those of a cluster are in tests/redis_links/test_cluster.py")
async def test_other_error_replies_are_faults_and_noscript_is_told_apart(room: Room) -> None:
    with pytest.raises(RedisFault):
        await room.call("NO-SUCH-COMMAND")
    with pytest.raises(ScriptUnknown):
        await room.call("EVALSHA", "0" * 40, 0)
    await room.call("SCRIPT", "FLUSH")
    assert await Scripts(room.backend.control).run("ready_probe", [room.keys.probe], [])
    await room.call("SCRIPT", "FLUSH")
    calls = [([room.keys.space("S")], [1000])] * 2
    assert await Scripts(room.backend.control).read_many("space_due", calls) == [[None, None]] * 2


@pytest.mark.one_server("it is about one link; those of a cluster are in tests/redis_links/test_cluster.py")
async def test_a_server_that_moved_is_left(room: Room) -> None:
    class Moving(Plain):
        """Its server has moved once."""

        asked = 0

        async def has_moved(self, connection: Connection) -> bool:
            self.asked += 1
            return self.asked == 1

    moving = Moving(room.settings.redis_url, 3.0)
    link = ServerLink(moving, name="test", timeout_s=3.0)
    link.start()
    await link.ready(5)
    before = await link.call("CLIENT", "ID")
    await eventually(lambda: truth(moving.asked), 3)
    assert await link.call("CLIENT", "ID") != before
    await link.close()


def test_a_sentinel_url_names_hosts_service_and_database() -> None:
    made = connector("redis+sentinel://me:secret@one,two:7000/jobs/3", 1.0)
    assert isinstance(made, BySentinel)
    assert made._sentinels._places == [("one", 26379), ("two", 7000)]
    assert (made._sentinels._service, made._options["db"], made._options["password"]) == ("jobs", 3, "secret")


@pytest.mark.parametrize("url", ["redis+sentinel://one:26379", "http://one", "redis+cluster://", "nonsense"])
def test_a_url_that_cannot_be_used_is_said_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        connector(url, 1.0)


async def test_a_refusal_tells_no_secret() -> None:
    link = ServerLink(connector("redis://me:hunter2@127.0.0.1:1", 1.0), name="test", timeout_s=1.0)
    link.start()
    try:
        await link.call("PING")
    except Outage as outage:
        told = str(outage.body())
    await link.close()
    assert "hunter2" not in told
