"""Which lines a reader wants: levels, and a search for words in messages. No I/O.

Owns: what `q` and `level` mean, and how messages are searched fast. Always: in steps; a word is found whatever its
case, by Unicode's full case folding.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar

from app.logs.levels import LEVELS
from app.model.errors import invalid
from app.model.steps import Steps

Q_CHARS = 1024
NEEDLES_MOST = 16
COMPARED_MOST = 4_000_000
"""Bytes of messages, times those of a needle, that one step of a search looks at: a few ms at the worst."""

S = TypeVar("S", str, bytes)


FOLDED_TO_ASCII = (
    *(char.encode() for char in "\u00df\u0130\u0149\u017f\u01f0\u212a"),
    b"\xe1\xba",
    b"\xef\xac",
)
"""How the characters beyond ASCII begin whose folded form has a letter of ASCII: ß is ss, U+FB01 is fi."""


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

    def match_steps(self, needles: Sequence[str], places: Sequence[int]) -> Steps[Sequence[int]]:
        """Those of `places` whose message has all needles, which are folded. Ascending."""
        wanted = [needle.encode() for needle in needles]
        plain = all(map(str.isascii, needles)) and folds_like_ascii(self._text)
        yield
        whole = self._text.lower() if plain else fold_case(self._text)
        for needle in wanted:
            if needle not in whole:
                return ()
            yield
        return (yield from having_all_steps(wanted, whole.split(self._separator), places))


def having_all_steps(needles: Sequence[S], messages: Sequence[S], places: Sequence[int]) -> Steps[list[int]]:
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


def fold_case(text: bytes) -> bytes:
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


class LineFilter(NamedTuple):
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
