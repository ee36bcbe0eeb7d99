"""The programs: the web application, the sweeper, and the callbacks, each on a backend of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware

from app.api.cors import Origins
from app.api.fast_path import Application, answer_bug
from app.api.request_log import RequestLog
from app.api.routes import Handlers, add_routes
from app.backend import Backend
from app.jobs.rate_limit import Rate
from app.loop.background import Background, until_first_ends
from app.metrics.metric_values import VALUES
from app.metrics.service_log import configure_logging
from app.redis_links.server_advice import advise
from app.serve import DRAIN
from app.settings import Settings, read
from app.webhooks.callbacks import Callbacks
from app.webhooks.checked_connections import Guard
from app.webhooks.forbidden_addresses import parse_networks
from app.webhooks.host_lanes import HostLanes
from app.webhooks.http_client import WebhookClient
from app.webhooks.outbox import Outbox
from app.webhooks.push import Pusher

GRACE_S = 5.0
"""How long callbacks that are on their way may take when the process ends."""


def build_web(backend: Backend, *beside: Callable[[], Coroutine[None, None, None]]) -> Starlette:
    """The web application on a backend that its lifespan starts and closes; `beside` works on it meanwhile."""
    settings = backend.settings

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        await backend.start()
        try:
            async with Background() as background:
                for work in beside:
                    background.start(work(), "beside-web")
                yield {DRAIN: backend.drain}
        finally:
            await backend.close()
            if app.request_log is not None:
                app.request_log.flush()

    cors = Middleware(
        Origins,
        allow_origins=settings.origins,
        allow_methods=["GET", "POST", "PATCH", "DELETE"],
        allow_headers=["*"],
        expose_headers=["x-total-count", "x-next-cursor", "idempotency-replayed", "retry-after", "x-request-id"],
    )
    app = Application(middleware=[cors], lifespan=lifespan, exception_handlers={Exception: answer_bug})
    app.request_log = RequestLog() if settings.log == "json" else None
    rate = Rate(backend.control, backend.keys, settings)
    add_routes(app, Handlers(backend, backend.keyring, rate))
    return app


def web_from_environment() -> Starlette:
    """What a worker process of `jobwire web` serves."""
    settings = read()
    configure_logging(settings.log)
    count_together(settings)
    backend = Backend(settings)
    return build_web(backend, partial(advise, backend.control))


def count_together(settings: Settings) -> None:
    """Add this process's metrics to those of others, if the settings say so."""
    if settings.metrics_folder:
        VALUES.share(Path(settings.metrics_folder))


async def run_callbacks(settings: Settings, until: Callable[[], Awaitable[None]]) -> None:
    """Send callbacks, pushes and Slack messages until `until` returns, or until cancelled."""
    backend = Backend(settings)
    await backend.start()
    client = WebhookClient(Guard(parse_networks(settings.callback_allow)), settings.callback_timeout_s)
    hosts = HostLanes(settings.callback_connections, asyncio.get_running_loop().time)
    outbox = Outbox(backend.control, backend.bulk, backend.keys, backend.clock, backend.spaces.list_ids)
    callbacks = Callbacks(outbox, client, hosts, settings)
    pusher = Pusher(backend.control, backend.relay, backend.keys, client, hosts)
    try:
        await until_first_ends(callbacks.run(), pusher.run(), _awaited(until))
    finally:
        await hosts.close(GRACE_S)
        await callbacks.flush_given_back()
        await client.close()
        await backend.close()


async def _awaited(until: Callable[[], Awaitable[None]]) -> None:
    await until()


async def run_sweeper(backend: Backend, until: Callable[[], Awaitable[None]]) -> None:
    """Run a sweeper on a started backend until `until` returns."""
    sweeper, notifications = backend.sweeper()
    notifications.start()
    try:
        await until_first_ends(sweeper.run(), _awaited(until))
    finally:
        await notifications.close()
