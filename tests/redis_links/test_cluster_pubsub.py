"""Messages of a cluster, on nodes that answer what they are told: where each channel is heard, and what is told when it
moves, when a node ends a subscription, refuses it, or is deaf."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from time import perf_counter

import pytest

from app.redis_links import pubsub
from app.redis_links.cluster import ClusterLink
from app.redis_links.cluster_pubsub import ClusterRelay
from app.redis_links.dialling import Place
from app.redis_links.topology import slot_of, tag_of
from tests.redis_links.test_cluster import HALF, FakeNode, Stage, Words, staged
from tests.sweeping import eventually, truth

LOW, ALSO_LOW, HIGH = (f"{{{tag_of(slot)}}}:live" for slot in (0, 1, HALF))
Heard = list[bytes | None]


def packed(*items: bytes) -> bytes:
    """What a node sends to a subscriber."""
    return b"*%d\r\n" % len(items) + b"".join(b"$%d\r\n%s\r\n" % (len(item), item) for item in items)


class Publisher:
    """Makes a node answer as one that owns every channel, unless it is told to refuse; it hears its probes."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.refusal = b""
        self.is_deaf = False
        self.subscriptions: list[list[str]] = []
        self.writer: asyncio.StreamWriter | None = None
        node.answer = self.answer

    def answer(self, words: Words) -> bytes:
        if words[0] == b"SPUBLISH":
            if not self.is_deaf:
                self.send(b"smessage", words[1], words[2])
            return b":1\r\n"
        if words[0] not in (b"SSUBSCRIBE", b"SUNSUBSCRIBE"):
            return b"+OK\r\n"
        self.writer = self.node.speaking
        if words[0] == b"SSUBSCRIBE":
            self.subscriptions.append([word.decode() for word in words[1:]])
            if self.refusal:
                return self.refusal
        return b"".join(packed(words[0].lower(), word, b"1") for word in words[1:])

    def send(self, *items: bytes) -> None:
        """Send to the subscriber what it did not ask for."""
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(packed(*items))

    def asked(self, channel: str) -> int:
        """How often a channel was subscribed to."""
        return sum(channel in names for names in self.subscriptions)


class Relayed:
    """Two nodes that publish, and a relay."""

    def __init__(self, stage: Stage, relay: ClusterRelay) -> None:
        self.stage, self.relay = stage, relay
        self.low, self.high = Publisher(stage.low), Publisher(stage.high)
        self.heard: dict[str, Heard] = {}

    async def listen(self, *channels: str) -> None:
        """Listen to channels; what is heard stands in `heard`."""
        for channel in channels:
            self.heard[channel] = []
            await self.relay.subscribe(channel, self.heard[channel].append)

    def move(self, first: int, last: int) -> None:
        """Slots of the low node are those of the high one; whoever asks for the map is told."""
        rest = [
            (a, b, node)
            for a, b, node in ((0, first - 1, self.stage.low), (last + 1, HALF - 1, self.stage.low))
            if a <= b
        ]
        for node in (self.stage.low, self.stage.high):
            node.map = [*rest, (first, last, self.stage.high), (HALF, 16383, self.stage.high)]
            node.epoch += 1


def run(work: Callable[[Relayed], Awaitable[None]]) -> None:
    """An async test to its end."""

    async def whole() -> None:
        async with staged(3.0) as stage, contextlib.AsyncExitStack() as stack:
            control = ClusterLink(stage.topology, name="control", timeout_s=3.0, sharded=True)
            relay = ClusterRelay(stage.topology, control, probe_of=lambda tag: f"{{{tag}}}:probe", timeout_s=3.0)
            relayed = Relayed(stage, relay)
            control.start()
            stack.push_async_callback(control.close)
            relay.start()
            stack.push_async_callback(relay.close)
            await eventually(lambda: truth(relay.live))
            await work(relayed)

    asyncio.run(whole())


def slots_of_commands(publisher: Publisher) -> list[set[int]]:
    return [{slot_of(name) for name in names} for names in publisher.subscriptions]


def test_each_channel_is_heard_at_its_owner_and_nowhere_else() -> None:
    async def work(relayed: Relayed) -> None:
        await relayed.listen(LOW, HIGH)
        relayed.low.send(b"smessage", LOW.encode(), b"one")
        relayed.high.send(b"smessage", HIGH.encode(), b"two")
        await eventually(lambda: truth(relayed.heard == {LOW: [None, b"one"], HIGH: [None, b"two"]}))
        assert (relayed.low.asked(HIGH), relayed.high.asked(LOW)) == (0, 0)

    run(work)


