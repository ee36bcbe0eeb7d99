"""The data folder: closed to other users, and taken by one process at a time.

Owns who may enter the folder, the locks in it, and the place of its server's socket. Knows nothing of that server.
A lock is an flock on a file that says its holder's pid. The kernel drops it when the last copy of the open file is
closed, however the processes that had one ended: there are no stale locks. A child that inherits the file holds the
lock too, and goes on holding it after the parent has closed its own copy; so nothing here unlocks, it only closes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_NAME = "jobwire.lock"
# sockaddr_un holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
LOCK_POLL_S = 0.002

ONE_VALKEY = "valkey.lock"
CLUSTER = "node-1"
LAYOUTS = {ONE_VALKEY: "the one server of `jobwire up`", CLUSTER: "a cluster of `jobwire cluster up`"}
"""What only a folder of that layout has, and what lies in it then."""


def make_private(folder: Path) -> None:
    """Create `folder`, or close it to others: mode 0700.

    PermissionError for one that is open to others and holds what is not ours, as a mistyped `/tmp` does.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        if any(folder.iterdir()) and not (folder / LOCK_NAME).exists():
            raise PermissionError("the folder holds other things and is open to other users; give one of its own")
        folder.chmod(0o700)


def other_layout(folder: Path, layout: str) -> str:
    """What lies in the folder if it was laid out in another way than `layout`; else empty."""
    return next((holds for mark, holds in LAYOUTS.items() if mark != layout and (folder / mark).exists()), "")


def socket_path(folder: Path) -> Path:
    """`valkey.sock` in the folder or, where that is too long for a socket, in a runtime folder named after it.

    The same folder has the same path each time, as long as XDG_RUNTIME_DIR and TMPDIR stay what they are.
    """
    name = f"jobwire-{os.geteuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    bases = [Path(base) for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir()) if base]
    for parent in (folder, *(base / name for base in bases if base.is_dir())):
        if len(os.fsencode(parent / "valkey.sock")) <= SOCKET_PATH_BYTES:
            return parent / "valkey.sock"
    return Path("/tmp", name, "valkey.sock")


@contextmanager
def runtime_folder(folder: Path) -> Iterator[None]:
    """`folder` exists, where others may write too, and is ours alone; removed after, unless something is left in it.

    PermissionError when somebody else has made it before us, or made a link of that name.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} should be a folder of ours, closed to others; remove it")
    yield
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def open_private(path: Path, flags: int) -> Iterator[int]:
    """The descriptor of a file that only we can read, created if missing."""
    fd = os.open(path, flags | os.O_CREAT, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def lock_file(fd: int, within_s: float = 0.0) -> bool:
    """Lock this open file; False when somebody else holds it all that time."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOCK_POLL_S)
        else:
            return True


def read_pid(fd: int) -> int | None:
    """The pid that a lock's holder has written; None before it has."""
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


def write_pid(fd: int, pid: int) -> None:
    """Say who holds the lock."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % pid, 0)
