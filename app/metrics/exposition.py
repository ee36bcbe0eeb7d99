"""All numbers in Prometheus's words: what is asked for at /metrics, and at the port of a process without HTTP.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable

from prometheus_client import ProcessCollector, start_http_server
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app.metrics import catalog
from app.metrics.catalog import Reading
from app.metrics.metric_values import VALUES


class AllMetrics(Collector):
    """All metrics with their numbers of this moment; those of the process itself only where it counts alone."""

    def __init__(self, readings: Iterable[Reading] = ()) -> None:
        self._readings = tuple(readings)

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        yield from catalog.collect_metrics(self._readings)
        if not VALUES.is_shared:
            yield from _PROCESS.collect()


_PROCESS = ProcessCollector(registry=None)


def metrics_text(readings: Iterable[Reading], accept: str) -> tuple[bytes, str]:
    """The text of /metrics in the format that an Accept header prefers, and its media type."""
    encode, media_type = choose_encoder(accept)
    return encode(AllMetrics(readings)), media_type


def serve_metrics(address: str) -> None:
    """Answer at HOST:PORT, or at PORT of this machine alone, from a thread of its own. ValueError, OSError."""
    host, _, port = address.rpartition(":")
    start_http_server(int(port), host or "127.0.0.1", registry=AllMetrics())
