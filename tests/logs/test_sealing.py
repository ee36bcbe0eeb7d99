"""Sealing: no reader sees it, nothing is lost to it, whatever happens in between."""

import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.logs.blocks import SealedBlock, seal_block
from app.logs.intake import decode_batch_steps
from app.logs.levels import LEVELS
from app.logs.lines import Stored
from app.logs.log_store import batch_key
from app.logs.sealing import crosses_step, group_batches
from app.logs.search import LineFilter
from app.model.steps import exhaust
from app.redis_links.link import Word
from tests.any_redis import AnyRedis
from tests.room import EVERYTHING, Room, messages, new_room

SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TEXTS = ["", "\0", "a\nb", "emoji 😀", "é" * 300, "Error: refused", "x" * 65_536, "plain", "\u2028", "ΑΣ"]
PLENTY = 10**9


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few lines, so that a test needs few lines for many blocks."""
    monkeypatch.setattr("app.logs.sealing.BLOCK_LINES", 7)
    monkeypatch.setattr("app.logs.sealing.SEAL_LINES", 20)


async def blocks_and_batches(room: Room, job: str) -> tuple[int, int]:
    """How many blocks and how many record batches there are."""
    blocks = await room.call("LLEN", room.keys.log_blocks(job))
    return int(blocks), int(await room.call("XLEN", room.keys.log(job)))


async def seal_all(room: Room, job: str, keep: int = 0) -> None:
    await room.logs._sealer.seal(job, keep, keep * 100)


async def prepared(room: Room, job: str, lines: int) -> SealedBlock | None:
    """A block of the oldest lines, as a sealer holds it before it puts it."""
    keys = [room.keys.log(job), room.keys.log_meta(job)]
    reply = await room.logs._scripts.raw("log_oldest", keys, [0, 0, 0, 0, lines, PLENTY])
    if reply[0] != b"ok":
        return None
    return seal_block([Stored(*reply[1][i : i + 4]) for i in range(0, len(reply[1]), 4)])


async def put(room: Room, job: str, block: SealedBlock, *spared: int) -> list[Any]:
    """What putting a block answers."""
    args: list[Word] = [block.first, block.last, block.stored_bytes, block.record, block.text, *(spared or (0, 0))]
    keys = [room.keys.log(job), room.keys.log_blocks(job), room.keys.log_meta(job)]
    return await room.logs._scripts.raw("log_seal", keys, args)


async def pages(
    room: Room, job: str, mode: Any, position: int, limit: int, *, wanted: LineFilter = EVERYTHING
) -> list[Any]:
    """All rows from there, page by page, in ascending order."""
    rows: list[Any] = []
    while True:
        page = await room.page(job, mode, position, limit, wanted)
        rows = rows + page.rows if mode == "after" else page.rows + rows
        if not page.cursor.more:
            return rows
        position = (page.cursor.newest if mode == "after" else page.cursor.oldest) or 0
        mode = "after" if mode == "after" else "before"


OPERATIONS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 9)),
    st.tuples(st.just("keyed"), st.integers(0, 3)),
    st.tuples(st.just("seal"), st.sampled_from([0, 3, 10])),
    st.tuples(st.just("prepare"), st.integers(1, 12)),
    st.tuples(st.just("put"), st.integers(0, 5)),
    st.tuples(st.just("group"), st.integers(0, 3)),
    st.tuples(st.just("cut"), st.just(0)),
)


class World:
    """A log beside the list of what it must hold."""

    def __init__(self, room: Room, job: str) -> None:
        self.room = room
        self.job = job
        self.sent: list[str] = []
        self.first_kept = 1
        self.keyed: dict[int, tuple[int | None, list[str]]] = {}
        self.prepared: list[SealedBlock] = []
        self.heard: list[int] = []
        self.grouped = False

    async def append(self, lines: int) -> None:
        texts = [random.choice(TEXTS) for _ in range(lines)]
        done = await self.room.append(self.job, *texts)
        assert done.first == len(self.sent) + 1
        self.sent += texts

    async def keyed_append(self, number: int) -> None:
        """Once or again: the second time it is answered like the first, and stored once."""
        texts = [f"keyed {number} {i}" for i in range(number + 1)]
        done = await self.room.append(self.job, *texts, key=batch_key(str(number), b"body"))
        if number in self.keyed:
            assert done.replayed
            assert done.first == self.keyed[number][0]
        else:
            self.keyed[number] = (done.first, texts)
            self.sent += texts

    async def prepare(self, lines: int) -> None:
        block = await prepared(self.room, self.job, lines)
        if block is not None:
            self.prepared.append(block)

    async def put(self, number: int) -> None:
        """A block that was made at any time before: a late sealer, a racing one, or one that does it twice."""
        if self.prepared:
            await put(self.room, self.job, self.prepared[number % len(self.prepared)])

    async def group(self, count: int) -> None:
        """A consumer group reads some batches and acknowledges them; 0 of them: it begins, if it has not."""
        log = self.room.keys.log(self.job)
        if not self.grouped:
            await self.room.call("XGROUP", "CREATE", log, "g", "0", "MKSTREAM")
            self.grouped = True
        if count:
            command = ("XREADGROUP", "GROUP", "g", "c", "COUNT", count, "STREAMS", log, ">")
            for _, batches in await self.room.call(*command) or []:
                for id_, fields in batches:
                    self.heard += range(int(fields[1]), int(id_.split(b"-")[0]) + 1)
                    await self.room.call("XACK", log, "g", id_)

    async def cut(self, _: int) -> None:
        """The oldest block goes, as when a log is over its bounds."""
        meta = self.room.keys.log_meta(self.job)
        if await self.room.call("LLEN", self.room.keys.log_blocks(self.job)):
            bounds, self.room.logs._bounds = self.room.logs._bounds, (len(self.sent) - self.first_kept + 1, PLENTY)
            await self.append(1)
            self.room.logs._bounds = bounds
            self.first_kept = int(await self.room.call("HGET", meta, "firstSeq"))

    async def check(self) -> None:
        """Every line is read once, in order, both ways, with its text; from anywhere in between too."""
        kept = self.sent[self.first_kept - 1 :]
        last = len(self.sent)
        assert messages(await pages(self.room, self.job, "after", 0, 11)) == kept
        assert messages(await pages(self.room, self.job, "tail", 0, 13)) == kept
        middle = random.randint(self.first_kept, max(last, self.first_kept))
        assert messages(await pages(self.room, self.job, "after", middle, 5)) == self.sent[middle:]
        before = await pages(self.room, self.job, "before", middle, 5)
        assert messages(before) == self.sent[self.first_kept - 1 : middle - 1]
        pieces = [piece async for piece in await self.room.logs.download(self.room.space, self.job, 0, EVERYTHING)]
        lines = [json.loads(line) for line in b"".join(pieces).splitlines()]
        assert [line["message"] for line in lines] == kept
        assert [line["seq"] for line in lines] == list(range(self.first_kept, last + 1))
        for word in ("refused", "nowhere", "a"):
            found = await pages(self.room, self.job, "after", 0, 4, wanted=LineFilter(needles=(word,)))
            assert messages(found) == [text for text in kept if word in text.lower()]


@SLOW
@given(st.lists(OPERATIONS, max_size=25), st.integers())
async def test_every_line_is_read_once_and_in_order_whatever_happens(
    room_redis: AnyRedis, operations: list[tuple[str, int]], seed: int
) -> None:
    async with new_room(room_redis) as room:
        random.seed(seed)
        world = World(room, await room.new_job())
        await world.append(1)
        ways = {
            "append": world.append,
            "keyed": world.keyed_append,
            "seal": lambda keep: seal_all(room, world.job, keep),
            "prepare": world.prepare,
            "put": world.put,
            "group": world.group,
            "cut": world.cut,
        }
        for name, number in operations:
            await ways[name](number)
        await world.check()
        assert world.heard == sorted(set(world.heard))


async def test_readers_see_no_seam_while_sealing_runs(room: Room) -> None:
    job = await room.new_job()
    texts = [f"line {i}" for i in range(3000)]
    for at in range(0, 3000, 5):
        await room.append(job, *texts[at : at + 5])
    sealing = asyncio.create_task(seal_all(room, job))
    rounds = 0
    while not sealing.done() or not rounds:
        forwards, backwards = await asyncio.gather(pages(room, job, "after", 0, 400), pages(room, job, "tail", 0, 333))
        assert messages(forwards) == texts
        assert messages(backwards) == texts
        rounds += 1
    await sealing
    assert await blocks_and_batches(room, job) == (300, 0)
    assert messages(await room.every_line(job)) == texts


async def test_streams_read_sealed_lines_in_bounded_pages(room: Room) -> None:
    job = await room.new_job()
    for i in range(20):
        await room.append(job, *[f"{i} {k} {'x' * 1000}" for k in range(7)])
    await seal_all(room, job, 70)
    rows = await room.every_line(job)
    lines: list[Any] = []
    while len(lines) < 140:
        chunks, first_kept, newest = await room.logs.read_after(job, len(lines), 10_000, 15_000, 130)
        if not chunks:
            break
        assert (first_kept, newest) == (1, 140)
        assert sum(len(chunk.entries) for chunk in chunks) < 25_000
        for chunk in chunks:
            lines += json.loads(chunk.entries)
            assert (lines[-1]["seq"], len(lines)) == (chunk.last, chunk.last)
    assert [line["id"] for line in lines] == [row.id for row in rows[:130]]
    assert [line["message"] for line in lines] == messages(rows[:130])


async def test_a_search_across_the_seam_is_what_a_plain_filter_finds(room: Room) -> None:
    job = await room.new_job()
    dice = random.Random(3)
    words = ["Alpha", "beta", "GAMMA", "delta\nepsilon", "ÉTÉ", "zeta"]
    lines = [{"message": " ".join(dice.sample(words, 3)) + f" {i}", "level": dice.choice(LEVELS)} for i in range(900)]
    for at in range(0, 900, 9):
        await room.logs.append(
            room.space, job, exhaust(decode_batch_steps(json.dumps(lines[at : at + 9]).encode(), ndjson=False))
        )
    await seal_all(room, job, 200)
    blocks, batches = await blocks_and_batches(room, job)
    assert blocks > 50
    assert 10 < batches < 40
    for needles in ((), ("alpha",), ("été", "gamma"), ("delta\nepsilon",), ("epsilon 1",), ("nowhere",)):
        for levels in (frozenset[str](), frozenset({"error"}), frozenset({"warn", "fatal"})):
            wanted = LineFilter(levels, needles)
            expected = [
                line["message"]
                for line in lines
                if (not levels or line["level"] in levels) and all(n in line["message"].lower() for n in needles)
            ]
            for mode, limit in (("after", 7), ("tail", 50)):
                assert messages(await pages(room, job, mode, 0, limit, wanted=wanted)) == expected


async def test_blocks_without_the_wanted_level_are_not_even_sent(room: Room) -> None:
    job = await room.new_job()
    levels = ["info"] * 700
    levels[100] = levels[650] = "error"
    for at in range(0, 700, 7):
        piece = json.dumps([{"message": str(i), "level": levels[i]} for i in range(at, at + 7)]).encode()
        await room.logs.append(room.space, job, exhaust(decode_batch_steps(piece, ndjson=False)))
    await seal_all(room, job)
    reading = await room.logs._read(job, "after", 0, 10_000, levels=1 << LEVELS.index("error"))
    assert [(run.first, run.last, run.size_bytes > 0) for run in reading.runs] == [
        (1, 98, False),
        (99, 105, True),
        (106, 644, False),
        (645, 651, True),
        (652, 700, False),
    ]
    page = await room.page(job, "after", 0, 500, LineFilter(frozenset({"error"})))
    assert messages(page.rows) == ["100", "650"]
    assert (page.cursor.oldest, page.cursor.newest, page.cursor.more) == (1, 700, False)
    page = await room.page(job, "tail", 0, 500, LineFilter(frozenset({"fatal"})))
    assert (page.cursor.oldest, page.cursor.newest, page.cursor.more) == (1, 700, False)


async def test_sealing_spares_what_a_consumer_group_has_still_to_read(room: Room) -> None:
    job = await room.new_job()
    log = room.keys.log(job)
    for i in range(10):
        await room.append(job, *[f"{i} {k}" for k in range(7)])
    await room.call("XGROUP", "CREATE", log, "g", "0")
    await seal_all(room, job)
    assert await blocks_and_batches(room, job) == (0, 10)
    ((_, batches),) = await room.call("XREADGROUP", "GROUP", "g", "c", "COUNT", 4, "STREAMS", log, ">")
    await seal_all(room, job)
    assert await blocks_and_batches(room, job) == (0, 10)
    await room.call("XACK", log, "g", *[id_ for id_, _ in batches[:3]])
    await seal_all(room, job)
    assert await blocks_and_batches(room, job) == (3, 7)
    await room.call("XACK", log, "g", batches[3][0])
    await seal_all(room, job)
    assert await blocks_and_batches(room, job) == (4, 6)
    assert len(await room.every_line(job)) == 70


async def test_a_group_that_reads_nothing_keeps_lines_hot_up_to_a_bound_only(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, log_hot_lines=100) as room:
        job = await room.new_job()
        await room.call("XGROUP", "CREATE", room.keys.log(job), "g", "0", "MKSTREAM")
        for _ in range(1200 // 6):
            await room.append(job, *["line"] * 6)
        await seal_all(room, job)
        blocks, batches = await blocks_and_batches(room, job)
        assert blocks > 0
        assert 1000 - 12 <= batches * 6 <= 1000
        assert await room.call("EXISTS", room.keys.log(job))


async def test_the_process_that_appended_seals_and_keeps_the_newest_lines(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, log_hot_lines=100) as room:
        job = await room.new_job()
        for _ in range(80):
            await room.append(job, *["line"] * 50)
        await asyncio.gather(*room.logs._sealer._tasks.values())
        _, batches = await blocks_and_batches(room, job)
        assert 100 <= batches * 50 < 100 + 2000
        assert len(await room.every_line(job)) == 4000


async def test_an_ended_jobs_log_that_rested_is_sealed_and_gets_its_time_to_live(room: Room) -> None:
    job = await room.new_job("completed")
    await room.append(job, *[f"line {i}" for i in range(10)])
    await room.logs.settle(job, 1000)
    assert await blocks_and_batches(room, job) == (1, 0)
    assert not await room.call("EXISTS", room.keys.log(job))
    for key in (room.keys.log_blocks(job), room.keys.log_meta(job)):
        assert await room.call("PTTL", key) > 1000
    done = await room.append(job, "late")
    assert done.first == 11
    assert await room.call("PTTL", room.keys.log(job)) > 1000
    await room.logs.settle(job, 1000)
    assert messages(await room.every_line(job)) == [*[f"line {i}" for i in range(10)], "late"]


async def test_a_finished_job_with_ten_lines_costs_at_most_a_kibibyte(room: Room) -> None:
    job = await room.new_job("completed")
    lines = [f"2026-05-20 10:00:{i:02d} status installed libfoo{i}:amd64 1.2.{i}" for i in range(10)]
    await room.append(job, *lines, key=batch_key("batch", b"body"))
    await room.logs.settle(job, 1000)
    names = [room.keys.log(job), room.keys.log_blocks(job), room.keys.log_meta(job)]
    sizes = [await room.call("MEMORY", "USAGE", name) or 0 for name in names]
    assert sum(sizes) <= 1024


async def test_a_late_or_repeated_seal_changes_nothing(room: Room) -> None:
    job = await room.new_job()
    for _ in range(6):
        await room.append(job, *["line"] * 7)
    one, more = await prepared(room, job, 7), await prepared(room, job, 14)
    assert one is not None
    assert more is not None
    assert await put(room, job, one) == [b"ok", 1]
    assert await put(room, job, one) == [b"ok", 0]
    assert await put(room, job, more) == [b"ok", 0]
    await room.logs.delete(room.space, job)
    assert await put(room, job, one) == [b"ok", 0]
    assert not await room.call("EXISTS", room.keys.log_blocks(job), room.keys.log_meta(job))


async def test_racing_sealers_seal_each_line_once(room: Room) -> None:
    job = await room.new_job()
    for _ in range(200):
        await room.append(job, *["line"] * 7)
    await asyncio.gather(*(seal_all(room, job) for _ in range(16)))
    assert await blocks_and_batches(room, job) == (200, 0)
    assert len(await room.every_line(job)) == 1400


async def test_beyond_the_bounds_whole_blocks_go_first(room_redis: AnyRedis) -> None:
    async with new_room(room_redis, log_lines=1000) as room:
        job = await room.new_job()
        for i in range(140):
            await room.append(job, *[f"{i} {k}" for k in range(7)])
        await seal_all(room, job, 70)
        await room.append(job, *["new"] * 100)
        page = await room.page(job, "after", 0, 1)
        assert page.cursor.first_kept == page.rows[0].seq == 85
        blocks, _ = await blocks_and_batches(room, job)
        assert await room.call("HSTRLEN", room.keys.log_meta(job), "index") == 11 * blocks
        rows = await room.every_line(job)
        assert [row.seq for row in rows] == list(range(85, 1081))
        stored = [len(run) for run in await stored_texts(room, job)]
        assert int(await room.call("HGET", room.keys.log_meta(job), "hot")) == sum(stored)


async def stored_texts(room: Room, job: str) -> list[bytes]:
    return [fields[5] for _, fields in await room.call("XRANGE", room.keys.log(job), "-", "+")]


@pytest.mark.parametrize(
    ("over", "grown", "due"),
    [(0, 5, False), (99, 99, False), (100, 1, True), (150, 51, True), (150, 50, False), (200, 1, True), (-5, 3, False)],
)
def test_each_step_over_the_limit_has_one_append_that_seals(over: int, grown: int, due: bool) -> None:
    assert crosses_step(over, grown, 100) is due


def test_blocks_end_with_batches_and_a_rest_that_makes_no_block_stays() -> None:
    batches = [Stored(1 + 3 * i, 3 + 3 * i, 1, b"[]") for i in range(8)]
    assert [(g[0].first, g[-1].last) for g in group_batches(batches, whole=True)] == [(1, 9), (10, 18)]
    assert [(g[0].first, g[-1].last) for g in group_batches(batches, whole=False)] == [(1, 9), (10, 18), (19, 24)]
