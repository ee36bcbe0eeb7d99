"""The capacity model: what it promises of every fleet, and docs/capacity.md, whose commands print what it shows."""

import math
import random
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from bench.capacity import (
    LOAD,
    MEASURED,
    NODE_BYTES,
    OPTIONS,
    Cost,
    Demand,
    busiest_share,
    fits,
    jobs_of_one_space,
    main,
    of_busiest,
    of_logs,
    of_spaces,
    report,
    size,
    total,
)

PAGE = (Path(__file__).parents[1] / "docs" / "capacity.md").read_text()
EXAMPLE = r"^```sh\npython -m bench\.capacity ([^\n]*)\n```\n\n```text\n(.*?)^```"
SHOWN = re.findall(EXAMPLE, PAGE, re.MULTILINE | re.DOTALL)

FLEETS = [
    Demand(jobs_per_s=10, lines_per_s=1000),
    Demand(jobs_per_s=5_000, lines_per_s=10_000, retention_s=3600),
    Demand(jobs_per_s=100, lines_per_s=1e6, running_jobs=5_000, spaces=10_000, retention_s=86_400),
    Demand(jobs_per_s=500, lines_per_s=50_000, viewers=2_000, spaces=50),
]


def test_costs_of_all_work_add_up() -> None:
    costs = {"create": Cost(2, 3, 100), "line": Cost(5, 7, 10)}
    assert total(costs, {"create": 10, "line": 100}) == Cost(520, 730, 2000)


@pytest.mark.parametrize("demand", FLEETS)
def test_a_fleet_is_the_smallest_that_keeps_its_busiest_primary_below_the_bounds(demand: Demand) -> None:
    spaces, logs = of_spaces(demand, MEASURED), of_logs(demand, MEASURED)
    need = size(demand, MEASURED)
    assert fits(of_busiest(spaces, logs, demand, need.primaries))
    assert need.primaries == 1 or not fits(of_busiest(spaces, logs, demand, need.primaries - 1))
    assert need.busiest <= LOAD
    assert need.memory_bytes <= NODE_BYTES * need.primaries
    assert need.even <= need.primaries
    assert need.busiest_bytes <= NODE_BYTES
    assert need.web_cores <= LOAD * need.web_processes


def test_some_fleet_of_these_needs_more_than_one_primary() -> None:
    assert max(size(demand, MEASURED).primaries for demand in FLEETS) > 3


def test_a_space_that_is_more_than_one_primary_can_do_is_refused() -> None:
    jobs = jobs_of_one_space(MEASURED, 2)
    shape = Demand(jobs_per_s=jobs * 0.9, lines_per_s=1, spaces=1, retention_s=60)
    assert size(shape, MEASURED).primaries == 1
    with pytest.raises(ValueError, match="one space"):
        size(shape._replace(jobs_per_s=jobs * 1.1), MEASURED)
    assert size(shape._replace(jobs_per_s=jobs * 1.1, spaces=100), MEASURED).primaries > 1


@pytest.mark.parametrize(
    ("demand", "decides"),
    [
        (Demand(jobs_per_s=20, lines_per_s=1000), "the busiest primary's memory"),
        (Demand(jobs_per_s=1000, lines_per_s=1000, spaces=10_000, retention_s=60), "the busiest primary's CPU"),
    ],
)
def test_the_bound_that_the_busiest_primary_is_nearest_to_decides(demand: Demand, decides: str) -> None:
    shown = "\n".join(report(demand, size(demand, MEASURED)))
    assert f"decides      {decides}" in shown
    assert "spread" not in shown


def test_few_spaces_on_many_primaries_are_told_with_what_equal_shares_would_need() -> None:
    demand = Demand(jobs_per_s=2000, lines_per_s=1000)
    need = size(demand, MEASURED)
    assert need.even == math.ceil(need.memory_bytes / NODE_BYTES) < need.primaries / 2
    told = [line for line in report(demand, need) if line.startswith("spread")]
    assert told == [f"spread       100 spaces are few for so many primaries: at equal shares {need.even} would do"]
    more = size(demand._replace(spaces=10_000), MEASURED)
    assert not any(line.startswith("spread") for line in report(demand, more))
    assert f"with `--spaces 10000` {more.primaries} primaries do" in PAGE


