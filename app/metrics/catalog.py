"""Every number that the service shows at /metrics: its name, its labels, its meaning, and how it is counted.

Owns: the definitions, and their metrics for Prometheus, of the classes of its own client, which nobody imports before
the first scrape. Never: a label without a bound; each has the few values that the code knows (routes, codes, scripts),
and of names, which come from outside, the busiest few.

Counting costs a tenth of what the client's own counters cost on the way of a request: one addition in
app/metrics/metric_values.py.
The numbers are those of all processes that count together (`web --workers`, JOBWIRE_METRICS_FOLDER).
https://prometheus.io/docs/practices/naming/
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from app.metrics.metric_values import VALUES, Series

if TYPE_CHECKING:
    from prometheus_client.core import Metric

REQUEST_BOUNDS_S = (0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
SHORT_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0)
INFINITY = float("inf")


class Instrument:
    """A metric's name, meaning and labels."""

    kind = ""
    """What Prometheus's client calls the class of its metrics, which is imported when somebody asks for them."""

    slots = 1
    live_only = False

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self.name = f"jobwire_{name}"
        self.meaning = meaning
        self.labels = labels
        self._first_slots: dict[tuple[str, ...], int] = {}
        INSTRUMENTS.append(self)
        if not labels and self.slots:
            self.slot_of(())

    def slot_of(self, labels: tuple[str, ...]) -> int:
        """The first slot of these label values, which are given theirs when they are first counted."""
        slot = self._first_slots.get(labels)
        if slot is None:
            series = Series(self.name, labels)
            slot = self._first_slots[labels] = VALUES.allot_slots(series, self.slots, live_only=self.live_only)
        return slot

    def family(self) -> "Metric":
        """The metric without its samples, as Prometheus's client has it."""
        family: Metric = getattr(import_module("prometheus_client.core"), self.kind)(
            self.name, self.meaning, labels=self.labels
        )
        return family

    def add_samples(self, family: Any, labels: tuple[str, ...], numbers: Sequence[float]) -> None:
        """Add the samples of one set of label values."""
        family.add_metric(labels, numbers[0])


INSTRUMENTS: list[Instrument] = []


class Counter(Instrument):
    """What only grows."""

    kind = "CounterMetricFamily"

    def inc(self, *labels: str, by: float = 1.0) -> None:
        """Count."""
        VALUES.cells[self.slot_of(labels)] += by


class Gauge(Instrument):
    """What is so at the moment, over all living processes."""

    kind = "GaugeMetricFamily"
    live_only = True

    def add(self, by: float, *labels: str) -> None:
        """It is so many more, or fewer."""
        VALUES.cells[self.slot_of(labels)] += by


class ObservableGauge(Instrument):
    """What is read elsewhere at the moment when somebody asks."""

    kind = "GaugeMetricFamily"
    slots = 0


class Reading(NamedTuple):
    """What was read for one set of label values."""

    gauge: ObservableGauge
    labels: tuple[str, ...]
    number: float


class Histogram(Instrument):
    """How long things took: counts by upper bound in seconds, and their sum."""

    kind = "HistogramMetricFamily"

    def __init__(self, name: str, meaning: str, *labels: str, bounds_s: Sequence[float]) -> None:
        self.bounds_s = tuple(bounds_s)
        self.slots = len(self.bounds_s) + 2
        super().__init__(name, meaning, *labels)

    def observe(self, seconds: float, *labels: str) -> None:
        """One thing took that long."""
        self.observe_at(self.slot_of(labels), seconds)

    def observe_at(self, slot: int, seconds: float) -> None:
        """As observe, for who knows the first slot already."""
        cells = VALUES.cells
        cells[slot + bisect_left(self.bounds_s, seconds)] += 1.0
        cells[slot + self.slots - 1] += seconds

    def add_samples(self, family: Any, labels: tuple[str, ...], numbers: Sequence[float]) -> None:
        buckets, so_far = [], 0.0
        for bound, count in zip((*self.bounds_s, INFINITY), numbers, strict=False):
            so_far += count
            buckets.append(("+Inf" if bound == INFINITY else repr(bound), so_far))
        family.add_metric(labels, buckets, numbers[-1])


