"""The log of a job on Redis: contiguous whatever happens, read the same from everywhere, bounded, gone when deleted."""

import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.logs.intake import decode_batch_steps
from app.logs.lines import encode_array
from app.logs.log_store import Appended
from app.logs.search import LineFilter, parse_q
from app.model.ids import is_ulid
from app.model.limits import PAGE_BYTES
from app.model.steps import exhaust
from tests.any_redis import AnyRedis, NewRedis
from tests.room import Room, messages, new_room

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SLOW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# Order and seqs


async def test_seqs_start_at_one_for_each_job_and_have_no_holes(room: Room) -> None:
    one, other = await room.new_job(), await room.new_job()
    assert await room.append(one, "a", "b") == Appended("running", 2, 1, 2, 0, False)
    assert (await room.append(other, "x")).first == 1
    assert (await room.append(one, "c")).first == 3
    rows = await room.every_line(one)
    assert [(row.seq, row.message) for row in rows] == [(1, "a"), (2, "b"), (3, "c")]


async def test_batches_of_sixteen_appenders_stay_contiguous_and_leave_no_hole(room: Room) -> None:
    job = await room.new_job()
    dice = random.Random(7)
    sizes = {(i, n): dice.randint(1, 300) for i in range(16) for n in range(12)}

    async def appender(i: int) -> list[tuple[Appended, int, int]]:
        done = []
        for n in range(12):
            lines = [f"{i} {n} {k} {'x' * (k % 50 * 20)}" for k in range(sizes[i, n])]
            done.append((await room.append(job, *lines), i, n))
        return done

    answers = [answer for part in await asyncio.gather(*map(appender, range(16))) for answer in part]
    answers.sort(key=lambda answer: answer[0].first or 0)
    assert [a.first for a, _, _ in answers] == [1, *((a.last or 0) + 1 for a, _, _ in answers[:-1])]
    wanted = [f"{i} {n} {k}" for _, i, n in answers for k in range(sizes[i, n])]
    assert [row.message.rstrip("x ") for row in await room.every_line(job)] == [text.rstrip() for text in wanted]


@SLOW
@given(
    batches=st.lists(st.lists(TEXTS, min_size=1, max_size=12), min_size=1, max_size=12),
    limit=st.integers(1, 20),
    start=st.integers(0, 60),
)
async def test_pages_in_both_directions_join_without_a_seam(
    batches: list[list[str]], limit: int, start: int, room_redis: AnyRedis
) -> None:
    async with new_room(room_redis) as room:
        job = await room.new_job()
        for lines in batches:
            await room.append(job, *lines)
        sent = [text for lines in batches for text in lines]
        forwards: list[str] = []
        at = min(start, len(sent))
        while True:
            page = await room.page(job, "after", at, limit)
            forwards += messages(page.rows)
            if not page.cursor.more:
                break
            assert len(page.rows) == limit
            at = page.cursor.newest or 0
        backwards: list[str] = []
        at = min(start, len(sent)) + 1
        while True:
            page = await room.page(job, "before", at, limit)
            backwards[:0] = messages(page.rows)
            if not page.cursor.more:
                break
            at = page.cursor.oldest or 0
        assert backwards + forwards == sent


@SLOW
@given(
    texts=st.lists(TEXTS, max_size=40),
    q=st.lists(TEXTS.filter(lambda t: '"' not in t), max_size=2),
    limit=st.integers(1, 9),
)
async def test_a_filtered_page_is_what_a_plain_filter_finds(
    texts: list[str], q: list[str], limit: int, room_redis: AnyRedis
) -> None:
    async with new_room(room_redis) as room:
        job = await room.new_job()
        if texts:
            await room.append(job, *texts)
        wanted = LineFilter(needles=parse_q(" ".join(f'"{phrase}"' for phrase in q)))
        expected = [text for text in texts if all(phrase.casefold() in text.casefold() for phrase in q)]
        forwards, at = [], 0
        while True:
            page = await room.page(job, "after", at, limit, wanted)
            forwards += messages(page.rows)
            at = page.cursor.newest or 0
            if not page.cursor.more:
                break
        assert forwards == expected
        tail = await room.page(job, "tail", 0, limit, wanted)
        assert messages(tail.rows) == expected[-limit:]
        backwards = messages(tail.rows)
        while tail.cursor.more:
            tail = await room.page(job, "before", tail.cursor.oldest or 0, limit, wanted)
            backwards[:0] = messages(tail.rows)
        assert backwards == expected


# What a line is


