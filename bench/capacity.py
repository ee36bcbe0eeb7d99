"""What a fleet needs: from jobs, lines, viewers and spaces to primaries, memory, web processes and connections.

Owns the model and the costs that it was last given by `python -m bench scale`. Never: measures, or does I/O beside its
command `python -m bench.capacity`. Always: costs add up; what is done to a key costs the primary that has the key.
"""

import argparse
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn


class Cost(NamedTuple):
    """What one unit of work costs: CPU microseconds of a web process and of Redis, and memory of Redis that stays."""

    web_us: float
    redis_us: float
    memory_bytes: float = 0.0


class Demand(NamedTuple):
    """What is asked of a fleet; OPTIONS has what each field means. Lines come 100 in a call.

    Rates are those of the mean, and CPU must do for `peak` times as much. Lines and viewers are spread evenly over the
    running jobs: each viewer is told of the lines of one.
    """

    jobs_per_s: float
    lines_per_s: float
    peak: float = 1.0
    line_bytes: float = 120.0
    progress: float = 2.0
    viewers: int = 0
    spaces: int = 100
    running_jobs: int = 1000
    retention_s: float = 7 * 86_400.0


class Need(NamedTuple):
    """What a fleet must have.

    `busiest` is the part of its thread that the busiest primary uses, at most LOAD, and `busiest_bytes` what it keeps,
    at most NODE_BYTES. `even` is how many primaries would do if all had equal shares. `connections` are those of the
    web processes.
    """

    redis_cores: float
    web_cores: float
    primaries: int
    even: int
    busiest: float
    busiest_bytes: float
    memory_bytes: float
    web_processes: int
    connections: int


JOB = ("create", "poll", "complete")
"""What happens to every job once."""

LOAD = 0.6
"""How much of a core may be used in the mean: the rest is for peaks, a failover's work, and rewriting files."""

NODE_BYTES = 32 * 2**30
"""Memory of a primary that may be filled; more takes long to load and to copy to a replica."""

MOST = 1 << 40
"""More primaries than any demand that fits on some number of them needs."""

UNEVEN = 1.5
"""So many times the primaries that equal shares would need are worth a line of the report."""

LINKS = 4
"""Connections of a process to a primary: calls, bulk, epochs and messages."""

HOT_LINES = 10_000
"""Lines of a running job that are not sealed yet, at most: JOBWIRE_LOG_HOT_LINES."""

SEALED = 0.095
"""Bytes of a sealed line in Redis over those of its JSON, by `python -m bench logs --quick`."""


def total(costs: Mapping[str, Cost], work: Mapping[str, float]) -> Cost:
    """What so many units of each kind of work cost together."""
    each = [(costs[name], units) for name, units in work.items()]
    return Cost(*(sum(cost[at] * units for cost, units in each) for at in range(3)))


def busiest_share(keys: int, primaries: int) -> float:
    """The share of the busiest primary, over an equal share, with so many equally busy keys on random slots.

    In 9 of 10 placements it is at most that: numbers of keys are about normal around their mean, and this is the most
    of `primaries` of them. A key is never on two primaries.
    """
    spread = 1 + math.sqrt(2 * (1 + math.log(primaries)) * (primaries - 1) / keys)
    return min(float(primaries), max(spread, primaries / keys))


def size(demand: Demand, costs: Mapping[str, Cost]) -> Need:
    """The smallest fleet that carries a demand with no thread above LOAD and no primary above NODE_BYTES.

    ValueError if no number of primaries does, for one space and one log are more than a primary can do; it says which.
    """
    spaces, logs = of_spaces(demand, costs), of_logs(demand, costs)
    if too_much := too_much_of_one(spaces, logs, demand):
        raise ValueError(too_much)
    primaries = 1 + bisect_left(range(1, MOST), True, key=lambda count: fits(of_busiest(spaces, logs, demand, count)))
    busiest, whole = of_busiest(spaces, logs, demand, primaries), sum_of(spaces, 1, logs, 1)
    processes = max(1, math.ceil(whole.web_us / 1e6 / LOAD))
    return Need(
        redis_cores=whole.redis_us / 1e6,
        web_cores=whole.web_us / 1e6,
        primaries=primaries,
        even=max(1, math.ceil(filled(whole))),
        busiest=busiest.redis_us / 1e6,
        busiest_bytes=busiest.memory_bytes,
        memory_bytes=whole.memory_bytes,
        web_processes=processes,
        connections=processes * primaries * LINKS,
    )


