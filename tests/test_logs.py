"""The log of a job on Redis: contiguous whatever happens, read the same from everywhere, bounded, gone when deleted."""

import asyncio
import hashlib
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.api.logs import decoded
from app.error import Refusal
from app.job import is_ulid, new_job_ids
from app.lines import Filter, parse_q
from app.logs import Appended, key_of
from app.scripts import SCRIPTS
from tests.log_room import Room, batch_of, with_room
from tests.valkey import Valkey

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SLOW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


async def refusal_of(awaitable: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await awaitable
    return caught.value


def messages(rows: Any) -> list[str]:
    return [row.message for row in rows]


# Order and seqs


def test_seqs_start_at_one_for_each_job_and_have_no_holes() -> None:
    async def work(room: Room) -> None:
        one, other = await room.new_job(), await room.new_job()
        assert await room.append(one, "a", "b") == Appended("running", 2, 1, 2, 0, False)
        assert (await room.append(other, "x")).first == 1
        assert (await room.append(one, "c")).first == 3
        rows = await room.every_line(one)
        assert [(row.seq, row.message) for row in rows] == [(1, "a"), (2, "b"), (3, "c")]

    with_room(work)


def test_batches_of_sixteen_appenders_stay_contiguous_and_leave_no_hole() -> None:
    async def work(room: Room) -> None:
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

    with_room(work)


@SLOW
@given(
    batches=st.lists(st.lists(TEXTS, min_size=1, max_size=12), min_size=1, max_size=12),
    limit=st.integers(1, 20),
    start=st.integers(0, 60),
)
def test_pages_in_both_directions_join_without_a_seam(batches: list[list[str]], limit: int, start: int) -> None:
    async def work(room: Room) -> None:
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

    with_room(work)


@SLOW
@given(
    texts=st.lists(TEXTS, max_size=40),
    q=st.lists(TEXTS.filter(lambda t: '"' not in t), max_size=2),
    limit=st.integers(1, 9),
)
def test_a_filtered_page_is_what_a_plain_filter_finds(texts: list[str], q: list[str], limit: int) -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        if texts:
            await room.append(job, *texts)
        wanted = Filter(needles=parse_q(" ".join(f'"{phrase}"' for phrase in q)))
        expected = [text for text in texts if all(phrase.lower() in text.lower() for phrase in q)]
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

    with_room(work)


# What a line is


def test_every_line_comes_back_with_the_text_that_was_sent() -> None:
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

    async def work(room: Room) -> None:
        job = await room.new_job()
        await room.append(job, *texts)
        assert messages(await room.every_line(job)) == texts

    with_room(work)


def test_a_line_is_the_same_object_at_each_reading_and_its_id_a_ulid_in_order() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        for _ in range(3):
            await room.append(job, *[str(i) for i in range(700)])
        rows = await room.every_line(job)
        assert rows == await room.every_line(job, 77)
        assert rows[100:150] == (await room.page(job, "before", 151, 50)).rows
        ids = [row.id for row in rows]
        assert all(map(is_ulid, ids))
        assert ids == sorted(set(ids))

    with_room(work)


def test_logged_at_is_the_entrys_own_time_or_that_of_acceptance() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        body = json.dumps([{"message": "m", "timestamp": "2026-03-01T09:21:01+01:00"}, "n"]).encode()
        await room.logs.append(room.space, job, await decoded(body, ndjson=False))
        own, none = (await room.page(job)).rows
        assert own.loggedAt == "2026-03-01T08:21:01.000Z"
        assert none.loggedAt == none.createdAt == own.createdAt

    with_room(work)


def test_frames_of_a_stream_hold_exactly_the_objects_of_a_page() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        for _ in range(4):
            await room.append(job, *[str(i) for i in range(60)])
        chunks, first_kept = await room.logs.read_after(job, 30, 150, 1_000_000)
        assert [(chunk.first, chunk.last) for chunk in chunks] == [(31, 60), (61, 120), (121, 180)]
        assert first_kept == 1
        page = await room.page(job, "after", 30, 150)
        assert [row for chunk in chunks for row in json.loads(chunk.entries)] == json.loads(
            b"[" + b",".join(chunk.entries[1:-1] for chunk in chunks) + b"]"
        )
        assert [row["id"] for chunk in chunks for row in json.loads(chunk.entries)] == [row.id for row in page.rows]

    with_room(work)


# Cursors


def test_cursors_say_what_was_examined() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        empty = await room.page(job)
        assert tuple(empty.cursor) == ("tail", None, None, False, None)
        await room.append(job, *[f"line {i}" for i in range(1, 101)])
        none = Filter(needles=("nowhere",))
        some = Filter(needles=("7",))
        cases: list[tuple[Any, int, int, Filter, tuple[Any, ...]]] = [
            ("tail", 0, 10, Filter(), (91, 100, True)),
            ("tail", 0, 500, Filter(), (1, 100, False)),
            ("after", 0, 10, Filter(), (1, 10, True)),
            ("after", 90, 10, Filter(), (91, 100, False)),
            ("after", 100, 10, Filter(), (None, 100, False)),
            ("after", 1000, 10, Filter(), (None, 1000, False)),
            ("before", 11, 10, Filter(), (1, 10, False)),
            ("before", 12, 10, Filter(), (2, 11, True)),
            ("before", 1, 10, Filter(), (1, None, False)),
            ("before", 5000, 10, Filter(), (91, 100, True)),
            ("tail", 0, 10, none, (1, 100, False)),
            ("after", 40, 10, none, (41, 100, False)),
            ("before", 40, 10, none, (1, 39, False)),
            ("after", 0, 2, some, (1, 17, True)),
            ("before", 101, 2, some, (87, 100, True)),
        ]
        for mode, position, limit, wanted, cursor in cases:
            found = (await room.page(job, mode, position, limit, wanted)).cursor
            assert tuple(found) == (mode, *cursor, 1), (mode, position, limit, wanted)

    with_room(work)


def test_a_search_is_bounded_in_work_and_its_cursor_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.logs.SCAN_LINES", 100)

    async def work(room: Room) -> None:
        job = await room.new_job()
        for i in range(30):
            await room.append(job, *["hit" if i == 17 and k == 3 else "miss" for k in range(50)])
        found, pages, at = [], 0, 0
        while True:
            page = await room.page(job, "after", at, 10, Filter(needles=("hit",)))
            found += [row.seq for row in page.rows]
            pages, at = pages + 1, page.cursor.newest or 0
            if not page.cursor.more:
                break
        assert found == [854]
        assert pages == 15

    with_room(work)


def test_levels_are_filtered_in_both_directions() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        levels = ["info", "error", "debug", "fatal"] * 25
        body = json.dumps([{"message": str(i), "level": level} for i, level in enumerate(levels)]).encode()
        await room.logs.append(room.space, job, await decoded(body, ndjson=False))
        wanted = Filter(levels=frozenset({"error", "fatal"}))
        expected = [str(i) for i, level in enumerate(levels) if level in wanted.levels]
        assert messages((await room.page(job, "after", 0, 500, wanted)).rows) == expected
        assert messages((await room.page(job, "tail", 0, 7, wanted)).rows) == expected[-7:]

    with_room(work)


# Idempotency-Keys


def test_the_same_batch_under_the_same_key_is_done_once_and_answered_alike() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        key = key_of("key", b"body")
        await room.append(job, "before")
        first = await room.append(job, "a", "b", key=key)
        await room.append(job, "after")
        again = await room.append(job, "a", "b", key=key)
        assert again == first._replace(replayed=True)
        assert messages(await room.every_line(job)) == ["before", "a", "b", "after"]

    with_room(work)


def test_two_copies_at_once_are_done_once_a_hundred_times() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        for n in range(100):
            key = key_of(f"key {n}", b"body")
            both = await asyncio.gather(*(room.append(job, f"{n} a", f"{n} b", key=key) for _ in range(2)))
            assert sorted(answer.replayed for answer in both) == [False, True]
            assert both[0]._replace(replayed=True) == both[1]._replace(replayed=True)
        assert messages(await room.every_line(job)) == [f"{n} {x}" for n in range(100) for x in "ab"]

    with_room(work)


def test_a_key_belongs_to_its_job() -> None:
    async def work(room: Room) -> None:
        one, other = await room.new_job(), await room.new_job()
        key = key_of("key", b"body")
        assert not (await room.append(one, "a", key=key)).replayed
        assert not (await room.append(other, "a", key=key)).replayed

    with_room(work)


def test_a_key_used_with_another_body_is_refused_and_changes_nothing() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        await room.append(job, "a", key=key_of("key", b"one body"))
        refused = await refusal_of(room.append(job, "b", key=key_of("key", b"another")))
        assert refused.code == "idempotency_mismatch"
        assert messages(await room.every_line(job)) == ["a"]

    with_room(work)


def test_an_empty_batch_uses_its_key_up() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        assert await room.append(job, key=key_of("key", b"[]")) == Appended("running", 0, None, None, 0, False)
        assert (await room.append(job, key=key_of("key", b"[]"))).replayed
        assert (await refusal_of(room.append(job, "a", key=key_of("key", b"a")))).code == "idempotency_mismatch"
        assert (await room.append(job, "a")).first == 1

    with_room(work)


def test_a_replay_after_the_log_was_cut_is_answered_like_the_first() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        body = json.dumps(["x" * 70_000]).encode()
        batch = await decoded(body, ndjson=False)
        first = await room.logs.append(room.space, job, batch, key_of("key", body))
        assert first.truncated == 1
        assert await room.logs.append(room.space, job, batch, key_of("key", body)) == first._replace(replayed=True)

    with_room(work)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, int]], None]:
    """Lets a test make the script's slices small, so that they are closed and dropped within it."""

    def shrink(constants: dict[str, int]) -> None:
        script = SCRIPTS["log_append"]
        text = script.text
        for name, value in constants.items():
            old = next(line for line in text.splitlines() if line.startswith(f"local {name} = "))
            text = text.replace(old, f"local {name} = {value}")
        changed = type(script).__new__(type(script))
        changed.name, changed.text = script.name, text
        changed.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(SCRIPTS, "log_append", changed)

    return shrink


