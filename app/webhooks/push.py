"""Telling workers of pending jobs, and Slack of what happens: best effort, from what the processes hear live.

Owns: which spaces want it, and what each is told. Never: keeps anything, tries anything twice. What is missed here is
found by a poll, and stands in the job's events.

Of several processes one works, under a lease of its own; when it dies another takes over within three seconds.
"""

import asyncio
import logging
import secrets
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from app.jobs.job_records import hash_fields
from app.loop.background import Background
from app.model.errors import Outage
from app.model.redis_keys import Keys
from app.redis_links.election import RENEW_S, Election, new_candidate
from app.redis_links.link import Link
from app.redis_links.pubsub import Relay
from app.redis_links.shards import run_on_each
from app.webhooks.host_lanes import HostLanes
from app.webhooks.http_client import WebhookClient
from app.webhooks.outbox import host_of
from app.webhooks.signatures import sign_headers
from app.webhooks.slack import SlackSender, slack_line
from app.webhooks.space_hooks import SLACK_EVENTS, Hooks, Push, read_hooks

log = logging.getLogger("jobwire.callbacks")

PUSH_DELAY_S = 0.02
"""How long a push waits: a job that is born claimed, or taken at once, needs none."""

PENDING = frozenset({"created", "pending", "retried", "delivery_timeout", "released", "requeued"})


class HeardEvent(Struct, rename="camel"):
    """What is read of an event's message: see lua/include/emit_event.lua."""

    type: str
    job_id: str
    job_name: str
    status: str


HEARD_EVENT = msgspec.json.Decoder(HeardEvent)


class PendingPush:
    """One job.pending on its way: tried once, dropped when its host cannot take it."""

    __slots__ = ("_body", "_client", "_hooks", "_id", "_push", "host", "space")

    def __init__(self, client: WebhookClient, space: str, hooks: Hooks, push: Push, body: bytes) -> None:
        self._client = client
        self._hooks = hooks
        self._push = push
        self._id = f"msg_{secrets.token_hex(13)}"
        self._body = body
        self.space = space
        self.host = host_of(push.url)

    async def run(self) -> bool | None:
        """Send it."""
        own = sign_headers(self._id, self._client.now_s(), self._body, self._hooks.secrets)
        outcome = await self._client.post_json(self._push.url, self._body, self._push.headers, own, space=self.space)
        if outcome.detail:
            log.info("no answer to a push of space %s from %s: %s", self.space, self.host, outcome.detail)
        return outcome.reached

    def put_off(self, delay_s: float) -> None:
        """Drop it: a push that comes late is of no use."""


class SpaceListener:
    """One space: what it hears, and whom it tells."""

    def __init__(self, space: str, pusher: "Pusher") -> None:
        self._space = space
        self._pusher = pusher
        self._pending: dict[str, str] = {}
        self.hooks = Hooks()

    def on_message(self, payload: bytes | None) -> None:
        """A message of the space's channel; None, when some were lost, changes nothing."""
        if payload is None:
            return
        try:
            heard = HEARD_EVENT.decode(payload)
        except msgspec.DecodeError:
            return
        push, slack = self.hooks.push, self.hooks.slack
        if push is not None and heard.type in PENDING and heard.status == "pending":
            if not push.names or heard.job_name in push.names:
                if not self._pending:
                    asyncio.get_running_loop().call_later(PUSH_DELAY_S, self._push)
                self._pending[heard.job_id] = heard.job_name
        elif heard.type == "delivered":
            self._pending.pop(heard.job_id, None)
        if slack is not None and SLACK_EVENTS.get(heard.type) in slack.events:
            self._pusher.slack_sender(slack.url).add_line(slack_line(heard.type, heard.job_name, heard.job_id))

    def _push(self) -> None:
        pending, self._pending = self._pending, {}
        if self.hooks.push is None:
            return
        for job, name in pending.items():
            body = msgspec.json.encode({"jobId": job, "spaceId": self._space, "name": name})
            self._pusher.send_push(self._space, self.hooks, self.hooks.push, body)


