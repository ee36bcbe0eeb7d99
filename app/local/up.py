"""`jobwire up`: everything in one process, for a laptop or a small server."""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from app.backend import Backend
from app.jobs.tickets import Tickets
from app.local.credentials import (
    Credentials,
    create_missing_keys,
    load_credentials,
    save_credentials,
    set_damaged_aside,
)
from app.local.embedded_valkey import EmbeddedServer
from app.loop.background import Background
from app.main import build_web, run_callbacks, run_sweeper
from app.model.errors import Outage, unavailable
from app.redis_links.server_advice import advise
from app.serve import address_of, open_listening_socket, serve
from app.settings import Settings

READY_S = 30.0

Announce = Callable[[Credentials, str], None]


async def up(settings: Settings, data: Path, host: str, port: int, announce: Announce) -> None:
    """Serve until a signal; `announce` is called when requests are answered, with a ticket for the page.

    Raises EmbeddedError, CredentialsError, Outage (Redis does not come up), OSError (the address is taken).
    """
    credentials, damaged = load_credentials(data, settings.root_key)
    settings = replace(settings, root_key=credentials.root_key)
    with contextlib.closing(open_listening_socket(host, port)) as sock, contextlib.ExitStack() as stack:
        supervise = None
        if not settings.redis_url:
            valkey = EmbeddedServer(data, appendfsync=settings.appendfsync, maxmemory_bytes=settings.maxmemory_bytes)
            await asyncio.to_thread(stack.enter_context, valkey)
            settings = replace(settings, redis_url=valkey.url)
            supervise = valkey.supervise
        credentials.url, credentials.public_url = address_of(sock), settings.public_url or msgspec.UNSET
        backend = Backend(settings)

        async def announce_ready() -> None:
            await until_ready(backend)
            await create_missing_keys(credentials, backend.spaces, damaged=damaged)
            if damaged:
                set_damaged_aside(data, credentials)
            save_credentials(data, credentials)
            announce(credentials, await Tickets(backend.control, backend.keys).issue(credentials.root_key))

        async with Background() as background:
            if supervise is not None:
                background.start(supervise(), "embedded-valkey")
            background.start(run_callbacks(settings, forever), "callbacks")
            beside = (partial(run_sweeper, backend, forever), partial(advise, backend.control))
            await serve(build_web(backend, *beside), sock, announce_ready)


async def until_ready(backend: Backend) -> None:
    """Return once Redis can be used. Raises Unavailable with the reason if it cannot be in time."""
    try:
        await backend.control.ready(READY_S)
    except Outage as outage:
        raise unavailable(" ".join([outage.text, *backend.why_away()])) from None


async def forever() -> None:
    """Never return."""
    await asyncio.Event().wait()


async def until_signal() -> None:
    """Return at SIGINT or SIGTERM."""
    signalled = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    await signalled.wait()
