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

from app.loop.attempts import Attempts, Log
from app.loop.background import Background, until_first_ends
from app.metrics import catalog
from app.model.errors import Outage, OutcomeUnknown
from app.settings import Settings
from app.webhooks.answers import Outcome
from app.webhooks.host_lanes import HostLanes
from app.webhooks.http_client import WebhookClient
from app.webhooks.outbox import CallbackRequest, LeasedCallback, Outbox
from app.webhooks.retry_schedule import delay_ms
from app.webhooks.signatures import sign_headers

log = logging.getLogger("jobwire.callbacks")

LEASE_AT_ONCE = 50
POSTPONED_AT_ONCE = 100
DUE_POLL_S = 0.05
REBUILD_S = 30.0
OUTAGE_PAUSE_S = 0.1
UNSENT_DELAY_MS = 1000


def new_attempts(of: Log = log) -> Attempts:
    """What the log says of an outage."""
    return Attempts(
        of,
        waits="callbacks wait: %s",
        goes_on="callbacks go on",
        failed="callbacks met an error",
        pause_s=OUTAGE_PAUSE_S,
    )


class CallbackTry:
    """One callback in hand: a request for the hosts."""

    __slots__ = ("_callbacks", "host", "leased", "space")

    def __init__(self, callbacks: "Callbacks", leased: LeasedCallback) -> None:
        self._callbacks = callbacks
        self.leased = leased
        self.space = leased.space
        self.host = leased.host

    async def run(self) -> bool | None:
        """Send it and note how that went."""
        return await self._callbacks.send_callback(self.leased)

    def put_off(self, delay_s: float) -> None:
        """Give it back."""
        self._callbacks.give_back(self.leased, delay_s)


