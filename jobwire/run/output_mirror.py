"""The command's bytes on our own stdout and stderr, for whoever reads them there.

Owns a thread and a bounded buffer for each. Whoever reads slowly slows the command down, as a pipe does; whoever takes
nothing for a second holds nothing up any more: what finds no room is left out here (never in the job's log), and a
sentence on stderr says how much. A reader that is gone is told nothing more.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque

CAPACITY_BYTES = 8 * 1024 * 1024
STALL_S = 1.0
_PIECE_BYTES = 4096
"""Written at once: what a pipe takes whole or not at all, so that a slow reader is seen to move."""


class Mirror:
    """Called with a stream's name and its next bytes. `close` waits for the readers, but not for those that stall."""

    def __init__(self, *, quiet: bool) -> None:
        self._lanes = {"stdout": _Lane(1, open_=not quiet), "stderr": _Lane(2, open_=not quiet)}
        self._notices = self._lanes["stderr"] if not quiet else _Lane(2, open_=True)

    def __call__(self, name: str, chunk: bytes) -> None:
        self._lanes[name].put(chunk)

    def notice(self, text: str) -> None:
        """One line of our own beside the command's output, if somebody takes it."""
        self._notices.put(f"jobwire: {text}\n".encode(errors="replace"))

    def close(self) -> None:
        """Let the readers have what is still here; say what was left out."""
        left_out = sum(lane.left_out_bytes for lane in self._lanes.values())
        self._lanes["stdout"].drain()
        if left_out:
            self.notice(f"{left_out} bytes are not shown here, for nobody read them; the log has them")
        self._lanes["stderr"].drain()
        self._notices.drain()


class _Lane:
    """One descriptor: `put` on one side, a thread that writes on the other."""

    def __init__(self, fd: int, *, open_: bool) -> None:
        self._fd = fd
        self._is_open = open_
        self._changed = threading.Condition()
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._moved_at_s = time.monotonic()
        self._thread: threading.Thread | None = None
        self.left_out_bytes = 0

    def put(self, chunk: bytes) -> None:
        with self._changed:
            if not self._is_open:
                return
            self._start()
            while self._is_open and self._waiting_bytes + len(chunk) > CAPACITY_BYTES and self._waiting_bytes:
                if not self._changed.wait(max(0.0, self._moved_at_s + STALL_S - time.monotonic())) and self._stalls():
                    self.left_out_bytes += len(chunk)
                    return
            if not self._waiting_bytes:
                self._moved_at_s = time.monotonic()
            self._chunks.append(chunk)
            self._waiting_bytes += len(chunk)
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until all is written, or nobody takes anything for a while."""
        with self._changed:
            while self._is_open and self._waiting_bytes and not self._stalls():
                self._changed.wait(STALL_S / 10)

    def _stalls(self) -> bool:
        return time.monotonic() - self._moved_at_s >= STALL_S

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name=f"jobwire-mirror-{self._fd}", daemon=True)
            self._thread.start()

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._chunks)
                chunk = self._chunks.popleft()
            try:
                self._write_all(chunk)
            except OSError:
                with self._changed:
                    self._is_open, self._waiting_bytes = False, 0
                    self._chunks.clear()
                    self._changed.notify_all()
                return

    def _write_all(self, chunk: bytes) -> None:
        left = memoryview(chunk)
        while left:
            try:
                written = os.write(self._fd, left[:_PIECE_BYTES])
            except BlockingIOError:
                select.select([], [self._fd], [])
                continue
            left = left[written:]
            with self._changed:
                self._waiting_bytes -= written
                self._moved_at_s = time.monotonic()
                self._changed.notify_all()
