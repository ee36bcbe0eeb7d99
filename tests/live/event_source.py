"""An EventSource as its standard has it: what it survives, and after what it is dead for ever.

https://html.spec.whatwg.org/multipage/server-sent-events.html#sse-processing-model
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

FIRST_RETRY_MS = 3000
QUIET_S = 60.0


class EventSource:
    """Reads in a thread of its own until it is dead, or closed. `dead` says why; `seqs` are those of the events."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self.seqs: list[int] = []
        self.retries_ms: list[int] = []
        self.opened = 0
        self.tries = 0
        self.dead = ""
        self._last_id = ""
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.is_set():
            self.tries += 1
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._connect()
            if self.dead:
                return
            self._closed.wait((self.retries_ms[-1] if self.retries_ms else FIRST_RETRY_MS) / 1000)

    def _connect(self) -> None:
        with contextlib.closing(http.client.HTTPConnection(self._url.netloc, timeout=QUIET_S)) as connection:
            headers = {"accept": "text/event-stream"} | ({"last-event-id": self._last_id} if self._last_id else {})
            connection.request("GET", f"{self._url.path}?{self._url.query}", headers=headers)
            self._socket = connection.sock
            with connection.getresponse() as answer:
                kind = answer.headers.get("content-type", "")
                if answer.status != 200 or not kind.startswith("text/event-stream"):
                    self.dead = f"{answer.status} {kind}"
                    return
                self.opened += 1
                self._read(answer)

    def _read(self, answer: http.client.HTTPResponse) -> None:
        event: dict[str, str] = {}
        while line := answer.readline():
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "retry":
                self.retries_ms.append(int(value))
            elif name:
                event[name] = value
            elif event:
                self._dispatch(event)
                event = {}

    def _dispatch(self, event: dict[str, str]) -> None:
        self._last_id = event.get("id", self._last_id)
        frame: Any = json.loads(event.get("data", "{}"))
        if frame.get("type") == "event":
            self.seqs.append(frame["seq"])

    def close(self) -> None:
        """Follow no more."""
        self._closed.set()
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
