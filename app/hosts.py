"""Fairness between the hosts that we send to: a lane for each, so that those that hang do not slow those that do not.

Owns: how many errands run at once, in all and for each host, in which order, and which hosts are left alone for a
while. Never: does I/O; knows what an errand is about.

Hosts that have not answered of late share half of all places: however many hang, those that answer have the rest.

A lane begins two errands wide, grows by one with each answer, and shrinks to one when none comes. After ten in a row
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


class Errand(Protocol):
    """Something to do at one host."""

    host: str

    async def run(self) -> bool | None:
        """Do it; whether the host answered. None tells nothing about the host."""

    def put_off(self, delay_s: float) -> None:
        """It cannot be done now; it may come again after a while."""


class Lane:
    """One host: what waits for it, what runs, and how it has behaved."""

    def __init__(self) -> None:
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
        self._most = most
        self._clock_s = clock_s
        self._lanes: dict[str, Lane] = {}
        self._ready: dict[bool, dict[Lane, None]] = {True: {}, False: {}}
        self._doubtful = 0
        self._running: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()
        self._closing = False
        self.in_hand = 0

    def offer(self, errand: Errand) -> None:
        """Run it when its turn comes, or put it off: the host rests, or has more than it can do."""
        now_s = self._clock_s()
        lane = self._lanes.get(errand.host)
        if lane is None:
            self._forget_idle(now_s)
            lane = self._lanes[errand.host] = Lane()
        if self._closing:
            errand.put_off(0.0)
        elif now_s < lane.closed_until_s:
            errand.put_off((lane.closed_until_s - now_s) * _spread())
        elif lane.has_enough() and not lane.is_quick(now_s):
            errand.put_off(lane.wait_s(now_s) * _spread())
        else:
            lane.add(errand, now_s)
            self.in_hand += 1
            self._start(lane)

    def is_full(self, host: str) -> bool:
        """Whether it is better to wait before more is taken for this host: it is quick, and has enough."""
        lane = self._lanes.get(host)
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

    def _has_place(self, answers: bool) -> bool:
        """Whether one more may run, of a host that answers or of one that is in doubt."""
        return len(self._running) < self._most and (answers or self._doubtful < max(1, self._most // 2))

    def _start(self, lane: Lane) -> None:
        """Start what may run in a lane; what must wait for the others is remembered in turn."""
        now_s = self._clock_s()
        while lane.has_room(now_s):
            answers = lane.answers
            if not self._has_place(answers):
                self._ready[answers].setdefault(lane)
                return
            lane.running += 1
            self._doubtful += not answers
            task = asyncio.create_task(self._run(lane, lane.waiting.popleft()), name="errand")
            self._running.add(task)
            task.add_done_callback(partial(self._ended, lane, answers))

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
        self._doubtful -= not answers
        self.in_hand -= 1
        now_s = self._clock_s()
        if now_s < lane.closed_until_s:
            self._put_off_waiting(lane, lane.closed_until_s - now_s)
        if lane.has_room(now_s):
            self._ready[lane.answers].setdefault(lane)
        for kind, ready in self._ready.items():
            while ready and self._has_place(kind):
                turn = next(iter(ready))
                del ready[turn]
                self._start(turn)
        self._freed.set()

    def _put_off_waiting(self, lane: Lane, delay_s: float) -> None:
        while lane.waiting:
            self.in_hand -= 1
            lane.waiting.popleft().put_off(delay_s * _spread())

    def _forget_idle(self, now_s: float) -> None:
        """Forget hosts with nothing to do, once there are many; those that rest are remembered."""
        if len(self._lanes) < LANES_MOST:
            return
        for host, lane in tuple(self._lanes.items()):
            if lane.is_idle() and now_s >= lane.closed_until_s:
                del self._lanes[host]


def _spread() -> float:
    """A factor that keeps those who were put off together from coming back together."""
    return 1 + random.random() / 2
