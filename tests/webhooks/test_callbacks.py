"""Callbacks from end to end: a service, a receiver in a process of its own, and what the job's events say."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.service import Service
from tests.valkey import until
from tests.webhooks.receiving import HERE, Receiving, ended, tries

QUICK = {**HERE, "JOBWIRE_CALLBACK_SCHEDULE": "0,0.1,0.1", "JOBWIRE_CALLBACK_TIMEOUT": "2"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiving]:
    with Receiving() as receiving:
        yield receiving


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(env=QUICK) as service:
        yield service


def tried(service: Service, job: str, count: int) -> list[tuple[str, dict[str, Any]]]:
    """The job's tries, once there are so many."""
    until(lambda: len(tries(service, job)) >= count)
    return tries(service, job)


def test_the_end_of_a_job_arrives_once_with_its_body_and_headers(service: Service, receiver: Receiving) -> None:
    job = ended(service, receiver.url("/ok"), name="näme", callbackHeaders={"x-mine": "1"})
    url = receiver.url("/ok")
    assert tried(service, job, 1) == [("callback_sent", {"url": url, "statusCode": 200, "retryAttempt": 0})]
    (seen,) = receiver.seen(job)
    assert seen["body"] == {
        "jobId": job,
        "spaceId": service.space,
        "name": "näme",
        "status": "completed",
        "attemptNumber": 0,
        "result": {"n": 1},
        "timestamp": service.job(job)["completedAt"],
    }
    assert seen["headers"]["content-type"] == "application/json"
    assert seen["headers"]["user-agent"].startswith("jobwire/")
    assert seen["headers"]["x-mine"] == "1"


def test_killed_and_dead_jobs_call_back_too(service: Service, receiver: Receiving) -> None:
    killed = service.create(callbackUrl=receiver.url("/ok"))["id"]
    service.call("POST", f"/jobs/{killed}/kill", {"reason": "why not"})
    dead = service.create(callbackUrl=receiver.url("/ok"), claim=True, maxRetries=0)["id"]
    service.call("POST", f"/jobs/{dead}/fail", {"error": "no"})
    for job, status, result in ((killed, "killed", {"reason": "why not"}), (dead, "dead", {"error": "no"})):
        tried(service, job, 1)
        (seen,) = receiver.seen(job)
        assert (seen["body"]["status"], seen["body"]["result"]) == (status, result)


def test_a_receiver_that_fails_is_tried_again_under_the_same_id(service: Service, receiver: Receiving) -> None:
    job = ended(service, receiver.url("/flaky/2"))
    said = tried(service, job, 3)
    assert [(kind, data["retryAttempt"], data["statusCode"]) for kind, data in said] == [
        ("callback_failed", 0, 503),
        ("callback_failed", 1, 503),
        ("callback_sent", 2, 200),
    ]
    assert said[0][1]["responseBody"] == "not yet"
    seen = receiver.seen(job)
    assert len({one["headers"]["webhook-id"] for one in seen}) == 1
    assert len({str(one["body"]) for one in seen}) == 1


def test_the_schedule_ends_and_a_person_may_begin_it_anew(service: Service, receiver: Receiving) -> None:
    job = ended(service, receiver.url("/status/500"))
    assert [data["willRetry"] for _, data in tried(service, job, 3)] == [True, True, False]
    again = service.call("POST", f"/jobs/{job}/callback/retry")
    assert (again.status, again.body) == (200, {"success": True, "status": "completed"})
    assert [data["retryAttempt"] for _, data in tried(service, job, 6)] == [0, 1, 2, 0, 1, 2]
    assert len(receiver.seen(job)) == 6


def test_gone_ends_it_and_a_redirect_is_a_failure(service: Service, receiver: Receiving) -> None:
    gone, moved = ended(service, receiver.url("/status/410")), ended(service, receiver.url("/redirect"))
    ((_, data),) = tried(service, gone, 1)
    assert (data["statusCode"], data["willRetry"]) == (410, False)
    said = tried(service, moved, 3)
    assert [data["statusCode"] for _, data in said] == [302, 302, 302]
    assert {one["path"] for one in receiver.seen(moved)} == {"/redirect"}