def test_keys_are_found_across_slices_and_the_oldest_slices_go(small_slices: Callable[[dict[str, int]], None]) -> None:
    small_slices({"SLICE_KEYS": 5, "SLICES": 3})

    async def work(room: Room) -> None:
        job = await room.new_job()
        for n in range(40):
            await room.append(job, str(n), key=key_of(str(n), b""))
        fields = await room.call("HKEYS", room.keys.log_meta(job))
        assert len([name for name in fields if b":" in name]) <= 20
        for n in range(39, 24, -1):
            assert (await room.append(job, "again", key=key_of(str(n), b""))).replayed, n
        assert not (await room.append(job, "new", key=key_of("0", b""))).replayed

    with_room(work)


def test_keys_older_than_a_day_are_free_again(small_slices: Callable[[dict[str, int]], None]) -> None:
    small_slices({"KEPT_S": 0})

    async def work(room: Room) -> None:
        job = await room.new_job()
        assert not (await room.append(job, "a", key=key_of("key", b"one"))).replayed
        assert not (await room.append(job, "b", key=key_of("key", b"two"))).replayed

    with_room(work)


def test_a_key_costs_little_memory() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        batch = await batch_of("x")
        keys = 20_000
        for n in range(0, keys, 500):
            await asyncio.gather(
                *(room.logs.append(room.space, job, batch, key_of(str(k), b"")) for k in range(n, n + 500))
            )
        used = await room.call("MEMORY", "USAGE", room.keys.log_meta(job), "SAMPLES", 0)
        assert used / keys < 80

    with_room(work)


