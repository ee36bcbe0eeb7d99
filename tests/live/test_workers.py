"""`jobwire web --workers 2`: whatever ends one or all of the processes, viewers are told, and go on without a hole."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import httpx
import pytest

from app.serve import WINDOW_S
from tests.any_redis import AnyRedis
from tests.factories import Json, Space
from tests.live.raw import CLOSE, RawSocket, frame
from tests.server import ANSWER_S, READY_S, Server, free_port
from tests.test_processes import environment
from tests.valkey import until
from tests.viewers import STATES, EventViewer, Frame, SocketViewer, Viewer


class Web(Server):
    """`jobwire web --workers 2`, in a process group of its own."""

    def __init__(self, redis_url: str, *, host: str = "127.0.0.1", **environ: str) -> None:
        self.redis_url, self.prefix = redis_url, f"w{secrets.token_hex(4)}"
        self.root_key = f"emit_{secrets.token_urlsafe(32)}"
        self._data = Path(tempfile.mkdtemp(prefix="jobwire-web-"))
        self._log = open(self._data / "server.log", "wb")  # noqa: SIM115  # closed with the server
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        place = ("--host", host, "--port", str(port))
        self._process = command(*place, "--workers", "2", web=self, stderr=self._log, **environ)
        self._http = httpx.Client(timeout=ANSWER_S, trust_env=False)
        self.root = self.caller(self.root_key)
        until(lambda: "jobwire serves" in self.log(), READY_S)

    def workers(self) -> set[int]:
        """The processes that serve."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        return {pid for pid in pids if b"spawn_main" in words_of(pid)}

    @contextlib.contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """Meanwhile new connections go to this worker: the others stand still."""
        others = self.workers() - {worker}
        try:
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
            until(lambda: all(state(pid) == "T" for pid in others))
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def wait(self, within_s: float) -> int:
        """The exit status."""
        return self._process.wait(within_s)

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


def command(*options: str, web: Web, stderr: int | IO[bytes], **environ: str) -> subprocess.Popen[bytes]:
    """`jobwire web`, on the Redis and with the key of `web`."""
    own = {"REDIS_URL": web.redis_url, "JOBWIRE_PREFIX": web.prefix, "JOBWIRE_ROOT_KEY": web.root_key}
    env = environment(**{"JOBWIRE_RATE": "0", **own, **environ})
    words = [sys.executable, "-m", "jobwire", "web", *options]
    return subprocess.Popen(words, env=env, stderr=stderr, start_new_session=True)


def state(pid: int) -> str:
    """What /proc says of a process: T when it stands still, Z or nothing when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    return ""


def words_of(pid: int) -> bytes:
    """The command of a process; nothing of one that has gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


class Poster(threading.Thread):
    """Posts events with numbers, one after the other, whatever happens; `answered` are those that were answered 200."""

    def __init__(self, space: Space, job: Json) -> None:
        super().__init__(daemon=True)
        self._space, self._job = space, job
        self._enough = threading.Event()
        self.answered: list[int] = []
        self.start()

    def run(self) -> None:
        number = 0
        while not self._enough.wait(0.01):
            number += 1
            with contextlib.suppress(httpx.TransportError):
                if self._space.call(self._job, "event", number).status_code == 200:
                    self.answered.append(number)

    def goes_on(self, count: int = 20) -> None:
        """Return when so many more were answered."""
        goal = len(self.answered) + count
        until(lambda: len(self.answered) >= goal)

    def stop(self) -> None:
        """Return when the last was answered."""
        self._enough.set()
        self.join()


