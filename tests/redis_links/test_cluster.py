"""The router in front of a cluster's links, on nodes that answer what they are told: what was not run is sent on, what
may have run never is, and the map is asked for seldom."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import hiredis
import pytest

from app.model.errors import OutcomeUnknown, Unavailable
from app.redis_links import cluster, topology
from app.redis_links.cluster import ClusterLink
from app.redis_links.dialling import ByCluster, Place
from app.redis_links.link import RedisFault, ServerLink, ServerMoved
from app.redis_links.pubsub import OnConnect
from app.redis_links.scripts import SCRIPTS, Scripts
from app.redis_links.topology import Topology, slot_of
from tests.room import refusal_of
from tests.sweeping import eventually, truth

HALF = 8192
LOW = next(key for key in map(str, range(100)) if slot_of(key) < HALF)
HIGH = next(key for key in map(str, range(100)) if slot_of(key) >= HALF)
OK = b"+OK\r\n"
Words = list[bytes]
Answer = Callable[[Words], bytes | None]
Leads = Callable[["FakeNode", str], bytes]


class FakeNode:
    """A node that answers what it is told to; None closes the connection. What was heard stands in `heard`."""

    def __init__(self) -> None:
        self.answer: Answer = lambda words: OK
        self.epoch = 1
        self.map: list[tuple[int, int, FakeNode]] = []
        self.hides_hosts = False
        self.heard: list[Words] = []
        self.writes: list[list[Words]] = []
        self.asked: list[str] = []
        self.port = 0
        self.speaking: asyncio.StreamWriter
        """Where what is answered just now goes."""
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._heard_from: asyncio.StreamWriter | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Hang up on everybody."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.wait_for(asyncio.gather(*self._tasks), 5)

    def say(self, data: bytes) -> None:
        """Send this to whoever spoke last."""
        assert self._heard_from is not None
        self._heard_from.write(data)

    def ran(self, name: bytes) -> int:
        """How often a command was heard."""
        return sum(words[0] == name for words in self.heard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.append(task)
        self._writers.append(writer)
        parser = hiredis.Reader(notEnoughData=Ellipsis)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                parser.feed(data)
                if not self._answered(parser, writer):
                    break
        writer.close()

    def _answered(self, parser: Any, writer: asyncio.StreamWriter) -> bool:
        batch: list[Words] = []
        self.speaking = writer
        while (words := parser.gets()) is not Ellipsis:
            if (said := self._said(words, batch)) is None:
                return False
            writer.write(said)
        if batch:
            self.writes.append(batch)
            self._heard_from = writer
        return True

    def _said(self, words: Words, batch: list[Words]) -> bytes | None:
        if words[0] in (b"CLIENT", b"HELLO"):
            return OK
        if words[0] == b"CLUSTER":
            self.asked.append(words[1].decode())
            return self._info() if words[1] == b"INFO" else self._slots()
        self.heard.append(words)
        batch.append(words)
        return self.answer(words)

    def _info(self) -> bytes:
        text = b"cluster_state:ok\r\ncluster_current_epoch:%d\r\n" % self.epoch
        return b"$%d\r\n%s\r\n" % (len(text), text)

    def _slots(self) -> bytes:
        host = b"$-1" if self.hides_hosts else b"$9\r\n127.0.0.1"
        rows = [b"*3\r\n:%d\r\n:%d\r\n*2\r\n%s\r\n:%d\r\n" % (a, b, host, node.port) for a, b, node in self.map]
        return b"*%d\r\n" % len(rows) + b"".join(rows)

    def moved(self, key: str, host: str = "127.0.0.1") -> bytes:
        """A redirection to this node."""
        return f"-MOVED {slot_of(key)} {host}:{self.port}\r\n".encode()

    def ask(self, key: str) -> bytes:
        """A redirection of one command to this node."""
        return f"-ASK {slot_of(key)} 127.0.0.1:{self.port}\r\n".encode()


class Stage:
    """Two nodes, of which each has half of the slots, and a link."""

    def __init__(self, low: FakeNode, high: FakeNode, topology: Topology, link: ClusterLink) -> None:
        self.low, self.high, self.topology, self.link = low, high, topology, link


@contextlib.asynccontextmanager
async def staged(
    timeout_s: float, *, hides_hosts: bool = False, on_connect: OnConnect | None = None
) -> AsyncIterator[Stage]:
    low, high = FakeNode(), FakeNode()
    for node in (low, high):
        await node.open()
    for node in (low, high):
        node.map = [(0, HALF - 1, low), (HALF, 16383, high)]
        node.hides_hosts = hides_hosts
    topology = Topology(ByCluster(f"redis+cluster://127.0.0.1:{low.port},127.0.0.1:{high.port}", 1.0))
    link = ClusterLink(topology, name="test", timeout_s=timeout_s, on_connect=on_connect)
    topology.start()
    link.start()
    try:
        await link.ready(5)
        yield Stage(low, high, topology, link)
    finally:
        await link.close()
        await topology.close()
        for node in (low, high):
            await node.close()


def run(work: Callable[[Stage], Awaitable[None]], *, timeout_s: float = 3.0, **how: Any) -> None:
    """An async test to its end."""

    async def whole() -> None:
        async with staged(timeout_s, **how) as stage:
            await work(stage)

    asyncio.run(whole())


@pytest.mark.parametrize("hides_hosts", [False, True])
def test_each_command_goes_to_the_owner_of_its_key(hides_hosts: bool) -> None:
    async def work(stage: Stage) -> None:
        await asyncio.gather(*(stage.link.call("GET", key) for key in (LOW, HIGH, LOW)))
        await stage.link.call("EVALSHA", "0" * 40, 1, HIGH, "argument")
        assert [words[1] for words in stage.low.heard] == [LOW.encode()] * 2
        assert [words[0] for words in stage.high.heard] == [b"GET", b"EVALSHA"]

    run(work, hides_hosts=hides_hosts)


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_moved_is_followed_and_patches_that_one_slot_at_once(host: str) -> None:
    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: stage.high.moved(LOW, host)
        assert await stage.link.call("INCR", LOW) == b"OK"
        assert await stage.link.call("INCR", LOW) == b"OK"
        assert (stage.low.ran(b"INCR"), stage.high.ran(b"INCR")) == (1, 2)
        owners = {stage.topology.owner(slot) for slot in range(HALF) if slot != slot_of(LOW)}
        assert [owner.port for owner in owners if owner] == [stage.low.port]

    run(work)


def test_ask_is_followed_for_one_command_with_asking_before_it_in_one_write() -> None:
    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: stage.high.ask(LOW)
        calls = [stage.link.call("INCR", LOW) for _ in range(40)]
        others = [stage.link.call("GET", HIGH) for _ in range(40)]
        assert await asyncio.gather(*calls, *others) == [b"OK"] * 80
        for batch in stage.high.writes:
            names = [words[0] for words in batch]
            assert names.count(b"ASKING") == names.count(b"INCR")
            assert all(names[at - 1] == b"ASKING" for at, name in enumerate(names) if name == b"INCR")
        assert stage.high.ran(b"INCR") == 40
        await stage.link.call("INCR", LOW)
        assert stage.low.ran(b"INCR") == 41, "an ASK says nothing of the next command"

    run(work)


@pytest.mark.parametrize("error", [b"-TRYAGAIN Multiple keys\r\n", b"-CLUSTERDOWN The cluster is down\r\n"])
def test_what_is_not_run_yet_is_tried_again_until_it_runs(error: bytes) -> None:
    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: error if stage.low.ran(b"INCR") < 5 else b":7\r\n"
        assert await stage.link.call("INCR", LOW) == 7
        assert stage.low.ran(b"INCR") == 5

    run(work)


@pytest.mark.parametrize("error", [b"-TRYAGAIN Multiple keys\r\n", b"-CLUSTERDOWN The cluster is down\r\n"])
def test_what_is_not_run_in_time_is_unavailable(error: bytes) -> None:
    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: error
        begun_s = asyncio.get_running_loop().time()
        assert isinstance(await refusal_of(stage.link.call("INCR", LOW)), Unavailable)
        assert 0.4 <= asyncio.get_running_loop().time() - begun_s < 1.5
        tries = stage.low.ran(b"INCR")
        assert 2 <= tries < 30
        await asyncio.sleep(0.3)
        assert stage.low.ran(b"INCR") == tries, "who was told that nothing was done is not surprised later"

    run(work, timeout_s=0.4)


def test_calls_that_wait_for_a_slot_of_one_node_refuse_none_that_waits_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "IN_FLIGHT", 3)

    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: b"-TRYAGAIN Multiple keys\r\n"
        stage.high.answer = lambda words: stage.low.answer(words) if stage.high.ran(b"INCR") < 3 else OK
        stuck = [asyncio.ensure_future(refusal_of(stage.link.call("INCR", LOW))) for _ in range(3)]
        await eventually(lambda: truth(stage.low.ran(b"INCR") >= 3))
        assert await stage.link.call("INCR", HIGH) == b"OK"
        assert (await refusal_of(stage.link.call("INCR", LOW))).text == "Too many calls wait for Redis."
        await asyncio.gather(*stuck)
        assert not any(stage.link._sent_on.values())

    run(work, timeout_s=1.5)


@pytest.mark.parametrize("last", [16_384, 200_000, 4])
def test_a_map_with_slots_that_there_are_not_is_not_taken(last: int) -> None:
    async def work(stage: Stage) -> None:
        await stage.topology.close()
        owners = list(stage.topology._owners)
        for node in (stage.low, stage.high):
            node.map, node.epoch = [(5, last, stage.high)], 2
        with pytest.raises(ValueError, match="slots"):
            await stage.topology._refresh()
        assert stage.topology._owners == owners

    run(work)


@pytest.mark.parametrize(
    ("low", "high"),
    [*itertools.product((FakeNode.moved, FakeNode.ask), repeat=2)],
    ids=("MOVED-MOVED", "MOVED-ASK", "ASK-MOVED", "ASK-ASK"),
)
def test_two_nodes_that_send_each_other_the_command_are_not_asked_in_a_frenzy(low: Leads, high: Leads) -> None:
    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: OK if words[0] == b"ASKING" else low(stage.high, LOW)
        stage.high.answer = lambda words: OK if words[0] == b"ASKING" else high(stage.low, LOW)
        assert isinstance(await refusal_of(stage.link.call("INCR", LOW)), Unavailable)
        assert stage.low.ran(b"INCR") + stage.high.ran(b"INCR") < 30

    run(work, timeout_s=0.4)


def test_a_command_whose_link_broke_is_unknown_and_was_sent_once() -> None:
    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: None
        assert isinstance(await refusal_of(stage.link.call("INCR", LOW)), OutcomeUnknown)
        await eventually(lambda: truth(stage.link.up))
        assert stage.low.ran(b"INCR") + stage.high.ran(b"INCR") == 1

    run(work)


def test_a_command_that_was_sent_on_and_whose_link_broke_is_unknown() -> None:
    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: stage.high.moved(LOW)
        stage.high.answer = lambda words: None
        assert isinstance(await refusal_of(stage.link.call("INCR", LOW)), OutcomeUnknown)
        assert stage.high.ran(b"INCR") == 1

    run(work)


def test_a_pipeline_is_split_by_owner_one_write_each_and_answered_in_order() -> None:
    async def work(stage: Stage) -> None:
        for node in (stage.low, stage.high):
            node.answer = lambda words: b"+%s\r\n" % words[2]
        commands = [("HGET", LOW if at % 3 else HIGH, str(at)) for at in range(30)]
        assert await stage.link.pipeline(*commands) == [b"%d" % at for at in range(30)]
        assert (len(stage.low.writes), len(stage.high.writes)) == (1, 1)

    run(work)


def test_of_a_pipeline_only_what_was_not_run_is_sent_on() -> None:
    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: stage.high.moved(LOW) if words[2] == b"1" else b"+low\r\n"
        stage.high.answer = lambda words: b"+high\r\n"
        commands = [("HGET", LOW, str(at)) for at in range(3)]
        assert await stage.link.pipeline(*commands) == [b"low", b"high", b"low"]
        assert (stage.low.ran(b"HGET"), stage.high.ran(b"HGET")) == (3, 1)

    run(work)


@pytest.mark.parametrize(
    ("done", "failed", "outcome"),
    [
        (("INCR", HIGH), b"-OOM command not allowed\r\n", OutcomeUnknown),
        (("HGET", HIGH, "field"), b"-OOM command not allowed\r\n", Unavailable),
        (("INCR", HIGH), b"-TRYAGAIN Multiple keys\r\n", OutcomeUnknown),
        (("INCR", HIGH), b"-ERR a bug\r\n", RedisFault),
    ],
)
def test_nobody_says_that_nothing_was_done_when_a_part_was(
    done: tuple[str, ...], failed: bytes, outcome: type[Exception]
) -> None:
    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: failed
        for commands in ((("INCR", LOW), done), (done, ("INCR", LOW))):
            with pytest.raises(outcome):
                await stage.link.pipeline(*commands)

    run(work, timeout_s=0.2)


def test_a_pipeline_with_an_owner_that_is_away_sends_nothing() -> None:
    async def work(stage: Stage) -> None:
        await stage.low.close()
        await eventually(lambda: truth(not stage.link.up))
        with pytest.raises(Unavailable):
            await stage.link.pipeline(("INCR", HIGH), ("INCR", LOW))
        assert stage.high.ran(b"INCR") == 0

    run(work)


def test_a_cast_is_sent_on_too() -> None:
    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: stage.high.moved(LOW)
        stage.link.cast("INCR", LOW)
        await eventually(lambda: truth(stage.high.ran(b"INCR") == 1))

    run(work)


def test_a_script_that_the_node_behind_an_ask_has_not_got_is_sent_there_and_runs_once() -> None:
    async def work(stage: Stage) -> None:
        def answer(words: Words) -> bytes:
            return b"-NOSCRIPT No matching script\r\n" if words[0] == b"EVALSHA" else b"*1\r\n$2\r\nok\r\n"

        stage.low.answer = lambda words: stage.high.ask(LOW)
        stage.high.answer = lambda words: OK if words[0] == b"ASKING" else answer(words)
        assert await Scripts(stage.link).run("secret_keep", [LOW], ["x"]) == []
        assert [words[0] for words in stage.high.heard] == [b"ASKING", b"EVALSHA", b"ASKING", b"EVAL"]
        assert stage.high.heard[-1][1] == SCRIPTS["secret_keep"].text.encode()

    run(work)


def test_the_map_is_asked_for_beside_the_calls_at_most_once_a_second_however_many_are_redirected() -> None:
    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: stage.high.moved(words[1].decode())
        keys = [key for key in map(str, range(2000)) if slot_of(key) < HALF]
        begun_s, before = asyncio.get_running_loop().time(), len(stage.low.asked) + len(stage.high.asked)
        while asyncio.get_running_loop().time() - begun_s < 1.5:
            await asyncio.gather(*(stage.link.call("INCR", key) for key in keys[:100]))
            keys = keys[100:] or keys
        asked = stage.low.asked + stage.high.asked
        assert asked.count("INFO") <= 4
        assert len(asked) - before <= 6

    run(work)


def test_a_map_that_nothing_contradicts_is_taken_again_only_when_the_epoch_is_another_one() -> None:
    async def work(stage: Stage) -> None:
        asked = stage.low.asked, stage.high.asked
        await eventually(lambda: truth(sum(one.count("INFO") for one in asked) >= 3), within_s=15)
        assert sum(one.count("SLOTS") for one in asked) == 1
        for node in (stage.low, stage.high):
            node.epoch = 2
            node.map = [(0, 16383, stage.high)]
        await eventually(lambda: truth(stage.topology.primaries == (("127.0.0.1", stage.high.port),)), within_s=15)
        assert sum(one.count("SLOTS") for one in asked) == 2

    run(work)


def test_a_map_that_is_old_is_taken_again_for_a_slot_may_have_moved_under_the_same_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topology, "MAP_S", 0.5)

    async def work(stage: Stage) -> None:
        for node in (stage.low, stage.high):
            node.map = [(0, 16383, stage.high)]
        await eventually(lambda: truth(stage.topology.primaries == (("127.0.0.1", stage.high.port),)), within_s=15)

    run(work)


def test_a_node_that_is_behind_is_not_believed() -> None:
    async def work(stage: Stage) -> None:
        stage.low.epoch, stage.high.epoch = 5, 4
        stage.low.map = [(0, 16383, stage.low)]
        stage.high.map = [(0, 16383, stage.high)]
        await eventually(lambda: truth(stage.topology.primaries == (("127.0.0.1", stage.low.port),)), within_s=15)
        before = len(stage.high.asked)
        for _ in range(30):
            stage.topology.doubt()
            await stage.topology._refresh()
        assert len(stage.high.asked) > before
        assert stage.topology.primaries == (("127.0.0.1", stage.low.port),)

    run(work)


def test_a_change_before_the_waiting_for_it_begins_is_not_missed() -> None:
    async def work(stage: Stage) -> None:
        await stage.topology.close()
        waiting = asyncio.ensure_future(stage.topology.changed())
        stage.topology.moved(0, *reversed(stage.topology.primaries))
        await asyncio.wait_for(waiting, 5)

    run(work)


def test_a_doubt_lasts_until_a_node_has_told_its_map(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(stage: Stage) -> None:
        await stage.topology.close()
        low, high = (Place("127.0.0.1", node.port) for node in (stage.low, stage.high))
        monkeypatch.setattr(stage.topology, "_in_any_order", lambda: [low, high])
        monkeypatch.setattr(stage.low, "_slots", lambda: b"-ERR not now\r\n")
        stage.high.map = [(0, 16383, stage.high)]
        stage.topology.doubt()
        await stage.topology._refresh()
        assert stage.topology.primaries == (high,)

    run(work)


def test_after_a_bug_the_map_is_followed_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def work(stage: Stage) -> None:
        with monkeypatch.context() as patch:
            for node in (stage.low, stage.high):
                patch.setattr(node, "_info", lambda: b"$3\r\nodd\r\n")
            await eventually(lambda: truth("reading the map of the Redis cluster failed" in caplog.text), within_s=15)
        for node in (stage.low, stage.high):
            node.epoch, node.map = 2, [(0, 16383, stage.high)]
        await eventually(lambda: truth(stage.topology.primaries == (("127.0.0.1", stage.high.port),)), within_s=15)

    run(work)


def test_whoever_listens_is_told_of_another_owner_before_the_call_is_sent_on() -> None:
    async def work(stage: Stage) -> None:
        told: list[int] = []
        stage.topology.on_change(lambda slot: told.append(stage.high.ran(b"INCR")))
        stage.low.answer = lambda words: stage.high.moved(LOW)
        await stage.link.call("INCR", LOW)
        assert told[0] == 0

    run(work)


def test_whose_role_may_change_while_it_is_asked_is_asked_once_more() -> None:
    asked: list[object] = []
    answered = asyncio.Event()

    async def identify(link: ServerLink) -> None:
        asked.append(link.place)
        await answered.wait()

    async def work(stage: Stage) -> None:
        high = stage.link.servers()[1]
        asked.clear()
        answered.clear()
        for _ in range(2):
            high.identify_again()
            await eventually(lambda: truth(len(asked) > 0))
        answered.set()
        await high.ready(1)
        assert asked == [high.place, high.place]

    answered.set()
    run(work, on_connect=identify)


@pytest.mark.parametrize(
    "error", ["MOVED", "MOVED 1", "ASK 1 nowhere", "MOVED x 127.0.0.1:1", "MOVED 1 127.0.0.1:port"]
)
def test_a_redirection_that_leads_nowhere_is_a_fault_and_holds_up_no_call(error: str) -> None:
    async def work(stage: Stage) -> None:
        stage.low.answer = lambda words: f"-{error}\r\n".encode() if words[0] == b"INCR" else OK
        async with asyncio.timeout(2):
            for _ in range(2):
                with pytest.raises(RedisFault):
                    await stage.link.call("INCR", LOW)
            assert await stage.link.call("GET", LOW) == b"OK"

    run(work)


def test_a_node_that_is_no_primary_after_an_ask_led_to_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "RETIRE_S", 0.05)

    async def work(stage: Stage) -> None:
        other = FakeNode()
        await other.open()
        try:
            stage.low.answer = lambda words: other.ask(LOW)
            assert await stage.link.call("INCR", LOW) == b"OK"
            await eventually(lambda: truth(len(stage.link._servers) == 2 and not stage.link._retiring))
            assert await stage.link.call("INCR", LOW) == b"OK"
        finally:
            await other.close()

    run(work)


def test_a_map_that_flaps_leaves_one_task_for_each_node_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(stage: Stage) -> None:
        stage.topology.primaries = stage.topology.primaries[:1]
        for _ in range(100):
            stage.link._follow(None)
        assert len(stage.link._background._tasks) == 1

    run(work)


def test_a_call_that_waits_while_the_link_closes_opens_no_other() -> None:
    async def work(stage: Stage) -> None:
        late = ClusterLink(stage.topology, name="late", timeout_s=1.0)
        late.start()
        stage.topology._owners[slot_of(LOW)] = None
        call = asyncio.ensure_future(late.call("INCR", LOW))
        await asyncio.sleep(0)
        await late.close()
        stage.topology.moved(slot_of(LOW), *stage.topology.primaries)
        assert isinstance(await refusal_of(call), Unavailable)
        assert not late._servers

    run(work)


def test_a_node_whose_map_cannot_be_read_keeps_nobody_from_that_of_another() -> None:
    async def work(stage: Stage) -> None:
        stage.low._slots = lambda: b"*1\r\n*3\r\n:0\r\n:1\r\n*0\r\n"  # type: ignore[method-assign]
        stage.high.map = [(0, 16383, stage.high)]
        for epoch in range(2, 6):
            stage.low.epoch = stage.high.epoch = epoch
            asked = stage.high.asked.count("SLOTS")
            await stage.topology._refresh()
            assert stage.high.asked.count("SLOTS") == asked + 1

    run(work)


def test_a_primary_that_is_not_needed_has_no_link() -> None:
    async def work(stage: Stage) -> None:
        lazy = ClusterLink(stage.topology, name="lazy", timeout_s=1.0)
        lazy.start()
        await lazy.call("GET", LOW)
        assert [place.port for place in lazy._servers] == [stage.low.port]
        await lazy.close()

    run(work)


def test_commands_without_a_key_have_a_link_to_each_primary() -> None:
    async def work(stage: Stage) -> None:
        replies: list[Any] = [await server.call("INFO") for server in stage.link.servers()]
        assert replies == [b"OK", b"OK"]
        assert (stage.low.ran(b"INFO"), stage.high.ran(b"INFO")) == (1, 1)
        assert stage.link.server_of(LOW) is stage.link.servers()[0]

    run(work)


def test_the_link_to_a_node_that_is_no_primary_any_more_is_closed_when_it_has_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "RETIRE_S", 0.05)

    async def work(stage: Stage) -> None:
        retired = stage.link.server_of(LOW)
        stage.low.answer = lambda words: b""
        call = asyncio.ensure_future(stage.link.call("INCR", LOW))
        await eventually(lambda: truth(stage.low.ran(b"INCR") == 1))
        for node in (stage.low, stage.high):
            node.epoch, node.map = 2, [(0, 16383, stage.high)]
        stage.topology.doubt()
        await eventually(lambda: truth(retired not in stage.link._servers.values()), within_s=15)
        assert retired.up
        stage.low.say(b":1\r\n")
        assert await call == 1
        await eventually(lambda: truth(not retired.up))

    run(work, timeout_s=20.0)


async def lead_away_and_back(stage: Stage) -> None:
    """The high node leads to the low one, which then leads back to it."""
    stage.high.answer = lambda words: stage.low.moved(HIGH)
    await stage.link.call("GET", HIGH)
    stage.high.answer = lambda words: OK
    stage.low.answer = lambda words: stage.high.moved(HIGH)


def test_who_is_given_many_slots_is_not_asked_again_who_it_is() -> None:
    asked: list[str] = []

    async def identify(link: ServerLink) -> None:
        asked.append(link.name)

    async def work(stage: Stage) -> None:
        before = len(asked)
        keys = [key for key in map(str, range(200)) if slot_of(key) < HALF]
        stage.low.answer = lambda words: stage.high.moved(words[1].decode())
        for key in keys:
            await stage.link.call("INCR", key)
        assert stage.high.ran(b"INCR") == len(keys)
        assert len(asked) == before

    run(work, on_connect=identify)


@pytest.mark.parametrize("how", ["a node says so", "the map says so"])
def test_who_has_become_a_primary_again_is_asked_who_it_is_before_a_call_goes_over_the_same_connection(
    how: str,
) -> None:
    asked: list[object] = []
    known = asyncio.Event()

    async def identify(link: ServerLink) -> None:
        asked.append(link._transport)
        await link.at_once(("INFO",))
        await known.wait()

    async def work(stage: Stage) -> None:
        before = len(asked)
        known.clear()
        if how == "a node says so":
            await lead_away_and_back(stage)
        else:
            for node in (stage.low, stage.high):
                node.epoch += 2  # one to go, one to come back: the slots are where they were
            stage.topology.doubt()
            await eventually(lambda: truth(len(asked) > before + 1))
        call = asyncio.ensure_future(stage.link.call("INCR", HIGH))
        await eventually(lambda: truth(len(asked) > before))
        await asyncio.sleep(0)
        ran = stage.high.ran(b"INCR")
        known.set()
        assert await call == b"OK"
        assert (ran, stage.high.ran(b"INCR")) == (0, 1)
        assert set(asked[before:]) <= set(asked[:before]), "no connection is new"

    known.set()
    run(work, on_connect=identify)


@pytest.mark.parametrize("failure", [ServerMoved(), KeyError("cluster_state")])
def test_who_has_become_a_primary_again_and_cannot_be_asked_is_connected_to_anew(failure: Exception) -> None:
    asked: list[object] = []

    async def identify(link: ServerLink) -> None:
        asked.append(link._transport)
        if len(asked) == 3:
            raise failure

    async def work(stage: Stage) -> None:
        assert len(asked) == 2
        await lead_away_and_back(stage)
        assert await stage.link.call("INCR", HIGH) == b"OK"
        assert asked[2] in asked[:2]
        assert asked[3] not in asked[:2]

    run(work, on_connect=identify)
