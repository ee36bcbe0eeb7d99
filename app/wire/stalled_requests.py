"""Connections on which nothing moves: a head, a body or an answer that stands still ends its connection.

Owns: the clock's look at all HTTP connections, and who has taken nothing of its answer for how long
(app/wire/stalled_viewers.py knows what was taken). Never: costs a request anything, or cuts anybody who goes on,
however slowly.
Viewers are not looked at here: app/streams/viewers.py does.
"""

from collections.abc import Iterable

from app.metrics import catalog
from app.wire.http_protocol import Protocol
from app.wire.stalled_viewers import Patience

ANSWER_S = 60.0
"""How long nothing may be taken of an answer, up to two looks more."""


class Stalls:
    """The connections of one server that may be standing still."""

    def __init__(self) -> None:
        self._patience: Patience[Protocol] = Patience(ANSWER_S)
        self._owed: set[Protocol] = set()

    def look(self, connections: Iterable[object], now_s: float) -> None:
        """Look at all of them, and end those that have stood still for too long."""
        ours = [connection for connection in connections if isinstance(connection, Protocol)]
        for connection in ours:
            if what := connection.look(now_s):
                catalog.STALLED.inc(what)
        self._look_at_answers({one for one in ours if one.transport.get_write_buffer_size()}, now_s)

    def _look_at_answers(self, owed: set[Protocol], now_s: float) -> None:
        for connection in self._owed - owed:
            self._patience.forget(connection)
        self._owed = owed
        for connection in owed:
            self._patience.look(connection, now_s)
        for still in self._patience.exhausted(now_s):
            catalog.STALLED.inc("answer")
            still.transport.abort()
