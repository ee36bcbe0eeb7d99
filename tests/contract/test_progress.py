"""The shapes of progress and checkpoint."""

from typing import Any

import pytest

from tests.factories import Space, refused


@pytest.mark.parametrize(
    "body",
    [{"percent": 0, "message": "x"}, {"percent": 100, "message": "x"}, {"percent": 33.3333, "message": "ü" * 2000},
     {"percent": 1, "message": "x", "subProgress": {}}, {"percent": 1, "message": "x", "subProgress": None},
     {"percent": 1, "message": "x", "subProgress": {"a": {"percent": 0}, "": {"percent": 100, "message": ""}}},
     {"percent": 1, "message": "x", "subProgress": {f"s{i}": {"percent": i} for i in range(100)}}],
)  # fmt: skip
def test_a_progress_of_this_shape_is_taken_and_answered_as_it_was(space: Space, body: dict[str, Any]) -> None:
    job = space.job_in("running")
    assert space.do(job, "progress", body)["success"] is True
    found = space.all.get(f"/jobs/{job['id']}/progress").json()["progress"]
    assert found["percent"] == body["percent"]
    assert found["message"] == body["message"]
    for name, stage in (body.get("subProgress") or {}).items():
        assert found["subProgress"][name]["percent"] == stage["percent"]


@pytest.mark.parametrize(
    "body",
    [{}, {"percent": 1}, {"message": "x"}, {"percent": 1, "message": ""}, {"percent": -1, "message": "x"},
     {"percent": -0.001, "message": "x"}, {"percent": 100.001, "message": "x"}, {"percent": 101, "message": "x"},
     {"percent": "1", "message": "x"}, {"percent": None, "message": "x"}, {"percent": True, "message": "x"},
     {"percent": 10**30, "message": "x"}, {"percent": 1, "message": None}, {"percent": 1, "message": 1},
     {"percent": 1, "message": "x", "subProgress": []}, {"percent": 1, "message": "x", "subProgress": {"a": 1}},
     {"percent": 1, "message": "x", "subProgress": {"a": {}}},
     {"percent": 1, "message": "x", "subProgress": {"a": {"percent": 101}}},
     {"percent": 1, "message": "x", "subProgress": {"a": {"percent": 1, "message": 5}}},
     {"percent": 1, "message": "x", "subProgress": {f"s{i}": {"percent": 1} for i in range(101)}}, [], 7, "x"],
)  # fmt: skip
def test_another_shape_is_400_and_changes_nothing(space: Space, body: Any) -> None:
    job = space.job_in("running")
    refused(space.call(job, "progress", body), 400, "invalid_request")
    assert space.all.get(f"/jobs/{job['id']}/progress").json()["progress"] is None


@pytest.mark.parametrize("body", ["[]", "1", '"x"', "null", "true"])
def test_a_checkpoint_is_an_object(space: Space, body: str) -> None:
    job = space.job_in("running")
    refused(space.call(job, "checkpoint", content=body), 400, "invalid_request")
    assert space.get(job)["checkpoint"] is None


@pytest.mark.parametrize("body", ["{}", '{"a":[]}', '{"a":{"b":null}}', ' {"x": 1.0} \n'])
def test_a_checkpoint_is_kept_as_sent_and_given_to_the_next_attempt(space: Space, body: str) -> None:
    job = space.job_in("running")
    space.call(job, "checkpoint", content='{"older":true}')
    assert space.call(job, "checkpoint", content=body).status_code == 200
    assert f'"checkpoint":{body.strip()}' in space.all.get(f"/jobs/{job['id']}").text
    space.do(job, "fail")
    again = space.all.post(f"/jobs/{job['id']}/claim")
    assert f'"checkpoint":{body.strip()}' in again.text


@pytest.mark.parametrize("body", ["null", "[]", '"x"', "0", '{"a":1}', ""])
def test_an_event_is_any_json(space: Space, body: str) -> None:
    job = space.create()
    assert space.call(job, "event", content=body).status_code == 200
    assert f'"type":"event","data":{body or "null"}' in space.all.get(f"/jobs/{job['id']}").text
