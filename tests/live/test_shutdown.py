"""The end of a process: everybody is sent away with a word on when to come back, and nothing that was sent is cut."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

from app.serve import WINDOW_S
from tests.any_redis import AnyRedis
from tests.factories import Space
from tests.live.raw import CLOSE, TEXT, RawSocket
from tests.server import Server
from tests.valkey import until
from tests.viewers import EventViewer, SocketViewer


def is_gone(server: Server) -> bool:
    return server._process.poll() is not None


def test_everybody_is_sent_away_after_what_was_sent(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        job = space.create(claim=True)
        path = f"/realtime/{job['id']}?after=0"
        with (
            SocketViewer(server, path, space.all.key) as socket,
            EventViewer(server, path, space.all.key) as events,
            SocketViewer(server, f"/realtime/{job['id']}") as narrow,
        ):
            for number in range(200):
                space.do(job, "event", number)
            os.kill(server.pid, signal.SIGTERM)
            assert socket.until_closed() == 1012
            assert narrow.until_closed() == 1012
            events.until_closed()
        assert 0 < json.loads(socket.reason)["reconnectAfterMs"] < 5000
        assert events.is_whole
        assert 1000 < events.retries_ms[-1] < 6000
        for viewer in (socket, events):
            assert viewer.seqs() == list(range(1, 203))
        until(lambda: is_gone(server))


def test_a_reader_that_stands_still_delays_the_end_by_seconds_only(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        job = space.create(claim=True)
        for _ in range(60):
            space.call(job, "event", "x" * 200_000)
        with RawSocket(server, f"/realtime/{job['id']}?after=0", space.all.key, receive_bytes=8192) as viewer:
            assert viewer.read().opcode == TEXT
            begun = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            until(lambda: is_gone(server), 20)
            assert time.monotonic() - begun < 15


def test_readiness_turns_red_while_requests_are_still_answered(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        job = space.create(claim=True)
        viewers = [SocketViewer(server, f"/realtime/{job['id']}", space.all.key) for _ in range(120)]
        assert server.beside("/readyz").status_code == 200
        answers: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                try:
                    answers.append(server.beside("/readyz").status_code)
                except OSError:
                    return
                except Exception:
                    return

        asker = threading.Thread(target=ask)
        asker.start()
        os.kill(server.pid, signal.SIGTERM)
        for viewer in viewers:
            assert viewer.until_closed() == 1012
            viewer.__exit__(None, None, None)
        until(lambda: is_gone(server))
        stop.set()
        asker.join()
        assert 503 in answers


def test_a_second_signal_ends_it_at_once(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        job = space.create(claim=True)
        with RawSocket(server, f"/realtime/{job['id']}", space.all.key) as viewer:
            os.kill(server.pid, signal.SIGTERM)
            viewer.until(CLOSE)
            os.kill(server.pid, signal.SIGTERM)
            until(lambda: is_gone(server), 3)
            assert server._process.returncode == 0
            assert "Traceback" not in server.log()


def test_a_call_that_waits_for_a_job_is_answered_when_the_process_ends(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        found: list[Any] = []
        poller = threading.Thread(target=lambda: found.extend(space.poll(waitSeconds=30)))
        poller.start()
        until(lambda: "jobwire_parked_polls 1.0" in server.beside("/metrics").text)
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: is_gone(server), 5)
        poller.join(5)
        assert not poller.is_alive()
        assert found == []


def test_a_redis_that_stalls_does_not_delay_the_end(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        job = space.create(claim=True)
        calling = HTTPConnection("127.0.0.1", server.port, timeout=WINDOW_S)
        with SocketViewer(server, f"/realtime/{job['id']}", space.all.key) as viewer, closing(calling):
            valkey.stall()
            try:
                headers = {"x-api-key": str(space.all.key)}
                calling.request("POST", f"/api/v1/jobs/{job['id']}/event", "1", headers)
                os.kill(server.pid, signal.SIGTERM)
                assert viewer.until_closed() == 1012
                assert calling.getresponse().status == 503
                until(lambda: is_gone(server), WINDOW_S)
            finally:
                valkey.resume()
        assert server._process.returncode == 0
