"""Times: which texts are one, and which are already written as we answer them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.model.times import MOST_MS, are_canonical, canonical, parse_ms, rfc3339

DAY_MS = 86_400_000
MOMENTS = st.integers(0, MOST_MS)
CANONICAL = MOMENTS.map(rfc3339)
NEARLY = [
    "2026-03-01T09:21:01.120z",
    "2026-03-01t09:21:01.120Z",
    "2026-03-01 09:21:01.120Z",
    "2026-03-01T09:21:01.12Z",
    "2026-03-01T09:21:01.1200Z",
    "2026-03-01T09:21:01Z",
    "2026-03-01T09:21:01,120Z",
    "2026-03-01T09:21:01.120+00:00",
    "2026-03-01T09:21:60.120Z",
    "2026-03-01T09:60:01.120Z",
    "2026-03-01T24:00:00.000Z",
    "2026-03-01T99:00:00.000Z",
    "2026-02-29T09:21:01.120Z",
    "2026-13-01T09:21:01.120Z",
    "2026-00-01T09:21:01.120Z",
    "2026-03-00T09:21:01.120Z",
    "1969-12-31T23:59:59.999Z",
    "0000-01-01T00:00:00.000Z",
    "2026-03-01T09:21:01.12\u0660Z",
    "\u0662026-03-01T09:21:01.120Z",
    "2026-03-01T09:21:01.120Z\n",
    "\n2026-03-01T09:21:01.120Z",
    "2026-03-01T09:21:01.120Z\n2026-03-01T09:21:01.120Z",
    "2026-03-01T09:21:01.120Z ",
    "",
]


@pytest.mark.parametrize("odd", NEARLY)
@pytest.mark.parametrize("place", [0, 150, 299])
def test_one_that_is_written_otherwise_is_found_among_many(odd: str, place: int) -> None:
    times = [rfc3339(1_772_356_861_120 + 37 * i) for i in range(300)]
    assert are_canonical(times)
    times[place] = odd
    assert not are_canonical(times)
    assert not are_canonical([odd])


def test_parts_that_make_whole_times_together_are_none() -> None:
    time = "2026-03-01T09:21:01.120Z"
    assert not are_canonical([f"{time}\n{time}", ""])
    assert not are_canonical([time[:10], time[10:]])
    assert not are_canonical([f"{time}\n{time[:5]}", time[5:]])


@given(st.lists(CANONICAL, min_size=1, max_size=40))
def test_times_as_we_answer_them_are_found_to_be_so_and_stay(times: list[str]) -> None:
    assert are_canonical(times)
    assert [canonical(time) for time in times] == times


@given(st.lists(CANONICAL | st.sampled_from(NEARLY) | st.text(max_size=30), min_size=1, max_size=5))
def test_what_is_found_canonical_is_so_text_by_text(texts: list[str]) -> None:
    assert are_canonical(texts) == all(is_canonical(text) for text in texts)


def is_canonical(text: str) -> bool:
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        return False
    return moment.year >= 1970 and f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z" == text


@given(st.integers(DAY_MS, MOST_MS - DAY_MS), st.integers(-23 * 60, 23 * 60), st.integers(3, 12))
def test_a_moment_is_the_same_under_any_offset(at_ms: int, offset_minutes: int, digits: int) -> None:
    there = datetime(1970, 1, 1) + timedelta(milliseconds=at_ms, minutes=offset_minutes)
    sign, minutes = "-" if offset_minutes < 0 else "+", abs(offset_minutes)
    text = (
        f"{there:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}{'9' * (digits - 3)}{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    )
    assert parse_ms(text) == at_ms
    assert canonical(text) == rfc3339(at_ms)


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("2026-03-01T09:21:01Z", "2026-03-01T09:21:01.000Z"),
        ("2026-03-01 09:21:01.5z", "2026-03-01T09:21:01.500Z"),
        ("2026-03-01T09:21:01.05Z", "2026-03-01T09:21:01.050Z"),
        ("2016-12-31T23:59:60.999Z", "2016-12-31T23:59:59.999Z"),
        ("1970-01-01T01:00:00+01:00", "1970-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_is_answered_in_one_form(sent: str, answered: str) -> None:
    assert canonical(sent) == answered
    assert rfc3339(parse_ms(sent)) == answered


@pytest.mark.parametrize(
    "text", ["1970-01-01T00:30:00+01:00", "9999-12-31T23:59:59-00:01", "2026-03-01T09:21:01+24:00", "2026-03-01T09:21Z"]
)
@pytest.mark.parametrize("_", ["first", "again"])
def test_what_is_no_time_is_refused_each_time(text: str, _: str) -> None:
    with pytest.raises(ValueError, match="time"):
        canonical(text)