async def test_every_line_comes_back_with_the_text_that_was_sent(room: Room) -> None:
    texts = [
        "",
        "\0",
        "a\u2028b",
        "emoji 😀",
        "\n\r\t",
        "x" * 65_536,
        "é" * 32_768,
        "\ufeff",
        '"\\',
        "\x7f\x80\x9f",
        "\uffff",
    ]
    job = await room.new_job()
    await room.append(job, *texts)
    assert messages(await room.every_line(job)) == texts


async def test_a_line_is_the_same_object_at_each_reading_and_its_id_a_ulid_in_order(room: Room) -> None:
    job = await room.new_job()
    for _ in range(3):
        await room.append(job, *[str(i) for i in range(700)])
    rows = await room.every_line(job)
    assert rows == await room.every_line(job, 77)
    assert rows[100:150] == (await room.page(job, "before", 151, 50)).rows
    ids = [row.id for row in rows]
    assert all(map(is_ulid, ids))
    assert ids == sorted(set(ids))


async def test_logged_at_is_the_entrys_own_time_or_that_of_acceptance(room: Room) -> None:
    job = await room.new_job()
    body = json.dumps([{"message": "m", "timestamp": "2026-03-01T09:21:01+01:00"}, "n"]).encode()
    await room.logs.append(room.space, job, exhaust(decode_batch_steps(body, ndjson=False)))
    own, none = (await room.page(job)).rows
    assert own.loggedAt == "2026-03-01T08:21:01.000Z"
    assert none.loggedAt == none.createdAt == own.createdAt


async def test_frames_of_a_stream_hold_exactly_the_objects_of_a_page(room: Room) -> None:
    job = await room.new_job()
    for _ in range(4):
        await room.append(job, *[str(i) for i in range(60)])
    chunks, first_kept, newest = await room.logs.read_after(job, 30, 150, 1_000_000)
    assert [(chunk.first, chunk.last) for chunk in chunks] == [(31, 60), (61, 120), (121, 180)]
    assert (first_kept, newest) == (1, 240)
    page = await room.page(job, "after", 30, 150)
    assert [row for chunk in chunks for row in json.loads(chunk.entries)] == json.loads(
        b"[" + b",".join(chunk.entries[1:-1] for chunk in chunks) + b"]"
    )
    assert [row["id"] for chunk in chunks for row in json.loads(chunk.entries)] == [row.id for row in page.rows]


# Cursors


async def test_cursors_say_what_was_examined(room: Room) -> None:
    job = await room.new_job()
    empty = await room.page(job)
    assert tuple(empty.cursor) == ("tail", None, None, False, None)
    await room.append(job, *[f"line {i}" for i in range(1, 101)])
    none = LineFilter(needles=("nowhere",))
    some = LineFilter(needles=("7",))
    cases: list[tuple[Any, int, int, LineFilter, tuple[Any, ...]]] = [
        ("tail", 0, 10, LineFilter(), (91, 100, True)),
        ("tail", 0, 500, LineFilter(), (1, 100, False)),
        ("after", 0, 10, LineFilter(), (1, 10, True)),
        ("after", 90, 10, LineFilter(), (91, 100, False)),
        ("after", 100, 10, LineFilter(), (None, 100, False)),
        ("after", 1000, 10, LineFilter(), (None, 1000, False)),
        ("before", 11, 10, LineFilter(), (1, 10, False)),
        ("before", 12, 10, LineFilter(), (2, 11, True)),
        ("before", 1, 10, LineFilter(), (1, None, False)),
        ("before", 5000, 10, LineFilter(), (91, 100, True)),
        ("tail", 0, 10, none, (1, 100, False)),
        ("after", 40, 10, none, (41, 100, False)),
        ("before", 40, 10, none, (1, 39, False)),
        ("after", 0, 2, some, (1, 17, True)),
        ("before", 101, 2, some, (87, 100, True)),
    ]
    for mode, position, limit, wanted, cursor in cases:
        found = (await room.page(job, mode, position, limit, wanted)).cursor
        assert tuple(found) == (mode, *cursor, 1), (mode, position, limit, wanted)


async def test_a_search_is_bounded_in_work_and_its_cursor_goes_on(monkeypatch: pytest.MonkeyPatch, room: Room) -> None:
    monkeypatch.setattr("app.logs.page_scan.SCAN_LINES", 100)
    job = await room.new_job()
    for i in range(30):
        await room.append(job, *["hit" if i == 17 and k == 3 else "miss" for k in range(50)])
    found, pages, at = [], 0, 0
    while True:
        page = await room.page(job, "after", at, 10, LineFilter(needles=("hit",)))
        found += [row.seq for row in page.rows]
        pages, at = pages + 1, page.cursor.newest or 0
        if not page.cursor.more:
            break
    assert found == [854]
    assert pages == 15


