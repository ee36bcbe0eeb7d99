"""What becomes of viewers that read slowly, not at all, or do not take their close.

Owns: the three ends of it. Who reads slowly is set back when its connection is full (FULL_BYTES of
app/wire/connection.py): it is live no more, and goes on from where it stands when the connection takes again (how is
in app/streams/topic.py). Who reads nothing for JOBWIRE_VIEWER_TIMEOUT seconds is closed with 1013. Who does not take
its close in time is cut off.
Never: judges by itself who stands still (app/wire/stall_detector.py does), or has a timer (Viewers keeps the time).
"""

import asyncio

from app.metrics import catalog
from app.streams.topic import Viewer
from app.streams.watch import Watch
from app.wire.connection import Connection
from app.wire.stall_detector import StallDetector

CLOSE_TIMEOUT_S = 10.0
"""How long a connection outlives its close."""


class SlowViewers:
    """The viewers of this process that do not take what they are sent."""

    def __init__(self, viewer_timeout_s: float) -> None:
        self._stall_detector: StallDetector[Connection] = StallDetector(viewer_timeout_s)
        self._ending: dict[Connection, float] = {}

    def set_back(self, connection: Connection, viewer: Viewer, watch: Watch) -> None:
        """The connection is full: its viewer is behind from now on, and suspected of standing still."""
        catalog.SLOW_READERS.inc()
        watch.topic.note_full(viewer)
        self._stall_detector.note_full(connection, asyncio.get_running_loop().time())

    def catch_up(self, connection: Connection, viewer: Viewer, watch: Watch) -> None:
        """The connection takes again: its viewer goes on from where it stands, until it is full or live."""
        self._stall_detector.forget(connection)
        if not connection.closing:
            watch.feed_viewer(viewer)

    def note_close(self, connection: Connection) -> None:
        """Its close was written: from now on it has CLOSE_TIMEOUT_S to take it."""
        self._ending[connection] = asyncio.get_running_loop().time() + CLOSE_TIMEOUT_S

    def forget(self, connection: Connection) -> None:
        """The connection has gone."""
        self._stall_detector.forget(connection)
        self._ending.pop(connection, None)

    def check(self, connection: Connection, now_s: float) -> None:
        """Look, now and then, whether one that need not be full has taken anything since the last look."""
        self._stall_detector.check(connection, now_s)

    def end_stalled(self, now_s: float) -> None:
        """Close those who took nothing for a long time; end those who do not answer their close."""
        for connection in self._stall_detector.pop_stalled(now_s):
            if not connection.closing:
                catalog.STILL_READERS.inc()
                connection.close(1013, f"Nothing was read for {self._stall_detector.timeout_s:g} s.")
        for connection, deadline_s in tuple(self._ending.items()):
            if now_s > deadline_s:
                connection.abort()
