"""When a callback is tried again. Pure: the moment and the randomness are arguments."""

from collections.abc import Sequence
from email.utils import parsedate_to_datetime

from app.settings import DELAY_MOST_S

RETRY_JITTER = 0.2
GONE = 410


def delay_ms(
    delays_s: Sequence[float], number: int, status: int | None, retry_after_s: float | None, chance: float
) -> int | None:
    """From a failed try (its number, from 0) to the next, in ms; None when there is none.

    410 ends it. A Retry-After is waited for if it is later. `chance` (0 to 1) spreads the delay by 20 % either way.
    """
    if status == GONE or number + 1 >= len(delays_s):
        return None
    delay_s = delays_s[number + 1] * (1 + RETRY_JITTER * (2 * chance - 1))
    return int(max(delay_s, min(retry_after_s or 0, DELAY_MOST_S)) * 1000)


def retry_after(text: str, now_s: float) -> float | None:
    """Seconds that a Retry-After asks for, given as seconds or as an HTTP date; None if it is neither (RFC 9110)."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None
