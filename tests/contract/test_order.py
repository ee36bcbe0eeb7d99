"""A request that is wrong in several ways gets the error of the first row of the contract's table."""

import pytest

from tests.factories import NO_JOB, Space, in_future, refused
from tests.server import Server

WORKER_VERBS = (
    "ack",
    "complete",
    "fail",
    "kill",
    "retry",
    "progress",
    "checkpoint",
    "event",
    "keepalive",
    "claim",
    "logs",
)
BAD = {"content-type": "text/plain", "content-encoding": "br"}


def test_404_path_before_405_before_401(server: Server) -> None:
    nobody = server.caller(None)
    refused(nobody.send("PUT", "/nothing", content=b"{"), 404, "not_found")
    refused(nobody.send("PUT", "/spaces", content=b"{"), 405, "method_not_allowed")
    refused(nobody.post("/spaces", content=b"{", headers=BAD), 401, "unauthorized")


def test_401_before_403_scope_before_403_space(space: Space) -> None:
    other = Space(space.server)
    refused(space.server.caller("emit_nothing").post(space.jobs), 401, "unauthorized")
    weak = other.caller("jobs:read:progress")
    refused(weak.post(space.jobs, content=b"{", headers=BAD), 403, "missing_scope")
    refused(other.all.post(space.jobs, content=b"{", headers=BAD), 403, "wrong_space")
    refused(other.all.post(f"/spaces/{NO_JOB}/jobs", content=b"{", headers=BAD), 403, "wrong_space")
    refused(other.all.get(f"{space.jobs}?limit=0"), 403, "wrong_space")


@pytest.mark.parametrize("path", ["/jobs", "/jobs/poll", "/tokens"])
def test_an_unknown_space_is_told_to_the_root_key_before_what_is_wrong_with_the_body(server: Server, path: str) -> None:
    for unknown in (NO_JOB, "x", "{}", "0" * 26, "a" * 500):
        refused(server.root.post(f"/spaces/{unknown}{path}", content=b"{", headers=BAD), 404, "space_not_found")
    refused(server.root.get(f"/spaces/{NO_JOB}/jobs?limit=0"), 404, "space_not_found")
    refused(server.root.get(f"/spaces/{NO_JOB}"), 404, "space_not_found")
    refused(server.root.get(f"/spaces/{NO_JOB}/tokens"), 404, "space_not_found")
    refused(server.root.delete(f"/spaces/{NO_JOB}"), 404, "space_not_found")
    refused(server.root.delete(f"/spaces/{NO_JOB}/tokens/{NO_JOB}"), 404, "space_not_found")


def test_403_of_another_space_before_the_body_of_a_job_call(space: Space) -> None:
    job, other = space.create(), Space(space.server)
    for verb in WORKER_VERBS:
        refused(other.all.post(f"/jobs/{job['id']}/{verb}", content=b"{", headers=BAD), 403, "wrong_space")


@pytest.mark.parametrize("verb", WORKER_VERBS)
def test_415_before_413_before_400_before_404_job(space: Space, verb: str) -> None:
    path = f"/jobs/{NO_JOB}/{verb}"
    huge = b"{" * 6_000_000
    refused(space.all.post(path, content=huge, headers={"content-type": "text/plain"}), 415, "unsupported_media_type")
    refused(space.all.post(path, content=huge, headers={"content-encoding": "br"}), 415, "unsupported_media_type")
    refused(space.all.post(path, content=huge), 413, "too_large")
    refused(space.all.post(path, content=b"{"), 400, "invalid_json")


def test_415_before_the_idempotency_key_is_looked_at(space: Space) -> None:
    headers = {"idempotency-key": "x" * 129, "content-type": "text/plain"}
    refused(space.all.post(space.jobs, content=b"{}", headers=headers), 415, "unsupported_media_type")
    refused(space.all.post(space.jobs, content=b" " * 9_000_000, headers={"idempotency-key": ""}), 413, "too_large")


def test_400_before_404_job_before_409(space: Space) -> None:
    job = space.job_in("completed")
    wrong = {"x-lease-token": "not-its"}
    refused(space.call({"id": NO_JOB}, "progress", {"percent": 101, "message": "x"}), 400, "invalid_request")
    refused(space.call({"id": NO_JOB}, "progress", {"percent": 1, "message": "x"}, headers=wrong), 404, "job_not_found")
    refused(space.call(job, "progress", {"percent": 101, "message": "x"}, headers=wrong), 400, "invalid_request")


def test_409_lease_before_409_state(space: Space) -> None:
    job = space.job_in("completed")
    refused(space.call(job, "ack", token="not-its"), 409, "lease_lost")
    refused(space.call(job, "ack", token=job["leaseToken"]), 409, "invalid_state")


def test_413_of_a_payload_before_400_of_its_neighbours(space: Space) -> None:
    wrong = {"name": 7, "payload": "x" * 1_100_000}
    refused(space.all.post(space.jobs, json=wrong), 413, "too_large")
    body = refused(space.all.post(space.jobs, json=[{"name": "a"}, wrong]), 413, "too_large")
    assert body["index"] == 1


def test_422_comes_after_400(space: Space) -> None:
    headers = {"idempotency-key": "k"}
    assert space.all.post(space.jobs, json={"name": "a"}, headers=headers).status_code == 201
    refused(space.all.post(space.jobs, json={"name": ""}, headers=headers), 400, "invalid_request")
    refused(space.all.post(space.jobs, json={"name": "b"}, headers=headers), 422, "idempotency_mismatch")


def test_claim_wants_a_scope_of_its_own_which_is_asked_for_once_the_body_is_understood(space: Space) -> None:
    maker = space.caller("jobs:create")
    refused(maker.post(space.jobs, json={"name": "a", "claim": "yes"}), 400, "invalid_request")
    assert refused(maker.post(space.jobs, json={"name": "a", "claim": True}), 403, "missing_scope")["error"] == (
        "Missing required scope: jobs:poll"
    )
    assert maker.post(space.jobs, json={"name": "a", "scheduledFor": in_future()}).status_code == 201
