"""Ids of spaces and jobs, and lease tokens: what they are made of, and what a job's id tells of its space. No I/O.

A job id is a ULID whose first 24 random bits are the tag of its space, so that every process knows a job's space.
"""

import re
import secrets
from functools import lru_cache

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32, as ULIDs use it. https://github.com/ulid/spec"""

_PAIRS = tuple(high + low for high in ALPHABET for low in ALPHABET)
_SHIFTS = range(120, -1, -10)
_EVEN = {c: ALPHABET[i & ~1] for i, c in enumerate(ALPHABET)}
_ULID = re.compile(f"[0-7][{ALPHABET}]{{25}}")


def encode_ulid(at_ms: int, entropy: bytes) -> str:
    """The ULID of a time and ten bytes."""
    number = at_ms << 80 | int.from_bytes(entropy)
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def new_space_id(at_ms: int) -> str:
    """A fresh space id. Its first 24 random bits are the space's tag."""
    return encode_ulid(at_ms, secrets.token_bytes(10))


def space_tag_of(ulid: str) -> str:
    """The first 24 random bits of an id, as its characters 10 to 14 with the 25th bit cleared: the space's tag."""
    return ulid[10:14] + _EVEN[ulid[14]]


@lru_cache(maxsize=256)
def _head(space: str, at_ms: int) -> tuple[str, int]:
    """What all job ids of a space and a moment begin with: 14 characters, and the last four bits of the tag."""
    return encode_ulid(at_ms, bytes(10))[:10] + space[10:14], ALPHABET.index(space[14]) >> 1


def new_job_ids(space: str, at_ms: int, count: int) -> list[str]:
    """Fresh job ids of a space: its tag, then 56 bits that nobody can guess, so that neighbours tell nothing."""
    (head, mark), entropy = _head(space, at_ms), secrets.token_bytes(7 * count)
    return [head + _twelve(mark << 56 | int.from_bytes(entropy[i : i + 7])) for i in range(0, 7 * count, 7)]


def _twelve(rest: int) -> str:
    """60 bits as the last twelve characters of an id. Spelled out: a create of many does little else in Python."""
    high = f"{_PAIRS[rest >> 50]}{_PAIRS[rest >> 40 & 1023]}{_PAIRS[rest >> 30 & 1023]}"
    return f"{high}{_PAIRS[rest >> 20 & 1023]}{_PAIRS[rest >> 10 & 1023]}{_PAIRS[rest & 1023]}"


def is_ulid(text: str) -> bool:
    """Whether the text is a ULID in its canonical, upper-case form."""
    return _ULID.fullmatch(text) is not None


def new_lease_token() -> str:
    """A lease token: 128 bits, of which each delivery has its own."""
    return secrets.token_urlsafe(16)
