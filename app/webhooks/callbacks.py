"""Telling those who wait that a job has ended: the process that empties the outbox.

Owns: how many callbacks are in hand, the tries, and what is noted of each. Several may run at once; each callback is
one process's at a time, under a lease. Always: a job's end and its callback are one write (lua/include/finish.lua), and
a try is noted before the next one; a process that dies between sending and noting means a second send, never none.

A Redis that is away is waited for: what has been sent is noted when it is back.
"""

import asyncio
import logging
import random
import secrets
from collections import defaultdict
from functools import partial

import msgspec

from app.loop.attempts import Attempts
from app.loop.background import Background
from app.metrics import catalog
from app.model.errors import Outage, OutcomeUnknown
from app.settings import Settings
from app.webhooks.host_lanes import Hosts
from app.webhooks.http_client import Outcome, Outgoing
from app.webhooks.outbox import Message, Outbox, Taken
from app.webhooks.retry_schedule import delay_ms
from app.webhooks.signatures import signed

log = logging.getLogger("jobwire.callbacks")

TAKE = 50
POSTPONE = 100
LOOK_S = 0.05
REBUILD_S = 30.0
PAUSE_S = 0.1
UNSENT_DELAY_MS = 1000


class Try:
    """One callback in hand: an errand for the hosts."""

    __slots__ = ("_callbacks", "host", "space", "taken")

    def __init__(self, callbacks: "Callbacks", taken: Taken) -> None:
        self._callbacks = callbacks
        self.taken = taken
        self.space = taken.space
        self.host = taken.host

    async def run(self) -> bool | None:
        """Send it and note how that went."""
        return await self._callbacks.attempt(self.taken)

    def put_off(self, delay_s: float) -> None:
        """Give it back."""
        self._callbacks.give_back(self.taken, delay_s)


class Callbacks:
    """One process's share of the callbacks. `hosts` may be shared with other senders."""

    def __init__(self, outbox: Outbox, outgoing: Outgoing, hosts: Hosts, settings: Settings) -> None:
        self._outbox = outbox
        self._outgoing = outgoing
        self._hosts = hosts
        self._delays_s = settings.callback_delays_s
        self._wait_ms = int(settings.callback_timeout_s * 2000)
        self._lease_ms = int(settings.callback_timeout_s * 4000)
        self._attempts = Attempts(
            log,
            waits="callbacks wait: %s",
            goes_on="callbacks go on",
            failed="callbacks met an error",
            pause_s=PAUSE_S,
        )
        self._background = Background()
        self._working: dict[str, asyncio.Task[None]] = {}
        self._back: defaultdict[str, list[tuple[Taken, int]]] = defaultdict(list)

    async def run(self) -> None:
        """Send what is due until cancelled."""
        try:
            self._background.start(self._rebuild_forever(), "callbacks-rebuild")
            self._background.start(self._give_back_forever(), "callbacks-give-back")
            await self._look_forever()
        finally:
            await self._background.close()

    async def flush(self) -> None:
        """Give back now what waits to be given back. What Redis does not take comes back when its lease is over."""
        while self._back:
            space, items = self._back.popitem()
            for at in range(0, len(items), POSTPONE):
                step = items[at : at + POSTPONE]
                await self._attempts.make(partial(self._outbox.postpone, space, step), None)

    # Finding

    async def _rebuild_forever(self) -> None:
        while True:
            await self._attempts.make(self._outbox.rebuild, None)
            await asyncio.sleep(REBUILD_S)

    async def _give_back_forever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            await self.flush()

    async def _look_forever(self) -> None:
        nothing: list[str] = []
        while True:
            for space in await self._attempts.make(partial(self._outbox.due_spaces, len(self._working)), nothing):
                if space not in self._working:
                    self._working[space] = self._background.start(self._work(space), "callbacks-work")
            await asyncio.sleep(LOOK_S)

    async def _work(self, space: str) -> None:
        """Take all that is due in one space, as fast as its hosts take it."""
        try:
            await self._empty(space)
        except Exception:
            log.exception("callbacks met an error")
        finally:
            del self._working[space]

    async def _empty(self, space: str) -> None:
        dropped = False
        while True:
            while not self._hosts.has_room(space):
                await self._hosts.freed(LOOK_S)
            try:
                if not dropped:
                    await self._outbox.drop_hint(space)
                    dropped = True
                taken, next_due = await self._outbox.take(space, TAKE, self._lease_ms)
            except Outage as outage:
                self._attempts.notice.away(outage.text)
                await asyncio.sleep(PAUSE_S)
                continue
            if len(taken) < TAKE:
                await self._attempts.make(partial(self._outbox.hint, space, next_due), None)
            await self._hand_out(space, taken)
            if len(taken) < TAKE:
                return

    async def _hand_out(self, space: str, taken: list[Taken]) -> None:
        """To the hosts; returns when those that are quick have room again."""
        tries = [Try(self, one) for one in taken]
        for one in tries:
            self._hosts.offer(one)
        hosts = {one.host for one in tries}
        while any(self._hosts.is_full(space, host) for host in hosts):
            await self._hosts.freed(LOOK_S)

    # Trying

    def give_back(self, taken: Taken, delay_s: float) -> None:
        """It was not tried; it is due again after a while."""
        self._back[taken.space].append((taken, int(delay_s * 1000)))

    async def attempt(self, taken: Taken) -> bool | None:
        """One try, from its beginning to its note; whether the host answered, None when nothing was sent."""
        token = secrets.token_hex(8)
        try:
            message = await self._outbox.begin(taken, token, self._wait_ms, len(self._delays_s))
        except OutcomeUnknown:
            unsent = Outcome(None, "Redis went away before this try; nothing was sent.", None, None, None)
            await self._note(taken, token, "callback_failed", _failed(taken.url, unsent), UNSENT_DELAY_MS)
            return None
        except Outage:
            self.give_back(taken, UNSENT_DELAY_MS / 1000)
            return None
        if message is None:
            return None
        outcome = await self._send(taken, message)
        if not outcome.error:
            data = {"url": message.url, "statusCode": outcome.status}
            await self._note(taken, token, "callback_sent", msgspec.json.encode(data), None)
            catalog.CALLBACKS.inc("sent")
        else:
            wait_s, chance = outcome.retry_after_s, random.random()
            again = delay_ms(self._delays_s, message.number, outcome.status, wait_s, chance)
            await self._note(taken, token, "callback_failed", _failed(message.url, outcome), again)
            catalog.CALLBACKS.inc("given_up" if again is None else "failed")
        return outcome.reached

    async def _send(self, taken: Taken, message: Message) -> Outcome:
        own = signed(message.id, self._outgoing.now_s(), message.body, message.secrets)
        outcome = await self._outgoing.post(message.url, message.body, message.headers, own, space=taken.space)
        if outcome.detail:
            log.info("no answer to the callback of job %s from %s: %s", taken.job, taken.host, outcome.detail)
        return outcome

    async def _note(self, taken: Taken, token: str, kind: str, data: bytes, again_ms: int | None) -> None:
        """Note it, however long Redis is away: a note is the one thing that must not be given up."""
        while True:
            try:
                return await self._outbox.note(taken, token, kind, data, again_ms)
            except Outage:
                await asyncio.sleep(PAUSE_S)


def _failed(url: str, outcome: Outcome) -> bytes:
    """The data of a callback_failed, but for what the script adds."""
    data = {"url": url, "error": outcome.error, "statusCode": outcome.status, "responseBody": outcome.body}
    return msgspec.json.encode(data)
