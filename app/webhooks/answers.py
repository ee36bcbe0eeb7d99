"""What becomes of a request that jobwire makes by itself, in the words of its answer.

Owns: the Outcome, whatever came of an answer; and that nothing of our headers is shown that a receiver echoes.
"""

import html
import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote

from app.webhooks.retry_schedule import retry_after
from app.webhooks.space_hooks import MASK

UNREACHED = "The host could not be reached, or gave no answer."
"""All that is told of a request without an answer, whatever the reason."""

BEGINNING_CHARS = 4
"""Of a secret that breaks off at the end of an answer, a beginning of so many characters is masked."""


class Outcome(NamedTuple):
    """What became of a request. `status` is None when no answer came; `error` is "" for 2xx.

    `reached`: an answer came; None when the guard refused, which says nothing about the host. `detail` is why no answer
    came, for the operator.
    """

    status: int | None
    error: str
    body: str | None
    retry_after_s: float | None
    reached: bool | None
    detail: str = ""


class AnswerStart:
    """How the answer to one request begins, as far as it came."""

    def __init__(self) -> None:
        self.bytes = b""

    @property
    def status(self) -> int | None:
        """What the status line says, if it came whole; that of an interim answer does not count."""
        begun = self.bytes.lstrip(b"\r\n")
        at = 0
        while (line := STATUS_LINE.match(begun, at)) is not None:
            status = int(line[1])
            if status >= 200 or status == 101:
                return status
            end = begun.find(b"\r\n\r\n", line.end() - 2)
            if end < 0:
                break
            at = end + 4
        return None


STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r?\n")


def outcome_of_answer(status: int, body: str, wait: str) -> Outcome:
    """An answer came, with such a body, and a Retry-After or ""."""
    if 200 <= status < 300:
        return Outcome(status, "", None, None, True)
    redirect = "; redirects are not followed" if 300 <= status < 400 else ""
    return Outcome(status, f"The answer was {status}{redirect}.", body, retry_after(wait, time.time()), True)


# What a receiver echoes of our headers


def spell_secret(secret: str) -> Iterator[str]:
    """The ways in which an echo spells it."""
    yield secret
    for ascii_only in (True, False):
        yield json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
    yield quote(secret, safe="")
    yield html.escape(secret)
    yield secret.encode().decode("latin-1")


def hidden_words(values: Sequence[str]) -> list[str]:
    """What must not be shown, the longest first: the values of headers, and long words in them as after `Bearer `."""
    secrets = {value for value in values if value}
    secrets |= {word for value in values for word in value.split() if len(word) >= 8}
    return sorted({spelt for secret in secrets for spelt in spell_secret(secret)}, key=len, reverse=True)


def mask_echoes(text: str, values: Sequence[str], most: int) -> str:
    """The first `most` characters of a text, but for echoes of these values; each is masked as a whole.

    One of three characters or fewer is masked where it stands by itself: it might be a part of any word.
    """
    words = hidden_words(values)
    if not words:
        return text[:most]
    text = text[: most + len(words[0])]
    patterns = (re.escape(word) if len(word) > 3 else rf"(?<!\w){re.escape(word)}(?!\w)" for word in words)
    pieces: list[str] = []
    at = 0
    for match in re.finditer("|".join(patterns), text):
        if match.start() >= most:
            break
        pieces += (text[at : match.start()], MASK)
        at = match.end()
    end = len(text) - unfinished_length(text[at:], words, most - at)
    pieces.append(text[at : min(end, most)])
    if end < min(len(text), most):
        pieces.append(MASK)
    return "".join(pieces)


def unfinished_length(text: str, words: Sequence[str], most: int) -> int:
    """With how many characters of one of the words, its beginning, a text breaks off; 0 if they begin behind `most`."""
    least = max(BEGINNING_CHARS, len(text) - most)
    lengths = ((word, range(min(len(word) - 1, len(text)), least - 1, -1)) for word in words)
    return max((next((n for n in range_ if text.endswith(word[:n])), 0) for word, range_ in lengths), default=0)
