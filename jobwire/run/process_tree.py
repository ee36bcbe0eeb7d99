"""All that a command started, and its end when we end: processes by /proc, in whatever group or session they are.

Run as a program (`python -I -S process_tree.py PID`) it watches over a command: its standard input is a pipe that only
jobwire holds, and when that ends jobwire was killed, and the command is asked to stop (TERM), then made to (KILL).
Stands alone: the program has nothing but this file. Where there is no /proc a process group is all that is found.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable

_GRACE_S = 10.0
_ROUNDS = 10
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of what outlives its parent below us (Linux); elsewhere nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(roots: Iterable[int]) -> list[tuple[int, int]]:
    """(pid, process group) of the roots and all below them that have not ended, as they are at about one moment."""
    processes = {pid: facts for pid in _pids() if (facts := _facts(pid)) is not None}
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in processes.items():
        children.setdefault(parent, []).append(pid)
    seen: dict[int, int] = {}
    open_ = [pid for pid in roots if pid in processes]
    while open_:
        pid = open_.pop()
        if pid not in seen:
            seen[pid] = processes[pid][1]
            open_ += children.get(pid, [])
    return list(seen.items())


def children_of(pid: int) -> list[int]:
    """The processes whose parent it is, those included that ended and were not waited for."""
    return [one for one in _pids() if (facts := _stat(one)) is not None and int(facts[1]) == pid]


def signal_all(roots: Iterable[int], number: int) -> None:
    """Send a signal to each process group of a tree, once; KILL until nothing new is found."""
    own, seen, roots = os.getpgrp(), set[int](), list(roots)
    for _ in range(_ROUNDS if number == signal.SIGKILL else 1):
        groups = {group for _, group in descendants(roots)} - seen - {own, 0, 1}
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        if not groups:
            return
        seen |= groups


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _stat(pid: int) -> list[str] | None:
    """State, parent, process group, ... of a process; None for one that is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode().split()
    except (OSError, UnicodeDecodeError):
        return None


def _facts(pid: int) -> tuple[int, int] | None:
    facts = _stat(pid)
    return None if facts is None or facts[0] in "ZX" else (int(facts[1]), int(facts[2]))


def _watch_over(pid: int) -> None:
    """Wait for our pipe's end, then stop the command. When it ended by itself we are killed before that."""
    os.read(0, 1)
    known = {group for _, group in descendants([pid])} | {pid}
    for number in (signal.SIGTERM, signal.SIGCONT):
        _signal_groups(known, number)
    deadline_s = time.monotonic() + _GRACE_S
    while time.monotonic() < deadline_s and any(_is_alive(group) for group in known):
        time.sleep(0.05)
    _signal_groups(known, signal.SIGKILL)


def _signal_groups(groups: Iterable[int], number: int) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    _watch_over(int(sys.argv[1]))
