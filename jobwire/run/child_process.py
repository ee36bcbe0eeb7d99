"""The command as a child process: its bytes read as they come, its end noticed, signals sent to all of it.

Owns the process, its two pipes (or its pseudo-terminal) and two threads. The child leads a session of its own: signals
reach the whole of it, all that it started in other groups and sessions, and nothing else; it has no terminal to stop
at. A terminal as standard input is replaced by nothing; a pipe or file is handed on. Reading waits while the sink does,
which slows the command down instead of filling memory. Should this process be killed, a small one beside it
(`process_tree`) sees that and stops the command.

When the command ends, what it had written is still read to the last byte. Processes that it left behind with its
pipes open are read for another moment, then left alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import selectors
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from . import process_tree

CHUNK_BYTES = 256 * 1024
LINGERING_S = 2.0
TICK_S = 1.0

# A sink takes the stream's name and its next bytes; empty bytes are the stream's end.
Sink = Callable[[str, bytes], None]


class Child:
    """Starts at once; raises OSError when the command cannot be started.

    `on_exit` is called once, after the last byte went to the sink: with the return code as `subprocess` has it, or with
    the exception that the sink raised (the pipes are closed then). `on_tick` is called about every second between two
    reads, on the sink's thread. With `terminal` both streams are one, `stdout`, and it is a pseudo-terminal. With
    `adopts` this process has no other children, and what outlives its parent below it is the command's too.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        sink: Sink,
        on_exit: Callable[[int | Exception], None],
        on_tick: Callable[[], None] = lambda: None,
        terminal: bool = False,
        adopts: bool = False,
    ) -> None:
        self._on_tick = on_tick
        self._ticked_at_s = time.monotonic()
        self._adopts = adopts
        self._sink = sink
        self._on_exit = on_exit
        self._exited_at_s: float | None = None
        self._process, self._streams = _on_terminal(command, env) if terminal else _on_pipes(command, env)
        self._watcher = _watcher_of(self._process.pid)
        self._wake_reader, self._wake_writer = os.pipe()
        self._waiter = threading.Thread(target=self._wait, name="jobwire-child", daemon=True)
        threading.Thread(target=self._pump, name="jobwire-pump", daemon=True).start()
        self._waiter.start()

    def signal(self, number: int) -> None:
        """Send a signal to the command and all that it started; nothing happens if none of it is left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # macOS answers EPERM for a group of which only zombies are left.
            os.killpg(self._process.pid, number)
        others = {group for _, group in process_tree.descendants(self._roots())} - {self._process.pid}
        if others:
            process_tree.signal_all(self._others(), number)

    def _roots(self) -> list[int]:
        """The command, and what it left to us."""
        ours = process_tree.children_of(os.getpid()) if self._adopts else []
        watcher = self._watcher.pid if self._watcher else 0
        return [self._process.pid, *(pid for pid in ours if pid not in (self._process.pid, watcher))]

    def _others(self) -> list[int]:
        """All of it that is not in the command's own group."""
        return [pid for pid, group in process_tree.descendants(self._roots()) if group != self._process.pid]

    def resize(self) -> None:
        """Give the pseudo-terminal the size that ours has now, and tell the command."""
        (_, stream) = self._streams[0]
        with contextlib.suppress(OSError, ValueError):
            _copy_size(stream.fileno())
        self.signal(signal.SIGWINCH)

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
            for _, stream in self._streams:
                stream.close()
            os.close(self._wake_reader)
            _dismiss(self._watcher)
        self._on_exit(outcome)

    def _read_to_the_end(self) -> None:
        with selectors.DefaultSelector() as selector:
            for name, pipe in self._streams:
                os.set_blocking(pipe.fileno(), False)
                _widen(pipe.fileno())
                selector.register(pipe, selectors.EVENT_READ, name)
            selector.register(self._wake_reader, selectors.EVENT_READ, None)
            while selector.get_map():
                lingers_for_s = self._lingers_for_s()
                for key, _ in selector.select(TICK_S if lingers_for_s is None else min(lingers_for_s, TICK_S)):
                    self._read(selector, key)
                self._tick()
                if self._lingers_for_s() == 0:
                    self._read_what_is_left(selector)
                    return

    def _tick(self) -> None:
        if time.monotonic() - self._ticked_at_s < TICK_S:
            return
        self._ticked_at_s = time.monotonic()
        self._on_tick()
        if self._adopts:
            for pid in self._roots()[1:]:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _lingers_for_s(self) -> float | None:
        """How long pipes that are still open are read; None while the command runs."""
        if self._exited_at_s is None:
            return None
        return max(0.0, self._exited_at_s + LINGERING_S - time.monotonic())

    def _read(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        if key.data is None:
            selector.unregister(self._wake_reader)
            return
        chunk = _read_stream(key.fd)
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


Streams = list[tuple[str, IO[bytes]]]


def _on_pipes(command: Sequence[str], env: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], Streams]:
    process = _started(command, env, subprocess.PIPE, subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    return process, [("stdout", process.stdout), ("stderr", process.stderr)]


def _on_terminal(command: Sequence[str], env: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], Streams]:
    """One pseudo-terminal for both streams, of our own terminal's size, that changes no byte."""
    ours, theirs = os.openpty()
    try:
        attributes = termios.tcgetattr(theirs)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        _copy_size(ours)
        process = _started(command, env, theirs, theirs)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return process, [("stdout", open(ours, "rb", buffering=0))]  # closed with the other streams


def _started(command: Sequence[str], env: Mapping[str, str], out: int, err: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, env=env, stdin=_standard_input(), stdout=out, stderr=err, bufsize=0, start_new_session=True
    )


def _copy_size(fd: int) -> None:
    """The size of our own terminal, if we have one, for this one; else 80 x 24."""
    for own in (1, 2, 0):
        with contextlib.suppress(OSError, termios.error):
            termios.tcsetwinsize(fd, termios.tcgetwinsize(own))
            return
    termios.tcsetwinsize(fd, (24, 80))


def _watcher_of(pid: int) -> subprocess.Popen[bytes] | None:
    """The process that stops the command should we be killed; None where it cannot be started."""
    program = [sys.executable, "-I", "-S", process_tree.__file__, str(pid)]
    try:
        return subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            cwd="/",
        )
    except OSError:
        return None


def _dismiss(watcher: subprocess.Popen[bytes] | None) -> None:
    if watcher is None or watcher.stdin is None:
        return
    watcher.kill()
    watcher.stdin.close()
    watcher.wait()


def _read_stream(fd: int, limit_bytes: int = CHUNK_BYTES) -> bytes:
    """The next bytes; none at the end, which of a pseudo-terminal is an error of its own."""
    try:
        return os.read(fd, limit_bytes)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise


def _standard_input() -> int | None:
    try:
        is_terminal = os.isatty(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):
        return subprocess.DEVNULL
    return subprocess.DEVNULL if is_terminal else None


def _read_if_any(fd: int, limit_bytes: int) -> bytes:
    try:
        return _read_stream(fd, min(limit_bytes, CHUNK_BYTES))
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
