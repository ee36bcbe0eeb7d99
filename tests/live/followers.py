"""A thousand viewers in one thread, each of which rebuilds from its frames alone what it was told.

It shares no code with the server. A viewer comes back by itself whenever its connection ends, with the position it has,
and stops at the first frame that cannot be: lost, doubled, reordered, or a gap that does not begin or end where it
stands. Frames that many viewers are sent alike are decoded once.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import uvloop

from tests.live.raw import CLOSE, PING, PONG, TEXT, frame, handshake

Frame = dict[str, Any]

HELLO_S = 2.0
SILENT_S = 6.0
"""After how long without a byte a viewer asks whether anybody is there, and after how long it gives up."""

PAUSE_S = (0.05, 0.3)
"""Between two connections, unless the server names a time."""

OVER = 1000
AWAY = 1012
"""Close codes: nothing more will come; the process ends, and its reason says when to come back."""


class Wrong(AssertionError):
    """A viewer was told something that cannot be."""


class Run(NamedTuple):
    """Entries `first` to `last` of a sequence, as the frame that brought them has them."""

    first: int
    last: int
    frame: Frame

    def entry(self, seq: int) -> Frame:
        """The event or the line with this seq."""
        if self.frame["type"] != "logs":
            return self.frame
        found: Frame = self.frame["data"]["entries"][seq - self.first]
        return found


class Copy:
    """What one viewer holds of one sequence, without holes but those that were declared."""

    def __init__(self) -> None:
        self.position = 0
        self.runs: list[Run] = []
        self.gaps: list[tuple[int, int, str]] = []
        self.lost: list[tuple[int, Frame]] = []
        """The first entry that was taken back by each rollback, with its seq."""

    def take(self, first: int, last: int, frame: Frame) -> None:
        """The next entries; Wrong if they are others."""
        if first != self.position + 1 or last < first:
            raise Wrong(f"{first} to {last} came after {self.position}")
        self.position = last
        self.runs.append(Run(first, last, frame))

    def lose(self, first: int, last: int, reason: str) -> None:
        """A gap: trimmed ones lie ahead, rolled back ones behind, up to where the viewer stands."""
        self.gaps.append((first, last, reason))
        if reason == "trimmed":
            if first != self.position + 1 or last < first:
                raise Wrong(f"a gap from {first} to {last} came after {self.position}")
            self.position = last
        elif last != self.position or last < first:
            raise Wrong(f"rolled back from {first} to {last}, standing at {self.position}")
        else:
            self.cut(first - 1)

    def cut(self, to: int) -> None:
        """Drop what came after a seq, and note the first of it."""
        while self.runs and self.runs[-1].last > to:
            run = self.runs.pop()
            if run.first <= to + 1:
                self.lost.append((to + 1, run.entry(to + 1)))
            if run.first <= to:
                self.runs.append(run._replace(last=to))
        self.position = to


class Follower(ABC):
    """One viewer. `urls` says where the service is to be found; `by_events` watches by server-sent events."""

    def __init__(self, urls: Callable[[], str], key: str | None, *, by_events: bool = False) -> None:
        self.urls = urls
        self.key = key
        self.by_events = by_events
        self.wrong: BaseException | None = None
        self.link: Link | None = None
        self.connections = 0
        self.recent: deque[tuple[str, str]] = deque(maxlen=12)
        """The last frames, and what was asked for before them: the story of what is wrong."""
        self.has_ended = False

    @abstractmethod
    def path(self) -> str:
        """What to ask for now."""

    @abstractmethod
    def take(self, frame: Frame) -> None:
        """One frame. Raises Wrong."""

    @abstractmethod
    def event_id(self) -> str:
        """What the id of the event must be that brought it here; "" if it must have none."""

    async def run(self, decode: Callable[[bytes], Frame]) -> None:
        """Follow until cancelled, or until the service says that there is no more, or something is wrong."""
        loop = asyncio.get_running_loop()
        while self.wrong is None and not self.has_ended:
            self.link = link = Link(self, decode)
            host, _, port = self.urls().removeprefix("http://").rpartition(":")
            try:
                async with asyncio.timeout(SILENT_S):
                    await loop.create_connection(lambda link=link: link, host, int(port))  # type: ignore[misc]  # of a lambda's default
            except (OSError, TimeoutError):
                link.abort()
            else:
                await link.closed
            await asyncio.sleep(link.pause_s)


class JobFollower(Follower):
    """A viewer of a job, its log included."""

    def __init__(self, urls: Callable[[], str], job: str, key: str, *, by_events: bool = False) -> None:
        super().__init__(urls, key, by_events=by_events)
        self.job = job
        self.events = Copy()
        self.lines = Copy()
        self.epoch = ""
        self.progress: Any = None
        self.lines_at_end: int | None = None
        """How many lines had come when the job ended."""
        self._begins = ("", 0, 0)

    def path(self) -> str:
        query = f"logs=true&after={self.events.position}&logsAfter={self.lines.position}"
        if self.epoch:
            query += f"&epoch={self.epoch}"
        return f"/realtime/{self.job}?{query}"

    def event_id(self) -> str:
        has_begun = self.epoch == self._begins[0]
        return f"{self.epoch}.{self.events.position}.{self.lines.position}" if self.epoch and has_begun else ""

    def take(self, frame: Frame) -> None:
        kind = frame["type"]
        if kind == "init":
            self._begins = frame["epoch"], frame["seq"], frame["logSeq"]
            self.progress = frame["data"]
            self._adopt()
        elif kind == "gap":
            copy = self.events if frame["stream"] == "events" else self.lines
            copy.lose(frame["from"], frame["to"], frame["reason"])
            if self.epoch != self._begins[0]:
                self._adopt()
        elif self.epoch != self._begins[0]:
            raise Wrong(f"no gap came between {self._begins} and {frame}")
        elif kind == "logs":
            self.lines.take(frame["data"]["fromSeq"], frame["data"]["toSeq"], frame)
        elif kind == "progress":
            if frame["seq"] > self.events.position:
                raise Wrong(f"progress of {frame['seq']} came after {self.events.position}")
            self.progress = frame["data"]
        else:
            self.events.take(frame["seq"], frame["seq"], frame)
            self.lines_at_end = self.lines.position if kind == "completed" else None

    def _adopt(self) -> None:
        """An epoch goes with the positions that it begins with: where ours are beyond them, the gaps come first."""
        epoch, seq, log_seq = self._begins
        if seq > self.events.position or log_seq > self.lines.position:
            raise Wrong(f"begins at {seq} and {log_seq}, beyond {self.events.position} and {self.lines.position}")
        if (seq, log_seq) == (self.events.position, self.lines.position):
            self.epoch = epoch


class SpaceFollower(Follower):
    """A viewer of a space."""

    def __init__(self, urls: Callable[[], str], space: str, key: str, *, by_events: bool = False) -> None:
        super().__init__(urls, key, by_events=by_events)
        self.space = space
        self.feed = Copy()
        self.instance = ""
        self.counts: Any = None

    def path(self) -> str:
        query = f"?since={self.feed.position}&streamInstanceId={self.instance}" if self.instance else "?since=0"
        return f"/realtime/spaces/{self.space}{query}"

    def event_id(self) -> str:
        return f"{self.instance}.{self.feed.position}" if self.instance else ""

    def take(self, frame: Frame) -> None:
        if frame["type"] == "connected":
            self._begin(frame)
        elif frame["type"] == "progress":
            if frame["seq"] > self.feed.position:
                raise Wrong(f"progress of {frame['seq']} came after {self.feed.position}")
        else:
            self.feed.take(frame["seq"], frame["seq"], frame)
            self.counts = frame.get("counts") or self.counts

    def _begin(self, frame: Frame) -> None:
        seq, stood = frame["seq"], self.feed.position
        if frame["missed"]:
            self.feed.gaps.append((seq + 1, stood, "missed"))
            self.feed.runs.clear()
            self.feed.position = seq
        elif seq != stood:
            raise Wrong(f"begins at {seq}, not at {stood}, and nothing was missed")
        self.instance, self.counts = frame["streamInstanceId"], frame["counts"]


class ProgressFollower(Follower):
    """A viewer without a key: progress, the end, and nothing else."""

    def __init__(self, urls: Callable[[], str], job: str, *, by_events: bool = False) -> None:
        super().__init__(urls, None, by_events=by_events)
        self.job = job
        self.epoch = ""
        self.progress: Any = None

    def path(self) -> str:
        return f"/realtime/{self.job}"

    def event_id(self) -> str:
        return f"{self.epoch}.." if self.epoch else ""

    def take(self, frame: Frame) -> None:
        kind = frame["type"]
        if kind not in ("init", "progress", "completed") or frame["seq"] is not None or frame.get("logSeq") is not None:
            raise Wrong(f"nobody without a key may see {frame}")
        if kind == "completed" and "data" in frame:
            raise Wrong(f"nobody without a key may see the result: {frame}")
        self.epoch = frame.get("epoch", self.epoch)
        self.progress = frame.get("data", self.progress)


class Link(asyncio.Protocol):
    """One connection of a follower: a WebSocket, or a response of server-sent events."""

    def __init__(self, follower: Follower, decode: Callable[[bytes], Frame]) -> None:
        self._follower = follower
        self._decode = decode
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._body = b""
        self._is_open = False
        self._heard_s = self._loop.time()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.pause_s = random.uniform(*PAUSE_S)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        follower = self._follower
        follower.recent.append((follower.path(), follower.event_id()))
        if not follower.by_events:
            transport.write(handshake(follower.path(), follower.key))
            return
        last = follower.event_id()
        lines = [f"GET /api/v1{follower.path()} HTTP/1.1", "Host: test"]
        lines += [f"x-api-key: {follower.key}"] if follower.key else []
        lines += [f"Last-Event-ID: {last}"] if last else []
        transport.write("\r\n".join([*lines, "", ""]).encode())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        try:
            data = self._rest + data
            if not self._is_open:
                data = self._opened(data)
            if self._is_open:
                data = self._read_chunks(data) if self._follower.by_events else self._read_frames(data)
            self._rest = data
        except Exception as error:
            error.add_note("\n".join(" ".join(words) for words in self._follower.recent))
            self._follower.wrong = error
            self.abort()

    def _take(self, text: bytes, event_id: str = "") -> None:
        self._follower.recent.append((text[:300].decode(), event_id))
        self._follower.take(self._decode(text))

    def _opened(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return data
        status = int(head[9:12])
        if status in (101, 200):
            self._is_open = True
            self._follower.connections += 1
            return rest
        if status == 204:
            self._follower.has_ended = True
        elif status < 500:
            raise Wrong(f"refused: {data!r}")
        self.abort()
        return b""

    def _read_frames(self, data: bytes) -> bytes:
        at, size = 0, len(data)
        while at + 2 <= size:
            length, start = data[at + 1], at + 2
            if length >= 126:
                start = at + (4 if length == 126 else 10)
                if start > size:
                    break
                length = int.from_bytes(data[at + 2 : start])
            if start + length > size:
                break
            self._read_frame(data[at], data[start : start + length])
            at = start + length
        return data[at:]

    def _read_frame(self, first: int, payload: bytes) -> None:
        assert self._transport is not None
        if first == 0x80 | TEXT:
            self._take(payload)
        elif first == 0x80 | PING:
            self._transport.write(frame(PONG, payload))
        elif first == 0x80 | CLOSE:
            code, reason = int.from_bytes(payload[:2]), payload[2:]
            self._follower.has_ended = code == OVER
            if code == AWAY:
                self.pause_s = json.loads(reason)["reconnectAfterMs"] / 1000
            self._transport.write(frame(CLOSE, payload[:2]))
            self._transport.close()
        elif first != 0x80 | PONG:
            raise Wrong(f"a frame that begins with {first:#x}")

    def _read_chunks(self, data: bytes) -> bytes:
        while (end := data.find(b"\r\n")) >= 0:
            start, length = end + 2, int(data[:end], 16)
            if len(data) < start + length + 2:
                break
            self._body += data[start : start + length]
            data = data[start + length + 2 :]
        *events, self._body = self._body.split(b"\n\n")
        for event in events:
            self._read_event(event)
        return data

    def _read_event(self, event: bytes) -> None:
        fields = dict(line.split(b":", 1) for line in event.split(b"\n"))
        if b"retry" in fields:
            self.pause_s = int(fields[b"retry"]) / 1000
        if b"data" not in fields:
            return
        told = fields.get(b"id", b" ")[1:].decode()
        self._take(fields[b"data"][1:], told)
        held = self._follower.event_id()
        if told != held:
            raise Wrong(f"the id {told} came with what leads to {held}")

    def tick(self) -> None:
        """Called every second: notice that nobody is there."""
        silent_s = self._loop.time() - self._heard_s
        if self._transport is None or self._transport.is_closing():
            return
        if silent_s > SILENT_S:
            self._transport.abort()
        elif silent_s > HELLO_S and self._is_open and not self._follower.by_events:
            self._transport.write(frame(PING))

    def abort(self) -> None:
        """Break the connection, if there is one."""
        if self._transport is not None:
            self._transport.abort()
        elif not self.closed.done():
            self.closed.set_result(None)


class Crowd:
    """Followers, all in one thread of their own, and what others do meanwhile."""

    def __init__(self, followers: list[Follower], *others: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.followers = followers
        self._others = others
        self._frames: dict[bytes, Frame] = {}
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    @property
    def job_followers(self) -> list[JobFollower]:
        """Those who watch a job with a key."""
        return [follower for follower in self.followers if isinstance(follower, JobFollower)]

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._everybody())

    def _decode(self, text: bytes) -> Frame:
        found = self._frames.get(text)
        if found is None:
            found = self._frames[text] = json.loads(text)
            if found["type"] == "logs":
                check_lines(found["data"])
        return found

    async def _everybody(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._started.set()
        works = [follower.run(self._decode) for follower in self.followers] + [other() for other in self._others]
        tasks = [asyncio.create_task(work) for work in works]
        while not self._stop.is_set():
            try:
                await asyncio.wait_for(self._stop.wait(), 1)
            except TimeoutError:
                self._each(Link.tick)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._each(Link.abort)
        await asyncio.sleep(0.05)

    def _each(self, do: Callable[[Link], None]) -> None:
        for follower in self.followers:
            if follower.link is not None:
                do(follower.link)

    def break_off(self) -> None:
        """Break every connection; followers come back when they can."""
        self._loop.call_soon_threadsafe(self._each, Link.abort)

    def close(self) -> None:
        """Stop following. Doing it again does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(20)


def check_lines(data: Frame) -> None:
    """That a frame has the lines that it says. Raises Wrong."""
    seqs = [entry["seq"] for entry in data["entries"]]
    if seqs != list(range(data["fromSeq"], data["toSeq"] + 1)) or data["inserted"] != len(seqs):
        raise Wrong(f"{data['fromSeq']} to {data['toSeq']} were told, {seqs} came")
