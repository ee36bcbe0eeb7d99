"""Whether all that Redis holds of the jobs of a space agrees: hashes, indexes, queues, leases, events, feed, counts.

A change of a job is one script: whatever a cluster went through, there is no half of one. What should be there is read
as docs/redis.md describes it, at one moment, and it shares no code with the server but the table of transitions.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import redis

from app.model.job import TRANSITION_TABLE
from tests.factories import ENDED, STATUSES
from tests.jobs.test_model import statuses_after
from tests.live.checker import read_block
from tests.valkey import client_of

LEASED = ("delivered", "running")
CHANGES = frozenset(step.event for step in TRANSITION_TABLE)
WAITING = ("pending", "deadlines", "scheduled", "ended")
"""Indexes of jobs that wait for something, by their place or by when."""

Index = dict[str, int]


class Kept(NamedTuple):
    """What Redis holds of one job."""

    fields: dict[str, bytes]
    kinds: list[str]
    """Types of its events, oldest first."""
    lease: str

    @property
    def changes(self) -> list[str]:
        """Types of the events that changed its status."""
        return [kind for kind in self.kinds if kind in CHANGES]


class SpaceSight:
    """What Redis holds of a space, at one moment."""

    def __init__(self, url: str, prefix: str, space: str, gone: Collection[str] = ()) -> None:
        """`url` is that of the server that has the space; of a cluster, its primary's. `gone` were deleted."""
        self.gone = gone
        own = f"{prefix}:{{{space}}}"
        with redis.Redis.from_url(url, socket_timeout=20) as client:
            ids = [id_.decode() for id_ in zrange(client, f"{own}:jobs")]
            with client.pipeline(transaction=True) as together:
                names = ["jobs", *(f"jobs:{status}" for status in STATUSES), *WAITING]
                for name in names:
                    together.zrange(f"{own}:{name}", 0, -1, withscores=True)
                together.hget(f"{own}:space", "seq")
                together.xrange(f"{own}:feed")
                for id_ in ids:
                    together.hgetall(f"{own}:job:{id_}")
                    together.lrange(f"{own}:job:{id_}:events", 0, -1)
                    together.get(f"{own}:lease:{id_}")
                together.time()
                *replies, (seconds, _) = together.execute()
            self.now_ms = seconds * 1000
            self.indexes: dict[str, Index] = {
                name: {id_.decode(): int(score) for id_, score in replies.pop(0)} for name in names
            }
            self.seq = int(replies.pop(0))
            self.feed = [(int(id_.split(b"-")[0]), json.loads(entry[b"event"])) for id_, entry in replies.pop(0)]
            self.jobs = {id_: kept_of(*replies[3 * at : 3 * at + 3]) for at, id_ in enumerate(ids)}
            by_name = {kept.fields["name"].decode() for kept in self.jobs.values() if "name" in kept.fields}
            self.queues = {name: {i.decode() for i in zrange(client, f"{own}:pending:{name}")} for name in by_name}

    @property
    def counts(self) -> dict[str, int]:
        """Jobs by status."""
        return {status: len(self.indexes[f"jobs:{status}"]) for status in STATUSES}

    def disagreements(self) -> list[str]:
        """A sentence for each of them."""
        found = [f"{id_}: {wrong}" for id_, kept in self.jobs.items() for wrong in self._of_job(id_, kept)]
        return found + self._of_indexes() + self._of_feed()

    def _of_job(self, id_: str, kept: Kept) -> list[str]:
        if "status" not in kept.fields:
            return ["its index has it, and it has no hash"]
        status, created = kept.fields["status"].decode(), int(kept.fields["created"])
        ended, leased = status in ENDED, status in LEASED
        wrong = []
        listed = {name: index.get(id_) for name, index in self.indexes.items()}
        due = listed["deadlines"]
        told = {
            "it is not listed in the order of creation": listed["jobs"] == listed[f"jobs:{status}"] == created,
            "its queue contradicts its status": (listed["pending"] is not None) == (status == "pending"),
            "its deadline contradicts its status": (due is not None) == leased,
            "its due time contradicts its status": (listed["scheduled"] is not None) == (status == "scheduled"),
            "its retention contradicts its status": (listed["ended"] is not None) == ended,
            "its end contradicts its status": ("completedAt" in kept.fields) == ended == ("result" in kept.fields),
            "it has another lease than it says": kept.lease in ("", kept.fields.get("leaseToken", b"").decode()),
            "a lease is missing": bool(kept.lease) == leased or (due is not None and due <= self.now_ms),
            "its events are not counted": int(kept.fields["eventSeq"]) == len(kept.kinds),
            "its attempts are not its retries": int(kept.fields["attemptNumber"]) == kept.kinds.count("retried"),
            f"it is {status}, which {kept.kinds[-9:]} do not tell": status in statuses_after(kept.changes),
        }
        wrong += [sentence for sentence, holds in told.items() if not holds]
        return wrong

    def _of_indexes(self) -> list[str]:
        times = Counter(id_ for status in STATUSES for id_ in self.indexes[f"jobs:{status}"])
        lists = {*times, *(id_ for name in WAITING for id_ in self.indexes[name])}
        waiting = [id_ for queue in self.queues.values() for id_ in queue]
        wrong = [f"{id_}: {count} indexes have it" for id_, count in times.items() if count != 1]
        wrong += [f"{id_}: an index has it, and the list of all does not" for id_ in lists - self.jobs.keys()]
        if sorted(waiting) != sorted(self.indexes["pending"]):
            wrong.append("the queues by name are not the queue of all")
        return wrong

    def _of_feed(self) -> list[str]:
        """The feed has each event of the jobs, and nothing else; its newest counts are those of the indexes."""
        seqs = [seq for seq, _ in self.feed]
        wrong = []
        if seqs != sorted(set(seqs)) or (seqs and seqs[-1] > self.seq):
            wrong.append(f"the feed is not in order, or goes beyond {self.seq}: {seqs[-9:]}")
        told: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for _, event in self.feed:
            told[event["jobId"]].append((event["seq"], event["type"]))
        for id_, kept in self.jobs.items():
            mine = told.pop(id_, [])
            kinds = list(enumerate(kept.kinds, 1))
            if mine != kinds[len(kinds) - len(mine) :]:
                wrong.append(f"{id_}: the feed tells {mine[-5:]}, its list {kinds[-5:]}")
            elif seqs and seqs[0] == 1 and len(mine) != len(kinds):
                wrong.append(f"{id_}: the feed tells {len(mine)} events, its list {len(kinds)}")
        wrong += [f"{id_}: the feed tells of it, and there is no such job" for id_ in told if id_ not in self.gone]
        counts = next((event["counts"] for _, event in reversed(self.feed) if event["counts"]), self.counts)
        if counts != self.counts:
            wrong.append(f"the feed counts {counts}, the indexes have {self.counts}")
        return wrong


