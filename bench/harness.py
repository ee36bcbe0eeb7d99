"""How a figure is taken: trials interleaved in rounds, medians, ratios against a ceiling of the same round.

A suite is a module with `TITLE` and `run(rig) -> list[Figure]`. The machine's noise comes and goes: a ratio is
therefore that of one round, and the figure the median of the rounds. Beside each rate stand the CPU microseconds that
one request took from the web process and from Valkey, and the capacity: the rate at which the busier of the two would
fill a core of its own. Neighbours that take turns on the cores disturb the rate, and these hardly.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from bench.load import Client, Load, Outcome
from bench.service import BASE, Service

JSON = "application/json"


class Target(NamedTuple):
    """A bound that a figure shall keep, on its ratio to the ceiling or on its value."""

    bound: float
    at_least: bool = True
    of_ratio: bool = False

    def holds(self, figure: "Figure") -> bool:
        """Whether the figure keeps it."""
        measured = figure.ratio if self.of_ratio else figure.value
        if measured is None:
            return False
        return measured >= self.bound if self.at_least else measured <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:,g}"


class Figure(NamedTuple):
    """One line of the table. `detail` are companions of the value, by a name with their unit."""

    name: str
    value: float
    unit: str
    ratio: float | None = None
    target: Target | None = None
    detail: Mapping[str, float] = {}

    def as_json(self) -> dict[str, Any]:
        """For the file of results."""
        members: dict[str, Any] = {"name": self.name, "value": round(self.value, 4), "unit": self.unit}
        if self.ratio is not None:
            members["ratio"] = round(self.ratio, 4)
        if self.target is not None:
            members["target"] = str(self.target)
            members["holds"] = self.target.holds(self)
        return members | {name: round(value, 4) for name, value in self.detail.items()}


class Trial(NamedTuple):
    """Something to measure again and again: `prepare` makes the load outside of the window.

    `units` are the units of work in one request; `ceiling` is the name of the trial that it is compared with.
    `tidy` forgets jobs and logs after each window.
    """

    name: str
    unit: str
    prepare: Callable[[], Load]
    units: float = 1.0
    ceiling: str = ""
    target: Target | None = None
    tidy: bool = False


class Rig:
    """A running service, a client process, and how long to measure."""

    def __init__(self, service: Service, client: Client, *, quick: bool = False) -> None:
        self.service = service
        self.client = client
        self.quick = quick
        self.rounds = 2 if quick else 7
        self.seconds = 0.4 if quick else 1.0

    def request(self, path: str, body: bytes = b"", token: str = "", *, kind: str = JSON) -> bytes:
        """The bytes of a POST below the base path, with the worker's key."""
        return post(BASE + path, self.service.worker_key, body, token, kind=kind)

    def interleave(self, trials: Sequence[Trial]) -> list[Figure]:
        """Run the trials one after the other, round by round; RuntimeError when a request was refused."""
        samples: dict[str, list[_Sample]] = {trial.name: [] for trial in trials}
        for _ in range(self.rounds):
            for trial in trials:
                samples[trial.name].append(self._sample(trial))
        return [_figure(trial, samples) for trial in trials]

    def _sample(self, trial: Trial) -> "_Sample":
        load = trial.prepare()._replace(seconds=self.seconds)
        before, echo_s = self.service.cpu(), self.service.echo_cpu_s()
        outcome = self.client.run(load)
        after, echo_s = self.service.cpu(), self.service.echo_cpu_s() - echo_s
        if outcome.refused:
            raise RuntimeError(f"{trial.name}: {outcome.refused} refused, one with {outcome.refusal!r}")
        if trial.tidy:
            self.service.tidy()
        share = outcome.seconds / (outcome.seconds + load.warm_s) / max(1, outcome.requests) * 1e6
        web_us = (after.web_s - before.web_s + echo_s) * share
        valkey_us = (after.valkey_s - before.valkey_s) * share
        capacity = trial.units * 1e6 / max(web_us, valkey_us)
        return _Sample(outcome, outcome.rate * trial.units, web_us, valkey_us, capacity)


class _Sample(NamedTuple):
    """One window. `capacity` is the rate at which the busier process would have a core of its own full."""

    outcome: Outcome
    rate: float
    web_us: float
    valkey_us: float
    capacity: float


def _figure(trial: Trial, samples: Mapping[str, Sequence[_Sample]]) -> Figure:
    ours = samples[trial.name]
    ratio = None
    detail = {"capacity": median(sample.capacity for sample in ours)}
    if trial.ceiling:
        pairs = tuple(zip(ours, samples[trial.ceiling], strict=True))
        ratio = median(own.rate / its.rate for own, its in pairs)
        detail["capacity_ratio"] = median(own.capacity / its.capacity for own, its in pairs)
    detail |= {
        "web_us": median(sample.web_us for sample in ours),
        "valkey_us": median(sample.valkey_us for sample in ours),
        "client_us": median(sample.outcome.client_cpu_s / max(1, sample.outcome.requests) * 1e6 for sample in ours),
        "p50_ms": median(sample.outcome.p50_ms for sample in ours),
        "p99_ms": median(sample.outcome.p99_ms for sample in ours),
    }
    return Figure(trial.name, median(sample.rate for sample in ours), trial.unit, ratio, trial.target, detail)


def post(path: str, key: str, body: bytes = b"", token: str = "", *, kind: str = JSON, more: str = "") -> bytes:
    """The bytes of a POST as a small HTTP client would send it; `more` is a further header line."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"x-api-key: {key}"]
    if body:
        lines.append(f"content-type: {kind}")
    if token:
        lines.append(f"x-lease-token: {token}")
    if more:
        lines.append(more)
    lines += [f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def body_of(answer: bytes) -> bytes:
    """The body of an HTTP answer."""
    return answer[answer.index(b"\r\n\r\n") + 4 :]


def table(title: str, figures: Sequence[Figure]) -> str:
    """The figures as text for a terminal."""
    head = ("", "measured", "of ceiling", "target", "", "p99 ms", "web us", "valkey us", "capacity", "of ceiling's")
    rows = [head, *(_row(figure) for figure in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(row)) for row in rows]
    return "\n".join([title, *(line.rstrip() for line in lines)])


def _row(figure: Figure) -> tuple[str, ...]:
    value = f"{figure.value:,.0f}" if figure.value >= 1000 else f"{figure.value:,.3g}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.3f}"
    target = "" if figure.target is None else str(figure.target)
    verdict = "" if figure.target is None else "ok" if figure.target.holds(figure) else "MISSED"
    cells = (_cell(figure.detail.get(name), form) for name, form in COMPANIONS.items())
    return (figure.name, f"{value} {figure.unit}", ratio, target, verdict, *cells)


COMPANIONS = {"p99_ms": ",.1f", "web_us": ",.1f", "valkey_us": ",.1f", "capacity": ",.0f", "capacity_ratio": ".3f"}
"""Details that the table shows, and how."""


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
