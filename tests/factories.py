"""Things that tests begin with: a space with keys, and a job in any state, built over HTTP as a client builds it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.server import Caller, Server

SCOPES = (
    "jobs:create",
    "jobs:read",
    "jobs:poll",
    "jobs:ack",
    "jobs:progress",
    "jobs:event",
    "jobs:complete",
    "jobs:fail",
    "jobs:kill",
    "jobs:keepalive",
    "jobs:read:progress",
    "jobs:retry",
)
STATUSES = ("scheduled", "pending", "delivered", "running", "completed", "dead", "killed")
ENDED = ("completed", "dead", "killed")
NO_JOB = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

Json = dict[str, Any]


def in_future(**ahead: float) -> str:
    """A moment from now, an hour unless `timedelta`'s words say otherwise."""
    return (datetime.now(UTC) + timedelta(**(ahead or {"hours": 1}))).isoformat()


def at(text: str) -> datetime:
    """The moment of an answer's time."""
    return datetime.fromisoformat(text)


class Space:
    """A fresh space of a server; `all` calls with a key that has every scope."""

    def __init__(self, server: Server, name: str = "test") -> None:
        self.server = server
        made = server.root.post("/spaces", json={"name": name})
        assert made.status_code == 201, made.text
        self.id: str = made.json()["id"]
        self.public = server.caller(made.json()["publicToken"])
        self.all = self.caller(*SCOPES)

    @property
    def jobs(self) -> str:
        """The path of its jobs."""
        return f"/spaces/{self.id}/jobs"

    def token(self, *scopes: str, **more: Any) -> Json:
        """A new key, as the server answers it."""
        made = self.server.root.post(f"/spaces/{self.id}/tokens", json={"name": "key", "scopes": scopes, **more})
        assert made.status_code == 201, made.text
        token: Json = made.json()
        return token

    def caller(self, *scopes: str) -> Caller:
        """Requests with a new key of these scopes."""
        return self.server.caller(self.token(*scopes)["key"])

    def create(self, **fields: Any) -> Json:
        """A new job, named `work` unless told otherwise."""
        made = self.all.post(self.jobs, json={"name": "work", **fields})
        assert made.status_code == 201, made.text
        job: Json = made.json()
        return job

    def poll(self, **body: Any) -> list[Json]:
        """Jobs that a poll hands out."""
        answer = self.all.post(f"{self.jobs}/poll", json=body)
        assert answer.status_code == 200, answer.text
        jobs: list[Json] = answer.json()["jobs"]
        return jobs

    def call(self, job: Json, verb: str, body: Any = None, *, token: str = "", **more: Any) -> httpx.Response:
        """POST to a job: a body of JSON, unless it is None; a lease token, unless it is empty."""
        headers = {**({"x-lease-token": token} if token else {}), **more.pop("headers", {})}
        if body is not None:
            more["json"] = body
        return self.all.post(f"/jobs/{job['id']}/{verb}", headers=headers, **more)

    def do(self, job: Json, verb: str, body: Any = None, *, token: str = "") -> Json:
        """A call that goes through."""
        answer = self.call(job, verb, body, token=token)
        assert answer.status_code == 200, answer.text
        done: Json = answer.json()
        return done

    def get(self, job: Json) -> Json:
        """The job as it is now."""
        answer = self.all.get(f"/jobs/{job['id']}")
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def status(self, job: Json) -> str:
        """The status of the job."""
        return str(self.get(job)["status"])

    def events(self, job: Json) -> list[str]:
        """The types of the job's events."""
        return [event["type"] for event in self.get(job)["events"]]

    def job_in(self, status: str, **fields: Any) -> Json:
        """A job in a status, as its creation answered it (with `leaseToken` where it had a lease)."""
        if status == "scheduled":
            return self.create(scheduledFor=in_future(), **fields)
        if status == "pending":
            return self.create(**fields)
        job = self.create(claim=True, **fields)
        if status == "running":
            self.do(job, "ack")
        elif status == "completed":
            self.do(job, "complete", {"ok": True})
        elif status == "dead":
            self.do(job, "fail", {"error": "broken", "retry": False})
        elif status == "killed":
            self.do(job, "kill", {"reason": "enough"})
        return job


def refused(answer: httpx.Response, status: int, code: str) -> Json:
    """The body of a refusal, which has this status and code and is what every error is."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text[:500]}"
    assert answer.headers["content-type"] == "application/json"
    body: Json = answer.json()
    assert body["code"] == code, body
    assert isinstance(body["error"], str)
    assert body["error"]
    return body
