"""Lines that find no room in memory, in a file: in order, as long as the disk has room.

Owns one file without a name, which is gone with the process. Holds blocks of entries, each as NDJSON behind its length;
what is taken out is read from the front, and an empty file gives its room back. Not safe between threads by itself.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from ..log_lines.entry import Entry, encode_safely

_LENGTH_BYTES = 8
_decoder = msgspec.json.Decoder(Entry)


class Overflow:
    """`append` at the end, `take` at the front. `is_full` is set when the disk took no more."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._read_at = 0
        self._end = 0
        self.is_full = False

    @property
    def waiting_bytes(self) -> int:
        """What has not been taken yet."""
        return self._end - self._read_at

    def append(self, entries: Sequence[Entry]) -> bool:
        """Put a block behind the others; False when the disk cannot take it, and nothing was put then."""
        body = encode_safely(entries)
        try:
            self._write(len(body).to_bytes(_LENGTH_BYTES, "big") + body)
        except OSError:
            self.is_full = True
            return False
        return True

    def pop_block(self) -> list[Entry]:
        """The first block, which is no longer there then."""
        assert self._file is not None
        fd = self._file.fileno()
        length = int.from_bytes(os.pread(fd, _LENGTH_BYTES, self._read_at), "big")
        entries = _decoder.decode_lines(os.pread(fd, length, self._read_at + _LENGTH_BYTES))
        self._read_at += _LENGTH_BYTES + length
        if self._read_at == self._end:
            os.ftruncate(fd, 0)
            self._read_at = self._end = 0
        return entries

    def close(self) -> None:
        """Give the room back, whatever is still there."""
        if self._file is not None:
            self._file.close()
        self._file, self._read_at, self._end = None, 0, 0
        self.is_full = True

    def _write(self, record: bytes) -> None:
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=self._folder, buffering=0))  # noqa: SIM115  # lives on
        fd, written = self._file.fileno(), 0
        try:
            while written < len(record):
                written += os.pwrite(fd, record[written:], self._end + written)
        except OSError:
            os.ftruncate(fd, self._end)
            raise
        self._end += written