# Which job


def test_a_log_is_not_begun_for_a_job_that_does_not_exist() -> None:
    async def work(room: Room) -> None:
        await room.new_job()
        (ghost,) = new_job_ids(room.space, 0, 1)
        for append in (room.append(ghost, "a"), room.append(ghost), room.append(ghost, key=key_of("k", b""))):
            assert (await refusal_of(append)).code == "job_not_found"
        assert (await refusal_of(room.page(ghost))).code == "job_not_found"
        assert (await refusal_of(room.page("no id"))).code == "job_not_found"
        assert not await room.call("EXISTS", room.keys.log(ghost), room.keys.log_meta(ghost))

    with_room(work)


@pytest.mark.parametrize("status", ["scheduled", "pending", "completed", "dead", "killed"])
def test_logs_are_taken_in_any_status_and_tell_it(status: str) -> None:
    async def work(room: Room) -> None:
        job = await room.new_job(status)
        assert (await room.append(job, "a")).status == status
        assert (await room.append(job)).status == status

    with_room(work)


def test_after_a_deletion_a_late_append_finds_no_job_and_nothing_grows_back() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        await room.append(job, "a")
        await room.logs.delete(job)
        assert (await refusal_of(room.append(job, "late"))).code == "job_not_found"
        assert messages((await room.page(job)).rows) == []
        assert await _keys_of(room, job) == [room.keys.log_gone(job).encode()]
        assert 0 < await room.call("TTL", room.keys.log_gone(job)) <= 60

    with_room(work)


