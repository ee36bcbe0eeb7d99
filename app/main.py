"""The wiring: settings -> links to Redis -> store -> relay -> routes. Nothing is decided here."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware

from app.advice import advise
from app.agenda import Agenda
from app.api.lane import Application, failed
from app.api.origins import Origins
from app.api.routes import Handlers, add_routes
from app.api.trail import RequestLines
from app.auth import Keyring, Rate
from app.callbacks import Callbacks
from app.connect import connector
from app.cursors import Cursors
from app.deletion import Deletion
from app.ends import EndsReader
from app.epoch import Epoch
from app.expiry import LeaseExpiry
from app.guard import Guard
from app.headroom import Headroom
from app.history import History
from app.hosts import Hosts
from app.keys import Keys
from app.lag import LoopLag
from app.link import Link
from app.live import DRAIN, Live
from app.logs import Logs
from app.outbox import Outbox
from app.outgoing import Outgoing
from app.overview import Overview
from app.push import Pusher
from app.redis_clock import RedisClock
from app.relay import Relay
from app.revival import Revival
from app.scripts import greeting
from app.service_log import configure
from app.settings import Settings, read
from app.spaces import Spaces
from app.store import Store
from app.sweeper import Sweeper
from app.tally import TALLY
from app.waiting import WaitingRooms
from app.watch import Surroundings

GRACE_S = 5.0
"""How long callbacks that are on their way may take when the process ends."""


class Backend:
    """Everything below the routes, in the order in which it is built. One for each process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connector = connector(settings.redis_url, settings.redis_timeout_s)
        self.keys = Keys(settings.prefix)
        self.epoch = Epoch(self.keys)
        timeout_s, greet, sharded = settings.redis_timeout_s, self.epoch.greet, settings.sharded_pubsub
        link = partial(Link, self.connector, timeout_s=timeout_s, greet=greet, sharded=sharded)
        self.control = link(name="control", greeting=greeting(sharded=sharded))
        self.bulk = link(name="bulk")
        self.clock = RedisClock(self.control)
        self.relay = Relay(self.connector, self.control, probe=self.keys.probe, timeout_s=timeout_s, greet=greet)
        headroom = Headroom(self.control)
        self.store = Store(self.control, self.bulk, self.keys, self.clock, settings, headroom=headroom)
        self.logs = Logs(self.control, self.bulk, self.keys, settings, headroom=headroom)
        self.cursors = Cursors(self.control, self.keys, self.epoch)
        self.deletion = Deletion(self.control, self.keys, self.clock, settings, store=self.store, logs=self.logs)
        self.spaces = Spaces(self.control, self.keys, self.clock, self.store, self.deletion.clear)
        self.keyring = Keyring(self.control, self.keys, self.clock, settings)
        history = History(self.bulk, self.keys, self.store, self.logs)
        around = Surroundings(self.relay, history, self.keys, self.epoch, self.clock)
        self.live = Live(around, self.keyring, settings.viewer_timeout_s)
        self.revival = Revival(self.control, self.keys)
        self.rooms = WaitingRooms(self.relay, self.control, self.keys)
        self.ends = EndsReader(self.bulk, self.keys, self.clock)
        self.overview = Overview(self.bulk, self.keys, self.clock, self.ends)
        self.lag = LoopLag()

    async def start(self) -> None:
        """Connect. A Redis that is away is waited for by calls, not by the start."""
        for part in (self.control, self.bulk, self.clock, self.relay, self.rooms, self.live, self.lag):
            part.start()

    async def drain(self) -> None:
        """Send everybody away who waits or watches, and return when they have gone, or were given time enough."""
        self.rooms.release()
        await self.live.drain()

    async def close(self) -> None:
        """Disconnect."""
        await self.live.close()
        await self.logs.close()
        for part in (self.lag, self.overview, self.rooms, self.relay, self.clock, self.bulk, self.control):
            await part.close()

    def sweeper(self) -> tuple[Sweeper, LeaseExpiry]:
        """A sweeper on this process's links, and what wakes it; the caller starts and closes the latter."""
        expiry = LeaseExpiry(self.connector, self.control, self.keys, timeout_s=self.settings.redis_timeout_s)
        sweeper = Sweeper(
            self.control,
            self.keys,
            Agenda(self.control, self.keys, self.clock, self.settings),
            store=self.store,
            spaces=self.spaces,
            deletion=self.deletion,
            expiry=expiry,
        )
        return sweeper, expiry


def web(backend: Backend, *beside: Callable[[], Coroutine[None, None, None]]) -> Starlette:
    """The web application on a backend that its lifespan starts and closes; `beside` works on it meanwhile."""
    settings = backend.settings

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        await backend.start()
        tasks = [asyncio.create_task(work()) for work in beside]
        try:
            yield {DRAIN: backend.drain}
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await backend.close()
            if app.request_lines is not None:
                app.request_lines.flush()

    cors = Middleware(
        Origins,
        allow_origins=settings.origins,
        allow_methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers=["*"],
        expose_headers=["x-total-count", "x-next-cursor", "idempotency-replayed", "retry-after", "x-request-id"],
    )
    app = Application(middleware=[cors], lifespan=lifespan, exception_handlers={Exception: failed})
    app.request_lines = RequestLines() if settings.log == "json" else None
    rate = Rate(backend.control, backend.keys, settings)
    add_routes(app, Handlers(backend, backend.keyring, rate))
    return app


def web_from_environment() -> Starlette:
    """What a worker process of `jobwire web` serves."""
    settings = read()
    configure(settings.log)
    count_together(settings)
    backend = Backend(settings)
    return web(backend, partial(advise, backend.control))


def count_together(settings: Settings) -> None:
    """Add this process's metrics to those of others, if the settings say so."""
    if settings.metrics_folder:
        TALLY.share(Path(settings.metrics_folder))


async def call_back(settings: Settings, until: Callable[[], Awaitable[None]]) -> None:
    """Send callbacks, pushes and Slack messages until `until` returns, or until cancelled."""
    backend = Backend(settings)
    await backend.start()
    outgoing = Outgoing(Guard(settings.callback_networks), settings.callback_timeout_s)
    hosts = Hosts(settings.callback_connections, asyncio.get_running_loop().time)
    outbox = Outbox(backend.control, backend.bulk, backend.keys, backend.clock)
    callbacks = Callbacks(outbox, outgoing, hosts, settings)
    pusher = Pusher(backend.control, backend.relay, backend.keys, outgoing, hosts)
    works = [asyncio.create_task(work) for work in (callbacks.run(), pusher.run(), _awaited(until))]
    try:
        done, _ = await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        for work in done:
            work.result()
    finally:
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        await hosts.close(GRACE_S)
        await callbacks.flush()
        await outgoing.close()
        await backend.close()


async def _awaited(until: Callable[[], Awaitable[None]]) -> None:
    await until()


async def sweep(backend: Backend, until: Callable[[], Awaitable[None]]) -> None:
    """Run a sweeper on a started backend until `until` returns."""
    sweeper, expiry = backend.sweeper()
    expiry.start()
    task = asyncio.create_task(sweeper.run(), name="sweeper")
    waiting = asyncio.ensure_future(until())
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        for running in (task, waiting):
            running.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
        await expiry.close()
