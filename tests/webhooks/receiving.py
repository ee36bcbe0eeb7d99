"""The receiver as tests hold it, and what they ask of a job's events."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

import urllib3

from app.webhooks.signatures import new_secret
from tests.faults.service import Service

HERE = {"JOBWIRE_CALLBACK_ALLOW": "127.0.0.0/8"}
"""Lets callbacks reach this machine."""


class Receiving:
    """A running receiver (see receiver.py), on a port of its own of 127.0.0.1."""

    def __init__(self) -> None:
        self.popen = subprocess.Popen([sys.executable, "-m", "tests.webhooks.receiver"], stdout=subprocess.PIPE)
        assert self.popen.stdout is not None
        self.port = int(self.popen.stdout.readline())
        self.secret = new_secret()
        self._http = urllib3.PoolManager(retries=False)
        self._http.request("POST", self.url("/_secret"), body=self.secret)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        """A URL of it."""
        return f"http://{host}:{self.port}{path}"

    def seen(self, job: str = "") -> list[dict[str, Any]]:
        """What has come, of one job or of all; each with path, headers (in lower case), body, verified."""
        found: list[dict[str, Any]] = json.loads(self._http.request("GET", self.url("/_seen")).data)
        return [one for one in found if not job or one["body"].get("jobId") == job]

    def count(self) -> dict[str, Any]:
        """How often what came, `times` by "path job", and `lateMs` of each first time."""
        return dict(json.loads(self._http.request("GET", self.url("/_count")).data))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.popen.kill()
        self.popen.wait()
        assert self.popen.stdout is not None
        self.popen.stdout.close()


def tries(service: Service, job: str) -> list[tuple[str, dict[str, Any]]]:
    """What a job's events say of its callback: type and data of each try."""
    events = service.job(job)["events"]
    return [(event["type"], event["data"]) for event in events if event["type"].startswith("callback_")]


def ended(service: Service, url: str, **fields: Any) -> str:
    """A job with this callbackUrl that has just been completed."""
    job = str(service.create(callbackUrl=url, claim=True, **fields)["id"])
    assert service.call("POST", f"/jobs/{job}/complete", {"n": 1}).status == 200
    return job
