"""Topics by their promise: whatever happens to hints, every viewer gets the same gapless stream, once and in order."""

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from app.streams.frames import (
    Audience,
    JobEventFrame,
    LogLinesFrame,
    ProgressFrame,
    PublishedEvent,
    SpaceEventFrame,
    Stream,
)
from app.streams.job_topic import JobTopic
from app.streams.sequence import FramePage, FrameSequence
from app.streams.space_topic import SpaceTopic
from app.streams.topic import PageNeed, Viewer

JOB = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
EPOCH = "e"


def plain(text: bytes, _: str) -> bytes:
    return text


class FakeSink:
    """A connection that keeps what it was written, and is full when its test says so."""

    def __init__(self) -> None:
        self.full = False
        self.frames: list[dict[str, Any]] = []
        self.closed: int | None = None
        self.told: tuple[str, str] | None = None

    def _write(self, text: bytes) -> None:
        assert self.closed is None, "nothing is written after the close"
        self.frames.append(json.loads(text))

    @property
    def write(self) -> Callable[[bytes], None]:
        return self._write

    @property
    def wrap(self) -> Callable[[bytes, str], bytes]:
        return plain

    def close(self, code: int, reason: str) -> None:
        self.closed = code

    def send_end(self, status: str, position: str) -> None:
        self.closed = 1000
        self.told = status, position


def event(seq: int, *, ends: bool = False) -> JobEventFrame:
    return JobEventFrame(JOB, seq, "killed" if ends else "event", at_ms=seq, data=b"null", status="running")


def lines(first: int, last: int) -> LogLinesFrame:
    entries = msgspec.json.encode([{"seq": seq} for seq in range(first, last + 1)])
    return LogLinesFrame(JOB, "running", first, last, at_ms=first, entries=entries)


class JobStore:
    """What the store holds of one job: events, some of them ends, each with the lines before it; batches of lines."""

    def __init__(self, steps: list[str]) -> None:
        self.ends: dict[int, int] = {}
        self.batches: list[tuple[int, int]] = []
        self.events = 0
        self.hints: list[tuple[str, int, int]] = []
        for step in steps:
            if step == "lines":
                first = self.newest_line + 1
                last = first + len(self.hints) % 3
                self.batches.append((first, last))
                self.hints.append(("lines", first, last))
            else:
                self.events += 1
                if step == "end":
                    self.ends[self.events] = self.newest_line
                self.hints.append(("event", self.events, self.events))

    @property
    def newest_line(self) -> int:
        return self.batches[-1][1] if self.batches else 0

    def event(self, seq: int) -> JobEventFrame:
        return event(seq, ends=seq in self.ends)

    def events_after(self, after: int, count: int) -> FramePage[JobEventFrame]:
        return FramePage([self.event(seq) for seq in range(after + 1, self.events + 1)][:count], 1, self.events)

    def lines_after(self, after: int, count: int, through: int) -> FramePage[LogLinesFrame]:
        found = [
            lines(max(first, after + 1), min(last, through))
            for first, last in self.batches
            if last > after and max(first, after + 1) <= through
        ]
        return FramePage(found[:count], 1, self.newest_line)


class Driver:
    """Does for a topic what app/streams/job_watch.py does, without time."""

    def __init__(self, store: JobStore, chance: random.Random) -> None:
        self.store = store
        self.chance = chance
        self.topic = JobTopic(JOB, EPOCH, "running", seq=0, first_kept=1)
        self.topic.open_logs(0, 1, 1)

    def hear(self, kind: str, first: int, last: int) -> None:
        if kind == "event":
            self.topic.events.add_hint(self.store.event(first))
        else:
            whole = lines(first, last).entries if self.chance.random() < 0.5 else None
            self.topic.add_log_hint(first, last, first, whole)

    def pump(self, *, reads: bool) -> None:
        """Advance; with `reads`, until nothing is missing."""
        needs = self.topic.release_frames()
        while reads and (needs or self.topic.end_waits):
            for need in needs:
                self.read(need)
            if self.topic.end_waits:
                self.topic.allow_end(self.topic.end_waits, self.store.newest_line, 1)
            needs = self.topic.release_frames()
        if self.chance.random() < 0.3:
            self.topic.events.trim_shelf(500)
            if self.topic.logs:
                self.topic.logs.trim_shelf(500)

    def read(self, need: PageNeed) -> None:
        count = self.chance.randint(1, 4)
        if need.stream is Stream.EVENTS:
            self.topic.add_event_page(self.store.events_after(need.after, count))
        else:
            through = self.topic.log_head if need.after < self.topic.log_head else 10**9
            self.topic.add_line_page(self.store.lines_after(need.after, count, through))

    def feed_viewer(self, viewer: Viewer) -> None:
        need = self.topic.feed_viewer(viewer)
        while need is not None:
            self.read(need)
            self.pump(reads=False)
            need = self.topic.feed_viewer(viewer)


