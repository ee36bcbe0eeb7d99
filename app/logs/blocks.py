"""Sealed blocks: about a thousand lines of a log, compressed by column. No I/O.

Owns: the bytes of a block, which docs/redis.md promises. Never: loses a byte of a line that was stored, or opens a
column that nobody asks for: a search opens the messages, and the rest only where it found something.

    header    version, bit of each level that occurs, first and last seq, first and last time of acceptance,
              bytes of the lines as stored before, bytes of the messages' frame
    messages  a zstd frame: the messages in UTF-8, line breaks between them; or, when one has a line break,
              a byte 0xFF after each
    the rest  a zstd frame of a msgpack array: see `Columns`
"""

import struct
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, cast

import msgspec
import zstandard
from msgspec import Raw

from app.logs.levels import LEVELS
from app.logs.lines import Row, Stored, id_of
from app.logs.search import LineFilter, Texts
from app.model.json_items import NULL
from app.model.steps import Steps
from app.model.times import rfc3339

BLOCK_LINES = 1000
BLOCK_BYTES = 1 << 20
"""A block is closed when it has this many lines, or bytes of them, at the end of a record batch."""

BLOCK_VERSION = 1
_HEADER = struct.Struct(">BBQQQQII")
_ZSTD_LEVEL = 1
_BIT = {level: 1 << bit for bit, level in enumerate(LEVELS)}
_PLACE_OF_LEVEL = {level: number for number, level in enumerate(LEVELS)}
_FF = b"\xff"


class Columns(msgspec.Struct, array_like=True):
    """What lines have besides their messages. An empty column stands for lines that all have nothing there.

    `levels`: a byte a line, by its place in LEVELS. `batches`: of each record batch, how many lines it had, and ms
    since the block's first time of acceptance. `sources`: the distinct ones; `source_of`: two bytes a line, big-endian,
    its place among them, if there are several. `metadata`, `logged`: JSON objects and times, line breaks between them.
    """

    levels: bytes
    batches: list[int]
    sources: list[str | None]
    source_of: bytes
    metadata: bytes
    logged: str


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Columns).decode
_compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=False)
_decompressor = zstandard.ZstdDecompressor()


def level_bits(levels: frozenset[str]) -> int:
    """The levels as bits of a block's header; 0 stands for all."""
    return sum(_BIT[level] for level in levels)


class SealedBlock(NamedTuple):
    """A block on its way in."""

    first: int
    last: int
    stored_bytes: int
    levels: int
    text: bytes

    @property
    def record(self) -> bytes:
        """What lua/include/log_index.lua keeps of it."""
        return self.levels.to_bytes() + self.last.to_bytes(6) + self.stored_bytes.to_bytes(4)


def seal_block(batches: Sequence[Stored]) -> SealedBlock:
    """The block of record batches that follow each other."""
    rows = [row for batch in batches for row in batch.stored]
    levels = [row.level for row in rows]
    times = [batch.at_ms for batch in batches]
    begun_ms = min(times)
    counts = [number for batch in batches for number in (batch.last + 1 - batch.first, batch.at_ms - begun_ms)]
    columns = Columns(_numbers(levels), counts, *_sources(rows), *_extras(rows))
    messages, rest = _compressor.compress(_joined([row.message for row in rows])), _compressor.compress(_pack(columns))
    first, last, bits = batches[0].first, batches[-1].last, level_bits(frozenset(levels))
    stored_bytes = sum(batch.size_bytes for batch in batches)
    header = _HEADER.pack(BLOCK_VERSION, bits, first, last, begun_ms, max(times), stored_bytes, len(messages))
    return SealedBlock(first, last, stored_bytes, bits, header + messages + rest)


def _numbers(levels: list[str]) -> bytes:
    """The places of the levels in LEVELS. Most blocks have one level only."""
    if levels.count(levels[0]) == len(levels):
        return bytes([_PLACE_OF_LEVEL[levels[0]]]) * len(levels)
    return bytes(map(_PLACE_OF_LEVEL.__getitem__, levels))