def test_a_command_subscribes_to_the_channels_of_one_slot_and_all_go_in_one_write() -> None:
    async def work(relayed: Relayed) -> None:
        channels = [f"{{{tag_of(slot)}}}:{at}" for slot in range(20) for at in range(3)]
        await relayed.listen(*channels)
        relayed.low.subscriptions.clear()
        relayed.stage.low.writes.clear()
        assert relayed.low.writer is not None
        relayed.low.writer.transport.abort()
        await eventually(lambda: truth(all(len(heard) > 1 for heard in relayed.heard.values())))
        assert all(len(slots) == 1 for slots in slots_of_commands(relayed.low))
        names = [[words[0] for words in batch] for batch in relayed.stage.low.writes]
        assert next(batch.count(b"SSUBSCRIBE") for batch in names if b"SSUBSCRIBE" in batch) == 21, "the probe's too"

    run(work)


def test_a_subscription_that_a_node_ends_is_made_anew_at_the_owner_and_listeners_are_told() -> None:
    async def work(relayed: Relayed) -> None:
        await relayed.listen(LOW, ALSO_LOW)
        relayed.move(0, 0)
        relayed.low.send(b"sunsubscribe", LOW.encode(), b"0")
        await eventually(lambda: truth(relayed.high.asked(LOW) == 1))
        await eventually(lambda: truth(relayed.heard[LOW][-1] is None and len(relayed.heard[LOW]) > 1))
        relayed.high.send(b"smessage", LOW.encode(), b"there")
        await eventually(lambda: truth(relayed.heard[LOW][-1] == b"there"))
        assert relayed.heard[ALSO_LOW] == [None], "of another slot nobody is told anything"

    run(work)


def test_a_node_that_refuses_a_channel_leads_to_the_one_that_has_it() -> None:
    async def work(relayed: Relayed) -> None:
        relayed.low.refusal = relayed.stage.high.moved(LOW)
        await relayed.listen(LOW)
        assert relayed.heard[LOW] == [None]
        assert (relayed.low.asked(LOW), relayed.high.asked(LOW)) == (1, 1)

    run(work)


@pytest.mark.parametrize(
    "text", ["MOVED", "MOVED 16384 127.0.0.1:1", "MOVED -1 127.0.0.1:1", "MOVED 1 nowhere", "MOVED x y:1"]
)
def test_a_refusal_that_leads_nowhere_breaks_no_connection(text: str) -> None:
    async def work(relayed: Relayed) -> None:
        await relayed.listen(LOW)
        writer, owners = relayed.low.writer, list(relayed.stage.topology._owners)
        assert writer is not None
        writer.write(f"-{text}\r\n".encode())
        relayed.low.send(b"smessage", LOW.encode(), b"after it")
        await eventually(lambda: truth(relayed.heard[LOW] == [None, b"after it"]))
        assert relayed.low.writer is writer
        assert relayed.stage.topology._owners == owners

    run(work)


def test_what_the_cluster_refuses_while_it_is_down_is_asked_for_until_it_is_confirmed() -> None:
    async def work(relayed: Relayed) -> None:
        relayed.low.refusal = b"-CLUSTERDOWN The cluster is down\r\n"
        listening = asyncio.create_task(relayed.listen(LOW))
        await eventually(lambda: truth(relayed.low.asked(LOW) > 1))
        relayed.low.refusal = b""
        await listening
        await eventually(lambda: truth(relayed.heard[LOW] == [None]))

    run(work)


def test_a_node_that_lost_a_slot_and_goes_on_sending_is_not_heard_any_more() -> None:
    async def work(relayed: Relayed) -> None:
        await relayed.listen(LOW, ALSO_LOW)
        relayed.move(0, 0)
        relayed.stage.topology.doubt()
        await eventually(lambda: truth(relayed.high.asked(LOW) == 1 and len(relayed.heard[LOW]) == 2))
        relayed.low.send(b"smessage", LOW.encode(), b"from a replica")
        relayed.low.send(b"smessage", ALSO_LOW.encode(), b"from the owner")
        await eventually(lambda: truth(relayed.heard[ALSO_LOW] == [None, b"from the owner"]))
        assert b"from a replica" not in relayed.heard[LOW]
        assert relayed.stage.low.ran(b"SUNSUBSCRIBE") >= 1

    run(work)


def test_who_stops_listening_and_begins_again_is_not_taken_for_one_who_lost_something() -> None:
    async def work(relayed: Relayed) -> None:
        await relayed.listen(LOW)
        listener = relayed.relay._channels[LOW.encode()].listeners[0]
        relayed.relay.unsubscribe(LOW, listener)
        await relayed.listen(LOW)
        await relayed.listen(HIGH)
        assert relayed.low.asked(LOW) == 2
        assert relayed.heard[LOW] == [None]

    run(work)