def check(viewer: Viewer, store: JobStore, start: tuple[int, int]) -> None:
    """That one viewer got what the store holds, once and in order, and each end after its lines."""
    connection = viewer.connection
    assert isinstance(connection, FakeSink)
    seqs = [frame["seq"] for frame in connection.frames if frame["type"] not in ("logs", "gap")]
    assert seqs == list(range(start[0] + 1, store.events + 1))
    at = start[1]
    for frame in connection.frames:
        if frame["type"] == "logs":
            assert frame["data"]["fromSeq"] == at + 1
            at = frame["data"]["toSeq"]
            if viewer.audience is Audience.LINES:
                got = [line["seq"] for line in frame["data"]["entries"]]
                assert got == list(range(frame["data"]["fromSeq"], at + 1))
        elif frame["type"] == "killed":
            assert at >= store.ends[frame["seq"]]
    assert at == store.newest_line


steps = st.lists(st.sampled_from(["event", "event", "lines", "lines", "end"]), max_size=40)


@settings(max_examples=300, deadline=None)
@given(steps, st.randoms(use_true_random=False))
def test_whatever_happens_to_hints_every_viewer_gets_the_same_gapless_stream(
    story: list[str], chance: random.Random
) -> None:
    store = JobStore(story)
    driver = Driver(store, chance)
    hints = [hint for hint in store.hints for _ in range(chance.choice([0, 1, 1, 2]))]
    if chance.random() < 0.7:
        chance.shuffle(hints)
    viewers: list[tuple[Viewer, tuple[int, int]]] = []

    def act() -> None:
        if chance.random() < 0.4 or not viewers:
            audience = chance.choice([Audience.FULL, Audience.LINES])
            viewer = Viewer(audience)
            viewer.connection = FakeSink()
            viewer.seq = chance.randint(0, driver.topic.events.head)
            viewer.log_seq = chance.randint(0, driver.topic.log_head)
            viewers.append((viewer, (viewer.seq, viewer.log_seq)))
            driver.topic.add_viewer(viewer)
            driver.feed_viewer(viewer)
            return
        viewer, _ = chance.choice(viewers)
        connection = viewer.connection
        assert isinstance(connection, FakeSink)
        connection.full = not connection.full
        if connection.full:
            driver.topic.note_full(viewer)
        else:
            driver.feed_viewer(viewer)

    for hint in hints:
        driver.hear(*hint)
        driver.pump(reads=chance.random() < 0.3)
        if chance.random() < 0.5:
            act()
    act()
    driver.topic.events.newest = max(driver.topic.events.newest, store.events)
    driver.topic.add_log_hint(driver.topic.log_head + 1, store.newest_line, 1, None)
    driver.pump(reads=True)
    for viewer, _ in viewers:
        connection = viewer.connection
        assert isinstance(connection, FakeSink)
        connection.full = False
        driver.feed_viewer(viewer)
        assert driver.topic.is_live(viewer)
    for viewer, start in viewers:
        check(viewer, store, start)


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 30))
def test_a_rollback_tells_each_viewer_exactly_what_it_had_seen(events: int, kept: int, stood: int) -> None:
    kept, stood = min(kept, events), min(stood, events)
    store = JobStore(["event"] * events)
    driver = Driver(store, random.Random(0))
    live, behind = Viewer(Audience.FULL), Viewer(Audience.FULL)
    for viewer in (live, behind):
        viewer.connection = FakeSink()
    driver.topic.add_viewer(live)
    for hint in store.hints:
        driver.hear(*hint)
    driver.pump(reads=True)
    behind.seq = stood
    behind.connection.full = True
    driver.topic.add_viewer(behind)
    driver.topic.suspended = True
    driver.topic.roll_back(Stream.EVENTS, kept)
    driver.topic.begin_epoch("another", 0)
    driver.topic.suspended = False
    behind.connection.full = False
    driver.feed_viewer(behind)
    store.events = events + 3
    driver.topic.events.newest = store.events
    driver.pump(reads=True)
    for viewer, position in ((live, events), (behind, stood)):
        assert isinstance(viewer.connection, FakeSink)
        gaps = [(frame["from"], frame["to"]) for frame in viewer.connection.frames if frame["type"] == "gap"]
        assert gaps == ([(kept + 1, position)] if position > kept else [])
        inits = [(frame["epoch"], frame["seq"]) for frame in viewer.connection.frames if frame["type"] == "init"]
        assert inits == [("another", min(kept, position))]
        seqs = [frame["seq"] for frame in viewer.connection.frames if frame["type"] == "event"]
        assert seqs[-3 - (events - min(kept, position)) :] == list(range(min(kept, position) + 1, events + 4))


def test_a_narrow_viewer_learns_of_an_end_that_the_store_went_back_to() -> None:
    topic = JobTopic(JOB, EPOCH, "pending", seq=3, first_kept=1)
    live, behind = Viewer(Audience.NARROW), Viewer(Audience.NARROW)
    for viewer in (live, behind):
        viewer.connection = FakeSink()
        viewer.seq = 3
    topic.add_viewer(live)
    behind.connection.full = True
    topic.add_viewer(behind)
    topic.suspended = True
    topic.status = "dead"
    topic.roll_back(Stream.EVENTS, 2)
    topic.begin_epoch("another", 0)
    for viewer in (live, behind):
        assert isinstance(viewer.connection, FakeSink)
        assert [(frame["type"], frame["status"]) for frame in viewer.connection.frames] == [("init", "dead")]
        assert viewer.connection.told == ("dead", "another..end")
    assert topic.viewers == set()


