"""Pauses between tries: short at first, longer each time, never in step with others.

Owns nothing but the arithmetic; waiting is the caller's, so that a signal, a close or a new order can cut it short.
"""

from __future__ import annotations

import random

from ..errors import Outage


class Backoff:
    """Pauses of an outage: about `first_s`, doubling up to `most_s`, each jittered between half and whole."""

    def __init__(self, first_s: float = 0.1, most_s: float = 5.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self.reset()

    def reset(self) -> None:
        """The service answered: begin with short pauses again."""
        self._next_s = self._first_s

    def pause_s(self, outage: Outage) -> float:
        """Seconds to wait after this failure; the service's own wish (Retry-After) is a floor."""
        pause_s = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2, self._most_s)
        return max(pause_s, outage.retry_after_s or 0.0)
