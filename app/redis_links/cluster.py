"""Links to all primaries of a cluster, and in front of them a router: each command goes to the owner of its key.

Owns: one link for each primary, opened when it is first needed; splitting a pipeline by owner; what a node's answer
means that it did not run a command.

Never: sends a command again unless a node has said that it did not run it. MOVED, ASK, TRYAGAIN and CLUSTERDOWN say so:
the command then goes to where they lead, or once more after a pause, until the call has taken as long as a link may be
silent. A command whose link broke is not sent again, as ever.
https://valkey.io/topics/cluster-spec/#redirection-and-resharding
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from app.loop.background import Background
from app.metrics.catalog import count_redirection
from app.model.errors import Outage, OutcomeUnknown, Unavailable, outcome_unknown, unavailable
from app.redis_links.dialling import Place
from app.redis_links.link import (
    CONNECT_GRACE_S,
    IN_FLIGHT,
    ClusterDown,
    Command,
    Redirected,
    RedisFault,
    ScriptUnknown,
    ServerLink,
    Word,
    all_of,
)
from app.redis_links.topology import Topology, place_led_to, slot_of

PAUSE_S = 0.02
PAUSE_MOST_S = 0.25
"""Between two tries to send a command that nobody runs yet; each pause is longer than the one before."""

RETIRE_S = 5.0
"""How long a link is kept to a node that is no primary: calls may still be on their way, slots may be coming."""

SCRIPT_CALLS = frozenset({"EVALSHA", "EVAL"})
READS = frozenset({"EXISTS", "GET", "HGET", "HGETALL", "HMGET", "HVALS", "SMEMBERS", "ZCARD", "ZRANGE"})
"""Commands of pipelines that leave nothing behind."""

NotRun = Redirected | ClusterDown


def slot_of_command(command: Command) -> int:
    """The slot of a command's first key: of a script it stands behind the script and the number of keys."""
    key = command[3 if command[0] in SCRIPT_CALLS else 1]
    return slot_of(key if isinstance(key, bytes) else str(key))


