"""The embedded Valkey's append-only files, as a power cut leaves them: how far they are whole commands.

Owns: cutting off what is no command at the end of the file that was written last, with a copy beside it. A MULTI counts
only with its EXEC: half of it, left in the file, would be taken for the beginning of what is written next, and bring
old values back.
Never: cuts a file where whole commands follow, or one that was not the last; works on files that a Valkey has open.

A file holds commands as they are sent, https://valkey.io/topics/protocol/, and may hold notes of the time.
Its manifest lists the files in order: at most one base, a snapshot, and what was written since. Redis 8 also
writes there where in the stream of replication a file begins and ends (`startoffset`, `endoffset`).
"""

from __future__ import annotations

import itertools
import logging
import mmap
import os
import re
import shutil
from pathlib import Path

log = logging.getLogger(__name__)

FOLDER = "appendonlydir"
MANIFEST = "appendonly.aof.manifest"
SNAPSHOTS = (b"REDIS", b"VALKEY")
"""What a snapshot begins with."""

_ENTRY = re.compile(r"^file ([\w.]+) seq \d+ type [bi](?: \w+ \d+)*$", re.MULTILINE)
_COUNT = re.compile(rb"\*([1-9]\d{0,8})\r\n")
_LENGTH = re.compile(rb"\$(\d{1,10})\r\n")
_NOTE = re.compile(rb"#TS:\d+\r\n")
_BEGINNING = re.compile(_COUNT.pattern + _LENGTH.pattern)


class Damaged(Exception):
    """A file is damaged where nothing may be cut; the text is a sentence for the operator."""


class NoCommand(Exception):
    """There is no whole command; `at` is where it goes wrong, the end of the file for one that is only cut short."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


def list_files(data: Path) -> list[Path]:
    """The files that Valkey loads and that are there, in order; none where nothing was written yet."""
    try:
        manifest = (data / FOLDER / MANIFEST).read_text(errors="replace")
    except FileNotFoundError:
        return []
    paths = [data / FOLDER / name for name in _ENTRY.findall(manifest)]
    return [path for path in paths if path.exists()]


def prepare_files(data: Path) -> None:
    """Make the folder one that Valkey loads as it should: see `mend_files`. Cheap where nothing looks wrong.

    Raises Damaged, OSError.
    """
    for path in list_files(data):
        if path.name.endswith(".rdb") and not path.stat().st_size:
            # Valkey would take it for a snapshot of nothing.
            raise Damaged(explain_damaged_snapshot(data))
    if not ends_well(data):
        mend_files(data)


def explain_damaged_snapshot(data: Path) -> str:
    """A sentence for the operator."""
    return f"The snapshot in {data / FOLDER} (*.base.rdb) is damaged: it was not changed. {advise_restore(data)}"


def advise_restore(data: Path) -> str:
    """What the operator can do where all is lost."""
    return f"Put back a copy of {data}; or, to begin with nothing, move {data / FOLDER} elsewhere."


def ends_well(data: Path) -> bool:
    """Whether the last file ends as a command does. Cheap; a file that does may still end in half of one.

    Valkey does not look at the line break behind a value: with NULs in its place it would take half a value as whole.
    """
    for path in list_files(data)[-1:]:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 2, 0))
            return is_snapshot(path) or file.read() in (b"", b"\r\n")
    return True


def mend_files(data: Path) -> bool:
    """Cut what is no command off the end of the last file, and say so; whether there was any.

    Reads all files but the base. Raises Damaged, OSError. What is cut lies in a new file beside it.
    """
    paths = [path for path in list_files(data) if not is_snapshot(path)]
    for path in paths:
        size = path.stat().st_size
        whole, ends_there = whole_bytes(path)
        if whole == size:
            continue
        if path != paths[-1] or not ends_there:
            raise Damaged(
                f"{path} is damaged behind byte {whole}, and more was written behind that: nothing was changed. "
                f"Put back a copy of {data}; or, to go on with what was written before, "
                f"copy the file, cut it with `truncate -s {whole} {path}`, and start again."
            )
        kept = cut_file(path, whole)
        log.warning("%s ended in %d bytes that are no whole command: they are in %s now.", path, size - whole, kept)
        return True
    return False


def is_snapshot(path: Path) -> bool:
    """Whether the file begins as a snapshot does."""
    with path.open("rb") as file:
        return file.read(6).startswith(SNAPSHOTS)


def whole_bytes(path: Path) -> tuple[int, bool]:
    """How many bytes of a file are whole commands; and whether none follows what comes then."""
    if not path.stat().st_size:
        return 0, True
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return measure_whole(text)


def measure_whole(text: mmap.mmap | bytes) -> tuple[int, bool]:
    """As `whole_bytes`. A MULTI without its EXEC is not whole."""
    at = whole = 0
    in_multi = False
    while at < len(text):
        try:
            at, name = read_command(text, at)
        except NoCommand as wrong:
            return whole, not has_command(text, wrong.at)
        in_multi = name == b"MULTI" or (in_multi and name != b"EXEC")
        if not in_multi:
            whole = at
    return whole, True


def read_command(text: mmap.mmap | bytes, at: int) -> tuple[int, bytes]:
    """Where the command or note ends that begins at `at`, and the command's name. Raises NoCommand."""
    if note := _NOTE.match(text, at):
        return note.end(), b""
    count = _COUNT.match(text, at)
    if count is None:
        raise NoCommand(at)
    at, name = count.end(), b""
    for number in range(int(count[1])):
        length = _LENGTH.match(text, at)
        if length is None:
            raise NoCommand(at)
        begin, end = length.end(), length.end() + int(length[1])
        at = end + 2
        if at > len(text):
            raise NoCommand(len(text))
        if text[end:at] != b"\r\n":
            raise NoCommand(end)
        if number == 0:
            name = text[begin:end].upper()
    return at, name


def has_command(text: mmap.mmap | bytes, at: int) -> bool:
    """Whether a whole command begins at `at` or later."""
    for beginning in _BEGINNING.finditer(text, at):
        try:
            read_command(text, beginning.start())
        except NoCommand:
            continue
        return True
    return False


def cut_file(path: Path, size: int) -> Path:
    """Let the file have so many bytes; the file beside it that has the rest. Both are on disk."""
    kept = next(kept for n in itertools.count(1) if not (kept := path.with_name(f"{path.name}.cut-{n}")).exists())
    with path.open("r+b") as file, open(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as rest:
        file.seek(size)
        shutil.copyfileobj(file, rest)
        rest.flush()
        os.fsync(rest.fileno())
        file.truncate(size)
        os.fsync(file.fileno())
    return kept
