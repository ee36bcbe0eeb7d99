"""The page of a job: what is told and what is read are one story, whichever comes first, and a person sees it."""

import pytest

from tests.browser.conftest import SignedIn
from tests.factories import NO_JOB, Space

pytestmark = pytest.mark.valkey_only("the browser is what is tested")

TRACEBACK = (
    'Traceback (most recent call last):\n  File "a.py", line 3, in <module>\n    rows()\nValueError: no column "vat"'
)
TOOK = "seen('.section tbody tr:last-child td:nth-child(3)')"


def test_the_timeline_is_seen(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    page = signed_in(f"#/jobs/{job['id']}")
    page.until("seen('.timeline').includes('started')")
    box = page.js("document.querySelector('.timeline').getBoundingClientRect().toJSON()")
    assert box["height"] > 60
    assert box["width"] > 200
    space.do(job, "event", {"note": "half way"})
    page.until("seen('.timeline li').includes('half way')")
    assert [line.split()[-1] for line in page.text(".timeline").splitlines() if line in ("started", "created")] == [
        "started",
        "created",
    ]


def test_what_happens_while_a_job_is_being_read_is_not_lost(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    page = signed_in(f"#/jobs/{job['id']}")
    page.until("seen('.badge') === 'running'")
    page.hold(f"*/api/v1/jobs/{job['id']}")
    space.do(job, "event", "one")
    page.until_held()
    space.do(job, "complete", {"rows": 7})
    page.until_told('"completed"')
    page.until("seen('.badge') === 'completed'")
    page.let_go()
    page.until("seen('.about').includes('\"rows\": 7')")
    assert page.text(".badge") == "completed"


def test_an_event_that_comes_before_the_job_is_shown_all_the_same(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    page = signed_in()
    page.hold(f"*/api/v1/jobs/{job['id']}")
    page.js(f"location.hash = '#/jobs/{job['id']}'")
    page.until_held()
    page.until_told('"init"')
    space.do(job, "fail", {"error": TRACEBACK, "retry": False})
    page.until_told('"dead"')
    page.let_go()
    page.until("seen('.badge') === 'dead' && seen('.timeline').includes('dead')")
    page.until("seen('.complaint .error-head').includes('vat')")


def test_progress_that_comes_while_it_is_asked_for_wins(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    space.do(job, "progress", {"percent": 10, "message": "rows"})
    page = signed_in()
    page.hold(f"*/api/v1/jobs/{job['id']}/progress")
    page.js(f"location.hash = '#/jobs/{job['id']}'")
    page.until_held()
    page.until_told('"init"')
    space.do(job, "progress", {"percent": 80, "message": "rows"})
    page.until("seen('.progress .percent') === '80 %'")
    page.let_go()
    page.until("seen('.timeline').includes('started')")
    assert page.text(".progress .percent") == "80 %"


def test_what_happens_while_a_list_is_being_read_is_not_lost(signed_in: SignedIn, space: Space) -> None:
    page = signed_in()
    job = space.job_in("running")
    page.hold(f"*/api/v1/spaces/{space.id}/jobs?*")
    page.js(f"location.hash = '#/spaces/{space.id}'")
    page.until_held()
    page.until_told('"connected"')
    space.do(job, "complete")
    page.until_told('"completed"')
    page.let_go()
    page.until("seen('.jobs .badge') === 'completed'")


def test_what_went_wrong_begins_with_the_line_that_says_it(signed_in: SignedIn, space: Space) -> None:
    job = space.create(claim=True, maxRetries=1)
    space.do(job, "fail", {"error": TRACEBACK})
    space.do(job, "claim")
    space.do(job, "fail", {"error": TRACEBACK})
    page = signed_in(f"#/spaces/{space.id}")
    page.until("seen('.jobs .said') === 'ValueError: no column \"vat\"'")
    page.js(f"location.hash = '#/jobs/{job['id']}'")
    for place in (".complaint", ".outcome"):
        page.until(f"seen('{place} .error-head') === 'ValueError: no column \"vat\"'")
        assert "line 3" not in page.text(place)
        page.click(f"{place} summary")
        assert page.text(f"{place} pre") == TRACEBACK


def test_one_long_line_that_says_what_went_wrong_is_seen_whole(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    space.do(job, "fail", {"error": "a rather long word " * 25 + "END", "retry": False})
    page = signed_in(f"#/jobs/{job['id']}")
    for place in (".complaint", ".outcome"):
        page.until(f"seen('{place} .error-head').endsWith('END')")
        head = f"document.querySelector('{place} .error-head')"
        assert page.js(f"{head}.scrollHeight - {head}.clientHeight") <= 1


def test_a_traceback_that_was_opened_stays_open_while_events_come(signed_in: SignedIn, space: Space) -> None:
    job = space.create(claim=True, maxRetries=1)
    space.do(job, "fail", {"error": TRACEBACK})
    space.do(job, "claim")
    space.do(job, "ack")
    page = signed_in(f"#/jobs/{job['id']}")
    page.click(".outcome summary")
    assert page.text(".outcome pre") == TRACEBACK
    space.do(job, "progress", {"percent": 1, "message": "later"})
    page.until("seen('.progress').includes('later')")
    assert page.text(".outcome pre") == TRACEBACK


def test_an_attempt_that_runs_grows(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    page = signed_in(f"#/jobs/{job['id']}")
    first = page.until(TOOK)
    page.until(f"{TOOK} !== {first!r}")


def test_a_job_and_a_space_that_are_not_there_are_said_to_be(signed_in: SignedIn, space: Space) -> None:
    page = signed_in(f"#/jobs/{NO_JOB}")
    page.until("seen('.lost').includes('This job is not there')")
    assert NO_JOB in page.text(".lost")
    page.js(f"location.hash = '#/spaces/{NO_JOB}'")
    page.until("seen('.lost').includes('This space is not there')")
    page.js(f"location.hash = '#/spaces/{NO_JOB}/keys'")
    page.until("seen('.lost').includes('This space is not there')")
    page.complaints.clear()
    for address in ("#/jobs/%", "#/nonsense"):
        page.js(f"location.hash = '{address}'")
        page.until("seen('.lost').includes('There is no such page')")
    page.click(".lost a")
    page.until("document.querySelector('.card')")


def test_a_job_that_ended_without_a_line_is_not_waited_for(signed_in: SignedIn, space: Space) -> None:
    job = space.job_in("running")
    page = signed_in(f"#/jobs/{job['id']}")
    page.until("seen('.end') === 'No lines yet.'")
    space.do(job, "complete")
    page.until("seen('.end') === 'It ended without a line.'")