class Stage:
    """Two workers, viewers of every kind on both, and somebody who posts."""

    def __init__(self, web: Web, stack: contextlib.ExitStack) -> None:
        self.web, self.stack = web, stack
        self.space = Space(web)
        self.job = self.space.create(claim=True, timeoutSeconds=3600)
        self.key = self.space.all.key
        self.job_path = f"/realtime/{self.job['id']}"
        self.space_path = f"/realtime/spaces/{self.space.id}"
        self.worker_of: dict[Viewer, int] = {}
        for worker in web.workers():
            with web.only(worker):
                for path in (f"{self.job_path}?after=0", self.space_path):
                    for kind in (SocketViewer, EventViewer):
                        self.worker_of[stack.enter_context(kind(web, path, self.key))] = worker
        self.poster = Poster(self.space, self.job)
        stack.callback(self.poster.stop)
        self.poster.goes_on()

    def pinned(self) -> list[http.client.HTTPConnection]:
        """A connection to each worker that stays open."""
        made = []
        for worker in self.web.workers():
            connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=10)
            self.stack.callback(connection.close)
            with self.web.only(worker):
                assert ready(connection) == 200
            made.append(connection)
        return made

    def stubborn(self) -> list[RawSocket]:
        """A viewer on each worker that answers no close."""
        made = []
        for worker in self.web.workers():
            with self.web.only(worker):
                made.append(self.stack.enter_context(RawSocket(self.web, self.job_path, self.key)))
        return made

    def check_sent_away(self, viewers: list[Viewer]) -> None:
        """Each was told when to come back, and nothing was cut."""
        for viewer in viewers:
            code = viewer.until_closed(WINDOW_S)
            if isinstance(viewer, EventViewer):
                assert viewer.is_whole
                assert 1000 < viewer.retries_ms[-1] < 6000
            else:
                assert code == 1012
                assert 0 < json.loads(viewer.reason)["reconnectAfterMs"] < 5000

    def check_lost(self, worker: int) -> None:
        """The viewers of this worker notice that it is gone, the others notice nothing."""
        for viewer, pid in self.worker_of.items():
            if pid == worker:
                viewer.until_closed()
        assert all(viewer.is_open for viewer, pid in self.worker_of.items() if pid != worker)

    def check_whole(self, server: Server) -> None:
        """Each viewer, those that were sent away come back with their position, has all events once and in order."""
        self.poster.stop()
        stored = server.caller(self.key).get(f"/jobs/{self.job['id']}").json()["events"]
        assert stored[0]["seq"] == 1
        numbers = [event["data"] for event in stored if event["type"] == "event"]
        assert set(self.poster.answered) <= set(numbers)
        for viewer in self.worker_of:
            if viewer.is_open:
                viewer.until(lambda frame: is_number(frame, numbers[-1]))
                frames = viewer.frames
            else:
                with SocketViewer(server, self._again(viewer), self.key) as again:
                    if not is_number(viewer.frames[-1], numbers[-1]):
                        again.until(lambda frame: is_number(frame, numbers[-1]))
                frames = viewer.frames + again.frames
            events = [frame for frame in frames if frame["type"] not in STATES]
            assert [event["seq"] for event in events] == list(range(events[0]["seq"], events[-1]["seq"] + 1))
            assert [event["data"] for event in events if event["type"] == "event"] == numbers

    def _again(self, viewer: Viewer) -> str:
        seqs, first = viewer.seqs(), viewer.frames[0]
        seq = seqs[-1] if seqs else first["seq"]
        if first["type"] == "init":
            return f"{self.job_path}?after={seq}&epoch={first['epoch']}"
        return f"{self.space_path}?since={seq}&streamInstanceId={first['streamInstanceId']}"


def is_number(frame: Frame, number: int) -> bool:
    """Whether this is the event with this number."""
    return bool(frame["type"] == "event" and frame["data"] == number)


def ready(connection: http.client.HTTPConnection) -> int:
    """What /readyz answers, over this connection."""
    connection.request("GET", "/readyz")
    with connection.getresponse() as answer:
        answer.read()
        return answer.status


def is_red(connection: http.client.HTTPConnection) -> bool:
    """Whether /readyz is 503, over this connection."""
    return ready(connection) == 503


