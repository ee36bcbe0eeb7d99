"""A command's output on its way to its job's log: bytes of stdout and stderr become lines, and are shown as they came.

Owns: which level the lines of a stream have, and that bytes are shown only after their lines were taken for the log.
Never: sends a line (log_shipping does), or waits for more than the two whom it hands them to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..log_lines.byte_lines import LineSplitter

Mirror = Callable[[str, bytes], None]


class OutputLines:
    """The command's bytes as log entries: shipped first (`put`), then shown (`mirror`)."""

    def __init__(
        self, put: Callable[[list[Any]], None], mirror: Mirror, *, find_levels: bool, stderr_level: str
    ) -> None:
        levels = {"stdout": "info", "stderr": stderr_level}
        self._splitters = {
            name: LineSplitter(source=name, level=level, find_levels=find_levels) for name, level in levels.items()
        }
        self._put = put
        self._mirror = mirror

    def __call__(self, name: str, chunk: bytes) -> None:
        splitter = self._splitters[name]
        self._put(splitter.feed(chunk) if chunk else splitter.end())
        if chunk:
            self._mirror(name, chunk)

    def tick(self) -> None:
        """About every second: what stands there without its end is sent as it stands."""
        for splitter in self._splitters.values():
            self._put(splitter.flush())
