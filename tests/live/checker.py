"""The independent checker: writers that go on whatever fails, and the comparison of every viewer with Redis.

It shares no code with the server: what a viewer holds was rebuilt from its frames (tests/live/followers.py), what
should be there is read from Redis as docs/redis.md describes it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import httpx
import redis
import zstandard

from tests.factories import STATUSES
from tests.live.crowd import Crowd
from tests.live.followers import Copy, Follower, JobFollower, ProgressFollower, Run, SpaceFollower, Wrong
from tests.valkey import client_of, until

BLOCK = struct.Struct(">BBQQQQII")


class Writer:
    """Appends events, lines and progress to jobs in turn, over HTTP, until told to stop, whatever fails meanwhile."""

    _names = itertools.count(1)

    def __init__(self, urls: Callable[[], str], jobs: Sequence[str], key: str, pause_s: float = 0.01) -> None:
        self._urls, self._jobs, self._key, self._pause_s = urls, jobs, key, pause_s
        self._name = f"writer {next(self._names)}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        with httpx.Client(timeout=6, trust_env=False, headers={"x-api-key": self._key}) as http:
            for number, job in enumerate(itertools.cycle(self._jobs)):
                if self._stop.wait(self._pause_s):
                    return
                at = f"{self._name}: {number}"
                bodies = {
                    "event": {"at": at},
                    "logs": [f"{at}.{i} {'x' * (number % 300)}" for i in range(1 + number % 40)],
                    "progress": {"percent": number % 100, "message": at},
                }
                for verb, body in bodies.items():
                    with contextlib.suppress(httpx.HTTPError):
                        http.post(f"{self._urls()}/api/v1/jobs/{job}/{verb}", json=body)

    def close(self) -> None:
        """Stop writing; returns when the last call has been answered."""
        self._stop.set()
        self._thread.join(20)


class JobTruth(NamedTuple):
    """What Redis holds of one job: events as (type, data), messages of lines, by seq."""

    event_seq: int
    events: dict[int, Any]
    line_seq: int
    lines: dict[int, str]
    progress: Any


class Truth:
    """What Redis holds of a space and its jobs."""

    def __init__(self, redis_url: str, prefix: str, space: str, jobs: Sequence[str]) -> None:
        own = f"{prefix}:{{{space}}}"
        with client_of(redis_url) as client:
            self.jobs = {job: read_job(client, f"{own}:job:{job}", f"{prefix}:{{{job}}}:log") for job in jobs}
            feed_seq: Any = client.hget(f"{own}:space", "seq")
            entries: Any = client.xrange(f"{own}:feed")
            self.counts = {status: client.zcard(f"{own}:jobs:{status}") for status in STATUSES}
        self.feed_seq = int(feed_seq or 0)
        texts = (json.loads(fields[b"event"]) for _, fields in entries)
        self.feed = {said["feed"]: (said["type"], said["jobId"], said["data"]) for said in texts}

    @property
    def line_seqs(self) -> dict[str, int]:
        """How long each log is."""
        return {job: truth.line_seq for job, truth in self.jobs.items()}


def read_job(client: redis.Redis, job: str, log: str) -> JobTruth:
    """One job, from its keys. Lines are read before blocks: what is sealed meanwhile is met twice, not never."""
    fields: Any = client.hmget(job, "eventSeq", "progress")
    items: Any = client.lrange(f"{job}:events", 0, -1)
    line_seq: Any = client.hget(f"{log}:meta", "lastSeq")
    batches: Any = client.xrange(log)
    blocks: Any = client.lrange(f"{log}:blocks", 0, -1)
    event_seq, progress = int(fields[0]), json.loads(fields[1] or b"null")
    events = {seq: tuple(json.loads(item)[:3:2]) for seq, item in enumerate(items, event_seq - len(items) + 1)}
    lines: dict[int, str] = {}
    for block in blocks:
        lines |= read_block(block)
    for _, batch in batches:
        lines |= {seq: line["message"] for seq, line in enumerate(json.loads(batch[b"lines"]), int(batch[b"first"]))}
    return JobTruth(event_seq, events, int(line_seq or 0), lines, progress)


def read_block(block: bytes) -> dict[int, str]:
    """The messages of a sealed block."""
    _, _, first, _, _, _, _, size = BLOCK.unpack_from(block)
    text = zstandard.decompress(block[BLOCK.size : BLOCK.size + size]).decode()
    return dict(enumerate(text.split("\n"), first))


def event_of(entry: Any) -> Any:
    """Of a job's event in a frame, what a JobTruth has of it."""
    return entry["type"], entry["data"]


