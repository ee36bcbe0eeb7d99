"""`jobwire web --workers N`: processes that serve on one socket, replaced when they die, and sent away together.

Owns: starting a worker, noticing that it died or hangs, the order in which all are replaced (SIGHUP), the way down.
Never: serves anything itself. It tells a worker to leave by closing the line to it, not by a signal: a terminal and
systemd send theirs to the whole group, so that every worker would be told twice, and the second time means at once.
Always: a worker leaves when the line ends, also because this process was killed. Nobody is left behind on the port.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from multiprocessing import get_context, resource_tracker

from app.main import web_from_environment
from app.serve import WINDOW_S, Server, run_process, serve

log = logging.getLogger("jobwire.workers")

SPAWN = get_context("spawn")
"""A worker begins as a new interpreter: after SIGHUP it has the code that is installed by then."""

BEAT_S = 0.5
PATIENCE_BEATS = 20
"""How often a worker's event loop says that it runs, and after how many beats without a word it is ended."""

START_S = 30
RESTART_S = 5
LEAVE_S = WINDOW_S + 3
"""How long a worker may take until it serves, how long after the start of one that never did another is tried, and how
long one may take to leave."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class WorkerFailed(Exception):
    """A worker did not come so far as to serve; its log says why."""


class WorkerProcess:
    """One process that serves, and the line to it."""

    def __init__(self, sock: socket.socket) -> None:
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        self._process = SPAWN.Process(target=run_worker, args=(sock, theirs), name="jobwire web")
        with theirs, hold_signals_back():
            self._process.start()
        self.patience_beats = int(START_S / BEAT_S)
        self._serves = asyncio.Event()
        self._gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._line, self._hear)
        loop.add_reader(self._process.sentinel, self._end)

    def __str__(self) -> str:
        return f"worker {self._process.pid}"

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended."""
        return self._gone.is_set()

    @property
    def is_to_be_replaced(self) -> bool:
        """Whether it is gone; one that never served only RESTART_S after its start, counted in beats."""
        return self.is_gone and (self._serves.is_set() or self.patience_beats < (START_S - RESTART_S) / BEAT_S)

    async def serves(self) -> bool:
        """Return once it serves: True; False if it has ended, or does not within START_S."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._serves, self._gone)]
        await asyncio.wait(waits, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return self._serves.is_set() and not self.is_gone

    async def leave(self) -> None:
        """Let it go its way down, and return when it is gone; it is ended if that takes longer than LEAVE_S."""
        self._hang_up()
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._gone.wait()
        except TimeoutError:
            log.warning("%s got SIGTERM %d s ago and still runs: it is killed", self, LEAVE_S)
            self.kill()
            await self._gone.wait()

    def kill(self) -> None:
        """End it at once."""
        if not self.is_gone:
            self._process.kill()

    def _hear(self) -> None:
        with contextlib.suppress(OSError):
            if self._line.recv(64):
                self.patience_beats = PATIENCE_BEATS
                self._serves.set()
                return
        self._hang_up()

    def _hang_up(self) -> None:
        if self._line.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._line)
            self._line.close()

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        self._hang_up()
        self._gone.set()


class Workers:
    """The workers of one socket. Closes the socket when they leave."""

    def __init__(self, sock: socket.socket, count: int) -> None:
        self._sock = sock
        self._count = count
        self._places: list[WorkerProcess] = []
        self._alive: set[WorkerProcess] = set()
        self._leaving = asyncio.Event()
        self._renewal = asyncio.Event()

    async def run(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Serve until SIGINT or SIGTERM; `ready` is called once, when all serve.

        A second signal ends all of them at once, SIGHUP replaces them one after the other. Raises WorkerFailed when
        the first ones cannot serve.
        """
        resource_tracker.ensure_running()  # starting it lets signals through, so not inside hold_signals_back
        self._obey()
        keeping = asyncio.create_task(self._serve(ready))
        leaving = asyncio.create_task(self._leaving.wait())
        try:
            await asyncio.wait((keeping, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (keeping, leaving):
                task.cancel()
            self._sock.close()
            await asyncio.gather(*(worker.leave() for worker in self._alive), keeping, return_exceptions=True)
        if not keeping.cancelled():
            keeping.result()

    def _obey(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._leave)
        loop.add_signal_handler(signal.SIGHUP, self._renewal.set)

    def _leave(self) -> None:
        if self._leaving.is_set():
            for worker in self._alive:
                worker.kill()
        self._leaving.set()

    async def _serve(self, ready: Callable[[], Awaitable[None]]) -> None:
        self._places = [self._start_worker() for _ in range(self._count)]
        if not all(await asyncio.gather(*(worker.serves() for worker in self._places))):
            raise WorkerFailed
        await ready()
        await asyncio.gather(self._replace_dead(), self._replace_all_forever())

    def _start_worker(self) -> WorkerProcess:
        worker = WorkerProcess(self._sock)
        self._alive = {known for known in self._alive if not known.is_gone} | {worker}
        return worker

    async def _replace_dead(self) -> None:
        """Replace those who died, and end those who hang."""
        while True:
            await asyncio.sleep(BEAT_S)
            for place, worker in enumerate(self._places):
                worker.patience_beats -= 1
                if worker.is_to_be_replaced:
                    log.error("%s has ended: another one is started in its place", worker)
                    self._places[place] = self._start_worker()
                elif worker.patience_beats < 0:
                    log.error("%s does not answer: it is killed", worker)
                    worker.kill()

    async def _replace_all_forever(self) -> None:
        while True:
            await self._renewal.wait()
            self._renewal.clear()
            await self._replace_all()

    async def _replace_all(self) -> None:
        """Replace all, each only when the one after it serves."""
        for place in range(self._count):
            new = self._start_worker()
            if not await new.serves():
                log.error("%s cannot serve: the others stay", new)
                new.kill()
                return
            old, self._places[place] = self._places[place], new
            log.info("%s takes the place of %s", new, old)
            await old.leave()


@contextlib.contextmanager
def hold_signals_back() -> Iterator[None]:
    """Hold SIGNALS back, in this process meanwhile, and in one that is started until it is ready for them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_worker(sock: socket.socket, line: socket.socket) -> None:
    """What a worker does: serve until the line ends, and say all along that it does."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    line.setblocking(False)

    async def ready() -> None:
        send_beats(line)

    with sock, line:
        run_process(serve(web_from_environment(), sock, ready, lambda server: obey_line(server, line)))


def send_beats(line: socket.socket) -> None:
    """Say from now on, at each beat, that the event loop runs. On the way down nobody listens any more."""
    with contextlib.suppress(OSError):
        line.send(b".")
    asyncio.get_running_loop().call_later(BEAT_S, send_beats, line)


def obey_line(server: Server, line: socket.socket) -> None:
    """Leave when the line ends, or at a signal; to be told twice changes nothing, here it is the same word again."""
    loop = asyncio.get_running_loop()

    def hear() -> None:
        loop.remove_reader(line)
        server.leave()

    loop.add_reader(line, hear)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
