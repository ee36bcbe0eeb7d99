"""The capacity model: what it promises of every fleet, and docs/capacity.md, whose commands print what it shows."""

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
    Cost,
    Demand,
    busiest_share,
    fits,
    jobs_of_one_space,
    main,
    of_busiest,
    of_logs,
    of_spaces,
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
