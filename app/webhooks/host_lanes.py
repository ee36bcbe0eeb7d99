"""Fairness between spaces, and between the hosts that each sends to: nobody's hosts that hang slow anybody else's.

Owns: how many requests run at once, in all, for each space and for each of its hosts, in which order, and which hosts
are left alone for a while. Never: does I/O; knows what a request is about.

Spaces share the places (app/webhooks/fair_shares.py) and have their turns one after the other. Hosts that have not
answered of late share half of all places: however many hang, those that answer have the rest.

A host has a lane in each space that sends to it: what one space sends there does not wait for what another does. A
lane begins two requests wide, grows by one with each answer, and shrinks to one when none comes. After ten in a row
without an answer its breaker opens: nobody goes there for 30 s, then one request tries, and each vain try doubles the
rest, up to five minutes.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from app.webhooks.fair_shares import FairShares

log = logging.getLogger("jobwire.callbacks")

WIDTH_FIRST = 2
WIDTH_MOST = 32
BREAK_AFTER = 10
REST_S = 30.0
REST_MOST_S = 300.0
WAITING_PER_WIDTH = 8
"""Errands of one host that wait here, for each that may run; more are held back if the host is quick, or put off."""

QUICK_S = 2.0
"""A host is quick if it does all that waits for it within this time."""

UNKNOWN_GRACE_S = 0.25
"""How long a host of which nothing is known yet counts as quick."""

RATE_WINDOW_S = 1.0
RATE_WINDOW_REQUESTS = 20
LANES_MOST = 1000
IN_HAND_MOST = 10_000


class HostRequest(Protocol):
    """Something to do at one host."""

    space: str
    host: str

    async def run(self) -> bool | None:
        """Do it; whether the host answered. None tells nothing about the host."""

    def put_off(self, delay_s: float) -> None:
        """It cannot be done now; it may come again after a while."""


class HostLane:
    """One host, as one space sends to it: what waits for it, what runs, and how it has behaved."""

    def __init__(self, space: str) -> None:
        self.space = space
        self.waiting: deque[HostRequest] = deque()
        self.running = 0
        self.closed_until_s = 0.0
        self._width = WIDTH_FIRST
        self._unanswered = 0
        self._rest_s = REST_S
        self._window_s = 0.0
        self._window_done = 0
        self._rate: float | None = None

    @property
    def answers(self) -> bool:
        """Whether the host has answered of late."""
        return self._unanswered == 0 and self._width > WIDTH_FIRST

    def may_start(self, now_s: float) -> bool:
        """Whether one more of those that wait may run."""
        return bool(self.waiting) and self.running < self._width and now_s >= self.closed_until_s

    def add_request(self, request: HostRequest, now_s: float) -> None:
        """Let it wait. The host's rate is measured from here, if it had nothing to do."""
        if self.is_idle():
            self._window_s, self._window_done, self._rate = now_s, 0, None
        self.waiting.append(request)

    def is_idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self.waiting and not self.running

    def has_enough(self) -> bool:
        """Whether no more should wait here."""
        return len(self.waiting) >= WAITING_PER_WIDTH * self._width

    def is_quick(self, now_s: float) -> bool:
        """Whether it is worth waiting for: it does all that waits within QUICK_S, or is not known yet."""
        rate = self._measured(now_s)
        return now_s - self._window_s < UNKNOWN_GRACE_S if rate is None else rate * QUICK_S >= len(self.waiting)

    def wait_s(self, now_s: float) -> float:
        """How long what waits will take, roughly."""
        rate = self._measured(now_s)
        return 1.0 if rate is None else min(60.0, max(1.0, len(self.waiting) / max(rate, 0.1)))

    def note_done(self, answered: bool | None, now_s: float) -> None:
        """A request is over."""
        self.running -= 1
        self._window_done += 1
        if answered:
            self._unanswered, self._rest_s, self.closed_until_s = 0, REST_S, 0.0
            self._width = min(WIDTH_MOST, self._width + 1)
        elif answered is not None:
            self._unanswered += 1
            self._width = 1
            if self._unanswered >= BREAK_AFTER and now_s >= self.closed_until_s:
                self.closed_until_s = now_s + self._rest_s
                self._rest_s = min(REST_MOST_S, self._rest_s * 2)

    def _measured(self, now_s: float) -> float | None:
        """Errands per second of late; None while too little is known."""
        passed_s = now_s - self._window_s
        if passed_s >= RATE_WINDOW_S or (self._window_done >= RATE_WINDOW_REQUESTS and passed_s > 0):
            latest = self._window_done / passed_s
            self._rate = latest if self._rate is None else (self._rate + latest) / 2
            self._window_s, self._window_done = now_s, 0
        return self._rate


