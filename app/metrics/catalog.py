"""Every number that the service shows at /metrics: its name, its labels, its meaning, and how it is counted.

Owns: the definitions, and their text for Prometheus, made with its own client. Never: a label without a bound; each has
the few values that the code knows (routes, codes, scripts), and of names, which come from outside, the busiest few.

Counting costs a tenth of what the client's own counters cost on the way of a request: one addition in
app/metrics/metric_values.py.
The numbers are those of all processes that count together (`web --workers`, JOBWIRE_METRICS_FOLDER).
https://prometheus.io/docs/practices/naming/
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from app.metrics.metric_values import TALLY, Series

REQUEST_S = (0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0)
SHORT_S = (0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0)
INFINITY = float("inf")


class Measure:
    """A metric's name, meaning and labels."""

    slots = 1
    passes = False

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self.name = f"jobwire_{name}"
        self.meaning = meaning
        self.labels = labels
        self._at: dict[tuple[str, ...], int] = {}
        MEASURES.append(self)
        if not labels and self.slots:
            self.at(())

    def at(self, labels: tuple[str, ...]) -> int:
        """Where the numbers of these label values are."""
        at = self._at.get(labels)
        if at is None:
            at = self._at[labels] = TALLY.allot(Series(self.name, labels), self.slots, passes=self.passes)
        return at

    def family(self) -> Metric:
        """The metric without its samples, as Prometheus's client has it."""
        raise TypeError(f"{type(self).__name__} is no kind of metric")

    def put(self, family: Any, labels: tuple[str, ...], numbers: Sequence[float]) -> None:
        """Add the samples of one set of label values."""
        family.add_metric(labels, numbers[0])


MEASURES: list[Measure] = []


class Counter(Measure):
    """What only grows."""

    def inc(self, *labels: str, by: float = 1.0) -> None:
        """Count."""
        TALLY.cells[self.at(labels)] += by

    def family(self) -> Metric:
        return CounterMetricFamily(self.name, self.meaning, labels=self.labels)


class Gauge(Measure):
    """What is so at the moment, over all living processes."""

    passes = True

    def add(self, by: float, *labels: str) -> None:
        """It is so many more, or fewer."""
        TALLY.cells[self.at(labels)] += by

    def family(self) -> Metric:
        return GaugeMetricFamily(self.name, self.meaning, labels=self.labels)


class Shown(Measure):
    """What is read elsewhere at the moment when somebody asks."""

    slots = 0

    def family(self) -> Metric:
        return GaugeMetricFamily(self.name, self.meaning, labels=self.labels)


class Reading(NamedTuple):
    """What was read for one set of label values."""

    measure: Shown
    labels: tuple[str, ...]
    number: float


class Histogram(Measure):
    """How long things took: counts by upper bound in seconds, and their sum."""

    def __init__(self, name: str, meaning: str, *labels: str, bounds_s: Sequence[float]) -> None:
        self.bounds_s = tuple(bounds_s)
        self.slots = len(self.bounds_s) + 2
        super().__init__(name, meaning, *labels)

    def observe(self, seconds: float, *labels: str) -> None:
        """One thing took that long."""
        self.note(self.at(labels), seconds)

    def note(self, at: int, seconds: float) -> None:
        """As observe, for who knows the place already."""
        cells = TALLY.cells
        cells[at + bisect_left(self.bounds_s, seconds)] += 1.0
        cells[at + self.slots - 1] += seconds

    def family(self) -> Metric:
        return HistogramMetricFamily(self.name, self.meaning, labels=self.labels)

    def put(self, family: Any, labels: tuple[str, ...], numbers: Sequence[float]) -> None:
        buckets, so_far = [], 0.0
        for bound, count in zip((*self.bounds_s, INFINITY), numbers, strict=False):
            so_far += count
            buckets.append(("+Inf" if bound == INFINITY else repr(bound), so_far))
        family.add_metric(labels, buckets, numbers[-1])


