"""Viewers of streams for tests: they keep every frame that came, as it came.

with SocketViewer(server, f"/realtime/{job['id']}?after=0", key) as viewer:
    viewer.until(lambda frame: frame["type"] == "completed")
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.server import Server

Frame = dict[str, Any]
WAIT_S = 10.0


class Viewer:
    """What both transports have in common: frames are read by a thread, in order."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.code: int | None = None
        self.reason = ""
        self.ended: Any = None
        """How the job ended, as a narrow viewer is told beside all frames."""
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        for id_, text in self._texts():
            with self._changed:
                self.ids.append(id_)
                self.texts.append(text)
                self.frames.append(json.loads(text))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _texts(self) -> Iterator[tuple[str, str]]:
        raise AssertionError

    def until(self, condition: Callable[[Frame], object], within_s: float = WAIT_S) -> Frame:
        """The first frame that fits; AssertionError with all that came when there is none in time."""
        deadline, looked_at = time.monotonic() + within_s, 0
        with self._changed:
            while True:
                for frame in self.frames[looked_at:]:
                    if condition(frame):
                        return frame
                looked_at = len(self.frames)
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"no such frame within {within_s} s: {self.frames}, closed with {self.code}"
                self._changed.wait(min(left_s, 0.2))

    def until_seq(self, seq: int, within_s: float = WAIT_S) -> Frame:
        """The frame of an event with this seq."""
        return self.until(lambda frame: frame["type"] not in STATES and frame.get("seq") == seq, within_s)

    def until_closed(self, within_s: float = WAIT_S) -> int | None:
        """The close code, when the server has closed; None for an event stream."""
        self._thread.join(within_s)
        assert not self._thread.is_alive(), f"still open after {within_s} s: {self.frames}"
        return self.code

    @property
    def is_open(self) -> bool:
        """Whether frames may still come."""
        return self._thread.is_alive()

    def types(self) -> list[str]:
        """The types of the frames, in order."""
        return [frame["type"] for frame in self.frames]

    def seqs(self) -> list[int]:
        """The seqs of the events, in order."""
        return [frame["seq"] for frame in self.frames if frame["type"] not in STATES]

    def lines(self) -> list[int]:
        """The seqs of the log lines, in order."""
        frames = [frame for frame in self.frames if frame["type"] == "logs"]
        return [line["seq"] for frame in frames for line in frame["data"]["entries"]]


STATES = ("init", "connected", "progress", "logs", "gap")
"""Types of frames that are no events."""


class SocketViewer(Viewer):
    """A WebSocket."""

    def __init__(self, server: Server, path: str, key: str | None = None) -> None:
        super().__init__()
        url = f"ws{server.url.removeprefix('http')}/api/v1{path}"
        headers = {} if key is None else {"x-api-key": key}
        self._stack = contextlib.ExitStack()
        opening = connect(url, additional_headers=headers, max_size=None, compression=None, proxy=None)
        self.socket = self._stack.enter_context(opening)
        self._thread.start()

    def _texts(self) -> Iterator[tuple[str, str]]:
        try:
            for text in self.socket:
                assert isinstance(text, str)
                yield "", text
        except ConnectionClosed:
            pass
        self.code = self.socket.close_code
        self.reason = self.socket.close_reason or ""
        self.ended = json.loads(self.reason) if self.code == 1000 and self.reason else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()
        self._thread.join(WAIT_S)


class EventViewer(Viewer):
    """An event stream; `answer` is the response, `retries_ms` and `last_id` what an EventSource would keep."""

    def __init__(self, server: Server, path: str, key: str | None = None, last_event_id: str = "") -> None:
        super().__init__()
        headers = {} if key is None else {"x-api-key": key}
        if last_event_id:
            headers["last-event-id"] = last_event_id
        self._client = httpx.Client(timeout=httpx.Timeout(10, read=60), trust_env=False)
        request = self._client.build_request("GET", f"{server.url}/api/v1{path}", headers=headers)
        self.answer = self._client.send(request, stream=True)
        self.retries_ms: list[int] = []
        self.last_id = ""
        self.is_whole = False
        self._thread.start()

    def _texts(self) -> Iterator[tuple[str, str]]:
        kind = ""
        try:
            for line in self.answer.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "retry":
                    self.retries_ms.append(int(value))
                elif name == "event":
                    kind = value
                elif name == "data" and kind == "end":
                    self.ended = json.loads(value)
                elif name == "data":
                    assert not kind, kind
                    yield self.last_id, value
            self.is_whole = True
        except (httpx.HTTPError, httpx.StreamError):
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self.answer.extensions["network_stream"].get_extra_info("socket").shutdown(2)
        self._thread.join(WAIT_S)
        self.answer.close()
        self._client.close()


def refusal(server: Server, path: str, key: str | None = None, **headers: str) -> tuple[int, Frame]:
    """Status and body with which a WebSocket is refused; AssertionError when it is not."""
    url = f"ws{server.url.removeprefix('http')}/api/v1{path}"
    own = {} if key is None else {"x-api-key": key}
    try:
        with connect(url, additional_headers={**own, **headers}, proxy=None):
            pass
    except InvalidStatus as error:
        body = error.response.body
        assert body is not None
        return error.response.status_code, json.loads(bytes(body))
    raise AssertionError("the server accepted")
