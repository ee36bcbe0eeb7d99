"""How a job ended, for those who see no more than progress: told once, by both transports, whenever they come."""

from typing import Any

import pytest

from tests.factories import ENDED, Json, Space
from tests.viewers import EventViewer, SocketViewer

TRANSPORTS = (SocketViewer, EventViewer)
SECRET = "nobody-else-may-see-this"
VERBS = {"completed": "complete", "dead": "fail", "killed": "kill"}


@pytest.fixture(params=TRANSPORTS, ids=["socket", "events"])
def transport(request: pytest.FixtureRequest) -> Any:
    return request.param


def end(space: Space, job: Json, status: str) -> None:
    space.do(job, VERBS[status], {"error": SECRET, "retry": False, "reason": SECRET})


@pytest.mark.parametrize("who", ["anonymous", "public"])
@pytest.mark.parametrize("status", ENDED)
def test_a_narrow_viewer_learns_how_the_job_ended(space: Space, transport: Any, status: str, who: str) -> None:
    job = space.create(claim=True)
    with transport(space.server, f"/realtime/{job['id']}", space.public.key if who == "public" else None) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        end(space, job, status)
        viewer.until_closed()
    assert viewer.ended == {"status": status}
    assert viewer.types() == ["init", *(["completed"] if status == "completed" else [])]
    assert SECRET not in "".join(viewer.texts)


@pytest.mark.parametrize("status", ENDED)
def test_whoever_comes_after_the_end_learns_it_too(space: Space, transport: Any, status: str) -> None:
    job = space.job_in(status)
    with transport(space.server, f"/realtime/{job['id']}") as viewer:
        viewer.until_closed()
    assert viewer.types() == ["init"]
    assert viewer.ended == {"status": status}


def test_a_job_that_is_retried_ends_anew(space: Space, transport: Any) -> None:
    job = space.job_in("dead")
    space.do(job, "retry")
    with transport(space.server, f"/realtime/{job['id']}") as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        space.do(job, "kill")
        viewer.until_closed()
    assert viewer.ended == {"status": "killed"}


@pytest.mark.parametrize("status", ENDED)
def test_an_event_source_that_was_away_at_the_end_learns_it_and_then_stops(space: Space, status: str) -> None:
    job = space.create(claim=True)
    path = f"/realtime/{job['id']}"
    with EventViewer(space.server, path) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
    end(space, job, status)
    with EventViewer(space.server, path, last_event_id=viewer.last_id) as again:
        again.until_closed()
    assert again.ended == {"status": status}
    with EventViewer(space.server, path, last_event_id=again.last_id) as last:
        last.until_closed()
    assert last.answer.status_code == 204


def test_an_event_source_that_knows_an_end_follows_the_retry(space: Space) -> None:
    job = space.job_in("dead")
    path = f"/realtime/{job['id']}"
    with EventViewer(space.server, path) as viewer:
        viewer.until_closed()
    space.do(job, "retry")
    with EventViewer(space.server, path, last_event_id=viewer.last_id) as again:
        again.until(lambda frame: frame["type"] == "init")
        assert again.is_open


def test_a_full_viewer_is_sent_no_end_beside_its_frames(space: Space, transport: Any) -> None:
    job = space.create(claim=True)
    with transport(space.server, f"/realtime/{job['id']}", space.all.key) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        space.do(job, "complete")
        viewer.until(lambda frame: frame["type"] == "completed")
        assert viewer.is_open
    assert viewer.ended is None


def test_the_end_is_an_event_of_its_own_type(space: Space) -> None:
    job = space.job_in("killed")
    answer = space.server.caller(None).get(f"/realtime/{job['id']}")
    *_, last = answer.text.strip().split("\n\n")
    fields = dict(line.split(": ", 1) for line in last.split("\n"))
    assert fields == {"event": "end", "id": fields["id"], "data": '{"status":"killed"}'}