def line_of(entry: Any) -> Any:
    """Of a line in a frame, what a JobTruth has of it."""
    return entry["message"]


def told_of(entry: Any) -> Any:
    """Of a space's event in a frame, what a Truth has of it."""
    return entry["type"], entry["jobId"], entry["data"]


class Check:
    """Compares copies with what Redis holds. What many viewers share is compared once."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._good: set[tuple[int, int]] = set()

    def is_settled(self, follower: Follower) -> bool:
        """Whether a viewer has got everything, or is wrong."""
        if follower.wrong is not None:
            return True
        if isinstance(follower, SpaceFollower):
            return (follower.feed.position, follower.counts) == (self._truth.feed_seq, self._truth.counts)
        assert isinstance(follower, JobFollower | ProgressFollower)
        job = self._truth.jobs[follower.job]
        if isinstance(follower, JobFollower) and not has_reached(follower, job.event_seq, job.line_seq):
            return False
        return bool(follower.progress == job.progress)

    def look_at(self, follower: Follower) -> None:
        """That a viewer holds exactly what Redis holds. Raises Wrong."""
        if follower.wrong is not None:
            raise follower.wrong
        if not self.is_settled(follower):
            raise Wrong(f"{vars(follower)} is not up to date")
        if isinstance(follower, SpaceFollower):
            self._compare(follower.feed, self._truth.feed, told_of)
        elif isinstance(follower, JobFollower):
            job = self._truth.jobs[follower.job]
            self._compare(follower.events, job.events, event_of)
            self._compare(follower.lines, job.lines, line_of)

    def _compare(self, copy: Copy, kept: dict[int, Any], shown: Callable[[Any], Any]) -> None:
        held = 0
        for run in copy.runs:
            held += run.last - run.first + 1
            if (id(run.frame), run.last) not in self._good:
                self._compare_run(run, kept, shown)
                self._good.add((id(run.frame), run.last))
        trimmed = sum(last - first + 1 for first, last, reason in copy.gaps if reason == "trimmed")
        if held + trimmed < copy.position and not any(reason == "missed" for _, _, reason in copy.gaps):
            raise Wrong(f"holds {held}, {trimmed} were trimmed, of {copy.position}")
        for seq, entry in copy.lost:
            if seq in kept and shown(entry) == kept[seq]:
                raise Wrong(f"{seq} was declared lost, and Redis has it")

    @staticmethod
    def _compare_run(run: Run, kept: dict[int, Any], shown: Callable[[Any], Any]) -> None:
        for seq in range(run.first, run.last + 1):
            if seq in kept and shown(run.entry(seq)) != kept[seq]:
                raise Wrong(f"{seq} is {run.entry(seq)}, and Redis has {kept[seq]}")


def has_reached(follower: JobFollower, event_seq: int, line_seq: int) -> bool:
    """Whether a viewer stands exactly there."""
    return (follower.events.position, follower.lines.position) == (event_seq, line_seq)


def settle(crowd: Crowd, read: Callable[[], Truth], within_s: float = 30.0) -> Truth:
    """Wait until everybody is up to date, then check everybody; what Redis holds."""
    truth = read()
    check = Check(truth)
    with contextlib.suppress(AssertionError):
        until(lambda: all(check.is_settled(follower) for follower in crowd.followers), within_s)
    time.sleep(0.2)
    for follower in crowd.followers:
        check.look_at(follower)
    return truth
