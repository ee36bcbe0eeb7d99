"""One odd level or time does not have a batch refused: both are made what the service takes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.times import parse_ms
from jobwire import Entry, Jobs, LogShipper
from jobwire.log_lines.entry import LEVELS, normalise
from tests.client.fake import FakeService

ZULU = "2026-03-01T09:21:01.120Z"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (ZULU, ZULU),
        ("2026-03-01T10:21:01.120+0100", ZULU),
        ("2026-03-01T10:21:01.120+01", ZULU),
        ("2026-03-01T10:21:01.120+01:00", ZULU),
        ("2026-03-01 09:21:01.120", ZULU),
        (1772356861.12, ZULU),
        ("1772356861.12", ZULU),
        (1772356861120, ZULU),
        (1772356861120000, ZULU),
        (1772356861120000000, ZULU),
    ],
)
def test_a_time_is_read_in_the_forms_that_programs_have(given: Any, meant: str) -> None:
    entry = Entry("x", timestamp=given)
    normalise(entry)
    assert (entry.timestamp, entry.metadata) == (meant, None)


@pytest.mark.parametrize("given", ["yesterday", "", float("nan"), float("inf"), 1e300, ["x"]])
def test_what_is_no_time_goes_to_the_metadata(given: Any) -> None:
    entry = Entry("x", timestamp=given, metadata={"a": 1})
    normalise(entry)
    assert (entry.timestamp, entry.metadata) == (None, {"a": 1, "timestamp": str(given)})


NAMES = {"INFO": "info", "Warning": "warn", "critical": "fatal", "notice": "info", "verbose": "info", "": "info"}


@pytest.mark.parametrize("given", NAMES)
def test_a_level_is_one_that_the_service_knows(given: str) -> None:
    entry = Entry("x", given)
    normalise(entry)
    assert entry.level == NAMES[given]


@given(st.one_of(st.text(), st.floats(), st.integers(), st.none()), st.text())
def test_whatever_is_given_the_service_takes_what_is_sent(time: Any, level: str) -> None:
    entry = Entry("x", level, timestamp=time)
    normalise(entry)
    assert entry.level in LEVELS
    if entry.timestamp is not None:
        assert parse_ms(entry.timestamp) is not None


def test_one_odd_line_of_many_is_stored_with_its_neighbours(service: FakeService, jobs: Jobs) -> None:
    shipper = LogShipper(jobs, service.add_job().id)
    shipper.put([*(Entry(str(number)) for number in range(1000)), Entry("odd", "verbose", timestamp="soon")])
    assert shipper.close(10)
    assert (shipper.refused_lines, len(service.job.lines)) == (0, 1001)
    assert service.job.lines[-1]["metadata"] == {"timestamp": "soon"}
