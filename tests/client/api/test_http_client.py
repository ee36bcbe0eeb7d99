"""Failures of the link and answers of the service, sorted by what a caller may do."""

from __future__ import annotations

import socket

import pytest

from jobwire import (
    AccessDenied,
    InvalidState,
    Jobs,
    JobwireError,
    LeaseLost,
    NotConfigured,
    NotDone,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    Refused,
)
from jobwire.api.http_client import Http, is_loopback
from tests.client.fake import BREAK, UNAVAILABLE, UNKNOWN, FakeService


def test_a_refused_connection_did_nothing(service: FakeService, jobs: Jobs) -> None:
    service.down()
    with pytest.raises(NotDone, match="No jobwire server answers at http://127"):
        jobs.get("x")


def test_a_name_without_address_did_nothing() -> None:
    with pytest.raises(NotDone):
        Jobs("http://name.invalid", None).get("x")


def test_a_cut_connection_leaves_the_outcome_unknown(service: FakeService, jobs: Jobs) -> None:
    service.faults["get"].append(BREAK)
    with pytest.raises(OutcomeUnknown):
        jobs.get("x")


def test_a_server_that_never_answers_is_not_waited_for_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        http = Http(f"http://127.0.0.1:{silent.getsockname()[1]}", None, read_timeout_s=0.1)
        with pytest.raises(OutcomeUnknown):
            http.call("GET", "/jobs/x")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "unavailable", NotDone),
        (503, "space_full", NotDone),
        (503, "outcome_unknown", OutcomeUnknown),
        (429, "rate_limited", RateLimited),
        (500, "internal", OutcomeUnknown),
        (502, "", OutcomeUnknown),
        (401, "unauthorized", AccessDenied),
        (403, "missing_scope", AccessDenied),
        (404, "job_not_found", NotFound),
        (409, "lease_lost", LeaseLost),
        (409, "invalid_state", InvalidState),
        (400, "invalid_json", Refused),
        (302, "", Refused),
    ],
)
def test_answers_become_the_error_that_says_what_to_do(
    service: FakeService, jobs: Jobs, status: int, code: str, kind: type[JobwireError]
) -> None:
    service.faults["get"].append((status, {"error": "because", "code": code, "status": "killed"}))
    with pytest.raises(kind, match="because") as caught:
        jobs.get("x")
    assert type(caught.value) is kind
    if isinstance(caught.value, InvalidState):
        assert caught.value.job_status == "killed"


def test_a_call_is_sent_once(service: FakeService, jobs: Jobs) -> None:
    for fault in (BREAK, UNAVAILABLE, UNKNOWN):
        service.faults["get"].append(fault)
        with pytest.raises((NotDone, OutcomeUnknown)):
            jobs.get("x")
    assert len(service.seen("get")) == 3


def test_the_key_never_shows_in_an_error(service: FakeService) -> None:
    jobs = Jobs(service.url, "emit_secret")
    service.faults["get"].extend([BREAK, (401, {"error": "who?", "code": "unauthorized"})])
    for _ in range(2):
        with pytest.raises(JobwireError) as caught:
            jobs.get("x")
        assert "emit_secret" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_an_answer_that_is_no_json_of_ours_is_an_outage(service: FakeService, jobs: Jobs) -> None:
    service.faults["get"].append((200, ["a proxy's page"]))
    with pytest.raises(OutcomeUnknown):
        jobs.get("x")


def test_what_is_no_id_stays_one_segment_of_the_path(service: FakeService, jobs: Jobs) -> None:
    with pytest.raises(NotFound):
        jobs.get("../spaces?x=1#y")
    assert service.requests[-1].path == "/api/v1/jobs/..%2Fspaces%3Fx%3D1%23y"


@pytest.mark.parametrize("url", ["", "ftp://host", "host:80", "http://", "/tmp"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(NotConfigured):
        Http(url, None)


def test_loopback_is_told_by_the_address_alone() -> None:
    assert all(map(is_loopback, ["http://localhost:1", "http://127.0.0.9", "http://[::1]:8"]))
    assert not any(map(is_loopback, ["http://example.org", "http://localhost.evil.org", "http://10.0.0.1"]))


def test_bodies_are_compressed_for_other_hosts_only(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    job = service.add_job()
    batch = b'{"message":"text"}\n' * 500
    Jobs(service.url, "emit_test").append_logs(job.id, batch)
    assert "content-encoding" not in service.requests[-1].headers
    monkeypatch.setattr("jobwire.api.http_client.is_loopback", lambda url: False)
    Jobs(service.url, "emit_test").append_logs(job.id, batch)
    assert service.requests[-1].headers["content-encoding"] == "gzip"
    assert len(job.lines) == 1000
