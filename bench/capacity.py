"""What a fleet needs: from jobs, lines, viewers and spaces to primaries, memory, web processes and connections.

Owns the model and the costs that it was last given by `python -m bench scale`. Never: measures, or does I/O beside its
command `python -m bench.capacity`. Always: costs add up; what is done to a key costs the primary that has the key.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Cost(NamedTuple):
    """What one unit of work costs: CPU microseconds of a web process and of Redis, and memory of Redis that stays."""

    web_us: float
    redis_us: float
    memory_bytes: float = 0.0


class Demand(NamedTuple):
    """What is asked of a fleet. A viewer is told of all lines of one job, a job has `progress` calls.

    Rates are those of the mean, and `peak` is the busiest minute over it: CPU must do for that one. `retention_s` is
    how long an ended job and its lines are kept. Lines come 100 in a call.
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
    """What a fleet must have. `busiest` is the part of its thread that the busiest primary uses, at most `LOAD`."""

    redis_cores: float
    web_cores: float
    primaries: int
    busiest: float
    memory_bytes: float
    web_processes: int
    connections: int


JOB = ("create", "poll", "complete")
"""What happens to every job once."""

LOAD = 0.6
"""How much of a core may be used in the mean: the rest is for peaks, a failover's work, and rewriting files."""

NODE_BYTES = 32 * 2**30
"""Memory of a primary that may be filled; more takes long to load and to copy to a replica."""

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

    ValueError if no number of primaries does, for one space and one log are more than a primary can do.
    """
    spaces, logs = of_spaces(demand, costs), of_logs(demand, costs)
    if not fits(sum_of(spaces, 1 / demand.spaces, logs, 1 / demand.running_jobs)):
        raise ValueError("one space is more than one primary can do: divide its jobs among more spaces")
    primaries = 1
    while not fits(of_busiest(spaces, logs, demand, primaries)):
        primaries += 1
    whole = sum_of(spaces, 1, logs, 1)
    processes = max(1, math.ceil(whole.web_us / 1e6 / LOAD))
    return Need(
        redis_cores=whole.redis_us / 1e6,
        web_cores=whole.web_us / 1e6,
        primaries=primaries,
        busiest=of_busiest(spaces, logs, demand, primaries).redis_us / 1e6,
        memory_bytes=whole.memory_bytes,
        web_processes=processes,
        connections=processes * primaries * LINKS,
    )


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


def fits(cost: Cost) -> bool:
    """Whether one primary can do it."""
    return cost.redis_us <= LOAD * 1e6 and cost.memory_bytes <= NODE_BYTES


def jobs_of_one_space(costs: Mapping[str, Cost], progress: float) -> float:
    """Jobs a second that fill the thread of a space's primary up to LOAD, if it does nothing else."""
    work = dict.fromkeys(JOB, 1.0) | {"progress": progress}
    return LOAD * 1e6 / total(costs, work).redis_us


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what a fleet needs."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description="What a fleet needs.")
    for name, kind in Demand.__annotations__.items():
        usual = Demand._field_defaults.get(name)
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, default=usual, required=usual is None, metavar="N")
    demand = Demand(**vars(parser.parse_args(arguments)))
    need = size(demand, MEASURED)
    print(
        f"Redis        {need.redis_cores:,.2f} cores, {need.primaries} primaries, the busiest {need.busiest:.0%} busy"
    )
    print(f"memory       {need.memory_bytes / 2**30:,.1f} GiB in all primaries")
    print(f"web          {need.web_cores:,.2f} cores, {need.web_processes} processes")
    print(f"connections  {need.connections:,}, of which a primary sees {need.connections // need.primaries:,}")
    print(f"one space    {jobs_of_one_space(MEASURED, demand.progress):,.0f} jobs/s at most")


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