REQUESTS = Counter("requests", "Requests to the API that were answered.", "route", "method", "status")
REQUEST_SECONDS = Histogram(
    "request_seconds",
    "Time from the head of a request to the head of its answer; for a poll with waitSeconds the wait is included.",
    "route",
    "method",
    bounds_s=REQUEST_BOUNDS_S,
)
REFUSALS = Counter("refusals", "Requests refused, by the code of the error.", "code")
LIMITS_HIT = Counter("limits_hit", "Times that something was over a limit, by the limit's name.", "limit")
BUGS = Counter("bugs", "Requests that ended in 500: a bug.")
PARKED_POLLS = Gauge("parked_polls", "Parked polls: polls that wait for a job.")
INFLIGHT_BYTES = Gauge(
    "inflight_bytes", "Bytes of bodies that are read or processed, and of answers that clients have not read yet."
)
STALLED_CONNECTIONS = Counter(
    "stalled_connections", "Connections closed because nothing moved for too long: head, body or answer.", "what"
)
ACCEPT_PAUSES = Counter("accept_pauses", "Times that new connections had to wait because too few files were left.")
SCRIPT_SECONDS = Histogram(
    "script_seconds",
    "Time of a call of a Lua script, with the way to Redis and back.",
    "script",
    bounds_s=SHORT_BOUNDS_S,
)
TRANSITIONS = Counter("transitions", "Changes of jobs, by their event.", "event")
LEASE_EXPIRIES = Counter("lease_expiries", "Leases that ended without a call, by what became of the job.", "outcome")
LOG_LINES = Counter("log_lines", "Log lines stored.")
LOG_BYTES = Counter("log_bytes", "Bytes of log lines stored, before compression.")
SEALED_LINES = Counter("sealed_lines", "Log lines that were sealed into blocks.")
SEALED_BYTES = Counter(
    "sealed_bytes", "Bytes of sealed lines, by form: stored (before sealing), packed (after).", "form"
)
CALLBACK_TRIES = Counter(
    "callback_tries", "Tries of callbacks, by outcome: sent, failed (tried again), given_up.", "outcome"
)
STREAMS_OPEN = Gauge("streams_open", "Viewers that are connected, of jobs and of spaces.", "kind")
STREAM_FRAMES = Counter("stream_frames", "Frames written to viewers.")
SLOW_READERS = Counter(
    "slow_readers", "Times that a viewer read more slowly than frames came, and had to catch up from Redis."
)
STILL_READERS = Counter("still_readers", "Viewers that were closed because they read nothing for too long.")
HOLES_REPAIRED = Counter("holes_repaired", "Times that a hint was lost and Redis was read instead.")
HINT_LAG_SECONDS = Histogram(
    "hint_lag_seconds", "Time from a PUBLISH to its message, measured once a second.", bounds_s=SHORT_BOUNDS_S
)
REDIS_ROUND_TRIP_SECONDS = Histogram(
    "redis_round_trip_seconds",
    "Time that a TIME command takes to Redis and back, measured once a second.",
    bounds_s=SHORT_BOUNDS_S,
)
EVENT_LOOP_LAG_SECONDS = Histogram(
    "event_loop_lag_seconds", "How late a timer of the event loop fires.", bounds_s=SHORT_BOUNDS_S
)

