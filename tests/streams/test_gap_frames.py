"""Gaps say what was lost to a viewer, and take it to where it goes on."""

import json
from typing import Any

import pytest

from app.streams.frames import Audience, Stream
from app.streams.gap_frames import GapFrame, gaps_of_resume, rolled_back_gap, trimmed_gap
from app.streams.topic import Viewer

JOB = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def said(gap: GapFrame) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(gap.text_for(Audience.FULL) or b"")
    return told


def test_what_was_trimmed_is_passed_over() -> None:
    gap = trimmed_gap(JOB, Stream.LOGS, 4, 9)
    assert said(gap) == {"type": "gap", "jobId": JOB, "stream": "logs", "from": 4, "to": 9, "reason": "trimmed"}
    assert gap.last == 9


def test_what_was_rolled_back_comes_again() -> None:
    gap = rolled_back_gap(JOB, Stream.EVENTS, 3, 9)
    assert said(gap) == {"type": "gap", "jobId": JOB, "stream": "events", "from": 4, "to": 9, "reason": "rolled_back"}
    assert gap.last == 3


def test_who_sees_no_seqs_is_told_of_no_gap() -> None:
    assert trimmed_gap(JOB, Stream.EVENTS, 1, 2).text_for(Audience.NARROW) is None


@pytest.mark.parametrize(
    ("after", "logs_after", "lost"),
    [
        (5, 7, []),
        (0, 0, []),
        (8, 7, [("events", 6, 8)]),
        (5, 9, [("logs", 8, 9)]),
        (8, 9, [("events", 6, 8), ("logs", 8, 9)]),
    ],
)
def test_a_viewer_that_comes_back_is_told_what_it_saw_beyond_where_it_resumes(
    after: int, logs_after: int, lost: list[tuple[str, int, int]]
) -> None:
    viewer = Viewer(Audience.FULL)
    viewer.seq, viewer.log_seq = 5, 7
    gaps = [said(gap) for gap in gaps_of_resume(JOB, viewer, after, logs_after)]
    assert [(gap["stream"], gap["from"], gap["to"]) for gap in gaps] == lost
    assert {gap["reason"] for gap in gaps} <= {"rolled_back"}