class Callbacks:
    """One process's share of the callbacks. `hosts` may be shared with other senders."""

    def __init__(self, outbox: Outbox, client: WebhookClient, hosts: HostLanes, settings: Settings) -> None:
        self._outbox = outbox
        self._client = client
        self._hosts = hosts
        self._delays_s = settings.callback_delays_s
        self._wait_ms = int(settings.callback_timeout_s * 2000)
        self._lease_ms = int(settings.callback_timeout_s * 4000)
        self._attempts = new_attempts()
        self._background = Background()
        self._working: dict[str, asyncio.Task[None]] = {}
        self._given_back: defaultdict[str, list[tuple[LeasedCallback, int]]] = defaultdict(list)

    async def run(self) -> None:
        """Send what is due until cancelled."""
        try:
            self._background.start(self._give_back_forever(), "callbacks-give-back")
            await self._outbox.on_each_server(self._run_shard, self._leave)
        finally:
            await self._background.close()

    async def flush_given_back(self) -> None:
        """Give back now what waits to be given back. What Redis does not take comes back when its lease is over."""
        given_back, self._given_back = self._given_back, defaultdict(list)
        await asyncio.gather(*(self._give_back(space, items) for space, items in given_back.items()))

    async def _give_back(self, space: str, items: list[tuple[LeasedCallback, int]]) -> None:
        for at in range(0, len(items), POSTPONED_AT_ONCE):
            step = items[at : at + POSTPONED_AT_ONCE]
            await self._attempts.make(partial(self._outbox.postpone_callbacks, space, step), None)

    # Finding

    async def _run_shard(self, tag: str) -> None:
        """Find what is due on one server; one that is away holds up no other."""
        attempts = new_attempts(self._outbox.shard_log(log, tag))
        await until_first_ends(self._rebuild_forever(tag, attempts), self._work_forever(tag, attempts))

    async def _leave(self, tag: str) -> None:
        await self._attempts.make(partial(self._outbox.leave, tag), None)

    async def _rebuild_forever(self, tag: str, attempts: Attempts) -> None:
        while True:
            await attempts.make(partial(self._outbox.rebuild_hints, tag), None)
            await asyncio.sleep(REBUILD_S)

    async def _give_back_forever(self) -> None:
        while True:
            await asyncio.sleep(DUE_POLL_S)
            await self.flush_given_back()

    async def _work_forever(self, tag: str, attempts: Attempts) -> None:
        nothing: list[str] = []
        while True:
            for space in await attempts.make(partial(self._outbox.due_spaces, len(self._working), tag), nothing):
                if space not in self._working:
                    work = self._work_space(space, tag, attempts)
                    self._working[space] = self._background.start(work, "callbacks-work")
            await asyncio.sleep(DUE_POLL_S)

    async def _work_space(self, space: str, tag: str, attempts: Attempts) -> None:
        """Take all that is due in one space, as fast as its hosts take it."""
        try:
            await attempts.make(partial(self._send_due, space, tag, attempts), None)
        finally:
            del self._working[space]

    async def _send_due(self, space: str, tag: str, attempts: Attempts) -> None:
        dropped = False
        while True:
            while not self._hosts.has_room(space):
                await self._hosts.wait_for_room(DUE_POLL_S)
            try:
                if not dropped:
                    await self._outbox.drop_hint(space, tag)
                    dropped = True
                leased, next_due = await self._outbox.lease_callbacks(space, LEASE_AT_ONCE, self._lease_ms)
            except Outage as outage:
                attempts.notice.away(outage)
                await asyncio.sleep(OUTAGE_PAUSE_S)
                continue
            if len(leased) < LEASE_AT_ONCE:
                await attempts.make(partial(self._outbox.add_hint, space, next_due), None)
            await self._offer_tries(space, leased)
            if len(leased) < LEASE_AT_ONCE:
                return

    async def _offer_tries(self, space: str, leased: list[LeasedCallback]) -> None:
        """Offer them to their hosts; return when the quick ones among these have room again."""
        tries = [CallbackTry(self, callback) for callback in leased]
        for one in tries:
            self._hosts.offer_request(one)
        hosts = {try_.host for try_ in tries}
        while any(self._hosts.is_full(space, host) for host in hosts):
            await self._hosts.wait_for_room(DUE_POLL_S)

    # Trying

    def give_back(self, leased: LeasedCallback, delay_s: float) -> None:
        """It was not tried; it is due again after a while."""
        self._given_back[leased.space].append((leased, int(delay_s * 1000)))

    async def send_callback(self, leased: LeasedCallback) -> bool | None:
        """One try, from its beginning to its note; whether the host answered, None when nothing was sent."""
        token = secrets.token_hex(8)
        try:
            message = await self._outbox.begin_try(leased, token, self._wait_ms, len(self._delays_s))
        except OutcomeUnknown:
            unsent = Outcome(None, "Redis went away before this try; nothing was sent.", None, None, None)
            await self._note(leased, token, "callback_failed", _failed(leased.url, unsent), UNSENT_DELAY_MS)
            return None
        except Outage:
            self.give_back(leased, UNSENT_DELAY_MS / 1000)
            return None
        if message is None:
            return None
        outcome = await self._send(leased, message)
        if not outcome.error:
            data = {"url": message.url, "statusCode": outcome.status}
            await self._note(leased, token, "callback_sent", msgspec.json.encode(data), None)
            catalog.CALLBACK_TRIES.inc("sent")
        else:
            wait_s, chance = outcome.retry_after_s, random.random()
            again = delay_ms(self._delays_s, message.number, outcome.status, wait_s, chance)
            await self._note(leased, token, "callback_failed", _failed(message.url, outcome), again)
            catalog.CALLBACK_TRIES.inc("given_up" if again is None else "failed")
        return outcome.reached

    async def _send(self, leased: LeasedCallback, message: CallbackRequest) -> Outcome:
        own = sign_headers(message.id, self._client.now_s(), message.body, message.secrets)
        outcome = await self._client.post_json(message.url, message.body, message.headers, own, space=leased.space)
        if outcome.detail:
            log.info("no answer to the callback of job %s from %s: %s", leased.job, leased.host, outcome.detail)
        return outcome

    async def _note(self, leased: LeasedCallback, token: str, kind: str, data: bytes, again_ms: int | None) -> None:
        """Note it, however long Redis is away: a note is the one thing that must not be given up."""
        while True:
            try:
                return await self._outbox.note_try(leased, token, kind, data, again_ms)
            except Outage:
                await asyncio.sleep(OUTAGE_PAUSE_S)


def _failed(url: str, outcome: Outcome) -> bytes:
    """The data of a callback_failed, but for what the script adds."""
    data = {"url": url, "error": outcome.error, "statusCode": outcome.status, "responseBody": outcome.body}
    return msgspec.json.encode(data)