def too_much_of_one(spaces: Cost, logs: Cost, demand: Demand) -> str | None:
    """Why one primary cannot carry one space, one log, or a space and a log; None if it can."""
    space = sum_of(spaces, 1 / demand.spaces, logs, 0)
    log = sum_of(spaces, 0, logs, 1 / demand.running_jobs)
    if not fits(space):
        return f"one space is more than one primary can do ({load_of(space)}): divide its jobs among more spaces"
    if not fits(log):
        return f"one job's log is more than one primary can do ({load_of(log)}): divide its lines among more jobs"
    both = sum_of(space, 1, log, 1)
    if not fits(both):
        return f"one space and one job's log are more than one primary can do ({load_of(both)}): take more of both"
    return None


def of_spaces(demand: Demand, costs: Mapping[str, Cost]) -> Cost:
    """What the jobs of a second of the peak cost, and the memory of all that are kept: it lies with their spaces."""
    work = dict.fromkeys(JOB, demand.jobs_per_s) | {"progress": demand.jobs_per_s * demand.progress}
    second = total(costs, work)
    return Cost(second.web_us * demand.peak, second.redis_us * demand.peak, second.memory_bytes * demand.retention_s)


def of_logs(demand: Demand, costs: Mapping[str, Cost]) -> Cost:
    """What the lines of a second of the peak cost, and the memory of all that are kept, hot ones and sealed."""
    watched = demand.lines_per_s * demand.viewers / demand.running_jobs
    second = total(costs, {"line": demand.lines_per_s - watched, "watched line": watched})
    hot = min(HOT_LINES, demand.lines_per_s / demand.jobs_per_s) * demand.running_jobs
    sealed = demand.lines_per_s * demand.retention_s * SEALED
    return Cost(second.web_us * demand.peak, second.redis_us * demand.peak, (hot + sealed) * demand.line_bytes)


def sum_of(spaces: Cost, space_share: float, logs: Cost, log_share: float) -> Cost:
    """So much of the one and so much of the other."""
    return Cost(*(space_share * one + log_share * other for one, other in zip(spaces, logs, strict=True)))


def of_busiest(spaces: Cost, logs: Cost, demand: Demand, primaries: int) -> Cost:
    """What comes to the primary that has the most of both."""
    space_share = busiest_share(demand.spaces, primaries) / primaries
    return sum_of(spaces, space_share, logs, busiest_share(demand.running_jobs, primaries) / primaries)


def filled(cost: Cost) -> float:
    """How many primaries it fills at equal shares, by CPU or by memory, whichever takes more."""
    return max(cost.redis_us / (LOAD * 1e6), cost.memory_bytes / NODE_BYTES)


def fits(cost: Cost) -> bool:
    """Whether one primary can do it."""
    return filled(cost) <= 1


def load_of(cost: Cost) -> str:
    """The fuller one of a primary's thread and its memory, in words, with its bound."""
    if cost.memory_bytes / NODE_BYTES >= cost.redis_us / (LOAD * 1e6):
        return f"memory: {cost.memory_bytes / 2**30:,.1f} of {NODE_BYTES / 2**30:.0f} GiB"
    return f"CPU: {cost.redis_us / 1e6:,.2f} of {LOAD} cores"


def jobs_of_one_space(costs: Mapping[str, Cost], progress: float) -> float:
    """Jobs a second that fill the thread of a space's primary up to LOAD, if it does nothing else."""
    work = dict.fromkeys(JOB, 1.0) | {"progress": progress}
    return LOAD * 1e6 / total(costs, work).redis_us


