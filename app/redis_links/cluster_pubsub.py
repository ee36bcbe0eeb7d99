"""Messages of a cluster: a pub/sub link to each primary, and each channel where its slot is.

Owns: following slots that move. A node that loses a slot ends the subscriptions to its channels by itself, and one that
has not got it refuses them; either is noticed, and the channel is subscribed to anew at the owner, where its listeners
are told that hints may have been lost.

Never: stays with a node that is no primary. It would take a subscription all the same, as a replica does, and be silent
from the moment on at which it follows somebody else: so whenever the map changes, every channel goes to its owner.
Never: believes that a refusal is the last word. What is not confirmed is asked for again, for as long as somebody
listens.
https://valkey.io/topics/pubsub/#sharded-pubsub
"""

import logging
import re
from collections.abc import Callable, Iterable, Sequence

from app.loop.background import Background
from app.redis_links.dialling import Place
from app.redis_links.link import Link
from app.redis_links.pubsub import Channel, Listener, OnConnect, Relay, Source
from app.redis_links.topology import SLOTS, Topology, place_led_to, slot_of

log = logging.getLogger("jobwire.relay")

REPAIR_S = 0.5
"""How often to look for what is not confirmed; what was not the last time either is asked for again."""

MOVED = re.compile(r"MOVED (\d{1,5}) (\S*:\d{1,5})", re.ASCII)


class ClusterRelay(Relay):
    """Subscriptions at the primaries of a cluster."""

    def __init__(
        self,
        topology: Topology,
        control: Link,
        *,
        probe_of: Callable[[str], str],
        timeout_s: float,
        on_connect: OnConnect | None = None,
    ) -> None:
        """`probe_of` names the channel of a probe that has a hash tag."""
        super().__init__(control, timeout_s=timeout_s, on_connect=on_connect)
        self._topology = topology
        self._probe_of = probe_of
        self._sources: dict[Place, Source] = {}
        self._by_slot: dict[int, set[bytes]] = {}
        self._late: set[bytes] = set()
        self._leaving: set[Source] = set()
        self._background = Background()

    @property
    def live(self) -> bool:
        return bool(self._sources) and not self.deaf()

    def deaf(self) -> Sequence[Place]:
        return [place for place, source in self._sources.items() if not source.live]

    def start(self) -> None:
        self._topology.on_change(self._follow)
        self._follow()
        self._background.repeat(self._repair, REPAIR_S, "pubsub-repair")

    async def close(self) -> None:
        self._topology.stop_telling(self._follow)
        await self._background.close()
        for source in (*self._sources.values(), *self._leaving):
            await source.close()

    def _source_of(self, name: bytes) -> tuple[Source | None, int]:
        slot = slot_of(name)
        place = self._topology.owner(slot)
        return None if place is None else self._sources.get(place), slot

    def _listen(self, name: bytes, listener: Listener) -> None:
        self._by_slot.setdefault(slot_of(name), set()).add(name)
        super()._listen(name, listener)

    def unsubscribe(self, channel: str, listener: Listener) -> None:
        super().unsubscribe(channel, listener)
        name = channel.encode()
        slot = slot_of(name)
        if name not in self._channels and slot in self._by_slot:
            self._by_slot[slot].discard(name)
            if not self._by_slot[slot]:
                del self._by_slot[slot]

    def _follow(self, slot: int | None = None) -> None:
        """A slot has another owner than before, or any may: hear each primary and no other node, channels at theirs.

        A node that gives a thousand slots away at once leads to the owner of each: only its own channels are looked at.
        """
        primaries = self._topology.primaries
        for place in primaries:
            if place not in self._sources:
                self._sources[place] = source = self._new_source(
                    self._topology.node(place), f"pub/sub {place.host}:{place.port}"
                )
                source.start()
        for place, source in self._sources.items():
            self._probe(source, self._topology.tag_on(place))
        self._subscribe(self._misplaced((*self._by_slot,) if slot is None else (slot,)))
        for place in self._sources.keys() - set(primaries):
            self._leaving.add(source := self._sources.pop(place))
            self._background.start(self._leave_source(source), "pubsub-retire")

    def _misplaced(self, slots: Iterable[int]) -> list[bytes]:
        """The channels of these slots that are not heard at their owner."""
        found: list[bytes] = []
        for slot in slots:
            place = self._topology.owner(slot)
            source = None if place is None else self._sources.get(place)
            found += (name for name in self._by_slot.get(slot, ()) if self._channels[name].source is not source)
        return found

    async def _leave_source(self, source: Source) -> None:
        await source.close()
        self._leaving.discard(source)

    def _probe(self, source: Source, tag: str) -> None:
        """Probe on a channel that lies there, for as long as slots do."""
        probe = self._probe_of(tag) if tag else ""
        if probe == source.probe:
            return
        if source.probe:
            self.unsubscribe(source.probe, source.hear_probe)
        source.probe = probe
        if probe:
            self._listen(probe.encode(), source.hear_probe)

    async def _repair(self) -> None:
        if not all(source.link.up for source in self._sources.values()):
            self._topology.doubt()
        late = {name for name, channel in self._channels.items() if not channel.confirmed.is_set()}
        self._subscribe(late & self._late)
        self._late = late

    def _refused(self, source: Source, error: str) -> None:
        moved = MOVED.fullmatch(error)
        if moved and int(moved[1]) < SLOTS:
            for place, known in self._sources.items():
                if known is source:
                    self._topology.moved(int(moved[1]), place_led_to(moved[2], place), place)
                    break
        elif error.startswith("CLUSTERDOWN"):
            self._topology.doubt()
        else:
            super()._refused(source, error)

    def _ended(self, name: bytes, channel: Channel) -> None:
        """Nobody asked for that if it was confirmed: what was asked for before that came before that."""
        if not channel.confirmed.is_set():
            return
        self._topology.doubt()
        if (source := channel.source) is not None and name == source.probe.encode():
            # It may be a replica now. Before a channel is heard there again, it has to be asked again who it is.
            source.link.reconnect()
        self._subscribe([name])
