"""A worker for the crash test: `python -m tests.faults.crash_worker FILE KEY SPACE URL...`.

It takes jobs and does to them whatever a worker may do, at random, some of it badly. A result is written to FILE, with
its job, before it is sent: so whatever the service holds can be looked up there.
"""

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import urllib3


class Worker:
    """One worker; it asks the processes of the service in turn."""

    def __init__(self, file: Path, key: str, space: str, urls: list[str]) -> None:
        self._file = file.open("ab", buffering=0)
        self._space, self._urls = space, urls
        self._http = urllib3.PoolManager(retries=False, headers={"x-api-key": key}, timeout=10.0)
        self._sent = 0

    def call(self, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """One call; (0, None) when nobody answered."""
        headers = {"x-api-key": self._http.headers["x-api-key"]} | ({"x-lease-token": token} if token else {})
        sent = None if body is None else json.dumps(body).encode()
        try:
            url = f"{random.choice(self._urls)}/api/v1{path}"
            reply = self._http.request("POST", url, body=sent, headers=headers)
            return reply.status, json.loads(reply.data)
        except (urllib3.exceptions.HTTPError, ValueError):
            time.sleep(0.05)
            return 0, None

    def work(self, job: dict[str, Any]) -> None:
        """One job, to some end or to none."""
        path, token = f"/jobs/{job['id']}", job["leaseToken"]
        if random.random() < 0.05:
            return
        self.call(f"{path}/ack", token=token)
        if random.random() < 0.3:
            self.call(f"{path}/progress", {"percent": 50, "message": "half"}, token)
            self.call(f"{path}/logs", ["a line"])
        choice = random.random()
        if choice < 0.05:
            return
        if choice < 0.15:
            self.call(f"{path}/fail", {"error": "chance"}, token)
            return
        if choice < 0.2:
            time.sleep(1.2)
        self._complete(job["id"], token)

    def _complete(self, job: str, token: str) -> None:
        self._sent += 1
        result = {"job": job, "by": f"{os.getpid()}-{self._sent}"}
        self._file.write(json.dumps(result).encode() + b"\n")
        for _ in range(5):
            status, _answer = self.call(f"/jobs/{job}/complete", result, token)
            if status not in (0, 503):
                return

    def run(self) -> None:
        """Until it is killed."""
        while True:
            _, answer = self.call(f"/spaces/{self._space}/jobs/poll", {"count": 3, "waitSeconds": 1})
            for job in (answer or {}).get("jobs", ()):
                self.work(job)


if __name__ == "__main__":
    Worker(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]).run()
