"""Readers of Redis itself, as docs/redis.md tells other programs to read: logs and feeds by XREAD, jobs by sharded
messages and the list behind them. Each keeps what it got, and where that was taken back.

They share no code with the server. A reader finds the node of a slot by CLUSTER SLOTS, goes where MOVED and ASK lead,
and compares its newest entries with what is there whenever it has connected anew.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from tests.live.checker import JobTruth, Truth, read_block
from tests.live.followers import Wrong

BLOCK_MS = 300
SILENT_S = 1.5
PAUSE_S = 0.05
BLOCKS = 4
"""How many of the newest sealed blocks are read when lines are missing: as many as are sealed while nobody reads."""


def client_of(port: int) -> Any:
    """A client of one node, on one connection, which does nothing twice."""
    return redis.Redis(
        port=port, socket_timeout=SILENT_S, single_connection_client=True, retry=Retry(NoBackoff(), 0), protocol=2
    )


class DirectReader(ABC):
    """One reader, in a thread of its own. `wrong` says what cannot be."""

    def __init__(self, ports: Sequence[int], key: str) -> None:
        self._ports = ports
        self._key = key
        self._slot = key_slot(key.encode())
        self._stop = threading.Event()
        self._client: Any = None
        self.entries: dict[int, Any] = {}
        self.position = 0
        self.taken_back: list[tuple[int, int]] = []
        """First and last seq of what a promoted replica had not got."""
        self.connections = 0
        self.wrong: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __str__(self) -> str:
        return f"the reader of {self._key}"

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Read nothing more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(20)

    @abstractmethod
    def read(self) -> None:
        """Wait for a moment, and take what there is behind `position`."""

    @abstractmethod
    def kept(self) -> dict[int, Any]:
        """What Redis holds of the newest entries, up to where this reader stands at least."""

    @abstractmethod
    def truth(self, truth: Truth) -> tuple[int, dict[int, Any]]:
        """Of what Redis holds, the newest seq and what this reader should have got."""

    def begin(self) -> None:
        """What is to be done once on each connection: nothing, unless said otherwise."""
        return

    def take(self, first: int, entries: Sequence[Any]) -> None:
        """The next entries; Wrong if they are others. Some of the first may be known."""
        if first > self.position + 1:
            raise Wrong(f"{first} came after {self.position}")
        for seq, entry in enumerate(entries, first):
            if seq > self.position:
                self.entries[seq], self.position = entry, seq
            elif self.entries[seq] != entry:
                raise Wrong(f"{seq} was {self.entries[seq]}, and is {entry}")

    def look_at(self, truth: Truth) -> None:
        """That it holds exactly what Redis holds. Raises Wrong."""
        if self.wrong is not None:
            raise self.wrong
        position, kept = self.truth(truth)
        if self.position != position or list(self.entries) != list(range(1, position + 1)):
            raise Wrong(f"{self}: {len(self.entries)} entries up to {self.position}, Redis has {position}")
        for seq, entry in kept.items():
            if self.entries[seq] != entry:
                raise Wrong(f"{self}: {seq} is {self.entries[seq]}, and Redis has {entry}")

    # Connections

    def _run(self) -> None:
        while not self._stop.is_set() and self.wrong is None:
            try:
                self._client = client_of(self._owner())
                self.connections += 1
                with self._client:
                    self._cut()
                    self.begin()
                    while not self._stop.is_set():
                        self.read()
            except (redis.RedisError, OSError):
                time.sleep(PAUSE_S)
            except Exception as error:
                error.add_note(f"{self}, at {self.position}, connected {self.connections} times")
                self.wrong = error

    def _owner(self) -> int:
        """The port of the node that has the slot, as any node says."""
        with client_of(random.choice(self._ports)) as client:
            client.set_response_callback("CLUSTER SLOTS", lambda reply, **_: reply)
            for first, last, primary, *_ in client.execute_command("CLUSTER SLOTS"):
                if first <= self._slot <= last:
                    return int(primary[1])
        raise redis.RedisError("nobody has the slot")

    def call(self, *command: str | int) -> Any:
        """A reply. While the slot is half moved, the node that it leaves may lead to the other one for once."""
        try:
            return self._client.execute_command(*command)
        except redis.exceptions.AskError as told:
            with client_of(told.port) as there:
                there.execute_command("ASKING")
                return there.execute_command(*command)

    def _cut(self) -> None:
        """Give up what is not there any more, or is another entry by now."""
        if not self.position:
            return
        kept, stood = self.kept(), self.position
        while self.position and kept.get(self.position) != self.entries[self.position]:
            if self.position < min(kept, default=0):
                raise Wrong(f"{self.position} is too old to be compared with")
            del self.entries[self.position]
            self.position -= 1
        if self.position < stood:
            self.taken_back.append((self.position + 1, stood))


class LogReader(DirectReader):
    """The lines of a job."""

    def __init__(self, ports: Sequence[int], prefix: str, job: str) -> None:
        super().__init__(ports, f"{prefix}:{{{job}}}:log")
        self.job = job

    def read(self) -> None:
        after = f"{self.position}-0"
        for _, batches in streams(self.call("XREAD", "BLOCK", BLOCK_MS, "COUNT", 100, "STREAMS", self._key, after)):
            for _, batch in batches:
                first, lines = lines_of(batch)
                if first > self.position + 1:
                    self._take_sealed()
                self.take(first, lines)

    def _take_sealed(self) -> None:
        sealed = self._sealed()
        if missing := [sealed[seq] for seq in sorted(sealed) if seq > self.position]:
            self.take(max(min(sealed), self.position + 1), missing)

    def _sealed(self) -> dict[int, str]:
        lines: dict[int, str] = {}
        for block in self.call("LRANGE", f"{self._key}:blocks", -BLOCKS, -1):
            lines |= read_block(block)
        return lines

    def kept(self) -> dict[int, Any]:
        hot: dict[int, Any] = {}
        for _, batch in entries(self.call("XRANGE", self._key, "-", "+")):
            first, lines = lines_of(batch)
            hot |= enumerate(lines, first)
        return self._sealed() | hot

    def truth(self, truth: Truth) -> tuple[int, dict[int, Any]]:
        job = truth.jobs[self.job]
        return job.line_seq, dict(job.lines)


class FeedReader(DirectReader):
    """The events of a space."""

    def __init__(self, ports: Sequence[int], prefix: str, space: str) -> None:
        super().__init__(ports, f"{prefix}:{{{space}}}:feed")

    def read(self) -> None:
        after = f"{self.position}-0"
        for _, found in streams(self.call("XREAD", "BLOCK", BLOCK_MS, "COUNT", 200, "STREAMS", self._key, after)):
            for id_, entry in found:
                self.take(seq_of(id_), [told_of(entry)])

    def kept(self) -> dict[int, Any]:
        return {seq_of(id_): told_of(entry) for id_, entry in entries(self.call("XRANGE", self._key, "-", "+"))}

    def truth(self, truth: Truth) -> tuple[int, dict[int, Any]]:
        return truth.feed_seq, dict(truth.feed)


class JobReader(DirectReader):
    """The events of a job: a message says that there is something to read."""

    def __init__(self, ports: Sequence[int], prefix: str, space: str, job: str) -> None:
        super().__init__(ports, f"{prefix}:{{{space}}}:live:{job}")
        self._events = f"{prefix}:{{{space}}}:job:{job}:events"
        self.job = job
        self._messages: Any = None

    def begin(self) -> None:
        self._messages = self._client.pubsub()
        self._messages.ssubscribe(self._key)
        self._take_listed()

    def read(self) -> None:
        message = self._messages.get_sharded_message(timeout=SILENT_S)
        if message is not None and message["type"] == "sunsubscribe":
            raise redis.RedisError("the slot has moved")
        if message is None or message["type"] != "smessage" or json.loads(message["data"])["type"] != "progress":
            self._take_listed()

    def _take_listed(self) -> None:
        listed = self.call("LRANGE", self._events, self.position, -1)
        self.take(self.position + 1, [event_of(item) for item in listed])

    def kept(self) -> dict[int, Any]:
        return dict(enumerate(map(event_of, self.call("LRANGE", self._events, 0, -1)), 1))

    def truth(self, truth: Truth) -> tuple[int, dict[int, Any]]:
        job: JobTruth = truth.jobs[self.job]
        return job.event_seq, dict(job.events)


def streams(reply: Any) -> list[Any]:
    """The streams of a reply to XREAD, each with its entries."""
    found = reply.items() if isinstance(reply, dict) else reply or []
    return [(name, entries(items)) for name, items in found]


def entries(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Entries of a stream, each with its fields."""
    flat = [(id_, fields) for id_, fields in reply]
    return [(id_, fields if isinstance(fields, dict) else paired(fields)) for id_, fields in flat]


def paired(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Names and values that come one after the other."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def seq_of(id_: bytes) -> int:
    """An entry's id is a seq."""
    return int(id_.partition(b"-")[0])


def lines_of(batch: dict[bytes, bytes]) -> tuple[int, list[Any]]:
    """The seq of a batch's first line, and the messages."""
    return int(batch[b"first"]), [line["message"] for line in json.loads(batch[b"lines"])]


def told_of(entry: dict[bytes, bytes]) -> Any:
    """Of an entry of a feed, what a Truth has of it."""
    event = json.loads(entry[b"event"])
    return event["type"], event["jobId"], event["data"]


def event_of(item: bytes) -> Any:
    """Of an item of a job's list, what a JobTruth has of it."""
    kind, _, data, *_ = json.loads(item)
    return kind, data


def settled(readers: Sequence[DirectReader], truth: Truth, within_s: float) -> None:
    """Wait until every reader stands where Redis does, then check each. Raises Wrong."""
    until_s = time.monotonic() + within_s
    with contextlib.suppress(StopIteration):
        while time.monotonic() < until_s:
            next(r for r in readers if r.wrong is None and r.position != r.truth(truth)[0])
            time.sleep(0.02)
    for reader in readers:
        reader.look_at(truth)