JOBS = ObservableGauge("jobs", "Jobs of all spaces.", "status")
SPACES = ObservableGauge("spaces", "Spaces.")
QUEUE_AGE_SECONDS = ObservableGauge("queue_age_seconds", "How long the oldest pending job has been pending.")
CALLBACKS_WAITING = ObservableGauge("callbacks_waiting", "Callbacks that wait for their next try.")
ENDED_JOBS = ObservableGauge(
    "ended_jobs", "Jobs that ended in this hour and the one before, for the 20 busiest names.", "name", "outcome"
)
JOB_DURATION_SECONDS = ObservableGauge(
    "job_duration_seconds",
    "Duration that this share (0.5, 0.95) of those completed jobs did not exceed.",
    "name",
    "quantile",
)
REDIS_UP = ObservableGauge("redis_up", "1 while this process has a connection to Redis.")
REDIS_MEMORY_BYTES = ObservableGauge("redis_memory_bytes", "Memory that Redis uses, and its limit (0: none).", "kind")
SHARD_UP = ObservableGauge("shard_up", "1 while this process has a connection to the cluster's primary.", "server")
SHARD_OK = ObservableGauge(
    "shard_ok", "1 while nothing is wrong with the cluster's primary, as /readyz has it.", "server"
)
SHARD_DEAF = ObservableGauge("shard_deaf", "1 while no message comes back from the cluster's primary.", "server")
SHARD_SLOTS = ObservableGauge("shard_slots", "Slots that the cluster's primary has.", "server")
SHARD_CONNECTIONS = ObservableGauge("shard_connections", "Connections that the cluster's primary has.", "server")
SHARD_MEMORY_BYTES = ObservableGauge(
    "shard_memory_bytes", "Memory that the cluster's primary uses, and its limit (0: none).", "server", "kind"
)
SHARD_REDIRECTIONS = Counter(
    "shard_redirections",
    "Commands that a node of the cluster did not run, by its answer: MOVED, ASK, TRYAGAIN, CLUSTERDOWN.",
    "server",
    "answer",
)
SERVERS_MOST = 200
"""Addresses of nodes that are counted by themselves by one process."""

OTHER_SERVERS = "others"
_counted_servers: set[str] = set()
OVERVIEW_AGE_SECONDS = ObservableGauge("overview_age_seconds", "How old the numbers over all spaces are.")


def collect_metrics(readings: Iterable[Reading]) -> "Iterator[Metric]":
    """Every metric with the numbers of all processes that count together, and with what was read elsewhere."""
    families = {instrument.name: (instrument, instrument.family()) for instrument in INSTRUMENTS}
    for reading in readings:
        reading.gauge.add_samples(families[reading.gauge.name][1], reading.labels, (reading.number,))
    for series, numbers in sorted(VALUES.sum_all().items()):
        if series.metric in families:
            instrument, family = families[series.metric]
            instrument.add_samples(family, series.labels, numbers)
    for _, family in families.values():
        yield family


class RouteCounts:
    """The requests to one path; its slots are looked up once, for this is counted most."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._slots: dict[tuple[str, int], tuple[int, int]] = {}

    def count(self, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        slots = self._slots.get((method, status))
        if slots is None:
            request = REQUEST_SECONDS.slot_of((self._path, method))
            slots = self._slots[method, status] = (REQUESTS.slot_of((self._path, method, str(status))), request)
        VALUES.cells[slots[0]] += 1.0
        REQUEST_SECONDS.observe_at(slots[1], seconds)


def count_transitions(event: str, count: int = 1) -> None:
    """So many jobs changed, and this event tells of it."""
    if count:
        TRANSITIONS.inc(event, by=count)


def count_lease_expiries(outcome: str, count: int) -> None:
    """So many leases ended, with this event of their jobs."""
    if count:
        count_transitions(outcome, count)
        LEASE_EXPIRIES.inc(outcome, by=count)


def count_redirection(server: str, answer: str) -> None:
    """A node did not run a command."""
    if server not in _counted_servers:
        if len(_counted_servers) >= SERVERS_MOST:
            server = OTHER_SERVERS
        else:
            _counted_servers.add(server)
    SHARD_REDIRECTIONS.inc(server, answer)


def count_refusal(code: str, limits: Iterable[str]) -> None:
    """A request was refused; `limits` are the names of the limits that it went over."""
    REFUSALS.inc(code)
    for name in limits:
        LIMITS_HIT.inc(name)
