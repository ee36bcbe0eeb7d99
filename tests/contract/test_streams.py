"""Streams of jobs and spaces: what each caller sees, in which order, from where on, and who is refused."""

import json
import time
from typing import Any

import httpx
import pytest

from tests.factories import ENDED, NO_JOB, SCOPES, Json, Space
from tests.valkey import until
from tests.viewers import EventViewer, SocketViewer, Viewer, refusal

TRANSPORTS = (SocketViewer, EventViewer)
SECRET = "nobody-else-may-see-this"


@pytest.fixture(params=TRANSPORTS, ids=["socket", "events"])
def transport(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def key(space: Space) -> str:
    return str(space.all.key)


def stream(job: Json, **query: Any) -> str:
    """The path of a job's stream."""
    return f"/realtime/{job['id']}?" + "&".join(f"{name}={value}" for name, value in query.items())


def run_through(space: Space, job: Json) -> None:
    """Everything that can happen on the way to a completed job."""
    space.do(job, "ack")
    space.do(job, "progress", {"percent": 10, "message": "on its way"})
    space.do(job, "checkpoint", {"page": 1})
    space.do(job, "event", {"deep": [1, {"big": 12345678901234567890}]})
    space.do(job, "logs", ["one", {"message": SECRET, "level": "warn"}])
    space.do(job, "complete", {"result": SECRET})


@pytest.mark.valkey_only("fakeredis sends messages late: what is read overtakes a progress, which is a state")
def test_a_full_viewer_sees_every_event_in_order(space: Space, key: str, transport: Any) -> None:
    job = space.create(claim=True)
    with transport(space.server, stream(job), key) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        run_through(space, job)
        viewer.until(lambda frame: frame["type"] == "completed")
        expected = ["init", "started", "progress", "checkpoint", "event", "logs", "completed"]
        assert viewer.types() == expected
        assert viewer.seqs() == [3, 4, 5, 6]


def test_the_frames_have_their_shapes(space: Space, key: str, transport: Any) -> None:
    job = space.create(claim=True)
    with transport(space.server, stream(job), key) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        run_through(space, job)
        viewer.until(lambda frame: frame["type"] == "completed")
        frames = {frame["type"]: frame for frame in viewer.frames}
    init = frames["init"]
    assert init.keys() == {"type", "jobId", "status", "data", "seq", "logSeq", "epoch", "timestamp"}
    assert (init["jobId"], init["status"], init["data"], init["seq"], init["logSeq"]) == (
        job["id"],
        "delivered",
        None,
        2,
        0,
    )
    for kind in ("started", "checkpoint", "event", "completed", "progress"):
        assert frames[kind].keys() == {"type", "jobId", "status", "data", "seq", "timestamp"}
    assert frames["event"]["data"] == {"deep": [1, {"big": 12345678901234567890}]}
    assert frames["event"]["status"] == "running"
    assert frames["completed"]["status"] == "completed"
    assert frames["progress"]["seq"] == 3
    assert frames["logs"]["data"] == {"fromSeq": 1, "toSeq": 2, "inserted": 2}
    assert "seq" not in frames["logs"]


@pytest.mark.parametrize("who", ["anonymous", "public"])
def test_a_narrow_viewer_gets_not_one_byte_of_other_data(space: Space, transport: Any, who: str) -> None:
    key = None if who == "anonymous" else space.public.key
    job = space.create(claim=True, payload={"secret": SECRET})
    with transport(space.server, stream(job, logs="true", after=0, logsAfter=0), key) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        run_through(space, job)
        viewer.until_closed()
    assert viewer.types() == ["init", "progress", "completed"]
    assert viewer.code == (1000 if transport is SocketViewer else None)
    assert all(frame["seq"] is None for frame in viewer.frames)
    assert viewer.frames[0]["logSeq"] is None
    assert "data" not in viewer.frames[-1]
    assert SECRET not in "".join(viewer.texts)


@pytest.mark.parametrize("end", ENDED)
def test_a_narrow_viewer_is_closed_with_1000_at_any_end(space: Space, end: str) -> None:
    job = space.create(claim=True)
    with SocketViewer(space.server, stream(job)) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        verb = {"completed": "complete", "dead": "fail", "killed": "kill"}[end]
        space.do(job, verb, {"error": SECRET, "retry": False, "reason": SECRET})
        assert viewer.until_closed() == 1000
    assert viewer.types() == (["init", "completed"] if end == "completed" else ["init"])
    assert SECRET not in "".join(viewer.texts)


@pytest.mark.parametrize("end", ENDED)
def test_a_narrow_viewer_of_an_ended_job_gets_init_and_is_closed(space: Space, end: str) -> None:
    job = space.job_in(end)
    with SocketViewer(space.server, stream(job)) as viewer:
        assert viewer.until_closed() == 1000
    assert viewer.types() == ["init"]
    assert viewer.frames[0]["status"] == end


def test_a_full_viewer_stays_after_the_end(space: Space, key: str) -> None:
    job = space.create(claim=True)
    with SocketViewer(space.server, stream(job), key) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        space.do(job, "kill", {})
        viewer.until(lambda frame: frame["type"] == "killed")
        space.do(job, "retry")
        viewer.until(lambda frame: frame["type"] == "requeued")
        space.do(job, "logs", ["still here"])
        viewer.until(lambda frame: frame["type"] == "logs")


def test_init_has_the_newest_progress(space: Space, key: str) -> None:
    job = space.create(claim=True)
    for percent in (1, 2, 3):
        space.do(job, "progress", {"percent": percent, "message": "m"})
    with SocketViewer(space.server, stream(job), key) as viewer:
        assert viewer.until(lambda frame: frame["type"] == "init")["data"]["percent"] == 3


def test_after_replays_what_was_missed_once_and_goes_on_live(space: Space, key: str, transport: Any) -> None:
    job = space.create(claim=True)
    for number in range(700):
        space.do(job, "event", number)
    with transport(space.server, stream(job, after=5), key) as viewer:
        for number in range(20):
            space.do(job, "event", number)
        viewer.until_seq(722)
        assert viewer.frames[0]["seq"] == 5
        assert viewer.seqs() == list(range(6, 723))


def test_a_replayed_frame_is_the_one_that_was_sent_live(space: Space, key: str) -> None:
    job = space.create(claim=True)
    with SocketViewer(space.server, stream(job, after=0), key) as first:
        run_through(space, job)
        first.until(lambda frame: frame["type"] == "completed")
    with SocketViewer(space.server, stream(job, after=0), key) as second:
        second.until(lambda frame: frame["type"] == "completed")
    events = [
        [text for text in viewer.texts if json.loads(text)["type"] not in ("init", "logs", "progress")]
        for viewer in (first, second)
    ]
    assert events[0] == events[1]


def test_lines_come_whole_and_before_the_end(space: Space, key: str, transport: Any) -> None:
    job = space.create(claim=True)
    with transport(space.server, stream(job, logs="true"), key) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        for batch in range(20):
            space.do(job, "logs", [f"line {batch} {'x' * 100}" for _ in range(1 + 37 * (batch % 3))])
        space.do(job, "complete")
        viewer.until(lambda frame: frame["type"] == "completed")
        newest = space.all.get(f"/jobs/{job['id']}/logs").json()["cursor"]["newestSeq"]
        assert viewer.lines() == list(range(1, newest + 1))
        assert viewer.types()[-1] == "completed"


def test_a_line_is_the_object_that_the_page_has(space: Space, key: str) -> None:
    job = space.create(claim=True)
    with SocketViewer(space.server, stream(job, logs="true"), key) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        space.do(job, "logs", [{"message": "m", "level": "error", "source": "s", "metadata": {"a": [1]}}, "plain"])
        frame = viewer.until(lambda frame: frame["type"] == "logs")
    assert frame["data"]["entries"] == space.all.get(f"/jobs/{job['id']}/logs").json()["logs"]


def test_logs_after_replays_lines(space: Space, key: str, transport: Any) -> None:
    job = space.create(claim=True)
    for batch in range(10):
        space.do(job, "logs", [f"{batch} {number}" for number in range(100)])
    with transport(space.server, stream(job, logs="true", logsAfter=137), key) as viewer:
        space.do(job, "logs", ["newest"])
        viewer.until(lambda frame: frame["type"] == "logs" and frame["data"]["toSeq"] == 1001)
        assert viewer.frames[0]["logSeq"] == 137
        assert viewer.lines() == list(range(138, 1002))


def test_without_lines_a_replayed_log_is_told_in_one_frame(space: Space, key: str) -> None:
    job = space.create(claim=True)
    for _ in range(5):
        space.do(job, "logs", ["x", "y"])
    with SocketViewer(space.server, stream(job, logsAfter=3), key) as viewer:
        frame = viewer.until(lambda frame: frame["type"] == "logs")
    assert frame["data"] == {"fromSeq": 4, "toSeq": 10, "inserted": 7}
    assert frame["timestamp"] >= job["createdAt"]


def test_a_position_above_the_newest_is_a_gap(space: Space, key: str, transport: Any) -> None:
    job = space.create(claim=True)
    space.do(job, "logs", ["x"])
    with transport(space.server, stream(job, after=9, logsAfter=7), key) as viewer:
        space.do(job, "ack")
        viewer.until_seq(3)
    gaps = [frame for frame in viewer.frames if frame["type"] == "gap"]
    assert [(gap["stream"], gap["from"], gap["to"], gap["reason"]) for gap in gaps] == [
        ("events", 3, 9, "rolled_back"),
        ("logs", 2, 7, "rolled_back"),
    ]
    assert viewer.frames[0]["seq"] == 2
    assert viewer.frames[0]["logSeq"] == 1


def test_a_position_of_an_unknown_epoch_is_not_continued(space: Space, key: str) -> None:
    job = space.create(claim=True)
    with SocketViewer(space.server, stream(job, after=1, epoch="zzzz-not-ours"), key) as viewer:
        viewer.until_seq(2)
    gap = next(frame for frame in viewer.frames if frame["type"] == "gap")
    assert (gap["from"], gap["to"], gap["reason"]) == (1, 1, "rolled_back")
    assert viewer.seqs() == [1, 2]


def test_the_current_epoch_continues(space: Space, key: str) -> None:
    job = space.create(claim=True)
    with SocketViewer(space.server, stream(job), key) as viewer:
        epoch = viewer.until(lambda frame: frame["type"] == "init")["epoch"]
    with SocketViewer(space.server, stream(job, after=1, epoch=epoch), key) as viewer:
        viewer.until_seq(2)
    assert viewer.types() == ["init", "delivered"]


@pytest.mark.valkey_only("trims by what fakeredis counts otherwise")
def test_what_was_trimmed_is_a_gap(space: Space, key: str) -> None:
    job = space.create(claim=True)
    body = json.dumps("x" * 250_000)
    for _ in range(70):
        space.call(job, "event", content=body)
    with SocketViewer(space.server, stream(job, after=1), key) as viewer:
        viewer.until_seq(72)
    gap = viewer.frames[1]
    first = viewer.seqs()[0]
    assert first > 3
    assert (gap["type"], gap["from"], gap["to"], gap["reason"]) == ("gap", 2, first - 1, "trimmed")
    assert viewer.seqs() == list(range(first, 73))


def test_event_ids_resume_and_end_in_204(space: Space, key: str) -> None:
    job = space.create(claim=True)
    space.do(job, "logs", ["a", "b", "c"])
    with EventViewer(space.server, stream(job, after=0, logsAfter=0, logs="true"), key) as viewer:
        viewer.until_seq(2)
        viewer.until(lambda frame: frame["type"] == "logs")
    space.do(job, "complete")
    with EventViewer(space.server, stream(job, after=0, logs="true"), key, last_event_id=viewer.ids[-1]) as again:
        again.until(lambda frame: frame["type"] == "completed")
    assert again.types() == ["init", "completed"]
    with EventViewer(space.server, stream(job), key, last_event_id=again.ids[-1]) as last:
        last.until_closed()
    assert last.answer.status_code == 204


def test_a_narrow_event_source_of_an_ended_job_is_told_to_stop(space: Space) -> None:
    job = space.create(claim=True)
    with EventViewer(space.server, stream(job)) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        space.do(job, "complete")
        viewer.until_closed()
    assert viewer.is_whole
    with EventViewer(space.server, stream(job), last_event_id=viewer.last_id) as again:
        again.until_closed()
    assert again.answer.status_code == 204


# Spaces


def test_a_space_viewer_sees_every_event_of_every_job(space: Space, key: str, transport: Any) -> None:
    with transport(space.server, f"/realtime/spaces/{space.id}", key) as viewer:
        connected = viewer.until(lambda frame: frame["type"] == "connected")
        jobs = [space.create(name=name, claim=True) for name in ("a", "b")]
        for job in jobs:
            space.do(job, "progress", {"percent": 1, "message": "m"})
            space.do(job, "event", {"x": 1})
            space.do(job, "complete", "done")
        viewer.until_seq(8)
    assert connected.keys() == {"type", "seq", "streamInstanceId", "missed", "counts"}
    assert (connected["seq"], connected["missed"], connected["counts"]["pending"]) == (0, False, 0)
    assert viewer.seqs() == list(range(1, 9))
    assert [frame["jobName"] for frame in viewer.frames if frame["type"] == "completed"] == ["a", "b"]
    by_type = {frame["type"]: frame for frame in viewer.frames}
    assert by_type["completed"]["counts"] == {
        "scheduled": 0,
        "pending": 0,
        "delivered": 0,
        "running": 0,
        "completed": 2,
        "dead": 0,
        "killed": 0,
    }
    assert "counts" not in by_type["event"]
    assert by_type["progress"]["seq"] == 6
    assert "logs" not in by_type


def test_since_replays_a_space(space: Space, key: str, transport: Any) -> None:
    for _ in range(10):
        space.create()
    with transport(space.server, f"/realtime/spaces/{space.id}?since=4", key) as viewer:
        space.create()
        viewer.until_seq(11)
    instance = viewer.frames[0]["streamInstanceId"]
    assert viewer.frames[0]["missed"] is False
    assert viewer.seqs() == list(range(5, 12))
    with transport(space.server, f"/realtime/spaces/{space.id}?since=9&streamInstanceId={instance}", key) as again:
        again.until_seq(11)
    assert again.frames[0]["missed"] is False


@pytest.mark.parametrize("query", ["since=99", "since=1&streamInstanceId=another", "since=1&streamInstanceId="])
def test_what_cannot_be_resumed_is_missed(space: Space, key: str, query: str) -> None:
    space.create()
    space.create()
    with SocketViewer(space.server, f"/realtime/spaces/{space.id}?{query}", key) as viewer:
        connected = viewer.until(lambda frame: frame["type"] == "connected")
        space.create()
        viewer.until_seq(3)
    assert (connected["missed"], connected["seq"]) == (True, 2)
    assert viewer.seqs() == [3]


def test_a_space_is_resumed_by_the_id_of_an_event(space: Space, key: str) -> None:
    with EventViewer(space.server, f"/realtime/spaces/{space.id}", key) as viewer:
        viewer.until(lambda frame: frame["type"] == "connected")
        space.create()
        viewer.until_seq(1)
    space.create()
    with EventViewer(space.server, f"/realtime/spaces/{space.id}", key, last_event_id=viewer.ids[-1]) as again:
        again.until_seq(2)
    assert again.frames[0]["missed"] is False
    assert again.seqs() == [2]


def test_large_data_is_left_out_of_the_space_only(space: Space, key: str) -> None:
    job = space.create(claim=True)
    with (
        SocketViewer(space.server, f"/realtime/spaces/{space.id}", key) as wide,
        SocketViewer(space.server, stream(job), key) as close,
    ):
        wide.until(lambda frame: frame["type"] == "connected")
        close.until(lambda frame: frame["type"] == "init")
        space.do(job, "event", "x" * 10_000)
        seen = wide.until(lambda frame: frame["type"] == "event")
        assert (seen["data"], seen["omitted"]) == (None, True)
        assert close.until(lambda frame: frame["type"] == "event")["data"] == "x" * 10_000


# Refusals


@pytest.mark.parametrize("kind", ["socket", "events"])
def test_refusals_are_answers_before_the_upgrade(space: Space, kind: str) -> None:
    job = space.create()
    other = Space(space.server).all.key
    expected = [
        (stream(job), "emit_wrong", 401, "unauthorized"),
        (stream(job), space.caller("jobs:create").key, 403, "missing_scope"),
        (stream(job), other, 403, "wrong_space"),
        (stream(job, after="x"), None, 400, "invalid_request"),
        (stream(job, logs="maybe"), space.all.key, 400, "invalid_request"),
        (f"/realtime/{NO_JOB}", None, 404, "job_not_found"),
        ("/realtime/nonsense", space.server.root_key, 404, "job_not_found"),
        (f"/realtime/spaces/{space.id}", None, 401, "unauthorized"),
        (f"/realtime/spaces/{space.id}", space.public.key, 403, "missing_scope"),
        (f"/realtime/spaces/{space.id}", other, 403, "wrong_space"),
        (f"/realtime/spaces/{NO_JOB}", space.server.root_key, 404, "space_not_found"),
        (f"/realtime/{job['id']}/", None, 404, "not_found"),
    ]
    for path, key, status, code in expected:
        if kind == "socket":
            answer = refusal(space.server, path, key)
        else:
            got = space.server.caller(key).get(path)
            answer = got.status_code, got.json()
        assert (answer[0], answer[1]["code"]) == (status, code), path


def test_only_get_and_head_ask_for_an_event_stream(space: Space) -> None:
    answer = space.all.post(f"/realtime/{NO_JOB}")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_a_key_may_stand_in_the_query_and_no_log_line_shows_it(space: Space, key: str, transport: Any) -> None:
    job = space.create()
    with transport(space.server, stream(job, token=key, after=0)) as viewer:
        viewer.until_seq(1)
    for path in (stream(job, token="emit_wrong_but_secret"), f"/realtime/nowhere/at/all?token={key}"):
        refusal(space.server, path)
        space.server.caller(None).get(path)
    assert "token" not in space.server.log()
    assert key not in space.server.log()
    assert "emit_wrong_but_secret" not in space.server.log()


def test_a_revoked_key_ends_its_streams_within_a_second(space: Space, transport: Any) -> None:
    job = space.create()
    token = space.token("jobs:read")
    with transport(space.server, stream(job), token["key"]) as viewer, SocketViewer(space.server, stream(job)) as other:
        viewer.until(lambda frame: frame["type"] == "init")
        other.until(lambda frame: frame["type"] == "init")
        begun = time.monotonic()
        assert space.server.root.delete(f"/spaces/{space.id}/tokens/{token['id']}").status_code == 204
        code = viewer.until_closed(5)
        assert time.monotonic() - begun < 1.0
        assert code == (1008 if transport is SocketViewer else None)
        assert other.is_open


def test_a_deleted_job_ends_its_streams(space: Space, key: str) -> None:
    job = space.job_in("completed")
    with SocketViewer(space.server, stream(job), key) as viewer:
        viewer.until(lambda frame: frame["type"] == "init")
        assert space.server.root.delete(f"/jobs/{job['id']}").status_code == 204
        assert viewer.until_closed() == 1008


def test_browsers_may_read_event_streams_of_other_origins(space: Space, key: str) -> None:
    job = space.create()
    url = f"{space.server.url}/api/v1{stream(job, token=key)}"
    with httpx.stream("GET", url, headers={"origin": "https://page.example"}) as answer:
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["content-type"].startswith("text/event-stream")


def test_viewers_that_have_gone_are_forgotten(space: Space, key: str) -> None:
    job = space.create(claim=True)
    viewers: list[Viewer] = []
    for _ in range(5):
        with SocketViewer(space.server, stream(job, after=0), key) as viewer:
            viewer.until_seq(2)
            viewers.append(viewer)
    space.do(job, "complete")
    with SocketViewer(space.server, stream(job, after=0), key) as viewer:
        viewer.until_seq(3)
    until(lambda: all(not viewer.is_open for viewer in viewers))
    assert set(SCOPES)
