"""Idempotency-Key on create: once, alike, and only for the same body."""

import gzip
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.factories import Space, in_future, refused


def create(space: Space, body: Any, key: str = "k") -> Any:
    return space.all.post(space.jobs, json=body, headers={"idempotency-key": key})


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x"},
        [{"name": "a"}, {"name": "b"}],
        {"name": "x", "claim": True},
        {"name": "x", "scheduledFor": "SOON"},
        {"name": "x", "scheduledFor": "JUST NOW"},
    ],
)
def test_the_same_request_again_is_answered_like_the_first_and_does_nothing(space: Space, body: Any) -> None:
    if isinstance(body, dict) and "scheduledFor" in body:
        body = {**body, "scheduledFor": in_future() if body["scheduledFor"] == "SOON" else in_future(seconds=-3)}
    first, second = create(space, body), create(space, body)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert len(space.all.get(space.jobs).json()) == (len(body) if isinstance(body, list) else 1)


def test_fifty_at_the_same_moment_are_done_once_and_answered_alike(space: Space) -> None:
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda _: create(space, [{"name": "x"}, {"name": "y"}]), range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert len(space.all.get(space.jobs).json()) == 2


def test_fifty_at_the_same_moment_with_two_bodies_end_in_one_and_the_others_are_told(space: Space) -> None:
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda i: create(space, {"name": f"n{i % 2}"}), range(50)))
    assert sorted(answer.status_code for answer in answers) == [201] * 25 + [422] * 25
    assert len(space.all.get(space.jobs).json()) == 1


def test_another_body_is_422_and_changes_nothing(space: Space) -> None:
    first = create(space, {"name": "x"})
    for body in ({"name": "y"}, [{"name": "x"}], {"name": "x", "payload": None}):
        refused(create(space, body), 422, "idempotency_mismatch")
    assert create(space, {"name": "x"}).json() == first.json()
    assert len(space.all.get(space.jobs).json()) == 1


def test_the_body_is_compared_after_it_was_inflated(space: Space) -> None:
    headers = {"idempotency-key": "k"}
    first = space.all.post(space.jobs, content=b'{"name":"x"}', headers=headers)
    body = gzip.compress(b'{"name":"x"}')
    second = space.all.post(space.jobs, content=body, headers={**headers, "content-encoding": "gzip"})
    assert second.json() == first.json()


def test_a_refused_request_does_not_use_the_key_up(space: Space) -> None:
    for wrong in ({"name": ""}, [{"name": "x"}, {"name": 1}], {"name": "x", "scheduledFor": "2001-01-01T00:00:00Z"}):
        refused(create(space, wrong), 400, "invalid_request")
    weak = space.caller("jobs:read")
    refused(weak.post(space.jobs, json={"name": "x"}, headers={"idempotency-key": "k"}), 403, "missing_scope")
    answer = create(space, {"name": "x"})
    assert answer.status_code == 201
    assert "idempotency-replayed" not in answer.headers


def test_the_key_belongs_to_the_space_and_not_to_the_api_key(space: Space) -> None:
    first = create(space, {"name": "x"})
    other = space.caller("jobs:create")
    again = other.post(space.jobs, json={"name": "x"}, headers={"idempotency-key": "k"})
    assert again.json() == first.json()
    elsewhere = create(Space(space.server), {"name": "x"})
    assert elsewhere.json()["id"] != first.json()["id"]
    assert create(space, {"name": "x"}, key="K").json()["id"] != first.json()["id"]


def test_the_answer_stays_the_first_one_whatever_the_job_has_done_since(space: Space) -> None:
    first = create(space, {"name": "x"})
    (taken,) = space.poll()
    space.do(taken, "complete", {"x": 1})
    assert create(space, {"name": "x"}).json() == first.json()


def test_the_key_is_kept_as_long_as_the_job(space: Space) -> None:
    first = create(space, {"name": "x"}).json()
    space.do(first, "kill")
    assert space.server.root.delete(f"/jobs/{first['id']}").status_code == 204
    second = create(space, {"name": "y"})
    assert second.status_code == 201
    assert second.json()["id"] != first["id"]


def test_the_key_of_a_batch_is_kept_as_long_as_any_of_its_jobs(space: Space) -> None:
    body = [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    first = create(space, body).json()
    for job in first:
        space.do(job, "kill")
    for job in first[:2]:
        assert space.server.root.delete(f"/jobs/{job['id']}").status_code == 204
        again = create(space, body)
        assert again.json() == first
        assert again.headers["idempotency-replayed"] == "true"
    assert space.server.root.delete(f"/jobs/{first[2]['id']}").status_code == 204
    assert create(space, [{"name": "other"}]).status_code == 201


@pytest.mark.parametrize("key", ["x", 'x y ~!"', "}{*", "x" * 128, ":a:b"])
def test_a_key_of_1_to_128_printable_characters_is_taken(space: Space, key: str) -> None:
    assert create(space, {"name": "x"}, key).json() == create(space, {"name": "x"}, key).json()


@pytest.mark.parametrize("key", [b"", b"x" * 129, b"x\ty", "ü".encode(), b"\xff", b"\x7f"])
def test_another_key_is_400_and_nothing_is_made(space: Space, key: bytes) -> None:
    headers: Any = {b"idempotency-key": key}
    refused(space.all.send("POST", space.jobs, json={"name": "x"}, headers=headers), 400, "invalid_request")
    assert space.all.get(space.jobs).json() == []