def test_retry_after_is_waited_for(service: Service, receiver: Receiving) -> None:
    job = ended(service, receiver.url("/status/503?after=2"))
    tried(service, job, 2)
    events = [e for e in service.job(job)["events"] if e["type"] == "callback_failed"]
    first, second = (int(e["createdAt"][17:19]) * 1000 + int(e["createdAt"][20:23]) for e in events[:2])
    assert (second - first) % 60_000 >= 2000


def test_an_answer_that_is_no_success_is_told_with_its_first_kib(service: Service, receiver: Receiving) -> None:
    job = ended(service, receiver.url("/huge"))
    assert tried(service, job, 1)[0][1]["responseBody"] == "x" * 1024


def test_no_answer_is_told_with_nulls(service: Service, receiver: Receiving) -> None:
    job = ended(service, receiver.url("/drop"))
    (_, data) = tried(service, job, 1)[0]
    assert data == {
        "url": receiver.url("/drop"),
        "error": "The host could not be reached, or gave no answer.",
        "statusCode": None,
        "responseBody": None,
        "retryAttempt": 0,
        "willRetry": True,
    }


def test_signatures_verify_during_a_rotation_and_no_secret_is_ever_shown(service: Service, receiver: Receiving) -> None:
    space = f"/spaces/{service.space}"
    assert service.call("PATCH", space, {"webhookSecrets": [receiver.secret]}).status == 200
    job = ended(service, receiver.url("/ok"))
    tried(service, job, 1)
    assert [one["verified"] for one in receiver.seen(job)] == [True]
    made = service.call("PATCH", space, {"rotateWebhookSecret": True}).body
    fresh = made["webhookSecret"]
    assert fresh.startswith("whsec_")
    assert made["hooks"]["webhookSecrets"] == 2
    both = ended(service, receiver.url("/ok"))
    tried(service, both, 1)
    (seen,) = receiver.seen(both)
    assert seen["verified"]
    assert len(seen["headers"]["webhook-signature"].split()) == 2
    service.call("PATCH", space, {"dropOldWebhookSecret": True})
    new = ended(service, receiver.url("/ok"))
    tried(service, new, 1)
    assert [one["verified"] for one in receiver.seen(new)] == [False]
    shown = service.call("GET", space).body
    assert shown["hooks"] == {"webhookSecrets": 1, "push": None, "slack": None}
    everything = str([shown, service.call("GET", "/spaces").body, service.job(new), service.log])
    assert receiver.secret not in everything
    assert fresh not in everything
    service.call("PATCH", space, {"webhookSecrets": []})


@pytest.mark.parametrize(
    "url",
    ["http://[::1]:1/", "http://169.254.169.254/latest/meta-data", "http://2130706433/", "http://[::ffff:10.0.0.1]/"],
)
def test_a_literal_address_that_is_not_public_is_refused_when_it_is_given(service: Service, url: str) -> None:
    jobs = f"/spaces/{service.space}/jobs"
    assert service.call("POST", jobs, {"name": "n", "callbackUrl": url}).code == "invalid_request"
    reply = service.call("POST", jobs, [{"name": "n"}, {"name": "n", "callbackUrl": url}])
    assert (reply.status, reply.body["index"]) == (400, 1)
    for change in ({"push": {"url": url}}, {"slack": {"url": url, "events": ["dead"]}}):
        assert service.call("PATCH", f"/spaces/{service.space}", change).code == "invalid_request"