def report(demand: Demand, need: Need) -> list[str]:
    """What a fleet needs, line by line. What decides is the bound that the busiest primary is nearest to."""
    primaries = counted(need.primaries, "primary", "primaries")
    lines = [
        f"Redis        {need.redis_cores:,.2f} cores, {primaries}, the busiest {need.busiest:.0%} busy",
        f"memory       {need.memory_bytes / 2**30:,.1f} GiB in all primaries",
        f"decides      the busiest primary's {load_of(Cost(0, need.busiest * 1e6, need.busiest_bytes))}",
    ]
    if need.primaries >= UNEVEN * need.even:
        few = fewest(demand, need.primaries)
        lines.append(f"spread       {few} are few for so many primaries: at equal shares {need.even:,} would do")
    return [
        *lines,
        f"web          {need.web_cores:,.2f} cores, {counted(need.web_processes, 'process', 'processes')}",
        f"connections  {need.connections:,} of web, {need.connections // need.primaries:,} of them to each primary",
        f"one space    {jobs_of_one_space(MEASURED, demand.progress):,.0f} jobs/s at most",
    ]


def fewest(demand: Demand, primaries: int) -> str:
    """Which of spaces and running jobs burdens the busiest primary more by being few, with its number."""
    spaces, logs = of_spaces(demand, MEASURED), of_logs(demand, MEASURED)
    by_spaces = filled(sum_of(spaces, busiest_share(demand.spaces, primaries) - 1, logs, 0))
    by_jobs = filled(sum_of(spaces, 0, logs, busiest_share(demand.running_jobs, primaries) - 1))
    if by_spaces >= by_jobs:
        return counted(demand.spaces, "space", "spaces")
    return counted(demand.running_jobs, "running job", "running jobs")


def counted(number: int, one: str, many: str) -> str:
    """A number and its noun."""
    return f"{number:,} {one if number == 1 else many}"


class Option(NamedTuple):
    """What a field of Demand means, with its unit, and the least that it may be; `above`: it must be more than that."""

    meaning: str
    least: float = 0.0
    above: bool = False


OPTIONS = {
    "jobs_per_s": Option("jobs that are created a second, in the mean", above=True),
    "lines_per_s": Option("log lines a second, of all jobs together, in the mean"),
    "peak": Option(
        "the busiest minute over the mean, for jobs and for lines; CPU follows it, memory the mean", least=1
    ),
    "line_bytes": Option("bytes of a line's JSON", above=True),
    "progress": Option("progress calls a job"),
    "viewers": Option("people who watch, each the lines of one job; they are spread evenly over the running jobs"),
    "spaces": Option("spaces, equally busy", least=1),
    "running_jobs": Option("jobs that run at once; the lines are spread evenly over them", least=1),
    "retention_s": Option("seconds for which an ended job and its lines are kept"),
}


DESCRIPTION = (
    f"What a fleet needs. No primary fills more than {LOAD} of its thread or {NODE_BYTES >> 30} GiB of memory: "
    "the bound that is reached first decides how many there are."
)


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def number_of(option: Option, kind: type[float]) -> Callable[[str], float]:
    """What reads an option's number, or refuses it with what it must be."""
    bound = f"above {option.least:g}" if option.above else f"of {option.least:g} or more"
    wanted = f"{'a whole number' if kind is int else 'a number'} {bound}"

    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not (option.least < number < math.inf or (number == option.least and not option.above)):
            raise argparse.ArgumentTypeError(f"it must be {wanted}, not {text!r}")
        return number

    return read


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what a fleet needs."""
    parser = Parser(prog="python -m bench.capacity", description=DESCRIPTION, allow_abbrev=False)
    for name, kind in Demand.__annotations__.items():
        usual, option = Demand._field_defaults.get(name), OPTIONS[name]
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=number_of(option, kind),
            default=usual,
            required=usual is None,
            metavar="N",
            help=f"{option.meaning} ({'required' if usual is None else f'default {usual:g}'})",
        )
    demand = Demand(**vars(parser.parse_args(arguments)))
    try:
        need = size(demand, MEASURED)
    except ValueError as error:
        parser.error(str(error))
    print("\n".join(report(demand, need)))


MEASURED = {
    "create": Cost(37.1, 68, 947),
    "poll": Cost(51.5, 126, 582),
    "progress": Cost(291, 112),
    "complete": Cost(483, 298),
    "line": Cost(6.91, 2.29, 113),
    "watched line": Cost(13.8, 3.68),
}
"""Costs of one job, call or line on one primary, as `python -m bench scale` printed them."""


if __name__ == "__main__":
    main()