def test_progress_leaves_after_the_event_that_it_follows() -> None:
    topic = JobTopic(JOB, EPOCH, "running", seq=0, first_kept=1)
    viewer = Viewer(Audience.FULL)
    connection = viewer.connection = FakeSink()
    topic.add_viewer(viewer)
    topic.add_progress(ProgressFrame(JOB, 2, "running", 5, b'{"percent":1}'))
    topic.events.add_hint(event(2))
    assert topic.release_frames() == [PageNeed(Stream.EVENTS, 0)]
    assert connection.frames == []
    topic.events.add_hint(event(1))
    topic.release_frames()
    assert [(frame["type"], frame["seq"]) for frame in connection.frames] == [
        ("event", 1),
        ("event", 2),
        ("progress", 2),
    ]


def test_progress_that_is_older_or_a_twin_is_dropped() -> None:
    topic = JobTopic(JOB, EPOCH, "running", seq=1, first_kept=1)
    viewer = Viewer(Audience.FULL)
    viewer.seq = 1
    connection = viewer.connection = FakeSink()
    topic.add_viewer(viewer)
    for at_ms, data in ((5, b"1"), (5, b"1"), (4, b"0"), (5, b"2"), (6, b"3")):
        topic.add_progress(ProgressFrame(JOB, 1, "running", at_ms, data))
        topic.release_frames()
    assert [frame["data"] for frame in connection.frames] == [1, 2, 3]


def test_progress_by_a_clock_that_is_behind_the_one_before_is_no_older() -> None:
    topic = JobTopic(JOB, EPOCH, "running", seq=1, first_kept=1)
    live, full = Viewer(Audience.NARROW), Viewer(Audience.NARROW)
    sinks = live.connection, full.connection = FakeSink(), FakeSink()
    for viewer in (live, full):
        topic.add_viewer(viewer)
    report = [(9000, b"1"), (9000, b"1"), (4000, b"0"), (5001, b"2"), (5000, b"1"), (5002, b"3")]
    for at_ms, data in report:
        topic.add_progress(ProgressFrame(JOB, 1, "running", at_ms, data))
        topic.release_frames()
        if at_ms == 9000:
            topic.set_clock(4500)
            topic.note_full(full)
    topic.feed_viewer(full)
    assert [[frame["data"] for frame in sink.frames] for sink in sinks] == [[1, 2, 3], [1, 3]]


def test_a_full_viewer_gets_the_newest_progress_when_it_is_live_again() -> None:
    topic = JobTopic(JOB, EPOCH, "running", seq=1, first_kept=1)
    viewer = Viewer(Audience.NARROW)
    connection = viewer.connection = FakeSink()
    topic.add_viewer(viewer)
    connection.full = True
    topic.note_full(viewer)
    for percent in range(1, 5):
        topic.add_progress(ProgressFrame(JOB, 1, "running", percent, b"%d" % percent))
        topic.release_frames()
    connection.full = False
    topic.feed_viewer(viewer)
    assert [frame["data"] for frame in connection.frames] == [4]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_a_space_viewer_gets_the_feed_without_holes(count: int, chance: random.Random) -> None:
    def entry(seq: int) -> SpaceEventFrame:
        null = msgspec.Raw(b"null")
        return SpaceEventFrame(PublishedEvent("event", JOB, msgspec.Raw(b'"n"'), "running", seq, seq, seq, null, null))

    topic = SpaceTopic("instance", EPOCH, 0, 1, b"{}")
    viewer = Viewer(Audience.SPACE)
    connection = viewer.connection = FakeSink()
    topic.add_viewer(viewer)
    hints = [seq for seq in range(1, count + 1) for _ in range(chance.choice([0, 1, 2]))]
    chance.shuffle(hints)
    for seq in [*hints, count]:
        if seq:
            topic.events.add_hint(entry(seq))
        while (needs := topic.release_frames()) and (chance.random() < 0.3 or seq == count):
            for need in needs:
                page = [entry(found) for found in range(need.after + 1, count + 1)][: chance.randint(1, 5)]
                topic.add_event_page(FramePage(page, 1, count))
    assert [frame["seq"] for frame in connection.frames] == list(range(1, count + 1))


def test_a_shelf_keeps_what_came_last_and_always_one() -> None:
    track: FrameSequence[JobEventFrame] = FrameSequence(0)
    for seq in range(1, 11):
        track.release_frame(event(seq))
    track.trim_shelf(3 * event(10).size_bytes)
    assert [track.find_frame(seq) is not None for seq in range(1, 11)] == [False] * 7 + [True] * 3
    track.trim_shelf(0)
    assert track.find_frame(10) is not None
