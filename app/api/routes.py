"""Which path leads where. The paths that are called most come first: Starlette tries one route after the other."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from app.api.admission import Gate
from app.api.asyncapi import asyncapi_document
from app.api.call_batches import CallBatches
from app.api.callback_retry import CallbackHandlers
from app.api.error_answers import not_found_answer
from app.api.fast_path import Application, find_fast_paths
from app.api.health import Document, Health
from app.api.job_management import ProducerHandlers
from app.api.job_reads import ReaderHandlers
from app.api.logs import LogHandlers
from app.api.method_dispatch import Action, Resource
from app.api.metrics import Metrics
from app.api.openapi import openapi_document
from app.api.space_settings import SpaceSettingsHandlers
from app.api.space_stats import StatsHandlers
from app.api.spaces_and_keys import AdminHandlers
from app.api.static_files import static_files
from app.api.streams import Streams, deny_upgrade
from app.api.ticket_exchange import TicketExchange
from app.api.worker_calls import WorkerHandlers
from app.api.worker_verbs import WORKER_VERBS
from app.jobs.keys_and_scopes import ANY_KEY, ROOT, Keyring
from app.jobs.rate_limit import Rate
from app.jobs.tickets import Tickets
from app.metrics import catalog

if TYPE_CHECKING:
    from app.backend import Backend

BASE = "/api/v1"


class Handlers:
    """The handlers of a process, by audience, and the gate before them."""

    def __init__(self, backend: "Backend", keyring: Keyring, rate: Rate) -> None:
        self.public_url = backend.settings.public_url.rstrip("/")
        self.gate = Gate(keyring, rate, backend.store.space_of, backend.spaces.exists, backend.settings)
        self.producer = ProducerHandlers(backend.store, backend.bulk_retries, backend.deletion, backend.settings)
        self.worker = WorkerHandlers(backend.store, backend.long_polls)
        self.call_batches = CallBatches(backend.store)
        self.reader = ReaderHandlers(backend.store, backend.cursors, backend.settings)
        self.admin = AdminHandlers(backend.spaces)
        self.stats = StatsHandlers(backend.ends)
        self.callbacks = CallbackHandlers(backend.store)
        self.space_settings = SpaceSettingsHandlers(backend.spaces, backend.settings)
        self.logs = LogHandlers(backend.logs)
        self.health = Health(backend)
        self.tickets = Tickets(backend.control, backend.keys)
        self.metrics = Metrics(backend.service_gauges)
        self.streams = Streams(backend.viewers, self.gate, backend.settings)


def route_table(handlers: Handlers) -> dict[str, dict[str, Action]]:
    """Every path below the base, and its methods: what docs/api.md lists."""
    producer, worker, reader, admin, logs = (
        handlers.producer,
        handlers.worker,
        handlers.reader,
        handlers.admin,
        handlers.logs,
    )

    def worker_action(name: str) -> Action:
        return Action(WORKER_VERBS[name].scope, worker.call(WORKER_VERBS[name]))

    return {
        "/jobs/{job_id}/logs": {
            "POST": Action("jobs:event", logs.append),
            "GET": Action("jobs:read", logs.read),
        },
        "/jobs/{job_id}/progress": {
            "POST": worker_action("progress"),
            "GET": Action("jobs:read:progress", reader.progress),
        },
        "/jobs/{job_id}/keepalive": {"POST": worker_action("keepalive")},
        "/jobs/{job_id}/claim": {"POST": Action("jobs:poll", worker.claim)},
        "/jobs/{job_id}/ack": {"POST": worker_action("ack")},
        "/jobs/{job_id}/checkpoint": {"POST": worker_action("checkpoint")},
        "/jobs/{job_id}/event": {"POST": worker_action("event")},
        "/jobs/{job_id}/complete": {"POST": worker_action("complete")},
        "/jobs/{job_id}/fail": {"POST": worker_action("fail")},
        "/jobs/{job_id}/release": {"POST": worker_action("release")},
        "/jobs/{job_id}/kill": {"POST": Action("jobs:kill", producer.kill)},
        "/jobs/{job_id}/retry": {"POST": Action("jobs:retry", producer.retry)},
        "/jobs/{job_id}/events": {"GET": Action("jobs:read", reader.events)},
        "/spaces/{space_id}/calls": {"POST": Action(ANY_KEY, handlers.call_batches.calls)},
        "/spaces/{space_id}/jobs/poll": {"POST": Action("jobs:poll", worker.poll)},
        "/spaces/{space_id}/jobs/retry": {"POST": Action("jobs:retry", producer.bulk_retry)},
        "/spaces/{space_id}/jobs": {
            "POST": Action("jobs:create", producer.create),
            "GET": Action("jobs:read", reader.list),
        },
        "/jobs/{job_id}": {"GET": Action("jobs:read", reader.get), "DELETE": Action(ROOT, producer.delete)},
        "/spaces": {"POST": Action(ROOT, admin.create_space), "GET": Action(ROOT, admin.list_spaces)},
        "/jobs/{job_id}/callback/retry": {"POST": Action("jobs:retry", handlers.callbacks.retry)},
        "/spaces/{space_id}": {
            "GET": Action(ROOT, admin.get_space),
            "PATCH": Action(ROOT, handlers.space_settings.patch),
            "DELETE": Action(ROOT, admin.delete_space),
        },
        "/spaces/{space_id}/stats": {"GET": Action("jobs:read", handlers.stats.of_space)},
        "/spaces/{space_id}/tokens": {
            "POST": Action(ROOT, admin.create_token),
            "GET": Action(ROOT, admin.list_tokens),
        },
        "/spaces/{space_id}/tokens/{token_id}": {"DELETE": Action(ROOT, admin.revoke_token)},
        "/whoami": {"GET": Action(ANY_KEY, admin.whoami)},
    }


def add_routes(app: Application, handlers: Handlers) -> None:
    """Put every path on the application, and make everything else a `not_found` in JSON."""
    app.router.redirect_slashes = False
    app.router.default = answer_not_found
    resources = {path: Resource(handlers.gate, path, actions) for path, actions in route_table(handlers).items()}
    app.base, app.fast_paths = f"{BASE}/", find_fast_paths(resources)
    app.router.routes.extend(Route(BASE + path, resource) for path, resource in resources.items())
    for path, stream in handlers.streams.paths().items():
        app.router.routes += [Route(BASE + path, stream), WebSocketRoute(BASE + path, stream)]
    for path, endpoint in handlers.health.paths().items():
        app.router.routes.append(Route(path, endpoint))
    app.router.routes.append(Route("/tickets/exchange", TicketExchange(handlers.tickets)))
    app.router.routes.append(Route("/metrics", handlers.metrics))
    app.router.routes.append(
        Route("/openapi.json", Document(lambda: openapi_document(route_table(handlers), handlers.public_url + BASE)))
    )
    app.router.routes.append(
        Route("/asyncapi.json", Document(lambda: asyncapi_document(urlsplit(handlers.public_url).path + BASE)))
    )
    files = static_files()
    app.router.routes.append(Route("/", files.page("index.html")))
    for name in ("jobwire.js", "jobwire.d.ts"):
        app.router.routes.append(Route(f"/{name}", files.page(name)))
    app.router.routes.append(Route("/docs", files.page("docs.html")))
    app.router.routes.append(Route("/static/{name}", files))


async def answer_not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer of a path that does not exist; to a WebSocket, before the upgrade."""
    if scope["type"] == "websocket":
        await receive()
        await not_found_answer().send(deny_upgrade(send))
    elif scope["type"] == "http":
        catalog.count_refusal("not_found", ())
        await not_found_answer().send(send)