def zrange(client: Any, key: str) -> list[bytes]:
    """The members of a zset."""
    found: list[bytes] = client.zrange(key, 0, -1)
    return found


def kept_of(fields: dict[bytes, bytes], events: list[bytes], lease: bytes | None) -> Kept:
    """One job, from the replies."""
    kinds = [json.loads(item)[0] for item in events]
    return Kept({name.decode(): value for name, value in fields.items()}, kinds, (lease or b"").decode())


def sight_of(url: str, prefix: str, space: str, within_s: float = 10.0, *, gone: Collection[str] = ()) -> SpaceSight:
    """A space in which everything agrees. A lease that ends at this moment, and a key whose time is over, may look as
    if it did not: so it is looked at again for a while. Raises AssertionError."""
    begun_s = time.monotonic()
    while wrong := (sight := SpaceSight(url, prefix, space, gone)).disagreements():
        assert time.monotonic() - begun_s < within_s, "\n".join(wrong[:20])
        time.sleep(0.2)
    return sight


def logs_of(url: str, prefix: str, jobs: Sequence[str]) -> dict[str, dict[int, str]]:
    """The lines of many small logs: job to seq to message."""
    found: dict[str, dict[int, str]] = {}
    with client_of(url) as client, client.pipeline() as together:
        for job in jobs:
            together.lrange(f"{prefix}:{{{job}}}:log:blocks", 0, -1)
            together.xrange(f"{prefix}:{{{job}}}:log")
        replies = together.execute() if jobs else []
    for job, blocks, batches in zip(jobs, replies[::2], replies[1::2], strict=True):
        found[job] = {}
        for block in blocks:
            found[job] |= read_block(block)
        for _, batch in batches:
            lines = json.loads(batch[b"lines"])
            found[job] |= {seq: line["message"] for seq, line in enumerate(lines, int(batch[b"first"]))}
    return found
