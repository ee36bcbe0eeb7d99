"""One process behind HAProxy ends and another goes on: no request of a client fails."""

from __future__ import annotations

import os
import signal
import threading

from tests.proxies.conftest import standing
from tests.valkey import until

THREADS = 4


def test_no_request_fails_while_one_of_two_processes_ends() -> None:
    with standing("haproxy") as front:
        statuses: list[int] = []
        over = threading.Event()

        def creates() -> None:
            while not over.is_set():
                statuses.append(front.send("POST", front.space.jobs, json={"name": "rolled"}).status_code)

        running = [threading.Thread(target=creates) for _ in range(THREADS)]
        for thread in running:
            thread.start()
        until(lambda: len(statuses) > 100)
        os.kill(front.servers[1].pid, signal.SIGTERM)
        until(lambda: front.servers[1].has_ended)
        before = len(statuses)
        until(lambda: len(statuses) > before + 100)
        over.set()
        for thread in running:
            thread.join()
        assert set(statuses) == {201}
