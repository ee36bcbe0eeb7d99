"""The command as a child process: its bytes read as they come, its end noticed, signals sent to all of it.

Owns the process, its two pipes and two threads. The child leads a session of its own: signals reach the whole of it
and nothing else, and it has no terminal to stop at. A terminal as standard input is replaced by nothing; a pipe or
file is handed on. Reading waits while the sink does, which slows the command down instead of filling memory.

When the command ends, what it had written is still read to the last byte. Processes that it left behind with its
pipes open are read for another moment, then left alone.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

CHUNK_BYTES = 256 * 1024
LINGERING_S = 2.0

# A sink takes the stream's name and its next bytes; empty bytes are the stream's end.
Sink = Callable[[str, bytes], None]


class Child:
    """Starts at once; raises OSError when the command cannot be started.

    `on_exit` is called once, after the last byte went to the sink: with the return code as `subprocess` has it, or with
    the exception that the sink raised (the pipes are closed then).
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        sink: Sink,
        on_exit: Callable[[int | Exception], None],
    ) -> None:
        self._sink = sink
        self._on_exit = on_exit
        self._exited_at_s: float | None = None
        self._process = subprocess.Popen(
            command,
            env=env,
            stdin=_standard_input(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._wake_reader, self._wake_writer = os.pipe()
        self._waiter = threading.Thread(target=self._wait, name="jobwire-child", daemon=True)
        threading.Thread(target=self._pump, name="jobwire-pump", daemon=True).start()
        self._waiter.start()

    def signal(self, number: int) -> None:
        """Send a signal to the command and all that it started; nothing happens if none of it is left."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):
            # macOS answers EPERM for a group of which only zombies are left.
            pass

    def kill(self) -> None:
        """End all of it at once."""
        self.signal(signal.SIGKILL)

    def _wait(self) -> None:
        self._process.wait()
        self._exited_at_s = time.monotonic()
        os.close(self._wake_writer)

    def _pump(self) -> None:
        outcome: int | Exception
        try:
            self._read_to_the_end()
            self._waiter.join()
            outcome = self._process.returncode
        except Exception as error:
            outcome = error
        finally:
            for pipe in self._pipes():
                pipe.close()
            os.close(self._wake_reader)
        self._on_exit(outcome)

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        return self._process.stdout, self._process.stderr

    def _read_to_the_end(self) -> None:
        with selectors.DefaultSelector() as selector:
            for name, pipe in zip(("stdout", "stderr"), self._pipes(), strict=True):
                os.set_blocking(pipe.fileno(), False)
                _widen(pipe.fileno())
                selector.register(pipe, selectors.EVENT_READ, name)
            selector.register(self._wake_reader, selectors.EVENT_READ, None)
            while selector.get_map():
                for key, _ in selector.select(self._lingers_for_s()):
                    self._read(selector, key)
                if self._lingers_for_s() == 0:
                    self._read_what_is_left(selector)
                    return

    def _lingers_for_s(self) -> float | None:
        """How long pipes that are still open are read; None while the command runs."""
        if self._exited_at_s is None:
            return None
        return max(0.0, self._exited_at_s + LINGERING_S - time.monotonic())

    def _read(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        if key.data is None:
            selector.unregister(self._wake_reader)
            return
        chunk = os.read(key.fd, CHUNK_BYTES)
        self._sink(key.data, chunk)
        if not chunk:
            selector.unregister(key.fileobj)

    def _read_what_is_left(self, selector: selectors.BaseSelector) -> None:
        """Empty the pipes once more, but no more than a pipe can hold: what came later is not the command's."""
        for key in list(selector.get_map().values()):
            if key.data is None:
                continue
            left_bytes = _capacity_bytes(key.fd)
            while left_bytes > 0 and (chunk := _read_if_any(key.fd, left_bytes)):
                self._sink(key.data, chunk)
                left_bytes -= len(chunk)
            self._sink(key.data, b"")


def _standard_input() -> int | None:
    try:
        is_terminal = os.isatty(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):
        return subprocess.DEVNULL
    return subprocess.DEVNULL if is_terminal else None


def _read_if_any(fd: int, limit_bytes: int) -> bytes:
    try:
        return os.read(fd, min(limit_bytes, CHUNK_BYTES))
    except BlockingIOError:
        return b""


def _widen(fd: int) -> None:
    """A wider pipe means fewer and larger reads; where that is not possible it works all the same."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CHUNK_BYTES)
    except (AttributeError, OSError):
        pass


def _capacity_bytes(fd: int) -> int:
    try:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    except (AttributeError, OSError):
        return CHUNK_BYTES
