"""Workers of a space that note what they were answered while a cluster is hurt, and whether it is true afterwards.

Each creates jobs, takes some, and brings them to an end, through any web process. What it repeats it repeats under the
same Idempotency-Key or lease token. Leases are so long that none ends by itself: nobody is given an attempt of a job
that somebody has been given before.
"""

from __future__ import annotations

import itertools
import json
import random
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import urllib3

from tests.cluster.agreement import Kept

NAME = "worker's"
LEASE_S = 3600
THREADS = 3
PAUSE_S = 0.02
"""Of a worker, between two jobs."""

PATIENCE_S = 60.0
UNANSWERED = frozenset({"", "unavailable", "outcome_unknown"})
"""What may become of any call meanwhile; "" is no answer at all."""

Window = tuple[float, float]


class Answer(NamedTuple):
    """What was answered: when, and the body."""

    at_s: float
    code: str
    body: Any

    @property
    def done(self) -> bool:
        """Whether it was done."""
        return self.code == "ok"


class HandedOut(NamedTuple):
    """A job that a poll answered."""

    at_s: float
    job: str
    attempt: int
    token: str


class Workers:
    """Some workers; each is a thread. `wrong` has what was answered that cannot be."""

    def __init__(self, urls: Callable[[], str], space: str, key: str) -> None:
        self._urls, self._space, self._key = urls, space, key
        self._http = urllib3.PoolManager(retries=False, timeout=8.0, maxsize=THREADS)
        self._numbers = itertools.count(1)
        self._stop = threading.Event()
        self._running: list[threading.Thread] = []
        self.created: dict[str, tuple[float, int]] = {}
        """Job to the moment of the answer and the number in its payload."""
        self.sent = 0
        self.handed_out: list[HandedOut] = []
        self.ended: dict[str, tuple[float, str, Any]] = {}
        """Job to the moment of the answer, the status, and what a result must be."""
        self.lines: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
        """Job to lines of its log: the moment of the answer, seq and message."""
        self.wrong: list[str] = []

    def start(self) -> None:
        """Work until `rest`."""
        self._stop.clear()
        self._running = [threading.Thread(target=self._work, daemon=True) for _ in range(THREADS)]
        for thread in self._running:
            thread.start()

    def rest(self) -> None:
        """Work no more; returns when the last call has been answered."""
        self._stop.set()
        for thread in self._running:
            thread.join(PATIENCE_S)

    def _work(self) -> None:
        while not self._stop.wait(PAUSE_S):
            try:
                self._create()
                jobs = self._once(f"/spaces/{self._space}/jobs/poll", {"count": 2, "names": [NAME], "waitSeconds": 1})
                for job in jobs.body["jobs"] if jobs.done else ():
                    self._take(jobs.at_s, job)
            except Exception as error:
                self.wrong.append(repr(error))
                raise

    def _create(self) -> None:
        self.sent = number = next(self._numbers)
        body = {"name": NAME, "payload": {"number": number}, "timeoutSeconds": LEASE_S, "maxRetries": 2}
        answer = self._repeat(f"/spaces/{self._space}/jobs", body, key=secrets.token_hex(8))
        if answer.done:
            self.created[answer.body["id"]] = answer.at_s, number

    def _take(self, at_s: float, job: Any) -> None:
        id_, token, path = job["id"], job["leaseToken"], f"/jobs/{job['id']}"
        self.handed_out.append(HandedOut(at_s, id_, job["attemptNumber"], token))
        self._repeat(f"{path}/ack", None, token=token)
        self._once(f"{path}/progress", {"percent": 50, "message": "half"}, token=token)
        messages = [f"{token} {number}" for number in range(3)]
        answer = self._repeat(f"{path}/logs", messages, key=secrets.token_hex(8))
        if answer.done and answer.body["inserted"]:
            lines = enumerate(messages, answer.body["fromSeq"])
            self.lines[id_] += [(answer.at_s, seq, message) for seq, message in lines]
        chance = random.random()
        if chance < 0.2:
            answer = self._repeat(f"{path}/fail", {"error": token, "retry": chance < 0.15}, token=token)
            status = str(answer.body["status"]) if answer.done else ""
        else:
            answer, status = self._repeat(f"{path}/complete", {"by": token}, token=token), "completed"
        if answer.done and status in ("completed", "dead"):
            self.ended[id_] = answer.at_s, status, {"by": token}

    def _repeat(self, path: str, body: Any, *, key: str = "", token: str = "") -> Answer:
        """A call that is repeated until it is answered. A repetition may be refused, for the first one did it."""
        begun_s = time.monotonic()
        while (answer := self._once(path, body, key=key, token=token)).code in UNANSWERED:
            if time.monotonic() - begun_s > PATIENCE_S:
                raise AssertionError(f"{path} was not answered for {PATIENCE_S:g} s")
            time.sleep(0.05)
        return answer

    def _once(self, path: str, body: Any, *, key: str = "", token: str = "") -> Answer:
        sent = None if body is None else json.dumps(body).encode()
        headers = {"x-api-key": self._key, "idempotency-key": key, "x-lease-token": token}
        url = f"{self._urls()}/api/v1{path}"
        try:
            reply = self._http.request("POST", url, body=sent, headers={k: v for k, v in headers.items() if v})
        except urllib3.exceptions.HTTPError:
            return Answer(time.monotonic(), "", None)
        said = json.loads(reply.data)
        code = "ok" if reply.status < 300 else str(said["code"])
        if code not in UNANSWERED | {"ok", "lease_lost", "invalid_state", "job_not_found"}:
            self.wrong.append(f"{path}: {reply.status} {said}")
        return Answer(time.monotonic(), code, said)

    # What is true

    def check(self, jobs: Mapping[str, Kept], logs: Mapping[str, Mapping[int, str]], lossy: Collection[Window]) -> None:
        """That what was answered is there and nothing is there twice. What was answered in a window may be lost: no
        replica may have got it. Raises AssertionError."""

        def may_be_lost(at_s: float) -> bool:
            return any(begun_s <= at_s <= ended_s for begun_s, ended_s in lossy)

        assert not self.wrong, self.wrong[:5]
        self._check_ends(jobs, may_be_lost)
        self._check_hand_outs(jobs, may_be_lost)
        for job, lines in self.lines.items():
            for at_s, seq, message in lines:
                found = logs[job].get(seq)
                assert found == message or may_be_lost(at_s), f"line {seq} of {job} is {found}, not {message}"

    def _check_ends(self, jobs: Mapping[str, Kept], may_be_lost: Callable[[float], bool]) -> None:
        lost = [job for job, (at_s, _) in self.created.items() if job not in jobs and not may_be_lost(at_s)]
        assert not lost, f"{len(lost)} jobs are lost: {lost[:5]}"
        for job, (at_s, status, result) in self.ended.items():
            if job in jobs and not may_be_lost(at_s):
                fields = jobs[job].fields
                assert fields["status"].decode() == status, f"{job} was {status}, and is {fields}"
                assert status == "dead" or json.loads(fields["result"]) == result, f"{job} has another's result"
        numbers = [json.loads(kept.fields["payload"])["number"] for kept in jobs.values() if is_ours(kept)]
        assert len(numbers) == len(set(numbers)), "a job was made twice"
        assert len(numbers) <= self.sent

    def _check_hand_outs(self, jobs: Mapping[str, Kept], may_be_lost: Callable[[float], bool]) -> None:
        """Of those who were given one attempt of a job, all but the last were given it when it could be lost."""
        given: dict[tuple[str, int], list[HandedOut]] = defaultdict(list)
        for one in self.handed_out:
            given[one.job, one.attempt].append(one)
        tokens = [one.token for one in self.handed_out]
        assert len(tokens) == len(set(tokens)), "a lease was given twice"
        for (job, attempt), each in given.items():
            *before, _ = sorted(each)
            twice = [one for one in before if not may_be_lost(one.at_s)]
            assert not twice, f"attempt {attempt} of {job} was handed out {len(each)} times"
            if job in jobs and not any(may_be_lost(one.at_s) for one in each):
                assert jobs[job].kinds.count("delivered") >= attempt + 1


def is_ours(kept: Kept) -> bool:
    """Whether workers have made a job."""
    return kept.fields["name"].decode() == NAME