async def _keys_of(room: Room, job: str) -> list[bytes]:
    return [key for key in await room.call("KEYS", f"{room.keys.prefix}:*") if job.encode() in key.partition(b"}")[0]]


def test_log_keys_expire_when_told_to_those_of_late_lines_too() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job("completed")
        await room.append(job, "a")
        await room.logs.expire(job, 100_000)
        await room.call("DEL", room.keys.log(job))
        await room.append(job, "late")
        for key in (room.keys.log(job), room.keys.log_meta(job)):
            assert 0 < await room.call("PTTL", key) <= 100_000
        await room.logs.expire(job, 0)
        for key in (room.keys.log(job), room.keys.log_meta(job)):
            assert await room.call("PTTL", key) == -1

    with_room(work)


def test_a_job_that_runs_again_keeps_its_log() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job("pending")
        await room.append(job, "a")
        await room.logs.expire(job, 100_000)
        await room.append(job, "b")
        assert await room.call("PTTL", room.keys.log(job)) == -1
        assert await room.call("PTTL", room.keys.log_meta(job)) == -1

    with_room(work)


# Bounds


def test_beyond_the_kept_lines_the_oldest_go_and_the_cursor_says_so() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        for i in range(30):
            await room.append(job, *[f"{i} {k}" for k in range(100)])
        page = await room.page(job, "after", 0, 500)
        assert page.cursor.first_kept == page.cursor.oldest == page.rows[0].seq == 2001
        assert (await room.page(job)).cursor.newest == 3000
        assert len(await room.every_line(job)) == 1000

    with_room(work, log_lines=1000)


def test_beyond_the_kept_bytes_the_oldest_go() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        for _ in range(40):
            await room.append(job, *["x" * 1000] * 60)
        kept = await room.every_line(job)
        assert 900 < len(kept) < 1_048_576 / 1000
        assert kept[-1].seq == 2400
        assert int(await room.call("HGET", room.keys.log_meta(job), "bytes")) <= 1_048_576

    with_room(work, log_bytes=1_048_576)


def test_near_the_memory_limit_logs_are_refused_before_job_state_is() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        batch = await batch_of(*["x" * 5000] * 1000)
        refused = None
        for _ in range(40):
            try:
                await room.logs.append(room.space, job, batch)
            except Refusal as refusal:
                refused = refusal
                break
        assert refused is not None
        assert refused.code == "unavailable"
        assert await room.call("HSET", room.keys.job(room.space, job), "more", "x" * 100_000) == 1
        rows = await room.every_line(job, 500)
        assert rows[-1].seq == len(rows)
        await room.logs.delete(job)
        assert not await room.call("EXISTS", room.keys.log(job), room.keys.log_meta(job))

    with Valkey(maxmemory_bytes=64 << 20) as server:
        with_room(work, server)


# Downloads


def test_a_download_is_every_line_from_after_to_the_end() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        for i in range(20):
            await room.append(job, *[f"{i} {k} {'x' * k}" for k in range(300)])
        rows = await room.every_line(job)
        for after, wanted in ((0, Filter()), (1234, Filter()), (6000, Filter()), (0, Filter(needles=("7 1",)))):
            pieces = [piece async for piece in await room.logs.download(room.space, job, after, wanted)]
            lines = [json.loads(line) for line in b"".join(pieces).splitlines()]
            chosen = wanted.chosen([row for row in rows if row.seq > after])
            assert [line["seq"] for line in lines] == [row.seq for row in chosen]

    with_room(work)


def test_a_script_that_redis_forgot_is_sent_again() -> None:
    async def work(room: Room) -> None:
        job = await room.new_job()
        await room.append(job, "a")
        await room.call("SCRIPT", "FLUSH")
        await asyncio.gather(*(room.append(job, "b") for _ in range(5)))
        await room.append(job, *["c" * 1000] * 200)
        assert len(await room.every_line(job)) == 206

    with Valkey() as server:
        with_room(work, server)


def test_the_hint_tells_seqs_and_the_lines_while_they_are_few() -> None:
    async def work(room: Room) -> None:
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

    with_room(work)