def _sources(rows: list[Row]) -> tuple[list[str | None], bytes]:
    """The distinct sources, and the place of each line's among them."""
    sources = [row.source for row in rows]
    places = {source: place.to_bytes(2) for place, source in enumerate(dict.fromkeys(sources))}
    return list(places), b"".join(map(places.__getitem__, sources)) if len(places) > 1 else b""


def _extras(rows: list[Row]) -> tuple[bytes, str]:
    """The columns of metadata and times."""
    metadata, logged = [row.metadata for row in rows], [row.loggedAt for row in rows]
    without_metadata, without_time = metadata.count(NULL), logged.count(None)
    if without_metadata:
        metadata = [Raw() if each is NULL else each for each in metadata]
    times = [each or "" for each in logged] if without_time else cast("list[str]", logged)
    return (
        b"\n".join(metadata) if without_metadata < len(rows) else b"",
        "\n".join(times) if without_time < len(rows) else "",
    )


def _joined(messages: list[str]) -> bytes:
    """One text of all messages. UTF-8 never has the byte 0xFF."""
    if "\n" not in "".join(messages):
        return "\n".join(messages).encode()
    return b"".join([message.encode() + _FF for message in messages])


class Block:
    """A block as it is read. What was not sent, because its levels are not wanted, has an empty text and no matches."""

    def __init__(self, first: int, last: int, text: bytes) -> None:
        self.first = first
        self.last = last
        self.size_bytes = _HEADER.unpack_from(text)[6] if text else 0
        """Of its lines as they were stored before."""
        self._text = text

    def match_steps(self, wanted: LineFilter, seqs: range) -> Steps[Sequence[int]]:
        """Those of `seqs`, lines of this block, that a reader wants. Ascending."""
        if not self._text:
            return ()
        if not wanted:
            return seqs
        places: Sequence[int] = range(seqs.start - self.first, seqs.stop - self.first)
        if wanted.needles:
            places = yield from self._messages.match_steps(wanted.needles, places)
        if wanted.levels:
            numbers = {_PLACE_OF_LEVEL[level] for level in wanted.levels}
            levels = self._columns.levels
            places = [place for place in places if levels[place] in numbers]
        return [self.first + place for place in places]

    def build_rows(self, job: str, seqs: Sequence[int]) -> list[Row]:
        """The lines with these seqs, complete."""
        columns, first = self._columns, self.first
        messages, metadata, logged = self._messages.split, self._metadata, self._logged
        times = self._times
        sources, source_of = columns.sources, columns.source_of
        rows = []
        for seq in seqs:
            place = seq - first
            source = int.from_bytes(source_of[2 * place : 2 * place + 2]) if source_of else 0
            at_ms, at = times[place]
            rows.append(
                Row(
                    id_of(job, at_ms, seq),
                    seq,
                    LEVELS[columns.levels[place]],
                    messages[place],
                    sources[source],
                    Raw(metadata[place]) if metadata and metadata[place] else NULL,
                    (logged[place] or at) if logged else at,
                    at,
                )
            )
        return rows

    @cached_property
    def _frames(self) -> tuple[bytes, bytes]:
        size = _HEADER.unpack_from(self._text)[-1]
        return self._text[_HEADER.size : _HEADER.size + size], self._text[_HEADER.size + size :]

    @cached_property
    def _messages(self) -> Texts:
        messages = _decompressor.decompress(self._frames[0])
        return Texts(messages[:-1], _FF) if messages.endswith(_FF) else Texts(messages, b"\n")

    @cached_property
    def _columns(self) -> Columns:
        return _unpack(_decompressor.decompress(self._frames[1]))

    @cached_property
    def _times(self) -> list[tuple[int, str]]:
        """Of each line, when it was accepted."""
        begun: int = _HEADER.unpack_from(self._text)[4]
        runs = self._columns.batches
        times: list[tuple[int, str]] = []
        for lines, later_ms in zip(runs[::2], runs[1::2], strict=True):
            times += [(begun + later_ms, rfc3339(begun + later_ms))] * lines
        return times

    @cached_property
    def _metadata(self) -> list[bytes]:
        return self._columns.metadata.split(b"\n") if self._columns.metadata else []

    @cached_property
    def _logged(self) -> list[str]:
        return self._columns.logged.split("\n") if self._columns.logged else []