def test_what_a_name_resolves_to_and_which_ports_are_open_is_told_to_the_operator_only(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        urls = [
            f"http://127.0.0.1:{closed.getsockname()[1]}/",
            f"http://127.0.0.1:{silent.getsockname()[1]}/",
            f"https://127.0.0.1:{closed.getsockname()[1]}/",
            "http://ip6-name-that-nobody-has.invalid/",
        ]
        jobs = [ended(service, url) for url in urls]
        for job in jobs:
            (_, data) = tried(service, job, 1)[0]
            assert data["error"] == "The host could not be reached, or gave no answer."
            assert data["statusCode"] is None
            assert data["responseBody"] is None
            assert f"no answer to the callback of job {job} from" in service.log


def test_user_info_is_refused_when_the_job_is_created(service: Service) -> None:
    body = {"name": "n", "callbackUrl": "http://user:secret@example.com/"}
    reply = service.call("POST", f"/spaces/{service.space}/jobs", body)
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert "secret" not in str(reply.body)


def test_who_may_ask_for_another_try(service: Service, receiver: Receiving) -> None:
    job = ended(service, receiver.url("/ok"))
    path = f"/jobs/{job}/callback/retry"
    for scopes, status in ((["jobs:worker", "jobs:read"], 403), (["jobs:retry"], 200)):
        made = service.call("POST", f"/spaces/{service.space}/tokens", {"name": "n", "scopes": scopes}).body
        assert service.call("POST", path, x_api_key=made["key"]).status == status
    assert service.call("GET", path).status == 405
    running = service.create(callbackUrl=receiver.url("/ok"), claim=True)["id"]
    reply = service.call("POST", f"/jobs/{running}/callback/retry")
    assert (reply.status, reply.code, reply.body["status"]) == (409, "invalid_state", "delivered")
    reply = service.call("POST", f"/jobs/{service.space}/callback/retry")
    assert (reply.status, reply.code) == (404, "job_not_found")


def test_a_name_of_null_stays_what_it_is(service: Service) -> None:
    path = f"/spaces/{service.space}"
    before = service.call("GET", path).body
    assert service.call("PATCH", path, {"name": None}).body["name"] == before["name"]


@pytest.mark.parametrize(
    "change",
    [
        {"webhookSecrets": ["secret"]},
        {"webhookSecrets": ["whsec_" + "A" * 40] * 3},
        {"push": {"url": "ftp://example.com"}},
        {"push": {"url": "http://a:b@example.com"}},
        {"push": {"url": "http://example.com", "headers": {"a": "b\r\nc: d"}}},
        {"push": {}},
        {"slack": {"url": "https://example.com", "events": ["pending"]}},
        {"slack": {"url": "https://example.com", "events": []}},
        {"name": ""},
    ],
)
def test_a_patch_that_cannot_be_is_refused_and_changes_nothing(service: Service, change: dict[str, Any]) -> None:
    path = f"/spaces/{service.space}"
    before = service.call("GET", path).body
    reply = service.call("PATCH", path, {"name": "another", **change})
    assert (reply.status, reply.code) == (400, "invalid_request")
    after = service.call("GET", path).body
    assert (after["name"], after.get("hooks")) == (before["name"], before.get("hooks"))


def test_a_patch_needs_the_root_key_and_a_space(service: Service) -> None:
    made = service.call("POST", f"/spaces/{service.space}/tokens", {"name": "n", "scopes": ["jobs:create"]}).body
    assert service.call("PATCH", f"/spaces/{service.space}", {}, x_api_key=made["key"]).status == 403
    assert service.call("PATCH", "/spaces/01JNA800000000000000000000", {}).code == "space_not_found"


def command(service: Service, *words: str) -> "subprocess.CompletedProcess[str]":
    """`jobwire callbacks WORDS` against the service."""
    env = {**os.environ, "JOBWIRE_URL": service.url, "JOBWIRE_KEY": service.root_key}
    command = [sys.executable, "-m", "jobwire", "callbacks", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=30)


def test_the_command_asks_for_another_try_and_makes_secrets(service: Service, receiver: Receiving) -> None:
    job = ended(service, receiver.url("/ok"))
    tried(service, job, 1)
    assert command(service, "retry", job).returncode == 0
    tried(service, job, 2)
    assert command(service, "retry", service.space).returncode != 0
    space = service.new_space()
    secret = command(service, "secret", space).stdout.strip()
    assert secret.startswith("whsec_")
    assert command(service, "secret", space).returncode == 0
    assert service.call("GET", f"/spaces/{space}").body["hooks"]["webhookSecrets"] == 2
    assert command(service, "secret", space, "--drop-old").returncode == 0
    assert service.call("GET", f"/spaces/{space}").body["hooks"]["webhookSecrets"] == 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("JOBWIRE_CALLBACK_ALLOW", "10.0.0.0/40"),
        ("JOBWIRE_CALLBACK_SCHEDULE", "0,x"),
        ("JOBWIRE_CALLBACK_SCHEDULE", ","),
    ],
)
def test_a_setting_that_cannot_be_stops_the_start(variable: str, value: str) -> None:
    env = {**os.environ, variable: value, "REDIS_URL": "redis://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-m", "jobwire", "callbacks"], env=env, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 78
    assert variable in done.stderr
