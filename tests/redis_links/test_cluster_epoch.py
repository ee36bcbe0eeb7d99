"""Epochs of a cluster: which primaries begin one, for which slots, and what is known of it by whom."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from time import perf_counter
from typing import Any, cast

import pytest

from app.model.errors import Unavailable, unavailable
from app.redis_links import cluster_epoch
from app.redis_links.cluster_epoch import ClusterEpoch, known_from
from app.redis_links.dialling import Place
from app.redis_links.epoch import spell
from app.redis_links.link import REDIS_REFUSALS, Link, RedisFault, ServerLink, ServerMoved
from app.redis_links.topology import tag_of
from tests.room import Room
from tests.sweeping import eventually

FIVE, HUNDRED = f"{{{tag_of(5)}}}", f"{{{tag_of(100)}}}"
ALONE = "connected_slaves:0\r\nmaster_replid2:" + "0" * 40 + "\r\naof_enabled:1\r\n"


class Primary:
    """A link to a primary that answers what it is."""

    def __init__(self, node: str, slots: str, run: str = "run", replication: str = "id", at_ms: int = 1000) -> None:
        self.node, self.slots, self.run, self.replication, self.at_ms = node, slots, run, replication, at_ms
        self.role, self.state, self.alone, self.policy = "master", "ok", "", b"everysec"
        self.place, self.name = Place(node, 1), f"control {node}:1"
        self.refusal: Exception | None = None
        """What INFO is answered with."""

    async def at_once(self, *commands: tuple[str, ...]) -> list[Any]:
        return [self._reply(" ".join(command[:2])) for command in commands]

    def _reply(self, command: str) -> Any:
        if command == "INFO":
            if self.refusal is not None:
                raise self.refusal
            run = f"run_id:{self.node}-{self.run}\r\nmaster_replid:{self.replication}\r\n"
            return f"role:{self.role}\r\n{run}{self.alone}".encode()
        if command == "CLUSTER INFO":
            return f"cluster_state:{self.state}\r\n".encode()
        if command == "CLUSTER NODES":
            mine = f"{self.node} 127.0.0.1:1@2 myself,master - 0 0 1 connected {self.slots} [7->-other]"
            return f"other 127.0.0.1:3@4 master - 0 0 2 connected 16000\n{mine}\n".encode()
        if command == "TIME":
            return [b"%d" % (self.at_ms // 1000), b"%d" % (self.at_ms % 1000 * 1000)]
        assert command == "CONFIG GET"
        return [b"appendfsync", self.policy]


class Away:
    """A marker whose shard is away, until it is not."""

    def __init__(self, link: Link) -> None:
        self.link, self.is_away = link, True

    async def call(self, *command: Any) -> Any:
        if self.is_away:
            raise unavailable("Redis cannot be reached.")
        return await self.link.call(*command)


class Counting:
    """A marker that counts the reads of the hash."""

    def __init__(self, link: Any) -> None:
        self.link, self.reads = link, 0

    async def call(self, *command: Any) -> Any:
        self.reads += command[0] == "HGETALL"
        return await self.link.call(*command)


class Process:
    """The epochs as one process knows them."""

    def __init__(self, room: Room, marker: Any = None) -> None:
        self.epoch = ClusterEpoch(room.keys, marker or room.backend.control)
        self.told = 0
        self.epoch.on_change(self._hear)

    def _hear(self) -> None:
        self.told += 1

    async def meet(self, *primaries: Primary) -> None:
        for primary in primaries:
            await self.epoch.identify(cast(ServerLink, primary))

    def names(self) -> tuple[str, str]:
        return self.epoch.name_of(FIVE), self.epoch.name_of(HUNDRED)


LOW, HIGH = "0-50", "51-150 160"


async def test_a_primary_that_was_met_begins_no_epoch_again_whoever_meets_it(room: Room) -> None:
    first, second = Process(room), Process(room)
    await first.meet(Primary("a", LOW), Primary("b", HIGH))
    before = first.names()
    assert before[0] != before[1]
    await first.meet(Primary("a", LOW))
    await second.meet(Primary("b", HIGH), Primary("a", LOW))
    assert first.names() == second.names() == before


@pytest.mark.parametrize("changed", [{"run": "another"}, {"replication": "another"}])
async def test_a_primary_that_began_anew_begins_an_epoch_of_its_slots_and_of_no_others(
    room: Room, changed: dict[str, str]
) -> None:
    process = Process(room)
    await process.meet(Primary("a", LOW), Primary("b", HIGH))
    before, told = process.names(), process.told
    both = process.epoch.name_of(FIVE, HUNDRED)
    await process.meet(Primary("b", HIGH, at_ms=5000, **changed))
    five, hundred = process.names()
    assert (five, process.told) == (before[0], told + 1)
    assert hundred != before[1]
    assert process.epoch.name_of(FIVE, HUNDRED) == hundred
    assert await process.epoch.lost_after(both, FIVE) is None
    assert await process.epoch.lost_after(both, HUNDRED) == 5000, "on the clock of the primary"
    assert await process.epoch.lost_after(hundred, HUNDRED) is None


async def test_a_replica_in_the_place_of_its_primary_begins_an_epoch(room: Room) -> None:
    process = Process(room)
    await process.meet(Primary("a", LOW))
    before = process.epoch.name_of(FIVE)
    await process.meet(Primary("replica-of-a", LOW, at_ms=7000))
    assert await process.epoch.lost_after(before, FIVE) == 7000


async def test_a_slot_that_moves_takes_its_epochs_along_and_none_of_its_new_server(room: Room) -> None:
    process = Process(room)
    await process.meet(Primary("a", LOW), Primary("b", HIGH))
    before = process.epoch.name_of(FIVE, HUNDRED)
    await process.meet(Primary("a", LOW, run="2", at_ms=3000), Primary("b", HIGH, run="2", at_ms=4000))
    between = process.epoch.name_of(FIVE, HUNDRED)
    await process.meet(Primary("b", "0-150 160", run="3", at_ms=6000))
    assert await process.epoch.lost_after(before, FIVE) == 3000
    assert await process.epoch.lost_after(between, FIVE) == 6000


async def test_a_start_that_loses_nothing_begins_no_epoch(room: Room) -> None:
    process = Process(room)
    for run in ("1", "2"):
        primary = Primary("a", LOW, run)
        primary.alone, primary.policy = ALONE, b"always"
        await process.meet(primary)
    assert process.told == 0


async def test_a_primary_without_slots_begins_none_and_is_known_when_it_gets_some(room: Room) -> None:
    process, later = Process(room), Process(room)
    await process.meet(Primary("a", LOW), Primary("new", ""))
    before = process.names()
    await later.meet(Primary("a", LOW), Primary("new", "5"))
    assert later.names() == before


async def test_a_replica_and_a_node_that_does_not_know_its_cluster_yet_are_not_met(room: Room) -> None:
    process, replica, starting = Process(room), Primary("a", LOW), Primary("b", HIGH)
    replica.role, starting.state = "slave", "fail"
    with pytest.raises(ServerMoved, match="replica now"):
        await process.meet(replica)
    with pytest.raises(Unavailable):
        await process.meet(starting)
    assert await room.call("HMGET", room.keys.epoch, "run:a", "run:b") == [None, None]


async def test_what_the_shard_of_the_hash_lost_is_brought_back(room: Room) -> None:
    process, later = Process(room), Process(room)
    await process.meet(Primary("a", LOW), Primary("b", HIGH))
    before = process.names()
    await room.call("DEL", room.keys.epoch)
    await process.meet(Primary("b", HIGH, run="2"))
    await later.meet(Primary("b", HIGH, run="2"))
    assert later.epoch.name_of(FIVE) == before[0]
    assert await later.epoch.lost_after(before[1], HUNDRED) is not None


async def test_a_position_of_an_epoch_that_only_another_process_knows_is_no_unknown_one(room: Room) -> None:
    first, second = Process(room), Process(room)
    for process in (first, second):
        await process.meet(Primary("a", LOW), Primary("b", HIGH))
    await first.meet(Primary("b", HIGH, run="2"))
    name, told = first.epoch.name_of(FIVE, HUNDRED), second.told
    assert await second.epoch.lost_after(name, FIVE) is None
    assert second.told == told + 1, "and those who watch what it is of are compared"
    assert await second.epoch.lost_after("zzzzzzzzzzz", FIVE) == 0


def later(number: int) -> str:
    """The epoch of that number behind now."""
    return spell(int(time.time() * 1000) + 1000 + number)


async def test_however_many_positions_are_of_epochs_that_are_not_known_the_hash_is_read_seldom(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_epoch, "READ_AGAIN_S", 0.05)
    marker = Counting(room.backend.control)
    process, other = Process(room, marker), Process(room)
    await process.meet(Primary("a", LOW), Primary("b", HIGH))
    for _ in range(2):
        assert await asyncio.gather(*(process.epoch.lost_after(later(n), FIVE) for n in range(100))) == [0] * 100
    assert marker.reads <= 3, "the first of all, and one for those who came when it had been sent"
    await other.meet(Primary("b", HIGH, run="2"))
    name = other.epoch.name_of(HUNDRED)
    assert await process.epoch.lost_after(name, HUNDRED) is None, "what was noted after a read is found by the next"


async def test_a_position_of_no_clock_is_never_read_for_and_of_others_nobody_says_what_only_the_hash_can_tell(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_epoch, "READ_AGAIN_S", 0.05)
    marker = Away(room.backend.control)
    process = Process(room, marker)
    marker.is_away = False
    await process.meet(Primary("a", LOW))
    marker.is_away = True
    assert await process.epoch.lost_after("zzzzzzzzzzz", FIVE) == 0
    assert await process.epoch.lost_after(process.epoch.name_of(FIVE), FIVE) is None
    for outcome in await asyncio.gather(
        *(process.epoch.lost_after(later(n), FIVE) for n in range(9)), return_exceptions=True
    ):
        assert isinstance(outcome, Unavailable)
    marker.is_away = False
    assert await process.epoch.lost_after(later(1), FIVE) == 0


REFUSES = "refuses INFO: whether a restart or a failover lost writes is not noticed"


@pytest.mark.parametrize(
    "refusal",
    [RedisFault("ERR unknown command 'INFO', with args beginning with: "), unavailable(REDIS_REFUSALS["NOPERM"])],
)
async def test_a_primary_that_refuses_info_is_used_and_the_log_says_once_what_is_not_noticed(
    refusal: Exception, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    process, reticent = Process(room), Primary("b", HIGH)
    reticent.refusal = refusal
    await process.meet(Primary("a", LOW), reticent, reticent)
    before = process.names()
    await process.meet(Primary("a", LOW, run="2"))
    five, hundred = process.names()
    assert five != before[0], "the restart of another one is noticed"
    assert hundred == before[1] != ""
    assert caplog.text.count(f"control b:1 {REFUSES}") == 1


@pytest.mark.parametrize("refusal", [RedisFault("ERR not now"), unavailable("Redis has gone away.")])
async def test_a_primary_that_does_not_tell_who_it_is_just_now_is_not_met_and_asked_again(
    refusal: Exception, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    process, primary = Process(room), Primary("a", LOW)
    await process.meet(Primary("a", LOW))
    before, primary.run, primary.refusal = process.epoch.name_of(FIVE), "2", refusal
    with pytest.raises(type(refusal)):
        await process.meet(primary)
    primary.refusal = None
    await process.meet(primary)
    assert process.epoch.name_of(FIVE) != before
    assert "INFO" not in caplog.text


async def test_slots_that_there_are_not_are_of_no_epoch(room: Room) -> None:
    process = Process(room)
    await process.meet(Primary("a", "100-20000 30000"))
    assert process.epoch.name_of(HUNDRED) != ""
    assert len(process.epoch._newest) == 16_384


async def test_while_the_shard_of_the_hash_is_away_an_epoch_begins_soon_and_is_noted_later(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_epoch, "NOTE_S", 0.05)
    monkeypatch.setattr(cluster_epoch, "NOTE_AGAIN_S", 0.01)
    marker = Away(room.backend.control)
    process, later = Process(room, marker), Process(room)
    marker.is_away = False
    await process.meet(Primary("a", LOW))
    before = process.epoch.name_of(FIVE)
    marker.is_away = True
    with pytest.raises(Unavailable):
        await process.meet(Primary("a", LOW, run="2", at_ms=9000))
    await eventually(lambda: _met(process, Primary("a", LOW, run="2", at_ms=9000)))
    assert await process.epoch.lost_after(before, FIVE) == 9000
    marker.is_away = False
    await eventually(lambda: room.call("HEXISTS", room.keys.epoch, f"began:{int(process.epoch.name_of(FIVE), 36)}"))
    await later.meet(Primary("a", LOW, run="2"))
    assert later.epoch.name_of(FIVE) == process.epoch.name_of(FIVE)
    await process.epoch.close()


@pytest.mark.parametrize("at_ms", [1000, 4_000_000_000_000], ids=["clocks behind the newest", "the newest long ago"])
async def test_two_processes_that_note_nothing_begin_two_epochs(
    room: Room, monkeypatch: pytest.MonkeyPatch, at_ms: int
) -> None:
    monkeypatch.setattr(cluster_epoch, "NOTE_AGAIN_S", 0.01)
    marker = Away(room.backend.control)
    processes = Process(room, marker), Process(room, marker)
    marker.is_away = False
    for process in processes:
        await process.meet(Primary("a", LOW), Primary("b", HIGH))
    before = processes[0].names()
    monkeypatch.setattr(cluster_epoch, "NOTE_S", 0.0)
    marker.is_away = True
    await processes[0].meet(Primary("a", LOW, run="2", at_ms=at_ms))
    await processes[1].meet(Primary("b", HIGH, run="2", at_ms=at_ms))
    marker.is_away = False
    for process, key in zip(processes, (FIVE, HUNDRED), strict=True):
        number = int(process.epoch.name_of(key), 36)
        await eventually(partial(room.call, "HEXISTS", room.keys.epoch, f"began:{number}"))
    later = Process(room)
    await later.meet(Primary("c", "200"))
    for name, key in zip(before, (FIVE, HUNDRED), strict=True):
        assert await later.epoch.lost_after(name, key) == at_ms
    for process in processes:
        await process.epoch.close()


@pytest.mark.alone("it measures time")
async def test_with_a_thousand_epochs_of_many_pieces_a_position_is_judged_in_no_time(room: Room) -> None:
    process = Process(room)
    slots = ",".join(f"{first}-{first + 9}" for first in range(0, 1000, 20))
    process.epoch._take({at: known_from(at, f"{at} {slots}") for at in range(1001, 2001)})
    process.epoch._take({2005: known_from(2005, "2005 100")})
    process.epoch._take({2003: known_from(2003, "2003 100-101")})
    assert process.names() == (spell(2000), spell(2005))
    assert await process.epoch.lost_after(spell(2001), HUNDRED) == 2003
    assert await process.epoch.lost_after(spell(1990), FIVE) == 1991
    begun_s = perf_counter()
    for _ in range(1000):
        process.names()
    assert perf_counter() - begun_s < 1.0


async def _met(process: Process, primary: Primary) -> bool:
    try:
        await process.meet(primary)
    except Unavailable:
        return False
    return True