class HostLanes:
    """The lanes of all hosts, in one process. `most` requests run at once."""

    def __init__(self, most: int, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._lanes: dict[tuple[str, str], HostLane] = {}
        self._lanes_most = LANES_MOST
        self._ready: dict[bool, dict[str, dict[HostLane, None]]] = {True: {}, False: {}}
        self._places = FairShares(most)
        self._unproven = FairShares(max(1, most // 2))
        self._in_hand = FairShares(IN_HAND_MOST)
        self._running: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()
        self._closing = False

    @property
    def in_hand(self) -> int:
        """Errands that wait or run."""
        return self._in_hand.held

    def has_room(self, space: str) -> bool:
        """Whether the space may offer more; beyond its share, requests are put off."""
        return self._in_hand.has_room(space)

    def offer_request(self, request: HostRequest) -> None:
        """Run it when its turn comes. It is put off when its host rests, or host or space has more than it can do."""
        now_s, place = self._clock_s(), (request.space, request.host)
        lane = self._lanes.get(place)
        if lane is None:
            self._forget_idle(now_s)
            lane = self._lanes[place] = HostLane(request.space)
        if self._closing:
            request.put_off(0.0)
        elif now_s < lane.closed_until_s:
            request.put_off((lane.closed_until_s - now_s) * _spread())
        elif (lane.has_enough() and not lane.is_quick(now_s)) or not self.has_room(request.space):
            request.put_off(lane.wait_s(now_s) * _spread())
        else:
            lane.add_request(request, now_s)
            self._in_hand.hold_place(request.space)
            while lane.may_start(now_s) and self._start(lane):
                pass

    def is_full(self, space: str, host: str) -> bool:
        """Whether to wait before more is leased for this host: it is quick, and has enough."""
        lane = self._lanes.get((space, host))
        return lane is not None and lane.has_enough() and lane.is_quick(self._clock_s())

    async def wait_for_room(self, most_s: float) -> None:
        """Return when a request is over, at the latest after `most_s`."""
        self._freed.clear()
        try:
            async with asyncio.timeout(most_s):
                await self._freed.wait()
        except TimeoutError:
            pass

    async def close(self, grace_s: float) -> None:
        """Put off what waits; what runs may end within `grace_s`."""
        self._closing = True
        for lane in self._lanes.values():
            self._put_off_waiting(lane, 0.0)
        if self._running:
            _, late = await asyncio.wait(tuple(self._running), timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _has_place(self, space: str, answers: bool) -> bool:
        """Whether one more of the space may run, to a host that answers or to one that is in doubt."""
        return self._places.has_room(space) and (answers or self._unproven.has_room(space))

    def _start(self, lane: HostLane) -> bool:
        """Start one request of a lane that has room; whether there was a place. If not, the lane has its turn later."""
        space, answers = lane.space, lane.answers
        if not self._has_place(space, answers):
            self._ready[answers].setdefault(space, {}).setdefault(lane)
            return False
        lane.running += 1
        self._places.hold_place(space)
        if not answers:
            self._unproven.hold_place(space)
        task = asyncio.create_task(self._run(lane, lane.waiting.popleft()), name="host-request")
        self._running.add(task)
        task.add_done_callback(partial(self._ended, lane, answers))
        return True

    def _next(self, answers: bool) -> HostLane | None:
        """The lane whose turn it is: the longest waiting of the space that waits longest and has a place."""
        ready = self._ready[answers]
        space = next((space for space in ready if self._has_place(space, answers)), None)
        if space is None:
            return None
        lanes = ready.pop(space)
        lane = next(iter(lanes))
        del lanes[lane]
        if lanes:
            ready[space] = lanes
        return lane

    async def _run(self, lane: HostLane, request: HostRequest) -> None:
        answered = None
        try:
            answered = await request.run()
        except Exception:
            log.exception("a request failed")
        finally:
            lane.note_done(answered, self._clock_s())

    def _ended(self, lane: HostLane, answers: bool, task: asyncio.Task[None]) -> None:
        """Give the place to whose turn it is; `answers` is what the host did when the request began."""
        self._running.discard(task)
        self._places.free_place(lane.space)
        if not answers:
            self._unproven.free_place(lane.space)
        self._in_hand.free_place(lane.space)
        now_s = self._clock_s()
        if now_s < lane.closed_until_s:
            self._put_off_waiting(lane, lane.closed_until_s - now_s)
        self._queue(lane, now_s)
        for kind in (True, False):
            while (lane_next := self._next(kind)) is not None:
                if lane_next.may_start(now_s) and self._start(lane_next):
                    self._queue(lane_next, now_s)
        self._freed.set()

    def _queue(self, lane: HostLane, now_s: float) -> None:
        """Let a lane have its turn, if it has something to do."""
        if lane.may_start(now_s):
            self._ready[lane.answers].setdefault(lane.space, {}).setdefault(lane)

    def _put_off_waiting(self, lane: HostLane, delay_s: float) -> None:
        while lane.waiting:
            self._in_hand.free_place(lane.space)
            lane.waiting.popleft().put_off(delay_s * _spread())

    def _forget_idle(self, now_s: float) -> None:
        """Forget hosts with nothing to do, whenever there are twice as many; those that rest are remembered."""
        if len(self._lanes) < self._lanes_most:
            return
        for place, lane in tuple(self._lanes.items()):
            if lane.is_idle() and now_s >= lane.closed_until_s:
                del self._lanes[place]
        self._lanes_most = max(LANES_MOST, 2 * len(self._lanes))


def _spread() -> float:
    """A factor that keeps those who were put off together from coming back together."""
    return 1 + random.random() / 2