class ClusterLink:
    """A Link to a whole cluster."""

    def __init__(
        self,
        topology: Topology,
        *,
        name: str,
        timeout_s: float,
        setup: Sequence[Command] = (),
        on_connect: Callable[[ServerLink], Awaitable[None]] | None = None,
        sharded: bool = False,
    ) -> None:
        """Each link is set up as a ServerLink is."""
        self.name = name
        self.sharded = sharded
        self.timeout_s = timeout_s
        self._setup = setup
        self._on_connect = on_connect
        self._topology = topology
        self._servers: dict[Place, ServerLink] = {}
        self._terms: dict[Place, int] = {}
        self._retiring: set[Place] = set()
        self._sent_on: Counter[Place | None] = Counter()
        self._is_closed = False
        self._background = Background()

    @property
    def up(self) -> bool:
        """Whether the map is known, and no link to a primary is missing of those that were needed so far."""
        primaries = self._topology.primaries
        return bool(primaries) and all(self._servers[place].up for place in primaries if place in self._servers)

    def start(self) -> None:
        """Follow the map, which somebody else starts."""
        self._topology.on_change(self._follow)

    async def close(self) -> None:
        self._is_closed = True
        self._topology.stop_telling(self._follow)
        await self._background.close()
        servers, self._servers = list(self._servers.values()), {}
        await asyncio.gather(*(server.close() for server in servers))

    async def ready(self, timeout_s: float) -> None:
        """Return once there is a link to each primary, or, when the time is over, to some."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._topology.primaries:
                    await self._topology.changed()
                await asyncio.gather(*(server.ready(timeout_s) for server in self.servers()))
        except (TimeoutError, Unavailable):
            if not any(server.up for server in self.servers()):
                raise unavailable("Redis cannot be reached.") from None

    async def call(self, *command: Word) -> Any:
        slot = slot_of_command(command)
        server = self._up_for(slot) or await self._wait_for(slot)
        server.admit(1)
        try:
            return await server.send(command)
        except (Redirected, ClusterDown) as told:
            return await self._send_on(told, server, slot, command)

    async def pipeline(self, *commands: Command) -> list[Any]:
        """Each owner's part goes in one write, all at the same time.

        Raises the first failure; Unavailable only if no part ran that may have left something behind.
        """
        slots = [slot_of_command(command) for command in commands]
        servers = await self._wait_for_all(slots)
        for server in set(servers):
            server.admit(servers.count(server))
        sent = [server.send(command) for server, command in zip(servers, commands, strict=True)]
        try:
            return await all_of(sent)
        except Exception:
            replies: list[Any] = [future.exception() or future.result() for future in sent]
        not_run = [at for at, reply in enumerate(replies) if isinstance(reply, NotRun)]
        for at, reply in zip(
            not_run,
            await asyncio.gather(
                *(self._send_on(replies[at], servers[at], slots[at], commands[at]) for at in not_run),
                return_exceptions=True,
            ),
            strict=True,
        ):
            replies[at] = reply
        return whole(commands, replies)

    async def pipeline_by_server(self, *commands: Command) -> list[Any]:
        parts: dict[Place | None, list[int]] = {}
        for at, command in enumerate(commands):
            parts.setdefault(self._topology.owner(slot_of_command(command)), []).append(at)
        outcomes = await asyncio.gather(
            *(self.pipeline(*(commands[at] for at in part)) for part in parts.values()), return_exceptions=True
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        replies: list[Any] = [None] * len(commands)
        for part, outcome in zip(parts.values(), outcomes, strict=True):
            if isinstance(outcome, BaseException):
                if len(failures) == len(outcomes) or not isinstance(outcome, Outage):
                    raise outcome
                outcome = [outcome] * len(part)
            for at, reply in zip(part, outcome, strict=True):
                replies[at] = reply
        return replies

    def cast(self, *command: Word) -> None:
        slot = slot_of_command(command)
        if (server := self._up_for(slot)) is None:
            return
        with contextlib.suppress(Outage):
            server.admit(1)
            server.send(command).add_done_callback(partial(self._cast_over, server, slot, command))

    def server_of(self, key: str) -> ServerLink:
        place = self._topology.owner(slot_of(key))
        if place is None:
            raise unavailable("Redis cannot be reached.")
        return self.server(place)

    def tag_of(self, key: str) -> str:
        place = self._topology.owner(slot_of(key))
        return "" if place is None else self._topology.tag_on(place)

    def servers(self) -> Sequence[ServerLink]:
        return [self.server(place) for place in self._topology.primaries]

    def tags(self) -> Mapping[ServerLink, str]:
        return {self.server(place): tag for place in self._topology.primaries if (tag := self._topology.tag_on(place))}

    def server(self, place: Place) -> ServerLink:
        """The link to a node, opened if it is the first time. Raises Unavailable once this link is closed."""
        server = self._servers.get(place)
        if server is None:
            if self._is_closed:
                raise unavailable("Redis has gone away.")
            server = self._servers[place] = ServerLink(
                self._topology.node(place),
                name=f"{self.name} {place}",
                timeout_s=self.timeout_s,
                setup=self._setup,
                on_connect=self._on_connect,
                sharded=self.sharded,
                place=place,
            )
            self._terms[place] = self._topology.term(place)
            server.start()
            if place not in self._topology.primaries:  # an ASK led to it; perhaps it never becomes one
                self._retire_soon(place)
        return server

    # The owner of a slot

    def _up_for(self, slot: int) -> ServerLink | None:
        """The link to the owner of a slot, if it stands."""
        place = self._topology.owner(slot)
        server = None if place is None else self._servers.get(place)
        return server if server is not None and server.up else None

    async def _wait_for(self, slot: int) -> ServerLink:
        """The link to the owner of a slot once it stands, whoever owns it then. Raises Unavailable if none does."""
        return (await self._wait_for_all([slot]))[0]

    async def _wait_for_all(self, slots: Sequence[int]) -> list[ServerLink]:
        """The links to the owners of slots once all of them stand at the same moment. Raises Unavailable."""
        if None not in (servers := [self._up_for(slot) for slot in slots]):
            return cast(list[ServerLink], servers)
        try:
            async with asyncio.timeout(CONNECT_GRACE_S):
                while None in (servers := [self._up_for(slot) for slot in slots]):
                    await self._until_news(slots[servers.index(None)])
                return cast(list[ServerLink], servers)
        except TimeoutError:
            raise unavailable("Redis cannot be reached.") from None

    async def _until_news(self, slot: int) -> None:
        """Return when the link to a slot's owner stands, or when the map has changed."""
        place = self._topology.owner(slot)
        if place is None or place in self._servers:
            self._topology.doubt()
        waits = [asyncio.ensure_future(self._topology.changed())]
        if place is not None:
            waits.append(asyncio.ensure_future(self.server(place).ready(self.timeout_s)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _follow(self, slot: int | None) -> None:
        """The map has changed: let go of nodes that are no primaries, and ask anew who may have become one again.

        A connection outlives its server's way down and up again. Nothing may be written over it in the new role before
        that has been met: see app/redis_links/cluster_epoch.py.
        """
        for place in self._servers.keys() - set(self._topology.primaries):
            self._retire_soon(place)
        for place, server in self._servers.items():
            if self._terms[place] != (term := self._topology.term(place)):
                self._terms[place] = term
                server.identify_again()

    def _retire_soon(self, place: Place) -> None:
        if place not in self._retiring:
            self._retiring.add(place)
            self._background.start(self._retire(place), f"{self.name}-retire")

    async def _retire(self, place: Place) -> None:
        """Close the link to a node that is no primary once it has answered, unless it has become one."""
        await asyncio.sleep(RETIRE_S)
        self._retiring.discard(place)
        if place in self._topology.primaries or place not in self._servers:
            return
        server = self._servers.pop(place)
        self._terms.pop(place, None)
        try:
            await server.drain()
        finally:
            await server.close()

    # What was not run

    async def _send_on(self, told: NotRun, by: ServerLink, slot: int, command: Command) -> Any:
        """The reply to a command that `by` did not run, from where it runs. Raises Unavailable if no node runs it."""
        if self._sent_on[by.place] >= IN_FLIGHT:
            raise unavailable("Too many calls wait for Redis.")
        self._sent_on[by.place] += 1
        try:
            return await self._until_it_runs(told, by, slot, command)
        finally:
            self._sent_on[by.place] -= 1

    async def _until_it_runs(self, told: NotRun, by: ServerLink, slot: int, command: Command) -> Any:
        now_s, pause_s, before = asyncio.get_running_loop().time, 0.0, ""
        until_s = now_s() + self.timeout_s
        while now_s() < until_s:
            count_redirection(str(by.place), told.word)
            try:
                if before == "ASK" and told.word == "ASK":  # a node that was asked asks another
                    await asyncio.sleep(PAUSE_S * random.uniform(1, 2))
                before = told.word
                if told.word == "ASK":
                    by = self.server(self._place(told.to, by))
                    return (await by.pipeline(("ASKING",), command))[1]
                if told.word == "MOVED" and by.place is not None:
                    self._topology.moved(slot, self._place(told.to, by), by.place)
                elif told.word == "CLUSTERDOWN":
                    self._topology.doubt()
                if told.word != "MOVED" or pause_s:
                    await asyncio.sleep((pause_s or PAUSE_S) * random.uniform(1, 2))
                pause_s = min(PAUSE_MOST_S, 2 * pause_s or PAUSE_S)
                by = self._up_for(slot) or await self._wait_for(slot)
                return await by.call(*command)
            except (Redirected, ClusterDown) as again:
                told = again
        raise unavailable("The Redis cluster is moving what this call needs, or is down.")

    def _place(self, text: str, by: ServerLink) -> Place:
        """Where a node leads to; one that names no host means its own."""
        assert by.place is not None
        return place_led_to(text, by.place)

    def _cast_over(self, by: ServerLink, slot: int, command: Command, sent: asyncio.Future[Any]) -> None:
        """Follow a command whose reply nobody awaits."""
        if not sent.cancelled() and isinstance(told := sent.exception(), NotRun):
            self._background.start(self._cast_on(told, by, slot, command), f"{self.name}-cast")

    async def _cast_on(self, told: NotRun, by: ServerLink, slot: int, command: Command) -> None:
        with contextlib.suppress(Outage, RedisFault, ScriptUnknown):
            await self._send_on(told, by, slot, command)


def whole(commands: Sequence[Command], replies: list[Any]) -> list[Any]:
    """The replies of a pipeline whose parts went to several nodes; raises the first failure.

    When a part was not done but another was, or may have been, nobody can say that nothing was: OutcomeUnknown.
    """
    failures = [reply for reply in replies if isinstance(reply, BaseException)]
    if not failures:
        return replies
    done = {command[0] for command, reply in zip(commands, replies, strict=True) if reply not in failures}
    if isinstance(failures[0], Unavailable) and (
        done - READS or any(isinstance(failure, OutcomeUnknown) for failure in failures)
    ):
        raise outcome_unknown()
    raise failures[0]