REQUESTS = Counter("requests", "Requests to the API that were answered.", "route", "method", "status")
REQUEST = Histogram(
    "request_seconds",
    "Time from the head of a request to the head of its answer; for a poll with waitSeconds the wait is included.",
    "route",
    "method",
    bounds_s=REQUEST_S,
)
REFUSALS = Counter("refusals", "Requests refused, by the code of the error.", "code")
LIMITS = Counter("limits_hit", "Times that something was over a limit, by the limit's name.", "limit")
BUGS = Counter("bugs", "Requests that ended in 500: a bug.")
PARKED = Gauge("parked_polls", "Parked polls: polls that wait for a job.")
INFLIGHT = Gauge(
    "inflight_bytes", "Bytes of bodies that are read or processed, and of answers that clients have not read yet."
)
STALLED = Counter(
    "stalled_connections", "Connections closed because nothing moved for too long: head, body or answer.", "what"
)
ACCEPT_PAUSES = Counter("accept_pauses", "Times that new connections had to wait because too few files were left.")
SCRIPT = Histogram(
    "script_seconds", "Time of a call of a Lua script, with the way to Redis and back.", "script", bounds_s=SHORT_S
)
TRANSITIONS = Counter("transitions", "Changes of jobs, by their event.", "event")
EXPIRIES = Counter("lease_expiries", "Leases that ended without a call, by what became of the job.", "outcome")
LOG_LINES = Counter("log_lines", "Log lines stored.")
LOG_BYTES = Counter("log_bytes", "Bytes of log lines stored, before compression.")
SEALED_LINES = Counter("sealed_lines", "Log lines that were sealed into blocks.")
SEALED_BYTES = Counter(
    "sealed_bytes", "Bytes of sealed lines, by form: stored (before sealing), packed (after).", "form"
)
CALLBACKS = Counter(
    "callback_tries", "Tries of callbacks, by outcome: sent, failed (tried again), given_up.", "outcome"
)
STREAMS = Gauge("streams_open", "Viewers that are connected, of jobs and of spaces.", "kind")
FRAMES = Counter("stream_frames", "Frames written to viewers.")
SLOW_READERS = Counter(
    "slow_readers", "Times that a viewer read more slowly than frames came, and had to catch up from Redis."
)
STILL_READERS = Counter("still_readers", "Viewers that were closed because they read nothing for too long.")
HOLES = Counter("holes_repaired", "Times that a hint was lost and Redis was read instead.")
HINT_LAG = Histogram(
    "hint_lag_seconds", "Time from a PUBLISH to its message, measured once a second.", bounds_s=SHORT_S
)
ROUND_TRIP = Histogram(
    "redis_round_trip_seconds",
    "Time that a TIME command takes to Redis and back, measured once a second.",
    bounds_s=SHORT_S,
)
LOOP_LAG = Histogram("event_loop_lag_seconds", "How late a timer of the event loop fires.", bounds_s=SHORT_S)

JOBS = Shown("jobs", "Jobs of all spaces.", "status")
SPACES = Shown("spaces", "Spaces.")
QUEUE_AGE = Shown("queue_age_seconds", "How long the oldest pending job has been pending.")
CALLBACKS_WAITING = Shown("callbacks_waiting", "Callbacks that wait for their next try.")
ENDED = Shown(
    "ended_jobs", "Jobs that ended in this hour and the one before, for the 20 busiest names.", "name", "outcome"
)
DURATION = Shown(
    "job_duration_seconds",
    "Duration that this share (0.5, 0.95) of those completed jobs did not exceed.",
    "name",
    "quantile",
)
REDIS_UP = Shown("redis_up", "1 while this process has a connection to Redis.")
REDIS_MEMORY = Shown("redis_memory_bytes", "Memory that Redis uses, and its limit (0: none).", "kind")
OVERVIEW_AGE = Shown("overview_age_seconds", "How old the numbers over all spaces are.")


def samples(readings: Iterable[Reading]) -> Iterator[Metric]:
    """Every metric with the numbers of all processes that count together, and with what was read elsewhere."""
    families = {measure.name: (measure, measure.family()) for measure in MEASURES}
    for reading in readings:
        reading.measure.put(families[reading.measure.name][1], reading.labels, (reading.number,))
    for series, numbers in sorted(TALLY.everything().items()):
        if series.metric in families:
            measure, family = families[series.metric]
            measure.put(family, series.labels, numbers)
    for _, family in families.values():
        yield family


class Route:
    """The requests to one path; its places are looked up once, for this is counted most."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._places: dict[tuple[str, int], tuple[int, int]] = {}

    def count(self, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        places = self._places.get((method, status))
        if places is None:
            request = REQUEST.at((self._path, method))
            places = self._places[method, status] = (REQUESTS.at((self._path, method, str(status))), request)
        at, cells = places[1], TALLY.cells
        cells[places[0]] += 1.0
        cells[at + bisect_left(REQUEST_S, seconds)] += 1.0
        cells[at + REQUEST.slots - 1] += seconds


def jobs_changed(event: str, count: int = 1) -> None:
    """So many jobs changed, and this event tells of it."""
    if count:
        TRANSITIONS.inc(event, by=count)


def leases_ended(outcome: str, count: int) -> None:
    """So many leases ended with this event of their jobs."""
    if count:
        jobs_changed(outcome, count)
        EXPIRIES.inc(outcome, by=count)


def refused(code: str, limit: Iterable[str]) -> None:
    """A request was refused; `limit` are the names of the limits that it went over."""
    REFUSALS.inc(code)
    for name in limit:
        LIMITS.inc(name)