class Pusher:
    """All spaces that want to be told. Each server of a cluster has a pusher of its own for those that lie there."""

    def __init__(self, link: Link, relay: Relay, keys: Keys, client: WebhookClient, hosts: HostLanes) -> None:
        self._link = link
        self._candidate = new_candidate()
        self._relay = relay
        self._keys = keys
        self._client = client
        self._hosts = hosts
        self._hooked = HookedSpaces(link, keys)
        self._shards: dict[str, ShardPusher] = {}
        self._slack: dict[str, SlackSender] = {}

    async def run(self) -> None:
        """Tell until cancelled."""
        try:
            await run_on_each(self._link, self._run_shard)
        finally:
            for sender in self._slack.values():
                await sender.close()

    def send_push(self, space: str, hooks: Hooks, push: Push, body: bytes) -> None:
        """Tell a worker of a job."""
        self._hosts.offer_request(PendingPush(self._client, space, hooks, push, body))

    def slack_sender(self, url: str) -> SlackSender:
        """The sender of an incoming webhook: spaces with the same one share its pace."""
        if url not in self._slack:
            self._slack[url] = SlackSender(self._client, url)
        return self._slack[url]

    async def close_unused_slack(self) -> None:
        """Close the senders of webhooks that no space has any more."""
        used = {url for shard in self._shards.values() for url in shard.slack_urls()}
        unused = [self._slack.pop(url) for url in self._slack.keys() - used]
        await asyncio.gather(*(sender.close() for sender in unused))

    async def _run_shard(self, tag: str) -> None:
        election = Election(self._link, self._keys.pusher_of(tag), self._candidate, tag)
        shard = ShardPusher(self, self._link, self._relay, self._keys, hooked=self._hooked, election=election, tag=tag)
        self._shards[tag] = shard
        try:
            await shard.run()
        finally:
            del self._shards[tag]


class HookedSpaces:
    """The spaces that have a push or a Slack webhook; those that were read last, while Redis does not tell."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._spaces: list[str] | None = None
        self._read_s = float("-inf")
        self._reading = asyncio.Lock()

    async def of_shard(self, tag: str) -> list[str]:
        """Those of the server with that tag. Raises Outage if they have never been read."""
        async with self._reading:
            if asyncio.get_running_loop().time() - self._read_s >= RENEW_S / 2:
                await self._read()
        return [space for space in self._spaces or () if self._link.tag_of(self._keys.space(space)) == tag]

    async def _read(self) -> None:
        try:
            self._spaces = [space.decode() for space in await self._link.call("SMEMBERS", self._keys.hooks)]
        except Outage:
            if self._spaces is None:
                raise
        self._read_s = asyncio.get_running_loop().time()


class ShardPusher:
    """The part of a pusher on one server: the spaces there, while it leads there."""

    def __init__(
        self,
        pusher: Pusher,
        link: Link,
        relay: Relay,
        keys: Keys,
        *,
        hooked: HookedSpaces,
        election: Election,
        tag: str,
    ) -> None:
        self._pusher = pusher
        self._link = link
        self._relay = relay
        self._keys = keys
        self._hooked = hooked
        self._election = election
        self._tag = tag
        self._background = Background()
        self._listeners: dict[str, SpaceListener] = {}

    async def run(self) -> None:
        """Tell until cancelled."""
        try:
            await self._background.repeat(self._refresh, RENEW_S, "push")
        finally:
            await self._background.close()
            self._unsubscribe(list(self._listeners))

    def slack_urls(self) -> set[str]:
        """The incoming webhooks that its spaces have."""
        return {listener.hooks.slack.url for listener in self._listeners.values() if listener.hooks.slack}

    async def _refresh(self) -> None:
        """Hold the lease, and know what each space wants."""
        wanted = await self._wanted() if await self._election.lead() else {}
        self._unsubscribe(self._listeners.keys() - wanted.keys())
        for space, hooks in wanted.items():
            if space not in self._listeners:
                listener = self._listeners[space] = SpaceListener(space, self._pusher)
                listener.hooks = hooks
                await self._relay.subscribe(self._keys.live(space), listener.on_message)
            self._listeners[space].hooks = hooks
        await self._pusher.close_unused_slack()

    def _unsubscribe(self, spaces: Iterable[str]) -> None:
        for space in spaces:
            self._relay.unsubscribe(self._keys.live(space), self._listeners.pop(space).on_message)

    async def _wanted(self) -> dict[str, Hooks]:
        spaces = await self._hooked.of_shard(self._tag)
        hashes = await self._link.pipeline(*(("HGETALL", self._keys.space(space)) for space in spaces))
        all_hooks = {space: read_hooks(hash_fields(flat)) for space, flat in zip(spaces, hashes, strict=True)}
        return {space: hooks for space, hooks in all_hooks.items() if hooks.push or hooks.slack}