@pytest.mark.parametrize("mode", ["after", "before"])
@pytest.mark.parametrize("wanted", [LineFilter(), LineFilter(needles=("hit",)), LineFilter(levels=frozenset({"info"}))])
@pytest.mark.parametrize("hot_lines", [100, 10_000])
async def test_a_page_answers_8_mib_at_most_whatever_it_looks_for_and_its_cursor_goes_on(
    mode: str, wanted: LineFilter, hot_lines: int, room_redis: AnyRedis
) -> None:
    async with new_room(room_redis, log_hot_lines=hot_lines) as room:
        job = await room.new_job()
        for i in range(25):
            await room.append(job, *[f"{'miss' if k == 3 else 'hit'} {i} {k} " + '"\u00fc' * 20_000 for k in range(12)])
        expected = [i * 12 + k + 1 for i in range(25) for k in range(12) if k != 3 or "hit" not in wanted.needles]
        found: list[int] = []
        at, sizes = 0 if mode == "after" else 301, []
        while True:
            page = await room.page(job, mode, at, 500, wanted)
            sizes.append(len(encode_array(page.rows)))
            seqs = [row.seq for row in page.rows]
            found = found + seqs if mode == "after" else seqs + found
            if not page.cursor.more:
                break
            at = (page.cursor.newest if mode == "after" else page.cursor.oldest) or 0
        assert found == expected
        assert max(sizes) <= PAGE_BYTES
        assert min(sizes[:-1]) > PAGE_BYTES / 2


async def test_levels_are_filtered_in_both_directions(room: Room) -> None:
    job = await room.new_job()
    levels = ["info", "error", "debug", "fatal"] * 25
    body = json.dumps([{"message": str(i), "level": level} for i, level in enumerate(levels)]).encode()
    await room.logs.append(room.space, job, exhaust(decode_batch_steps(body, ndjson=False)))
    wanted = LineFilter(levels=frozenset({"error", "fatal"}))
    expected = [str(i) for i, level in enumerate(levels) if level in wanted.levels]
    assert messages((await room.page(job, "after", 0, 500, wanted)).rows) == expected
    assert messages((await room.page(job, "tail", 0, 7, wanted)).rows) == expected[-7:]


# Downloads


async def test_a_download_is_every_line_from_after_to_the_end(room: Room) -> None:
    job = await room.new_job()
    for i in range(20):
        await room.append(job, *[f"{i} {k} {'x' * k}" for k in range(300)])
    rows = await room.every_line(job)
    for after, wanted in (
        (0, LineFilter()),
        (1234, LineFilter()),
        (6000, LineFilter()),
        (0, LineFilter(needles=("7 1",))),
    ):
        pieces = [piece async for piece in await room.logs.download(room.space, job, after, wanted)]
        lines = [json.loads(line) for line in b"".join(pieces).splitlines()]
        chosen = [row for row in rows if row.seq > after and all(word in row.message for word in wanted.needles)]
        assert [line["seq"] for line in lines] == [row.seq for row in chosen]


async def test_a_script_that_redis_forgot_is_sent_again(new_redis: NewRedis) -> None:
    with new_redis() as server:
        async with new_room(server) as room:
            job = await room.new_job()
            await room.append(job, "a")
            await room.call("SCRIPT", "FLUSH")
            await asyncio.gather(*(room.append(job, "b") for _ in range(5)))
            await room.append(job, *["c" * 1000] * 200)
            assert len(await room.every_line(job)) == 206


async def test_the_hint_tells_seqs_and_the_lines_while_they_are_few(room: Room) -> None:
    job = await room.new_job()
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    def hear(hint: bytes | None) -> None:
        if hint is not None:
            heard.put_nowait(hint)

    await room.backend.relay.subscribe(room.keys.log_live(job), hear)
    await room.append(job, "small", "lines")
    await room.append(job, *["x" * 1000] * 100)
    async with asyncio.timeout(10):
        first, last, at_ms, lines = (await heard.get()).split(b" ", 3)
        assert (int(first), int(last)) == (1, 2)
        assert int(at_ms) > 1_700_000_000_000
        assert [line["message"] for line in json.loads(lines)] == ["small", "lines"]
        assert [int(word) for word in (await heard.get()).split(b" ")[:2]] == [3, 102]
