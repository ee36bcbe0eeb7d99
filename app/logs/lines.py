"""Log lines on their way out: from stored record batches to the objects that readers get. No I/O.

Owns: the object of a line, its id, and which lines a level or a search lets through.

Always: the same line is the same bytes at each reading, whoever reads it: a page, a download or a stream.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple, Protocol, TypeVar

import msgspec
from msgspec import Raw, Struct

from app.model.errors import invalid
from app.model.job import ALPHABET, encode_ulid
from app.model.steps import Steps
from app.model.times import rfc3339

Q_CHARS = 1024
NEEDLES_MOST = 16
COMPARED_MOST = 4_000_000
"""Bytes of messages, times those of a needle, that one step of a search looks at: a few ms at the worst."""

LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")
NULL = Raw(b"null")

S = TypeVar("S", str, bytes)

PAIRS = [high + low for high in ALPHABET for low in ALPHABET]
"""The last two characters of an id, by the last ten bits of the seq."""


FOLDED_TO_ASCII = (
    *(char.encode() for char in "\u00df\u0130\u0149\u017f\u01f0\u212a"),
    b"\xe1\xba",
    b"\xef\xac",
)
"""How the characters beyond ASCII begin whose folded form has a letter of ASCII: ß is ss, U+FB01 is fi."""


class Row(Struct, gc=False):
    """A line as the API answers it. The fields that a stored line has not are set by `Stored.rows`."""

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

    def matching(self, wanted: "Filter", seqs: range) -> Steps[Sequence[int]]:
        """Those of `seqs`, lines of this run, that a reader wants. Ascending."""

    def rows(self, job: str, seqs: Sequence[int]) -> list[Row]:
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
        """The lines as they were stored; `rows` completes them in place."""
        return _decode(self.text)

    def matching(self, wanted: "Filter", seqs: range) -> Steps[Sequence[int]]:
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
            places = yield from having(wanted.needles, messages, places)
        return [start + place for place in places]

    def rows(self, job: str, seqs: Sequence[int]) -> list[Row]:
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


class Texts:
    """Many messages in one text, with a separator that none of them has: searched as a whole, then one by one."""

    def __init__(self, text: bytes, separator: bytes) -> None:
        self._text = text
        self._separator = separator

    @cached_property
    def split(self) -> list[str]:
        """The messages."""
        if self._separator == b"\n":
            return self._text.decode().split("\n")
        return [message.decode() for message in self._text.split(self._separator)]

    def matching(self, needles: Sequence[str], places: Sequence[int]) -> Steps[Sequence[int]]:
        """Those of `places` whose message has all needles, which are folded. Ascending."""
        wanted = [needle.encode() for needle in needles]
        plain = all(map(str.isascii, needles)) and folds_like_ascii(self._text)
        yield
        whole = self._text.lower() if plain else folded(self._text)
        for needle in wanted:
            if needle not in whole:
                return ()
            yield
        return (yield from having(wanted, whole.split(self._separator), places))


def having(needles: Sequence[S], messages: Sequence[S], places: Sequence[int]) -> Steps[list[int]]:
    """Those of `places` whose message has all needles. Both are folded. Ascending."""
    longest = max(map(len, messages))
    left = list(places)
    for needle in needles:
        # Short messages are searched by trying each place, which takes as long as both are.
        step = max(1, COMPARED_MOST // (len(needle) * longest or 1))
        tried, left = left, []
        for at in range(0, len(tried), step):
            left += [place for place in tried[at : at + step] if needle in messages[place]]
            yield
    return left


def folded(text: bytes) -> bytes:
    """A text in the form in which words are compared: Unicode's full case folding. Bytes that are no UTF-8 stay.

    What a character folds to depends on no other, so that a text folds as its parts do.
    """
    return text.decode(errors="surrogateescape").casefold().encode(errors="surrogateescape")


def folds_like_ascii(text: bytes) -> bool:
    """Whether a needle of ASCII occurs in the folded text exactly if it does when only A to Z are lowered."""
    if text.isascii():
        return True
    # Looking for one byte is many times faster than for several, and these bytes are rare.
    return not any(begin[-1] in text and begin in text for begin in FOLDED_TO_ASCII)


def id_of(job: str, at_ms: int, seq: int) -> str:
    """The id of a line: the same at each reading, in the order of seqs."""
    return id_head(job, at_ms, seq >> 10) + PAIRS[seq & 1023]


@lru_cache(maxsize=64)
def id_head(job: str, at_ms: int, seq_high: int) -> str:
    """All but the last two characters of the ids of 1024 lines: time, 40 bits of the job, and the seq's high bits."""
    mark = hashlib.blake2b(job.encode(), digest_size=5).digest()
    return encode_ulid(at_ms, mark + (seq_high << 10).to_bytes(5))[:24]


def array(rows: list[Row]) -> bytes:
    """The JSON array of lines."""
    return _encoder.encode(rows)


def arrays(rows: list[Row], most_bytes: int) -> Iterator[tuple[list[Row], bytes]]:
    """Lines in runs, in order, with the JSON array of each, of at most `most_bytes`; a longer line has its own."""
    text = array(rows)
    if len(text) <= most_bytes or len(rows) == 1:
        yield rows, text
        return
    half = len(rows) // 2
    yield from arrays(rows[:half], most_bytes)
    yield from arrays(rows[half:], most_bytes)


def ndjson(rows: list[Row]) -> bytes:
    """One line of JSON for each line."""
    return _encoder.encode_lines(rows)


class Filter(NamedTuple):
    """What a reader wants: some levels (all, when empty), and needles that all occur in the folded message."""

    levels: frozenset[str] = frozenset()
    needles: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.levels or self.needles)


def parse_q(text: str) -> tuple[str, ...]:
    """The needles of a search: blank-separated words, and "phrases in quotes" as a whole. Refusal `invalid_request`."""
    if len(text) > Q_CHARS:
        raise invalid(f"q has at most {Q_CHARS} characters.")
    parts = text.split('"')
    if len(parts) % 2 == 0:
        raise invalid("q has a quote that is not closed.")
    needles = [word for part in parts[::2] for word in part.split()] + [phrase for phrase in parts[1::2] if phrase]
    if len(needles) > NEEDLES_MOST:
        raise invalid(f"q has at most {NEEDLES_MOST} words and phrases; quotes make one phrase of several words.")
    return tuple(dict.fromkeys(needle.casefold() for needle in needles))


def parse_levels(texts: list[str]) -> frozenset[str]:
    """The levels of one or more comma-separated lists. Refusal `invalid_request`."""
    levels = {word.strip().lower() for text in texts for word in text.split(",") if word.strip()}
    unknown = levels.difference(LEVELS)
    if unknown:
        raise invalid(f"level is one or more of {', '.join(LEVELS)}, not {min(unknown)!r}.")
    return frozenset(levels)
