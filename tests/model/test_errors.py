"""Refusals and outages: what a code stands for is the exception's type, too."""

import pytest

from app.model.errors import (
    KINDS,
    ApiError,
    NotFound,
    Outage,
    OutcomeUnknown,
    Refusal,
    TooLarge,
    Unavailable,
    job_not_found,
    outcome_unknown,
    space_full,
    space_not_found,
    too_large,
    unavailable,
)
from app.redis_links.scripts import WORDS

OUTAGES = {"unavailable", "outcome_unknown"}


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (unavailable("why"), "unavailable", Unavailable),
        (outcome_unknown(), "outcome_unknown", OutcomeUnknown),
        (job_not_found(), "job_not_found", NotFound),
        (space_not_found(), "space_not_found", NotFound),
        (too_large("why", "bodyBytes", 1), "too_large", TooLarge),
        (space_full(1), "space_full", Refusal),
    ],
)
def test_a_code_has_one_type(error: ApiError, code: str, kind: type[ApiError]) -> None:
    assert (error.code, type(error)) == (code, kind)
    assert error.kind is KINDS[code]


@pytest.mark.parametrize("error", [unavailable("why"), outcome_unknown()])
def test_an_outage_is_no_refusal_and_says_when_to_come_again(error: ApiError) -> None:
    assert isinstance(error, Outage)
    assert not isinstance(error, Refusal)
    assert int(error.headers["retry-after"]) == 1


@pytest.mark.parametrize("word", WORDS)
def test_a_script_s_word_is_an_outage_exactly_if_its_code_is_one(word: str) -> None:
    error = WORDS[word]([b"1"])
    assert isinstance(error, Outage) == (error.code in OUTAGES)
    assert isinstance(error, Refusal) != isinstance(error, Outage)