def test_a_deaf_shard_is_known_by_name_and_connected_to_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub, "PROBE_S", 0.1)

    async def work(relayed: Relayed) -> None:
        relayed.low.is_deaf = True
        await eventually(lambda: truth(not relayed.relay.live))
        assert relayed.relay.deaf() == [Place("127.0.0.1", relayed.stage.low.port)]
        first = relayed.low.writer
        await eventually(lambda: truth(relayed.low.writer is not first))
        relayed.low.is_deaf = False
        await eventually(lambda: truth(relayed.relay.live and not relayed.relay.deaf()))

    run(work)


def test_the_probe_of_a_node_stays_with_its_slots() -> None:
    async def work(relayed: Relayed) -> None:
        topology, low = relayed.stage.topology, Place("127.0.0.1", relayed.stage.low.port)
        slot = slot_of(f"{{{topology.tag_on(low)}}}")
        relayed.move(slot, slot)
        topology.doubt()
        await eventually(lambda: truth(slot_of(f"{{{topology.tag_on(low)}}}") != slot))
        await eventually(lambda: truth(relayed.low.asked(f"{{{topology.tag_on(low)}}}:probe") == 1))
        assert relayed.relay.live

    run(work)


def test_a_node_that_is_emptied_slot_by_slot_is_known_by_few_tags() -> None:
    async def work(relayed: Relayed) -> None:
        topology = relayed.stage.topology
        low, high = (Place("127.0.0.1", node.port) for node in (relayed.stage.low, relayed.stage.high))
        tags = []
        for slot in range(HALF - 1):
            topology._owners[slot] = high
            topology._tags.clear()
            tags.append((topology.tag_on(low), topology.tag_on(high)))
        assert len(set(tags)) < 40, "each of them is a new probe, and who sweeps there is elected anew"
        assert [slot_of(f"{{{tag}}}") for tag, _ in tags[-1:]] == [HALF - 1]

    run(work)


def test_a_node_that_ends_its_own_probe_is_connected_to_anew_for_it_may_be_a_replica_now() -> None:
    async def work(relayed: Relayed) -> None:
        await relayed.listen(ALSO_LOW)
        first = relayed.low.writer
        tag = relayed.stage.topology.tag_on(Place("127.0.0.1", relayed.stage.low.port))
        relayed.low.send(b"sunsubscribe", f"{{{tag}}}:probe".encode(), b"0")
        await eventually(lambda: truth(relayed.low.writer is not first and relayed.low.asked(ALSO_LOW) == 2))
        await eventually(lambda: truth(relayed.heard[ALSO_LOW] == [None, None] and relayed.relay.live))

    run(work)


@pytest.mark.alone("it measures time")
def test_a_thousand_slots_that_move_at_once_hold_up_nothing_though_very_many_channels_are_heard() -> None:
    async def work(relayed: Relayed) -> None:
        low, high = relayed.stage.topology.primaries
        for at in range(20_000):
            relayed.relay._listen(f"{{{at}}}:live".encode(), lambda payload: None)
        await asyncio.sleep(0)
        begun_s = perf_counter()
        for slot in range(1000):
            relayed.stage.topology.moved(slot, high, low)
        assert perf_counter() - begun_s < 2.0
        sources = relayed.relay._sources
        assert all(
            channel.source is sources[high] for name, channel in relayed.relay._channels.items() if slot_of(name) < 1000
        )

    run(work)


def test_a_node_without_slots_is_left() -> None:
    async def work(relayed: Relayed) -> None:
        await relayed.listen(LOW)
        relayed.move(0, HALF - 1)
        relayed.stage.topology.doubt()
        await eventually(lambda: truth(len(relayed.heard[LOW]) == 2))
        assert relayed.relay.live
        assert relayed.low.writer is not None
        await eventually(lambda: truth(relayed.low.writer is not None and relayed.low.writer.is_closing()))

    run(work)


def test_a_node_that_is_being_left_when_the_relay_closes_is_left_all_the_same() -> None:
    async def work(relayed: Relayed) -> None:
        link = relayed.relay._sources[Place("127.0.0.1", relayed.stage.low.port)].link
        relayed.move(0, HALF - 1)
        relayed.stage.topology.moved(0, *reversed(relayed.stage.topology.primaries))
        relayed.stage.topology.primaries = (Place("127.0.0.1", relayed.stage.high.port),)
        relayed.relay._follow()
        await relayed.relay.close()
        assert not link.up
        assert f"redis-{link.name}" not in {task.get_name() for task in asyncio.all_tasks()}

    run(work)
