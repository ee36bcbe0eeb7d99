"""Connections on which nothing moves: a head, a body or an answer that stands still ends its connection.

Owns: the clock's look at all HTTP connections, and who has taken nothing of its answer for how long
(app/wire/stall_detector.py knows what was taken). Never: costs a request anything, or cuts anybody who goes on,
however slowly.
Viewers are not looked at here: app/streams/slow_viewers.py says what becomes of those.
"""

from collections.abc import Iterable

from app.metrics import catalog
from app.wire.http_protocol import HttpProtocol
from app.wire.stall_detector import StallDetector

ANSWER_S = 60.0
"""How long nothing may be taken of an answer, up to two looks more."""


class StalledRequests:
    """The connections of one server that may be standing still."""

    def __init__(self) -> None:
        self._stall_detector: StallDetector[HttpProtocol] = StallDetector(ANSWER_S)
        self._owed: set[HttpProtocol] = set()

    def end_stalled(self, connections: Iterable[object], now_s: float) -> None:
        """Look at all of them, and end those that have stood still for too long."""
        ours = [connection for connection in connections if isinstance(connection, HttpProtocol)]
        for connection in ours:
            if awaited := connection.end_if_stalled(now_s):
                catalog.STALLED_CONNECTIONS.inc(awaited)
        self._end_stalled_answers({one for one in ours if one.transport.get_write_buffer_size()}, now_s)

    def _end_stalled_answers(self, owed: set[HttpProtocol], now_s: float) -> None:
        for connection in self._owed - owed:
            self._stall_detector.forget(connection)
        self._owed = owed
        for connection in owed:
            self._stall_detector.check(connection, now_s)
        for stalled in self._stall_detector.pop_stalled(now_s):
            catalog.STALLED_CONNECTIONS.inc("answer")
            stalled.transport.abort()
