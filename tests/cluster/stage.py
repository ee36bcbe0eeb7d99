"""What a fault of a cluster is shown to: two web processes, viewers by both transports, writers, workers, and readers
of Redis itself. One stage serves for many faults: after each, everybody rests for a moment, and all is compared.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import redis
from redis.crc import key_slot

from app.model.redis_keys import Keys
from app.redis_links.topology import slot_of
from tests.cluster.agreement import logs_of, sight_of
from tests.cluster.cluster import Cluster, Node, slots_of
from tests.cluster.direct_readers import DirectReader, FeedReader, JobReader, LogReader, settled
from tests.cluster.workers import Window, Workers
from tests.live.checker import settle
from tests.live.followers import Copy, Follower, JobFollower, ProgressFollower, SpaceFollower
from tests.live.test_faults import PATIENCE_S, Stage
from tests.valkey import until

VIEWERS = 300
LIVE_S = 3.0
ANSWER_S = 1.0
"""How long after a primary was killed its last answers may come."""


class Stand(NamedTuple):
    """Where everybody stood at a moment; viewers and readers by their number."""

    epochs: dict[int, str]
    connections: dict[int, int]
    copies: dict[tuple[int, str], tuple[int, int]]
    """Of each sequence that a viewer holds, its position and how many gaps it had."""
    readers: list[tuple[int, int]]
    """Of each reader, its position and how often something was taken back."""


class ClusterStage(Stage):
    """The logs of its three jobs lie on three primaries, that of the first where the space is."""

    frames_a_second = 10_000

    def __init__(self, cluster: Cluster, stack: contextlib.ExitStack) -> None:
        super().__init__(cast(Any, cluster), stack, viewers=VIEWERS, jobs=0)
        self.cluster = cluster
        self.is_right = False
        """Whether it has been compared since somebody set this to false."""
        self.keys = Keys(self.first.prefix)
        self.space_slot = slot_of(self.keys.space(self.space.id))
        here = cluster.owner(self.space_slot)
        self.jobs = [self.job_with_log_on(node) for node in (here, *cluster.others(here)[:2])]
        self.log_slots = [slot_of(self.keys.log(job)) for job in self.jobs]
        self.lossy: list[Window] = []
        """When what was answered may be lost: from when a replica had all until its primary was killed."""
        ports, prefix = [node.port for node in cluster.nodes], self.first.prefix
        self.readers: list[DirectReader] = [
            FeedReader(ports, prefix, self.space.id),
            *(LogReader(ports, prefix, job) for job in self.jobs),
            *(JobReader(ports, prefix, self.space.id, job) for job in self.jobs[:2]),
        ]
        for reader in self.readers:
            stack.callback(reader.close)
            reader.start()
        self.workers = Workers(self.url, self.space.id, self.key)
        stack.callback(self.workers.rest)
        self.workers.start()
        self.begin()

    @property
    def busy_slots(self) -> list[int]:
        """The slots of the space and of the logs."""
        return [self.space_slot, *self.log_slots]

    def job_with_log_on(self, node: Node) -> str:
        """A job that runs, whose log lies on a primary."""
        while True:
            job = str(self.space.create(name="watched", claim=True, timeoutSeconds=3600)["id"])
            self.space.do({"id": job}, "ack")
            if self.cluster.owner(slot_of(self.keys.log(job))) is node:
                return job

    # Everybody is live

    def live_soon(self) -> None:
        """Return when the cluster is well and, soon after, everybody has got something new: each viewer, each reader,
        the workers."""
        self.cluster.wait_until_well()
        begun_s = time.monotonic()
        goals, readers = self.furthest(), [reader.position for reader in self.readers]
        progress = [isinstance(follower, ProgressFollower) and follower.progress for follower in self.followers]
        worked = len(self.workers.created), len(self.workers.ended)

        def late() -> list[str]:
            found = [
                f"viewer {n} has {name} up to {copy.position}, not beyond {goals[goal_of(follower, name)]}"
                for n, follower in enumerate(self.followers)
                for name, copy in copies(follower)
                if copy.position <= goals[goal_of(follower, name)] and follower.wrong is None
            ]
            found += [f"viewer {n}" for n, seen in enumerate(progress) if seen and self.followers[n].progress == seen]
            standing = zip(self.readers, readers, strict=True)
            found += [f"{reader} at {at}" for reader, at in standing if reader.position <= at and reader.wrong is None]
            created, ended = len(self.workers.created), len(self.workers.ended)
            return found + ["no job is made"] * (created == worked[0]) + ["no job ends"] * (ended == worked[1])

        while (waiting := late()) and time.monotonic() - begun_s < 3 * LIVE_S:
            time.sleep(0.02)
        took_s = time.monotonic() - begun_s
        assert took_s < LIVE_S, f"after {took_s:.1f} s there wait {len(waiting)}: {waiting[:5]}"

    @property
    def followers(self) -> list[Any]:
        """The viewers, by their number."""
        return list(self.crowd.followers)

    def furthest(self) -> dict[str, int]:
        """How far the first of the viewers is, in each sequence."""
        far: dict[str, int] = {}
        for follower in self.followers:
            for name, copy in copies(follower):
                goal = goal_of(follower, name)
                far[goal] = max(far.get(goal, 0), copy.position)
        return far

    # What was lost

    def stand(self) -> Stand:
        """Where everybody stands now."""
        numbered = list(enumerate(self.followers))
        return Stand(
            {n: epoch_of(follower) for n, follower in numbered},
            {n: follower.connections for n, follower in numbered},
            {(n, name): (copy.position, len(copy.gaps)) for n, follower in numbered for name, copy in copies(follower)},
            [(reader.position, len(reader.taken_back)) for reader in self.readers],
        )

    def noticed_since(self, before: Stand, *, silent: bool = False) -> dict[int, str]:
        """The viewers who were told of anything but what happened, and what they were told of.

        When it was silent for long, those with server-sent events have come again: they cannot ask who is there.
        """
        now = self.stand()
        noticed = {}
        for n, follower in enumerate(self.followers):
            if now.epochs[n] != before.epochs[n]:
                noticed[n] = f"from {before.epochs[n]} to {now.epochs[n]}"
            elif now.connections[n] != before.connections[n] and not (silent and follower.by_events):
                noticed[n] = f"connected {now.connections[n]} times"
        lost = {n: f"lost {name}" for (n, name), (_, gaps) in now.copies.items() if gaps != before.copies[n, name][1]}
        return noticed | lost

    def nothing_was_lost_since(self, before: Stand) -> None:
        """Nobody was told that anything was, nor found it out."""
        now = self.stand()
        assert all(gaps == before.copies[at][1] for at, (_, gaps) in now.copies.items())
        assert [taken for _, taken in now.readers] == [taken for _, taken in before.readers]

    @contextlib.contextmanager
    def losing(self) -> Iterator[Stand]:
        """What is answered while the block runs may be lost, and nothing that came before: see where all stood then."""
        begun_s = time.monotonic()
        yield self.stand()
        self.lossy.append((begun_s, time.monotonic() + ANSWER_S))

    def concerned(self, primary: Node) -> set[int]:
        """The viewers who watch something that lies on a primary."""
        own = slots_of(primary)
        if self.space_slot in own:
            return set(range(len(self.followers)))
        jobs = [job for job, slot in zip(self.jobs, self.log_slots, strict=True) if slot in own]
        return {n for n, each in enumerate(self.followers) if isinstance(each, JobFollower) and each.job in jobs}

    def kill(self, primary: Node) -> None:
        """Kill a primary under load, and let its replica take its place; then it comes back."""
        replica = self.cluster.replica_of(primary)
        with self.losing() as before:
            replicate(primary)
            primary.kill()
        until(lambda: replica.is_primary, 30)
        self.live_soon()
        primary.start()
        self.live_soon()
        self.only_later_things_were_lost(before)

    def only_later_things_were_lost(self, before: Stand) -> None:
        """What was taken back since a moment, from viewers and from readers, is what came after it."""
        for n, follower in enumerate(self.followers):
            for name, copy in copies(follower):
                stood, gaps = before.copies[n, name]
                for first, last, reason in copy.gaps[gaps:]:
                    assert reason in ("rolled_back", "missed")
                    assert first > stood, f"viewer {n} lost {name} {first} to {last}, and a replica had {stood}"
        for reader, (stood, taken) in zip(self.readers, before.readers, strict=True):
            for first, last in reader.taken_back[taken:]:
                assert first > stood, f"{reader} lost {first} to {last}, and a replica had {stood}"

    # What holds

    def check(self) -> None:
        """Nobody writes for a moment: everybody has what Redis has, nothing is there twice, and all of it agrees."""
        for writer in self.writers:
            writer.close()
        self.workers.rest()
        truth = settle(self.crowd, self.truth, PATIENCE_S)
        settled(self.readers, truth, PATIENCE_S)
        here = f"redis://127.0.0.1:{self.cluster.owner(self.space_slot).port}"
        sight = sight_of(here, self.first.prefix, self.space.id)
        assert sight.counts == truth.counts
        told = self.space.all.get(self.space.jobs).headers["x-total-count"]
        assert int(told) == len(sight.jobs)
        logs = logs_of(self.cluster.url, self.first.prefix, list(self.workers.lines))
        self.workers.check(sight.jobs, logs, self.lossy)
        self.write()
        self.workers.start()
        self.is_right = True


def copies(follower: Follower) -> Iterator[tuple[str, Copy]]:
    """What a viewer holds, by name."""
    yield from ((name, copy) for name, copy in vars(follower).items() if isinstance(copy, Copy))


def goal_of(follower: Follower, name: str) -> str:
    """The same for all who watch the same sequence."""
    return f"{follower.job} {name}" if isinstance(follower, JobFollower) else name


def epoch_of(follower: Follower) -> str:
    """What a viewer calls the epoch of its positions."""
    if isinstance(follower, JobFollower):
        return follower.epoch
    return follower.instance if isinstance(follower, SpaceFollower) else ""


def replicate(primary: Node) -> None:
    """Return when a replica has got all that a primary had when this was called, if it has anything."""
    own = slots_of(primary)
    key = next((key for at in range(10_000) if key_slot((key := f"mark:{at}").encode()) in own), None)
    if key is None:
        return
    with redis.Redis(port=primary.port, socket_timeout=10) as client:
        client.set(key, 1)
        assert client.wait(1, 5000) >= 1
