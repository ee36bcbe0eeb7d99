"""GET /metrics: what this process counted, and all that count together with it. Without a key, as probes are.

The text is made in app/metrics/exposition.py, which is imported at the first scrape, with Prometheus's client: in a
thread, for that takes some ten milliseconds.
"""

import asyncio
from collections.abc import Callable, Iterable

from starlette.types import Receive, Scope, Send

from app.api.error_answers import READ_METHODS, method_refused_answer
from app.jobs.service_gauges import ServiceGauges
from app.metrics.catalog import Reading


class Metrics:
    """The application behind /metrics."""

    def __init__(self, service_gauges: ServiceGauges) -> None:
        self._service_gauges = service_gauges

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await method_refused_answer(READ_METHODS).send(send)
            return
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        metrics_text = await asyncio.to_thread(_metrics_text)
        body, media_type = metrics_text(await self._service_gauges.collect(), accept)
        headers = [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _metrics_text() -> Callable[[Iterable[Reading], str], tuple[bytes, str]]:
    from app.metrics.exposition import metrics_text  # noqa: PLC0415  # a server that nobody scrapes starts without it

    return metrics_text
