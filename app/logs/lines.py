"""Log lines on their way out: from stored record batches to the objects that readers get. No I/O.

Owns: the object of a line, and its id. Which lines a reader wants is app/logs/search.py.

Always: the same line is the same bytes at each reading, whoever reads it: a page, a download or a stream.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Protocol

import msgspec
from msgspec import Raw, Struct

from app.logs.search import LineFilter, folds_like_ascii, having_all_steps
from app.model.ids import ALPHABET, encode_ulid
from app.model.json_items import NULL
from app.model.steps import Steps
from app.model.times import rfc3339

PAIRS = [high + low for high in ALPHABET for low in ALPHABET]
"""The last two characters of an id, by the last ten bits of the seq."""


class Row(Struct, gc=False):
    """A line as the API answers it. The fields that a stored line has not are set by `Stored.build_rows`."""

    id: str = ""
    seq: int = 0
    level: str = "info"
    message: str = ""
    source: str | None = None
    metadata: Raw = NULL
    loggedAt: str | None = None
    createdAt: str = ""


_decode = msgspec.json.Decoder(list[Row]).decode
_encoder = msgspec.json.Encoder()
_PLAIN = re.compile(r"[ !#-\[\]-~]+").fullmatch


class Run(Protocol):
    """Lines that follow each other, as they are kept: a record batch, or a sealed block."""

    first: int
    last: int
    size_bytes: int

    def match_steps(self, wanted: "LineFilter", seqs: range) -> Steps[Sequence[int]]:
        """Those of `seqs`, lines of this run, that a reader wants. Ascending."""

    def build_rows(self, job: str, seqs: Sequence[int]) -> list[Row]:
        """The lines with these seqs, complete."""


class Stored:
    """A record batch: seqs of its first and last line, time of acceptance, JSON array of lines."""

    def __init__(self, first: int, last: int, at_ms: int, text: bytes) -> None:
        self.first = first
        self.last = last
        self.at_ms = at_ms
        self.text = text
        self.size_bytes = len(text)

    @cached_property
    def stored(self) -> list[Row]:
        """The lines as they were stored; `build_rows` completes them in place."""
        return _decode(self.text)

    def match_steps(self, wanted: "LineFilter", seqs: range) -> Steps[Sequence[int]]:
        """Those of `seqs`, lines of this batch, that a reader wants. Ascending."""
        if not wanted:
            return seqs
        if not all(map(self._may_have, wanted.needles)):
            return ()
        start = self.first
        places = [seq - start for seq in seqs if not wanted.levels or self.stored[seq - start].level in wanted.levels]
        if wanted.needles:
            yield
            messages = [row.message.casefold() for row in self.stored]
            places = yield from having_all_steps(wanted.needles, messages, places)
        return [start + place for place in places]

    def build_rows(self, job: str, seqs: Sequence[int]) -> list[Row]:
        """The lines with these seqs, complete."""
        created = rfc3339(self.at_ms)
        rows = [self.stored[seq - self.first] for seq in seqs]
        for seq, row in zip(seqs, rows, strict=True):
            row.id = id_of(job, self.at_ms, seq)
            row.seq = seq
            row.createdAt = created
            if row.loggedAt is None:
                row.loggedAt = created
        return rows

    def _may_have(self, needle: str) -> bool:
        """Whether a message may have the needle: plain ones stand in the JSON as they are."""
        return not _PLAIN(needle) or needle.encode() in self._lowered or not folds_like_ascii(self.text)

    @cached_property
    def _lowered(self) -> bytes:
        return self.text.lower()


def id_of(job: str, at_ms: int, seq: int) -> str:
    """The id of a line: the same at each reading, in the order of seqs."""
    return id_head(job, at_ms, seq >> 10) + PAIRS[seq & 1023]


@lru_cache(maxsize=64)
def id_head(job: str, at_ms: int, seq_high: int) -> str:
    """All but the last two characters of the ids of 1024 lines: time, 40 bits of the job, and the seq's high bits."""
    mark = hashlib.blake2b(job.encode(), digest_size=5).digest()
    return encode_ulid(at_ms, mark + (seq_high << 10).to_bytes(5))[:24]


def encode_array(rows: list[Row]) -> bytes:
    """The JSON array of lines."""
    return _encoder.encode(rows)


def encode_arrays(rows: list[Row], most_bytes: int) -> Iterator[tuple[list[Row], bytes]]:
    """Lines in runs, in order, with the JSON array of each, of at most `most_bytes`; a longer line has its own."""
    text = encode_array(rows)
    if len(text) <= most_bytes or len(rows) == 1:
        yield rows, text
        return
    half = len(rows) // 2
    yield from encode_arrays(rows[:half], most_bytes)
    yield from encode_arrays(rows[half:], most_bytes)


def encode_ndjson(rows: list[Row]) -> bytes:
    """One line of JSON for each line."""
    return _encoder.encode_lines(rows)
