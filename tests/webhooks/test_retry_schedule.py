"""When a callback is tried again."""

from email.utils import formatdate

import pytest

from app.settings import DELAYS_S
from app.webhooks.retry_schedule import delay_ms, retry_after

MIDDLE = 0.5


def test_the_schedule_is_ten_tries() -> None:
    delays = [delay_ms(DELAYS_S, number, 500, None, MIDDLE) for number in range(len(DELAYS_S))]
    in_s = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert delays == [*(s * 1000 for s in in_s), None]


@pytest.mark.parametrize(("chance", "delay"), [(0.0, 4000), (0.5, 5000), (1.0, 6000)])
def test_jitter_is_a_fifth_either_way(chance: float, delay: int) -> None:
    assert delay_ms(DELAYS_S, 0, None, None, chance) == delay


def test_gone_ends_it() -> None:
    assert delay_ms(DELAYS_S, 0, 410, 60, MIDDLE) is None


@pytest.mark.parametrize(("after_s", "delay"), [(60, 60_000), (1, 5000), (10**9, 86_400_000), (None, 5000)])
def test_a_later_retry_after_is_waited_for_up_to_a_day(after_s: float | None, delay: int) -> None:
    assert delay_ms(DELAYS_S, 0, 503, after_s, MIDDLE) == delay


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        (formatdate(1_000_060, usegmt=True), 60),
        (formatdate(999_000, usegmt=True), 0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("9" * 400, 999_999_999),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after(text, 1_000_000) == seconds