def is_free(port: int) -> bool:
    """Whether somebody may listen there."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


@pytest.fixture
def stage(valkey: AnyRedis) -> Iterator[Stage]:
    with Web(valkey.url) as web, contextlib.ExitStack() as stack:
        yield Stage(web, stack)


def check_gone(stage: Stage, workers: set[int], begun_s: float) -> None:
    """All processes have ended in time and in peace, and the port is free."""
    assert stage.web.wait(WINDOW_S) == 0
    assert time.monotonic() - begun_s < WINDOW_S
    assert not [pid for pid in workers if state(pid)]
    assert is_free(stage.web.port)
    assert "Traceback" not in stage.web.log()
    assert stage.web.log().count("jobwire serves") == 1


def test_each_worker_turns_red_and_goes_on_answering_until_its_streams_have_gone(stage: Stage) -> None:
    pinned, stubborn, workers = stage.pinned(), stage.stubborn(), stage.web.workers()
    assert len(workers) == 2
    os.kill(stage.web.pid, signal.SIGTERM)
    begun_s = time.monotonic()
    for connection in pinned:
        until(partial(is_red, connection))
    stage.poster.goes_on()
    assert stage.web.workers() == workers
    for raw in stubborn:
        raw.send(frame(CLOSE, raw.until(CLOSE).payload))
    stage.check_sent_away(list(stage.worker_of))
    check_gone(stage, workers, begun_s)
    with Server(stage.web.redis_url, prefix=stage.web.prefix, root_key=stage.web.root_key) as other:
        stage.check_whole(other)


def test_an_interrupt_of_the_whole_group_is_heard_once(stage: Stage) -> None:
    workers = stage.web.workers()
    os.killpg(stage.web.pid, signal.SIGINT)
    begun_s = time.monotonic()
    stage.check_sent_away(list(stage.worker_of))
    check_gone(stage, workers, begun_s)
    with Server(stage.web.redis_url, prefix=stage.web.prefix, root_key=stage.web.root_key) as other:
        stage.check_whole(other)


def test_a_worker_that_is_killed_is_replaced_and_its_viewers_go_on_elsewhere(stage: Stage) -> None:
    victim, *_ = stage.web.workers()
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(stage.web.workers() - {victim}) == 2)
    stage.poster.goes_on()
    stage.check_lost(victim)
    stage.check_whole(stage.web)


def test_a_hangup_replaces_all_workers_one_after_the_other(stage: Stage) -> None:
    before = stage.web.workers()
    os.kill(stage.web.pid, signal.SIGHUP)
    until(lambda: len(stage.web.workers() - before) == 2 and not stage.web.workers() & before, 30)
    stage.poster.goes_on()
    stage.check_sent_away(list(stage.worker_of))
    stage.check_whole(stage.web)
    assert stage.web.root.get("/spaces").status_code == 200


def test_a_hangup_changes_nothing_when_what_is_installed_cannot_serve(valkey: AnyRedis, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics"
    with Web(valkey.url, JOBWIRE_METRICS_FOLDER=str(metrics)) as web:
        before = web.workers()
        metrics.rename(tmp_path / "elsewhere")
        metrics.write_text("no folder")
        os.kill(web.pid, signal.SIGHUP)
        until(lambda: "the others stay" in web.log(), READY_S)
        until(lambda: web.workers() == before)
        metrics.unlink()
        (tmp_path / "elsewhere").rename(metrics)
        assert web.beside("/readyz").status_code == 200


def test_workers_that_cannot_serve_end_the_command(valkey: AnyRedis, tmp_path: Path) -> None:
    (tmp_path / "1-another.names").write_bytes(b"no JSON\n")
    with Web(valkey.url) as web:
        words = ("--port", str(free_port()), "--workers", "2")
        process = command(*words, web=web, stderr=subprocess.PIPE, JOBWIRE_METRICS_FOLDER=str(tmp_path))
        _, said = process.communicate(timeout=READY_S)
    assert process.returncode == 69
    assert said.decode().endswith("jobwire: a worker could not serve; the log says why.\n")


def test_a_worker_that_hangs_is_replaced(stage: Stage) -> None:
    victim, *_ = stage.web.workers()
    os.kill(victim, signal.SIGSTOP)
    until(lambda: len(stage.web.workers() - {victim}) == 2, 20)
    stage.check_lost(victim)
    stage.check_whole(stage.web)


def test_a_worker_that_is_told_to_leave_by_itself_is_replaced(stage: Stage) -> None:
    victim, *_ = stage.web.workers()
    os.kill(victim, signal.SIGTERM)
    stage.check_sent_away([viewer for viewer, pid in stage.worker_of.items() if pid == victim])
    until(lambda: len(stage.web.workers() - {victim}) == 2)
    stage.check_whole(stage.web)


def test_a_second_signal_ends_all_workers_at_once(stage: Stage) -> None:
    pinned, stubborn, workers = stage.pinned(), stage.stubborn(), stage.web.workers()
    os.kill(stage.web.pid, signal.SIGTERM)
    for connection in pinned:
        until(partial(is_red, connection))
    os.kill(stage.web.pid, signal.SIGTERM)
    begun_s = time.monotonic()
    check_gone(stage, workers, begun_s)
    assert time.monotonic() - begun_s < 3
    assert stubborn


def test_workers_leave_when_the_process_that_started_them_is_killed(stage: Stage) -> None:
    workers = stage.web.workers()
    stage.web.kill()
    stage.check_sent_away(list(stage.worker_of))
    until(lambda: is_free(stage.web.port))
    until(lambda: all(state(pid) in ("", "Z") for pid in workers))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_is_refused(valkey: AnyRedis, workers: str) -> None:
    with Web(valkey.url) as web:
        process = command("--port", str(web.port), "--workers", workers, web=web, stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=READY_S)
    assert process.returncode == 69
    assert said.decode() == f"jobwire: cannot listen on 127.0.0.1 port {web.port}: Address already in use\n"
