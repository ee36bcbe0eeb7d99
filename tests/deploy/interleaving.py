"""One thing after the other, each through the web process of one release or the other, against the model of a job.

Owns: what is done, in an order that a seed gives; what the model of each job says of it; what must be there in the end.
Every call must be answered as the model says, whoever is asked. Leases end, schedules come and jobs are removed by the
sweeper of the release that leads; then nothing else is done until it is.
"""

from __future__ import annotations

import json
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.cluster.agreement import CHANGES, Kept, SpaceSight, logs_of, sight_of
from tests.deploy.both import RELEASES, Answer, Both
from tests.jobs.model import ENDED, LEASED, Job, Refused
from tests.live.checker import Truth, settle
from tests.live.crowd import Crowd
from tests.live.followers import Follower, JobFollower, ProgressFollower, SpaceFollower
from tests.valkey import client_of, until

NAMES = ("a", "b")
NEWER = "this"
"""The release that alone can be asked to poll with an ack, to give a job back, or for many calls at once."""

LEASE_S = 3600
WATCHED = 2
MANY_RETRIES = 25
PATIENCE_S = 60.0


class Interleaving:
    """A space and its jobs; `seed` gives all that is done. `receiver` is where callbacks go."""

    def __init__(self, both: Both, seed: int, receiver: str) -> None:
        self.both, self.keys = both, both.keys
        self.chance = random.Random(seed)
        self.receiver = receiver
        self.story: deque[str] = deque(maxlen=40)
        made = both.call(self.any_release(), "POST", "/spaces", {"name": f"seed {seed}"})
        self.space = str(made.body["id"])
        self.model: dict[str, Job] = {}
        self.queue: list[str] = []
        self.leases: list[tuple[str, str]] = []
        self.called_back: set[str] = set()
        self.progress: dict[str, Any] = {}
        self.checkpoints: dict[str, Any] = {}
        self.lines: dict[str, list[str]] = {}
        self.gone: set[str] = set()
        self.done: dict[str, set[str]] = {}
        """What was done, and through which releases."""
        self.watched = [self.create_one(maxRetries=MANY_RETRIES) for _ in range(WATCHED)]
        self.crowd = Crowd(self._followers())

    # Who is asked

    def any_release(self) -> str:
        """One of the two."""
        return self.chance.choice(RELEASES)

    def any_url(self) -> str:
        """Where one of the two is."""
        return self.both.urls[random.choice(RELEASES)]

    def _followers(self) -> list[Follower]:
        """Of the space and of each watched job: viewers of each release, and those who change, by both transports."""
        key, space = self.both.root_key, self.space
        places: list[Callable[[], str]] = [lambda name=name: self.both.urls[name] for name in RELEASES]  # type: ignore[misc]  # of a lambda's default
        followers: list[Follower] = []
        for urls in (*places, self.any_url):
            for by_events in (False, True):
                followers.append(SpaceFollower(urls, space, key, by_events=by_events))
                followers += [JobFollower(urls, job, key, by_events=by_events) for job in self.watched]
                followers.append(ProgressFollower(urls, self.watched[0], by_events=by_events))
        return followers

    def ask(self, verb: str, method: str, path: str, body: Any = None, *, token: str = "", by: str = "") -> Answer:
        """One call through a release, any unless it is named."""
        name = by or self.any_release()
        headers = {"x-lease-token": token} if token else {}
        answer = self.both.call(name, method, path, body, headers=headers)
        self.story.append(
            f"{name}: {method} {path} {str(body)[:80]} {token} -> {answer.status} {str(answer.body)[:300]}"
        )
        if answer.status < 300:
            self.done.setdefault(verb, set()).add(name)
        return answer

    def same(
        self, job: str, change: Callable[[Job], object], verb: str, body: Any = None, *, token: str = "", by: str = ""
    ) -> Answer | None:
        """Do it on both sides: both do it, or both refuse with the same code. The answer, or None of a refusal."""
        wanted, before = "", self.model[job].status
        try:
            change(self.model[job])
        except Refused as refused:
            wanted = refused.code
        answer = self.ask(verb, "POST", f"/jobs/{job}/{verb}", body, token=token, by=by)
        assert answer.refusal == wanted, (job, verb, before)
        if wanted:
            assert wanted != "invalid_state" or answer.body["status"] == before
            return None
        self.line_up(job, before)
        assert "status" not in answer.body or answer.body["status"] == self.model[job].status
        return answer

    def line_up(self, job: str, before: str) -> None:
        """Keep the model's queue: whatever comes to pending goes to the back."""
        after = self.model[job].status
        if before == "pending" and after != "pending":
            self.queue.remove(job)
        if after == "pending" and before != "pending":
            self.queue.append(job)

    def line_up_together(self, jobs: Sequence[str]) -> None:
        """What came to pending in one step stands at the back, in what order Redis knows."""
        order = [id_.decode() for id_ in self.both.redis.cli("ZRANGE", self.keys.pending(self.space), 0, -1)]
        self.queue += sorted(jobs, key=order.index)

    # What is done

    def step(self) -> None:
        """Something; then one job is shown alike by both."""
        acts: Sequence[tuple[int, Callable[[], object]]] = (
            (10, self.create),
            (2, self.create_scheduled),
            (10, self.poll),
            (3, self.claim),
            (9, self.ack),
            (3, self.keepalive),
            (5, self.report_progress),
            (4, self.checkpoint),
            (4, self.send_event),
            (6, self.append),
            (6, self.complete),
            (6, self.fail),
            (3, self.fail_and_claim),
            (5, self.release),
            (2, self.call_many),
            (3, self.kill),
            (4, self.retry),
            (1, self.retry_all),
            (4, self.lapse),
            (3, self.time_comes),
            (2, self.delete),
            (2, self.retire),
            (1, self.wait_for_work),
        )
        (act,) = self.chance.choices([act for _, act in acts], [weight for weight, _ in acts])
        try:
            act()
            self.is_shown_alike(self.chance.choice(list(self.model)))
        except AssertionError as error:
            error.add_note("\n".join(self.story))
            raise

    def pass_time(self) -> None:
        """A lease ends, a schedule comes and a retention is over: all that sweepers do."""
        self.create()
        self.poll()
        self.create_scheduled()
        self.kill()
        for act, what in ((self.lapse, "lapse"), (self.time_comes, "promote"), (self.retire, "retire")):
            until(lambda act=act, what=what: act() or self.both.leads in self.done.get(what, ()))  # type: ignore[misc]  # of a lambda's defaults

    def some_job(self, *statuses: str, may_end: bool = False) -> str:
        """Any job, of these statuses if there is one; one that nobody watches, where its end may come."""
        known = [job for job in self.model if not (may_end and job in self.watched)]
        wanted = [job for job in known if self.model[job].status in statuses]
        return self.chance.choice(wanted or known or self.watched)

    def some_lease(self, *, may_end: bool = False) -> tuple[str, str]:
        """A job and a lease token that it has or had, or none."""
        job = self.some_job(*LEASED, may_end=may_end)
        old = [token for of, token in self.leases if of == job]
        token = self.chance.choice(("", self.model[job].token, self.chance.choice(old or [""])))
        return job, token

    def keep(self, job: str, fields: Mapping[str, Any]) -> None:
        """A job that was created."""
        delay = bool(fields.get("retryDelaySeconds"))
        status = "scheduled" if fields.get("scheduledFor") else "pending"
        self.model[job] = Job(fields["name"], fields["maxRetries"], delay, status=status)
        if fields.get("callbackUrl"):
            self.called_back.add(job)
        if status == "pending":
            self.queue.append(job)

    def new_fields(self, **more: Any) -> dict[str, Any]:
        """What a new job is asked for with."""
        fields: dict[str, Any] = {"name": self.chance.choice(NAMES), "timeoutSeconds": LEASE_S}
        fields |= {"maxRetries": self.chance.randint(0, 2), "payload": {"n": self.chance.random()}}
        if self.chance.random() < 0.3:
            fields["retryDelaySeconds"] = 1000
        if self.chance.random() < 0.4:
            fields["callbackUrl"] = self.receiver
        return fields | more

    def create_one(self, **more: Any) -> str:
        """A job."""
        fields = self.new_fields(**more)
        answer = self.ask("create", "POST", f"/spaces/{self.space}/jobs", fields)
        assert answer.status == 201, answer
        self.keep(answer.body["id"], fields)
        return str(answer.body["id"])

    def create(self) -> None:
        """Some at once; asked for again under the same key, through any release, they are the same."""
        many = [self.new_fields() for _ in range(self.chance.randint(1, 3))]
        key = {"idempotency-key": f"key {self.chance.random()}"}
        answers = [
            self.both.call(self.any_release(), "POST", f"/spaces/{self.space}/jobs", many, headers=key)
            for _ in range(self.chance.randint(1, 2))
        ]
        first, last = answers[0], answers[-1]
        assert first.status == last.status == 201, answers
        ids = [job["id"] for job in first.body]
        assert [job["id"] for job in last.body] == ids
        for id_, fields in zip(ids, many, strict=True):
            self.keep(id_, fields)

    def create_scheduled(self) -> None:
        """One that waits for its time."""
        self.create_one(scheduledFor="2100-01-01T00:00:00Z")

    def poll(self) -> None:
        """The oldest first, none twice."""
        names, count = self.chance.choice(([], ["a"], ["b"], ["a", "b"])), self.chance.randint(1, 4)
        acks = self.chance.random() < 0.3
        wanted = [job for job in self.queue if not names or self.model[job].name in names][:count]
        body: dict[str, Any] = {"count": count, "names": names} | ({"ack": True} if acks else {})
        by = NEWER if acks else ""
        answer = self.ask("poll", "POST", f"/spaces/{self.space}/jobs/poll", body, by=by)
        taken = [job["id"] for job in answer.body["jobs"]]
        assert taken == wanted, (taken, self.queue)
        for job in answer.body["jobs"]:
            self.hand_out(job, acked=acks)

    def hand_out(self, job: Mapping[str, Any], *, acked: bool = False) -> None:
        """A job that somebody was given."""
        model = self.model[job["id"]]
        assert job["attemptNumber"] == model.attempt
        assert job["checkpoint"] == self.checkpoints.get(job["id"])
        (model.deliver_acked if acked else model.deliver)(job["leaseToken"])
        self.queue.remove(job["id"])
        self.took(job["id"], job["leaseToken"])

    def took(self, job: str, token: str) -> None:
        """A lease that is new."""
        assert (job, token) not in self.leases
        self.leases.append((job, token))

    def claim(self) -> None:
        """One that is named."""
        job = self.some_job("pending")
        if self.model[job].status != "pending":
            self.same(job, lambda model: model.deliver(""), "claim")
            return
        answer = self.ask("claim", "POST", f"/jobs/{job}/claim")
        assert answer.status == 200, answer
        self.hand_out(answer.body)

    def ack(self) -> None:
        """Of one that is delivered, mostly."""
        job, token = self.some_lease()
        if self.chance.random() < 0.8:
            job = self.some_job("delivered")
            token = self.model[job].token
        self.same(job, lambda model: model.ack(token), "ack", token=token)

    def keepalive(self) -> None:
        """The lease anew."""
        job, token = self.some_lease()
        self.same(job, lambda model: model.renew(token), "keepalive", token=token)

    def report_progress(self) -> None:
        """A state of the job, and the lease anew."""
        job, token = self.some_lease()
        body = {"percent": self.chance.randint(0, 100), "message": f"at {self.chance.random()}"}
        if self.same(job, lambda model: model.renew(token), "progress", body, token=token):
            self.progress[job] = body

    def checkpoint(self) -> None:
        """What the next attempt begins with."""
        job, token = self.some_lease()
        body = {"at": self.chance.random(), "text": "x" * self.chance.randint(0, 2000)}
        if self.same(job, lambda model: model.renew(token), "checkpoint", body, token=token):
            self.checkpoints[job] = body

    def send_event(self) -> None:
        """An event of the worker's own; of a job that has no lease, too."""
        job = self.some_job()
        answer = self.ask("event", "POST", f"/jobs/{job}/event", {"at": self.chance.random()})
        assert answer.refusal == ("invalid_state" if self.model[job].status in ENDED else ""), answer

    def append(self) -> None:
        """Lines, in one order, whoever takes them."""
        job = self.chance.choice((self.some_job(), *self.watched))
        new = [f"{self.chance.random()} {'x' * self.chance.randint(0, 200)}" for _ in range(self.chance.randint(1, 60))]
        answer = self.ask("logs", "POST", f"/jobs/{job}/logs", new)
        assert answer.status == 200, answer
        known = self.lines.setdefault(job, [])
        assert answer.body["fromSeq"] == len(known) + 1
        known += new

    def complete(self) -> None:
        """Once; repeated with the same result, through any release, it is answered again."""
        job, token = self.some_lease(may_end=True)
        if job in self.watched:
            return
        result = self.chance.randint(1, 2)
        for _ in range(self.chance.randint(1, 2)):
            kept = str(result).encode()
            self.same(job, lambda model: model.complete(token, kept), "complete", result, token=token)  # noqa: B023  # called at once

    def fail(self) -> None:
        """While retries are left, it goes on."""
        may_end = self.chance.random() < 0.7
        job, token = self.some_lease(may_end=may_end)
        may_retry = job in self.watched or self.chance.random() < 0.7
        if job in self.watched and self.model[job].attempt >= MANY_RETRIES:
            return
        body = {"error": f"no {self.chance.random()}", "retry": may_retry}
        self.same(job, lambda model: model.fail(token, may_retry), "fail", body, token=token)

    def fail_and_claim(self) -> None:
        """The retry is the caller's at once, and is told again to who asks again."""
        job, token = self.some_lease(may_end=True)
        if job in self.watched:
            return
        model, fresh = self.model[job], "of the answer"
        for _ in range(2):
            answer = self.same(
                job,
                lambda model: model.fail_and_claim(token, True, fresh),
                "fail",
                {"error": "no", "claim": True},
                token=token,
            )
            if answer is None or "leaseToken" not in answer.body:
                return
            if model.token == fresh:
                self.took(job, answer.body["leaseToken"])
                model.learn(answer.body["leaseToken"])
            assert answer.body["leaseToken"] == model.token
            if not token:
                return

    def release(self) -> None:
        """Given back: the attempt is the same, whoever has it next."""
        job, token = self.some_lease()
        waits = self.chance.random() < 0.3
        for _ in range(self.chance.randint(1, 2)):
            body = {"delaySeconds": 1000 if waits else 0, "reason": "moving"}
            self.same(job, lambda model: model.release(token, waits), "release", body, token=token, by=NEWER)

    def call_many(self) -> None:
        """Some calls in one request: progress of each job, and the end of those that nobody watches."""
        leased = [job for job, model in self.model.items() if model.status in LEASED]
        jobs = self.chance.sample(leased, min(len(leased), 3))
        body = {"percent": self.chance.randint(0, 100), "message": "of many"}
        calls: list[dict[str, Any]] = [
            {"verb": "progress", "jobId": job, "leaseToken": self.model[job].token, "body": body} for job in jobs
        ]
        calls += [{"verb": "complete", "jobId": job, "body": 1} for job in jobs if job not in self.watched]
        if not calls:
            return
        answer = self.ask("calls", "POST", f"/spaces/{self.space}/calls", calls, by=NEWER)
        assert [one["status"] for one in answer.body] == [200] * len(calls), answer
        for job in jobs:
            self.progress[job] = body
            self.model[job].renew(self.model[job].token)
            if job not in self.watched:
                self.model[job].complete("", b"1")

    def kill(self) -> None:
        """Whatever is no end."""
        job = self.some_job(may_end=True)
        if job not in self.watched:
            self.same(job, lambda model: model.kill(""), "kill", {"reason": "enough"})

    def retry(self) -> None:
        """One that ended badly."""
        self.same(self.some_job("dead", "killed"), lambda model: model.retry(), "retry")

    def retry_all(self) -> None:
        """All that were killed, in one call."""
        killed = [job for job, model in self.model.items() if model.status == "killed"]
        answer = self.ask("retry all", "POST", f"/spaces/{self.space}/jobs/retry", {"status": "killed"})
        assert answer.body["retried"] == len(killed), answer
        for job in killed:
            self.model[job].retry()
        self.line_up_together(killed)

    def lapse(self) -> None:
        """Some leases end at once; the sweeper that leads acts on them."""
        able = [job for job, model in self.model.items() if model.status in LEASED and self.may_lapse(job)]
        jobs = self.chance.sample(able, min(len(able), self.chance.randint(1, 3)))
        if not jobs:
            return
        for job in jobs:
            self.both.redis.cli("DEL", self.keys.lease(self.space, job))
            self.both.redis.cli("ZADD", self.keys.deadlines(self.space), self.both.now_ms() - 5, job)
        self.due()
        until(lambda: not {*jobs} & self.members(self.keys.deadlines(self.space)), PATIENCE_S)
        for job in jobs:
            self.model[job].lapse()
            assert self.model[job].end_lease()
        self.line_up_together([job for job in jobs if self.model[job].status == "pending"])
        self.swept("lapse", jobs)

    def may_lapse(self, job: str) -> bool:
        """Whether its lease may end without the end of a job that is watched."""
        return job not in self.watched or self.model[job].attempt < MANY_RETRIES

    def time_comes(self) -> None:
        """A schedule, or a delay of a retry, is over."""
        jobs = [job for job, model in self.model.items() if model.status == "scheduled"][:1]
        for job in jobs:
            self.both.redis.cli("ZADD", self.keys.scheduled(self.space), 1, job)
            self.due()
            until(lambda: not {*jobs} & self.members(self.keys.scheduled(self.space)), PATIENCE_S)
            assert self.model[job].promote()
            self.queue.append(job)
            self.swept("promote", jobs)

    def delete(self) -> None:
        """One that ended goes at once."""
        job = self.some_job(*ENDED, may_end=True)
        if self.model[job].status not in ENDED:
            assert self.ask("delete", "DELETE", f"/jobs/{job}").refusal == "invalid_state"
            return
        assert self.ask("delete", "DELETE", f"/jobs/{job}").status == 204
        self.forget(job)

    def retire(self) -> None:
        """One whose retention is over goes; the sweeper that leads does it."""
        job = self.some_job(*ENDED, may_end=True)
        if self.model[job].status not in ENDED:
            return
        self.both.redis.cli("ZADD", self.keys.ended(self.space), 1, job)
        self.due()
        until(lambda: not self.both.redis.cli("EXISTS", self.keys.job(self.space, job)), PATIENCE_S)
        self.forget(job)
        self.swept("retire", [job])

    def forget(self, job: str) -> None:
        """A job that is no more, whoever is asked."""
        for name in RELEASES:
            assert self.both.call(name, "GET", f"/jobs/{job}").refusal == "job_not_found"
        self.gone.add(job)
        del self.model[job]
        self.lines.pop(job, None)

    def wait_for_work(self) -> None:
        """A poll that waits with one release is woken by what the other creates."""
        while self.queue:
            self.poll()
        waits, creates = self.chance.sample(RELEASES, 2)
        answers: list[Answer] = []
        path, asked = f"/spaces/{self.space}/jobs/poll", {"waitSeconds": 30}
        thread = threading.Thread(target=lambda: answers.append(self.both.call(waits, "POST", path, asked)))
        thread.start()
        fields = self.new_fields()
        made = self.both.call(creates, "POST", f"/spaces/{self.space}/jobs", fields)
        self.keep(made.body["id"], fields)
        thread.join(PATIENCE_S)
        assert [job["id"] for job in answers[0].body["jobs"]] == [made.body["id"]]
        self.hand_out(answers[0].body["jobs"][0])

    # Redis's side

    def due(self) -> None:
        """Tell the sweeper that there is something to do in the space."""
        self.both.redis.cli("ZADD", self.keys.due, self.both.now_ms() - 1, self.space)

    def members(self, index: str) -> set[str]:
        """Of a zset."""
        return {id_.decode() for id_ in self.both.redis.cli("ZRANGE", index, 0, -1)}

    def swept(self, what: str, jobs: Sequence[str]) -> None:
        """Note whose sweeper did it."""
        self.done.setdefault(what, set()).add(self.both.leads)
        self.story.append(f"{self.both.leads}: {what} {jobs}")

    # What holds

    def is_shown_alike(self, job: str) -> None:
        """Both tell the same of a job; what only this release tells beside it is not looked at."""
        before, after = (self.both.call(name, "GET", f"/jobs/{job}").body for name in RELEASES)
        ours = (self.chance.choice(RELEASES), self.model[job].status)
        assert {name: after[name] for name in before if name != "events"} == {
            name: value for name, value in before.items() if name != "events"
        }, ours
        assert before["status"] == self.model[job].status
        kinds = [event["type"] for event in before["events"]]
        assert kinds[: len(after["events"])] == [event["type"] for event in after["events"]][: len(kinds)]
        assert [kind for kind in kinds if kind in CHANGES] == self.model[job].events

    def finish(self, tried: Callable[[str], int]) -> None:
        """End what is watched, one in each release; all that was told, to everybody, is what Redis holds, and agrees.
        `tried` tells how often a job was called back."""
        self.create_one()  # its event has the counts anew: of jobs that were removed, no event told
        truth = settle(self.crowd, self.truth, PATIENCE_S)
        for name, job in zip(RELEASES, self.watched, strict=True):
            assert self.both.call(name, "POST", f"/jobs/{job}/kill", {"reason": "over"}).status == 200
            before = self.model[job].status
            self.model[job].kill("")
            self.line_up(job, before)
        until(lambda: all(self.is_called_back(job, tried(job)) for job in self.called_back & {*self.model}), PATIENCE_S)
        truth = settle(self.crowd, self.truth, PATIENCE_S)
        narrow = [follower for follower in self.crowd.followers if isinstance(follower, ProgressFollower)]
        until(lambda: all(follower.has_ended for follower in narrow), PATIENCE_S)
        self.crowd.close()
        sight = sight_of(self.both.redis.url, self.keys.prefix, self.space, gone=self.gone)
        assert sight.counts == truth.counts
        self.agrees(sight)
        self.nothing_is_left()

    def truth(self) -> Truth:
        """What Redis holds of what is watched."""
        return Truth(self.both.redis.url, self.keys.prefix, self.space, self.watched)

    def is_called_back(self, job: str, times: int) -> bool:
        """Once for each end of a job, unless it was begun anew before its turn."""
        ends = [kind for kind in self.model[job].events if kind in ENDED]
        assert times <= len(ends), (job, times, ends)
        return times > 0 or self.model[job].status not in ENDED

    def agrees(self, sight: SpaceSight) -> None:
        """All that Redis holds of the jobs is what the model says."""
        assert sight.jobs.keys() == self.model.keys()
        queue = sight.indexes["pending"]
        assert sorted(queue, key=queue.__getitem__) == self.queue
        for job, model in self.model.items():
            self.kept_agrees(job, model, sight.jobs[job])
        logs = logs_of(self.both.redis.url, self.keys.prefix, list(self.lines))
        for job, lines in self.lines.items():
            assert [message for _, message in sorted(logs[job].items())] == lines
        for name in RELEASES:
            for job, lines in self.lines.items():
                page = self.both.call(name, "GET", f"/jobs/{job}/logs?limit=500&after=0").body["logs"]
                assert [line["message"] for line in page] == lines[:500]
            listed = self.both.call(name, "GET", f"/spaces/{self.space}").body["counts"]
            assert listed == sight.counts

    def kept_agrees(self, job: str, model: Job, kept: Kept) -> None:
        """One job."""
        fields = kept.fields
        assert fields["status"].decode() == model.status
        assert int(fields["attemptNumber"]) == model.attempt
        assert int(fields["maxRetries"]) == model.max_retries
        assert kept.changes == model.events
        assert json.loads(fields.get("progress", b"null")) == self.progress.get(job)
        assert json.loads(fields.get("checkpoint", b"null")) == self.checkpoints.get(job)
        if model.status in LEASED:
            assert kept.lease == model.token == fields["leaseToken"].decode()

    def nothing_is_left(self) -> None:
        """Of a job that is gone there is nothing but the stone that keeps its log from beginning anew."""
        with client_of(self.both.redis.url) as client:
            names = {name.decode() for name in client.scan_iter(f"{self.keys.prefix}:*", count=1000)}
        stones = {self.keys.log_gone(job) for job in self.gone}
        left = [name for name in names - stones if any(job in name for job in self.gone)]
        assert not left