def test_few_jobs_with_many_lines_are_told_too() -> None:
    demand = Demand(jobs_per_s=1, lines_per_s=300_000, running_jobs=100, retention_s=86_400)
    assert any("100 running jobs are few" in line for line in report(demand, size(demand, MEASURED)))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("--jobs-per-s 0 --lines-per-s 1", "--jobs-per-s: it must be a number above 0, not '0'"),
        ("--jobs-per-s 1 --lines-per-s -5", "--lines-per-s: it must be a number of 0 or more, not '-5'"),
        ("--jobs-per-s nan --lines-per-s 1", "--jobs-per-s: it must be a number above 0, not 'nan'"),
        ("--jobs-per-s 1 --lines-per-s inf", "--lines-per-s: it must be a number of 0 or more, not 'inf'"),
        ("--jobs-per-s 1 --lines-per-s 1 --spaces 0", "--spaces: it must be a whole number of 1 or more, not '0'"),
        ("--jobs-per-s 1 --lines-per-s 1 --running-jobs 0", "--running-jobs: it must be a whole number of 1 or more"),
        ("--jobs-per-s 1 --lines-per-s 1 --viewers 1.5", "--viewers: it must be a whole number of 0 or more"),
        ("--jobs-per-s 1 --lines-per-s 1 --retention-s 1d", "--retention-s: it must be a number of 0 or more"),
        ("--jobs-per-s 1 --lines-per-s 1 --peak 0.5", "--peak: it must be a number of 1 or more, not '0.5'"),
        ("--jobs-per-s 5", "--lines-per-s"),
        ("--jobs-per-s 2000 --lines-per-s 1 --spaces 1", "one space is more than one primary can do (memory: 1,722.5"),
        (
            "--jobs-per-s 20 --lines-per-s 1e6 --running-jobs 1 --retention-s 1",
            "one job's log is more than one primary",
        ),
        (
            "--jobs-per-s 500 --lines-per-s 150000 --spaces 1 --running-jobs 1 --retention-s 1",
            "one space and one job's log are more than one primary",
        ),
    ],
)
def test_a_demand_that_cannot_be_is_refused_in_one_sentence(
    arguments: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (2, "")
    (sentence,) = told.err.splitlines()
    assert why in sentence


def test_help_says_what_each_option_means_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert OPTIONS.keys() == Demand.__annotations__.keys()
    for name, option in OPTIONS.items():
        usual = Demand._field_defaults.get(name)
        default = "required" if usual is None else f"default {usual:g}"
        assert f"--{name.replace('_', '-')} N {option.meaning} ({default})" in shown
        assert usual is None or f"| `--{name.replace('_', '-')}` | {usual:,g} |" in PAGE


def test_more_viewers_cost_more_and_none_cost_an_append() -> None:
    demand = Demand(jobs_per_s=1, lines_per_s=1000)
    costs = [of_logs(demand._replace(viewers=viewers), MEASURED) for viewers in (0, 500, 5_000)]
    assert costs[0].web_us == pytest.approx(1000 * MEASURED["line"].web_us)
    assert all(few.web_us < more.web_us for few, more in pairwise(costs))


@pytest.mark.parametrize(("keys", "primaries"), [(60, 3), (100, 2), (100, 3), (1000, 10), (10_000, 100)])
def test_the_busiest_primary_of_random_placements_has_about_the_share_of_the_model(keys: int, primaries: int) -> None:
    drawn = random.Random(keys)
    told = busiest_share(keys, primaries)
    shares = []
    for _ in range(200):
        counts = [0] * primaries
        for _ in range(keys):
            counts[drawn.randrange(primaries)] += 1
        shares.append(max(counts) * primaries / keys)
    assert sum(share <= told for share in shares) >= 180
    assert told <= 1.6 * max(shares)


def test_a_primary_has_whole_keys() -> None:
    assert busiest_share(2, 8) >= 4
    assert busiest_share(1, 50) == 50


def test_one_primary_has_everything() -> None:
    assert busiest_share(1, 1) == busiest_share(100, 1) == 1


def test_the_page_has_the_costs_of_the_model() -> None:
    rows = re.findall(r"^\| ([a-z ]+) \| ([\d.,]+) \| ([\d.,]+) \| ([\d.,]+|-) \|$", PAGE, re.MULTILINE)
    told = {
        name: Cost(*(0.0 if cell == "-" else float(cell.replace(",", "")) for cell in cells)) for name, *cells in rows
    }
    assert told == MEASURED


def test_the_page_shows_what_its_commands_print(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(SHOWN) >= 3
    for arguments, shown in SHOWN:
        main(shlex.split(arguments))
        assert capsys.readouterr().out == shown
