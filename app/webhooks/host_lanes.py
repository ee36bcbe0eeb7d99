"""Fairness between spaces, and between the hosts that each sends to: nobody's hosts that hang slow anybody else's.

Owns: how many errands run at once, in all, for each space and for each of its hosts, in which order, and which hosts
are left alone for a while. Never: does I/O; knows what an errand is about.

Spaces share the places (app/webhooks/fair_shares.py) and have their turns one after the other. Hosts that have not
answered of late share half of all places: however many hang, those that answer have the rest.

A host has a lane in each space that sends to it: what one space sends there does not wait for what another does. A
lane begins two errands wide, grows by one with each answer, and shrinks to one when none comes. After ten in a row
without an answer its breaker opens: nobody goes there for 30 s, then one errand tries, and each vain try doubles the
rest, up to five minutes.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from app.webhooks.fair_shares import Shares

log = logging.getLogger("jobwire.callbacks")

WIDTH_BEGUN = 2
WIDTH_MOST = 32
BREAK_AFTER = 10
REST_S = 30.0
REST_MOST_S = 300.0
WAITING_PER_WIDTH = 8
"""Errands of one host that wait here, for each that may run; more are held back if the host is quick, or put off."""

QUICK_S = 2.0
"""A host is quick if it does all that waits for it within this time."""

GRACE_S = 0.25
"""How long a host of which nothing is known yet counts as quick."""

WINDOW_S = 1.0
WINDOW_DONE = 20
LANES_MOST = 1000
IN_HAND_MOST = 10_000


class Errand(Protocol):
    """Something to do at one host."""

    space: str
    host: str

    async def run(self) -> bool | None:
        """Do it; whether the host answered. None tells nothing about the host."""

    def put_off(self, delay_s: float) -> None:
        """It cannot be done now; it may come again after a while."""


class Lane:
    """One host, as one space sends to it: what waits for it, what runs, and how it has behaved."""

    def __init__(self, space: str) -> None:
        self.space = space
        self.waiting: deque[Errand] = deque()
        self.running = 0
        self.closed_until_s = 0.0
        self._width = WIDTH_BEGUN
        self._vain = 0
        self._rest_s = REST_S
        self._window_s = 0.0
        self._window_done = 0
        self._rate: float | None = None

    @property
    def answers(self) -> bool:
        """Whether the host has answered of late."""
        return self._vain == 0 and self._width > WIDTH_BEGUN

    def has_room(self, now_s: float) -> bool:
        """Whether one more of those that wait may run."""
        return bool(self.waiting) and self.running < self._width and now_s >= self.closed_until_s

    def add(self, errand: Errand, now_s: float) -> None:
        """Let it wait. How fast the host is counts from here, if it had nothing to do."""
        if self.is_idle():
            self._window_s, self._window_done, self._rate = now_s, 0, None
        self.waiting.append(errand)

    def is_idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self.waiting and not self.running

    def has_enough(self) -> bool:
        """Whether no more should wait here."""
        return len(self.waiting) >= WAITING_PER_WIDTH * self._width

    def is_quick(self, now_s: float) -> bool:
        """Whether it is worth waiting for: it soon does what waits, or has not had the time to show."""
        rate = self._measured(now_s)
        return now_s - self._window_s < GRACE_S if rate is None else rate * QUICK_S >= len(self.waiting)

    def wait_s(self, now_s: float) -> float:
        """How long what waits will take, roughly."""
        rate = self._measured(now_s)
        return 1.0 if rate is None else min(60.0, max(1.0, len(self.waiting) / max(rate, 0.1)))

    def done(self, answered: bool | None, now_s: float) -> None:
        """An errand is over."""
        self.running -= 1
        self._window_done += 1
        if answered:
            self._vain, self._rest_s, self.closed_until_s = 0, REST_S, 0.0
            self._width = min(WIDTH_MOST, self._width + 1)
        elif answered is not None:
            self._vain += 1
            self._width = 1
            if self._vain >= BREAK_AFTER and now_s >= self.closed_until_s:
                self.closed_until_s = now_s + self._rest_s
                self._rest_s = min(REST_MOST_S, self._rest_s * 2)

    def _measured(self, now_s: float) -> float | None:
        """Errands per second of late; None while too little is known."""
        passed_s = now_s - self._window_s
        if passed_s >= WINDOW_S or (self._window_done >= WINDOW_DONE and passed_s > 0):
            latest = self._window_done / passed_s
            self._rate = latest if self._rate is None else (self._rate + latest) / 2
            self._window_s, self._window_done = now_s, 0
        return self._rate


class Hosts:
    """The lanes of all hosts, in one process. `most` errands run at once."""

    def __init__(self, most: int, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._lanes_most = LANES_MOST
        self._ready: dict[bool, dict[str, dict[Lane, None]]] = {True: {}, False: {}}
        self._places = Shares(most)
        self._doubtful = Shares(max(1, most // 2))
        self._in_hand = Shares(IN_HAND_MOST)
        self._running: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()
        self._closing = False

    @property
    def in_hand(self) -> int:
        """Errands that wait or run."""
        return self._in_hand.held

    def has_room(self, space: str) -> bool:
        """Whether the space may offer more: it has its share in hand otherwise, and more would be put off."""
        return self._in_hand.has_room(space)

    def offer(self, errand: Errand) -> None:
        """Run it when its turn comes, or put it off: the host rests, or it or the space has more than it can do."""
        now_s, place = self._clock_s(), (errand.space, errand.host)
        lane = self._lanes.get(place)
        if lane is None:
            self._forget_idle(now_s)
            lane = self._lanes[place] = Lane(errand.space)
        if self._closing:
            errand.put_off(0.0)
        elif now_s < lane.closed_until_s:
            errand.put_off((lane.closed_until_s - now_s) * _spread())
        elif (lane.has_enough() and not lane.is_quick(now_s)) or not self.has_room(errand.space):
            errand.put_off(lane.wait_s(now_s) * _spread())
        else:
            lane.add(errand, now_s)
            self._in_hand.take(errand.space)
            while lane.has_room(now_s) and self._start(lane):
                pass

    def is_full(self, space: str, host: str) -> bool:
        """Whether it is better to wait before more is taken for this host: it is quick, and has enough."""
        lane = self._lanes.get((space, host))
        return lane is not None and lane.has_enough() and lane.is_quick(self._clock_s())

    async def freed(self, most_s: float) -> None:
        """Return when an errand is over, at the latest after `most_s`."""
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
        return self._places.has_room(space) and (answers or self._doubtful.has_room(space))

    def _start(self, lane: Lane) -> bool:
        """Start one errand of a lane that has room; whether there was a place. If not, the lane has its turn later."""
        space, answers = lane.space, lane.answers
        if not self._has_place(space, answers):
            self._ready[answers].setdefault(space, {}).setdefault(lane)
            return False
        lane.running += 1
        self._places.take(space)
        if not answers:
            self._doubtful.take(space)
        task = asyncio.create_task(self._run(lane, lane.waiting.popleft()), name="errand")
        self._running.add(task)
        task.add_done_callback(partial(self._ended, lane, answers))
        return True

    def _next(self, answers: bool) -> Lane | None:
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

    async def _run(self, lane: Lane, errand: Errand) -> None:
        answered = None
        try:
            answered = await errand.run()
        except Exception:
            log.exception("an errand failed")
        finally:
            lane.done(answered, self._clock_s())

    def _ended(self, lane: Lane, answers: bool, task: asyncio.Task[None]) -> None:
        """Give the place to whose turn it is; `answers` is what the host did when the errand began."""
        self._running.discard(task)
        self._places.give(lane.space)
        if not answers:
            self._doubtful.give(lane.space)
        self._in_hand.give(lane.space)
        now_s = self._clock_s()
        if now_s < lane.closed_until_s:
            self._put_off_waiting(lane, lane.closed_until_s - now_s)
        self._queue(lane, now_s)
        for kind in (True, False):
            while (turn := self._next(kind)) is not None:
                if turn.has_room(now_s) and self._start(turn):
                    self._queue(turn, now_s)
        self._freed.set()

    def _queue(self, lane: Lane, now_s: float) -> None:
        """Let a lane have its turn, if it has something to do."""
        if lane.has_room(now_s):
            self._ready[lane.answers].setdefault(lane.space, {}).setdefault(lane)

    def _put_off_waiting(self, lane: Lane, delay_s: float) -> None:
        while lane.waiting:
            self._in_hand.give(lane.space)
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
