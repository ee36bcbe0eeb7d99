"""`tail`, `logs` and `jobs` as a person or a script meets them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobwire import exit_codes
from jobwire.commands.terminal_text import cells
from tests.client.conftest import Cli
from tests.client.fake import BREAK, UNAVAILABLE, FakeJob, FakeService


def finished(process: subprocess.Popen[bytes], given: bytes | None = None) -> tuple[int, bytes, bytes]:
    out, err = process.communicate(given, timeout=60)
    return process.returncode, out, err


def printed(process: subprocess.Popen[bytes]) -> bytes:
    code, out, err = finished(process)
    assert (code, err) == (0, b"")
    return out


def with_lines(service: FakeService, count: int, status: str = "running") -> FakeJob:
    job = service.add_job(status=status)
    append(job, *(f"line {number}" for number in range(1, count + 1)))
    return job


def append(job: FakeJob, *messages: str, **fields: object) -> None:
    for message in messages:
        line = {"level": "info", "source": None, "metadata": None, "message": message, **fields}
        job.lines.append({**line, "seq": len(job.lines) + 1})


# --- tail ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "first"), [("0", None), ("3", 1198), ("700", 501), ("5000", 1)])
def test_tail_prints_the_newest_lines_however_many(
    service: FakeService, cli: Cli, asked: str, first: int | None
) -> None:
    job = with_lines(service, 1200)
    expected = [f"line {number}" for number in range(first or 1201, 1201)]
    assert printed(cli("tail", job.id, "-n", asked)).decode().splitlines() == expected


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("dead", 1), ("killed", 1)])
def test_tail_follows_through_an_outage_to_the_end_and_exits_by_it(
    service: FakeService, cli: Cli, status: str, code: int
) -> None:
    job = with_lines(service, 3)
    process = cli("tail", "-f", job.id)
    service.wait_for(lambda: service.seen("get"))
    service.faults["logs"].extend([BREAK, UNAVAILABLE])
    append(job, *(f"more {number}" for number in range(1500)))
    seen = len(service.seen("get"))
    service.wait_for(lambda: len(service.seen("get")) > seen)
    append(job, "the last")
    job.status, job.result = status, {"error": "why\x1b[2J"}
    returned, out, err = finished(process)
    assert returned == code
    assert out.decode().splitlines() == [
        *(f"line {number}" for number in range(1, 4)),
        *(f"more {number}" for number in range(1500)),
        "the last",
    ]
    assert b"\x1b" not in err
    assert b"the server is away" in err


def test_tail_lets_no_control_character_through_but_raw_does(service: FakeService, cli: Cli) -> None:
    job = service.add_job()
    append(job, "a\x1b[2J\x07b\r")
    assert printed(cli("tail", job.id)) == b"a\\x1b[2J\\x07b\n"
    assert printed(cli("tail", "--raw", job.id)) == b"a\x1b[2J\x07b\r\n"


def test_tail_colours_levels_on_a_terminal_only(service: FakeService, cli: Cli, environ: dict[str, str]) -> None:
    job = service.add_job()
    append(job, "bad", level="error")
    environ["TERM"] = "xterm"
    environ.pop("NO_COLOR", None)
    ours, theirs = pty.openpty()
    assert cli("tail", job.id, stdout=theirs).wait(30) == 0
    assert os.read(ours, 100) == b"\x1b[31mbad\x1b[0m\r\n"
    os.close(ours)
    os.close(theirs)
    assert printed(cli("tail", job.id)) == b"bad\n"


def test_tail_is_left_with_ctrl_c(service: FakeService, cli: Cli) -> None:
    job = with_lines(service, 1)
    process = cli("tail", "-f", job.id)
    service.wait_for(lambda: service.seen("get"))
    process.send_signal(signal.SIGINT)
    assert finished(process)[0] == exit_codes.INTERRUPTED


# --- logs ----------------------------------------------------------------------------------------------------------


def test_logs_prints_everything_page_by_page(service: FakeService, cli: Cli) -> None:
    job = with_lines(service, 1201)
    assert printed(cli("logs", job.id)).decode().splitlines() == [f"line {number}" for number in range(1, 1202)]
    assert printed(cli("logs", job.id, "--after", "1199")) == b"line 1200\nline 1201\n"


def test_logs_takes_a_broken_download_up_where_it_was(service: FakeService, cli: Cli) -> None:
    job = with_lines(service, 1201)
    service.faults["logs"].extend([None, BREAK, UNAVAILABLE])
    assert printed(cli("logs", job.id)).count(b"\n") == 1201


def test_what_was_piped_in_comes_out_byte_for_byte(service: FakeService, cli: Cli) -> None:
    job = service.add_job()
    stream = bytes(range(256)) * 700 + "é😀".encode() * 30_000 + b"\n\r\n\0 no end"
    assert finished(cli("send", job.id, stdin=subprocess.PIPE), stream)[0] == 0
    assert printed(cli("logs", job.id, "--raw")) == stream


def test_logs_prints_whatever_standard_input_is(service: FakeService, cli: Cli, tmp_path: Path) -> None:
    job = with_lines(service, 1)
    (tmp_path / "ids").write_text("other ids\n")
    with (tmp_path / "ids").open("rb") as file:
        assert printed(cli("logs", job.id, stdin=file)) == b"line 1\n"
    code, out, _ = finished(cli("logs", job.id, stdin=subprocess.PIPE), b"other ids\n")
    assert (code, out) == (0, b"line 1\n")
    assert service.seen("append") == []


def test_a_file_is_sent(service: FakeService, cli: Cli, tmp_path: Path) -> None:
    job = service.add_job()
    (tmp_path / "file").write_text("from a file\n")
    with (tmp_path / "file").open("rb") as file:
        code, out, err = finished(cli("send", job.id, stdin=file))
    assert (code, out, err) == (0, b"", f"jobwire: {service.url}/#/jobs/{job.id}\n".encode())
    assert service.messages() == ["from a file"]


def test_what_waits_for_its_lines_end_is_sent_as_a_part(service: FakeService, cli: Cli) -> None:
    job = service.add_job()
    process = cli("send", job.id, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"Password: ")
    process.stdin.flush()
    service.wait_for(lambda: job.lines)
    assert finished(process, b"secret\n")[0] == 0
    assert [line["message"] for line in job.lines] == ["Password: ", "secret"]
    assert printed(cli("logs", job.id, "--raw")) == b"Password: secret\n"


def test_all_lines_are_sent_though_nobody_reads_the_copy(service: FakeService, cli: Cli) -> None:
    job = service.add_job()
    reading, writing = os.pipe()
    process = cli("send", job.id, "--tee", stdin=subprocess.PIPE, stdout=writing)
    os.close(writing)
    os.close(reading)
    assert finished(process, b"line\n" * 100_000)[0] == 0
    assert len(job.lines) == 100_000


def test_logs_of_a_span_of_time_and_the_first_of_them(service: FakeService, cli: Cli) -> None:
    job = service.add_job()
    for hour in range(4):
        append(job, f"at {hour}", loggedAt=f"2026-03-01T0{hour}:00:00.000Z")
    span = ("--since", "2026-03-01T01:00:00Z", "--until", "2026-03-01T04:00:00+01:00")
    assert printed(cli("logs", job.id, *span)) == b"at 1\nat 2\n"
    assert printed(cli("logs", job.id, *span, "--head", "1")) == b"at 1\n"
    assert printed(cli("logs", job.id, "--since", "30s")) == b""
    assert finished(cli("logs", job.id, "--since", "yesterday"))[0] == exit_codes.USAGE


def test_logs_follows_from_the_first_line_to_the_end(service: FakeService, cli: Cli) -> None:
    job = with_lines(service, 3)
    append(job, "of another", source="stderr")
    process = cli("logs", "-f", job.id, "--source", "stdout")
    for line in job.lines[:3]:
        line["source"] = "stdout"
    service.wait_for(lambda: service.seen("get"))
    append(job, "the last", source="stdout")
    job.status, job.result = "dead", {"error": "Traceback\n  in x\nValueError: why\n"}
    code, out, err = finished(process)
    assert (code, out) == (exit_codes.JOB_FAILED, b"line 1\nline 2\nline 3\nthe last\n")
    assert err.endswith(b"dead: ValueError: why\n")


def test_what_a_terminal_obeys_is_escaped_in_json(service: FakeService, cli: Cli) -> None:
    job = service.add_job(payload="\x9b2J\u202e")
    append(job, "\x7f\x9b2J\u202eé")
    shown = printed(cli("logs", job.id, "--json")) + printed(cli("jobs", "show", job.id, "--json"))
    assert json.loads(shown.splitlines()[0])["message"] == "\x7f\x9b2J\u202eé"
    text = shown.decode()
    assert not {"\x7f", "\x9b", "\u202e"} & set(text)
    assert "é" in text


def test_tee_source_and_level_of_what_is_sent(service: FakeService, cli: Cli) -> None:
    job = service.add_job()
    process = cli("send", job.id, "--tee", "--source", "make", "--level", "warn", stdin=subprocess.PIPE)
    assert finished(process, b"text\n")[:2] == (0, b"text\n")
    (line,) = job.lines
    assert (line["source"], line["level"]) == ("make", "warn")
    assert printed(cli("logs", job.id, "--raw", "--source", "other")) == b""


def test_json_is_one_object_a_line(service: FakeService, cli: Cli) -> None:
    job = with_lines(service, 2)
    objects = [json.loads(line) for line in printed(cli("logs", job.id, "--json")).splitlines()]
    assert [found["message"] for found in objects] == ["line 1", "line 2"]


def test_sending_to_a_job_that_is_not_there_says_so(service: FakeService, cli: Cli) -> None:
    code, _, err = finished(cli("send", "nowhere", stdin=subprocess.PIPE), b"text\n")
    assert (code, err) == (exit_codes.NO_SUCH_JOB, b"jobwire: Job not found\n")


# --- jobs ----------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_as_a_table_and_as_json(service: FakeService, cli: Cli) -> None:
    service.add_job(name="evil\x1b[2J", status="completed")
    service.add_job(name="second", status="dead", max_retries=3, attempt_number=2)
    head, second, first = printed(cli("jobs", "list")).decode().splitlines()
    assert head.split() == ["ID", "STATUS", "RETRIES", "AGE", "NAME"]
    assert second.split()[:3] == ["job-1", "dead", "2/3"]
    assert first.endswith("evil\\x1b[2J")
    assert [job["id"] for job in json.loads(printed(cli("jobs", "list", "--json")))] == ["job-1", "job-0"]


def test_a_job_is_created_shown_killed_and_retried(service: FakeService, cli: Cli) -> None:
    job_id = printed(cli("jobs", "create", "build", "--payload", '{"big": 12345678901234567890}')).decode().strip()
    assert service.job.id == job_id
    assert service.job.payload == {"big": 12345678901234567890}
    assert printed(cli("jobs", "kill", job_id, "--reason", "enough")) == f"{job_id} killed\n".encode()
    assert service.job.result == {"reason": "enough"}
    shown = printed(cli("jobs", "show", job_id)).decode()
    assert "killed" in shown
    assert '{"big":12345678901234567890}' in shown
    assert json.loads(printed(cli("jobs", "show", job_id, "--json")))["status"] == "killed"
    assert printed(cli("jobs", "retry", job_id)) == f"{job_id} pending\n".encode()


def test_a_list_is_as_wide_as_the_terminal(service: FakeService, cli: Cli, environ: dict[str, str]) -> None:
    service.add_job(name="本" * 100)
    environ |= {"COLUMNS": "60", "LINES": "20", "NO_COLOR": "1"}
    ours, theirs = pty.openpty()
    assert cli("jobs", "list", stdout=theirs).wait(30) == 0
    _, row = os.read(ours, 10_000).decode().replace("\r", "").splitlines()
    os.close(ours)
    os.close(theirs)
    assert cells(row) <= 60
    assert row.endswith("本…")
    assert len(printed(cli("jobs", "list")).decode().splitlines()[1]) > 100


def test_a_traceback_is_shown_as_text_and_the_progress_beside_it(service: FakeService, cli: Cli) -> None:
    error = "Traceback\n  in x\nValueError: no\x1b[2J alpha"
    job = service.add_job(status="dead", result={"error": error})
    job.progress = {"percent": 40, "message": "scaling", "subProgress": {"load": {"percent": 90}}}
    job.events = [{"type": "dead", "data": {"error": error}, "createdAt": "2026-03-01T09:21:01.120Z"}]
    shown = printed(cli("jobs", "show", job.id)).decode()
    assert "error      Traceback\n      in x\n    ValueError: no\\x1b[2J alpha\n" in shown
    assert "progress   40 % scaling (" in shown
    assert "load: 90 %\n" in shown
    assert 'dead {"error":"ValueError: no' in shown


def test_a_job_is_waited_for_through_an_outage(service: FakeService, cli: Cli) -> None:
    done, dead = service.add_job(), service.add_job()
    service.faults["get"].extend([UNAVAILABLE, None, BREAK])
    process = cli("jobs", "wait", done.id, dead.id)
    service.wait_for(lambda: len(service.seen("get")) > 4)
    done.status = "completed"
    dead.status, dead.result = "dead", {"error": "why"}
    code, out, err = finished(process)
    assert (code, out.decode()) == (exit_codes.JOB_FAILED, f"{done.id} completed\n{dead.id} dead: why\n")
    assert b"the server is back" in err


def test_waiting_ends_after_the_time_that_was_given(service: FakeService, cli: Cli) -> None:
    assert finished(cli("jobs", "wait", service.add_job().id, "--timeout", "0.2"))[0] == exit_codes.TIMED_OUT
    assert finished(cli("jobs", "wait", "nowhere"))[0] == exit_codes.NO_SUCH_JOB


def test_create_waits_for_the_end(service: FakeService, cli: Cli) -> None:
    process = cli("jobs", "create", "work", "--at", "10m", "--wait")
    service.wait_for(lambda: service.seen("get"))
    (request,) = service.seen("create")
    ahead = datetime.fromisoformat(request.json["scheduledFor"]) - datetime.now(UTC)
    assert timedelta(minutes=9) < ahead <= timedelta(minutes=10)
    service.job.status = "completed"
    assert finished(process)[:2] == (0, f"{service.job.id}\n".encode())


def test_a_job_is_deleted_after_a_question(service: FakeService, cli: Cli) -> None:
    job = service.add_job(status="dead")
    assert finished(cli("jobs", "delete", job.id, stdin=subprocess.PIPE), b"n\n")[0] == 1
    assert job.id in service.jobs
    assert printed(cli("jobs", "delete", job.id, "--yes")) == f"{job.id} removed\n".encode()
    assert service.jobs == {}


def test_a_payload_that_is_no_json_is_a_usage_error(service: FakeService, cli: Cli) -> None:
    assert finished(cli("jobs", "create", "x", "--payload", "{"))[0] == exit_codes.USAGE
    assert service.requests == []


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ((401, {"error": "who?", "code": "unauthorized"}), exit_codes.NO_PERMISSION),
        ((403, {"error": "Missing required scope: jobs:read", "code": "missing_scope"}), exit_codes.NO_PERMISSION),
        ((404, {"error": "Job not found", "code": "job_not_found"}), exit_codes.NO_SUCH_JOB),
        ((400, {"error": "out of range", "code": "invalid_request"}), exit_codes.REFUSED),
        ((503, {"error": "Redis is away", "code": "unavailable"}), exit_codes.UNAVAILABLE),
    ],
)
def test_exit_codes_tell_what_went_wrong(
    service: FakeService, cli: Cli, reply: tuple[int, dict[str, str]], code: int
) -> None:
    service.faults["get"].append(reply)
    returned, _, err = finished(cli("jobs", "show", "x"))
    assert (returned, err.decode()) == (code, f"jobwire: {reply[1]['error']}\n")


def test_without_a_server_the_message_says_where_it_looked(service: FakeService, cli: Cli) -> None:
    service.down()
    code, _, err = finished(cli("jobs", "list"))
    assert (code, err.decode()) == (exit_codes.UNAVAILABLE, f"jobwire: No jobwire server answers at {service.url}.\n")


def test_without_settings_it_says_what_to_set(cli: Cli, environ: dict[str, str]) -> None:
    del environ["JOBWIRE_URL"], environ["JOBWIRE_KEY"]
    code, _, err = finished(cli("jobs", "list"))
    assert code == exit_codes.NOT_CONFIGURED
    assert b"jobwire up" in err


# --- status --------------------------------------------------------------------------------------------------------

WELL = {"server": "127.0.0.1:7001", "ok": True, "slots": 8192, "usedBytes": 2_500_000, "maxBytes": 1 << 30}
LOST = {"server": "127.0.0.1:7002", "ok": False, "why": "no answer\x1b[2J", "slots": 8192}
ROWS = ["shard           slots  memory              problem", "127.0.0.1:7001  8192   2.4 MiB of 1.0 GiB  -"]


def test_status_shows_each_shard_of_a_cluster(service: FakeService, cli: Cli) -> None:
    service.faults["readyz"].extend([(200, {"status": "ready", "shards": [WELL]})] * 2)
    assert printed(cli("status", "--shards")).decode().splitlines()[2:] == ROWS
    told = json.loads(printed(cli("status", "--shards", "--json")))
    assert (told["ready"], told["shards"]) == (True, [WELL | {"why": None}])
    assert not service.seen("list")


@pytest.mark.parametrize("ready", [True, False])
def test_a_shard_with_a_problem_is_shown_and_the_exit_says_so(service: FakeService, cli: Cli, ready: bool) -> None:
    refusal = {"error": "A shard is away.", "code": "unavailable"}
    service.faults["readyz"].append((200 if ready else 503, {**({} if ready else refusal), "shards": [WELL, LOST]}))
    code, out, _ = finished(cli("status", "--shards"))
    assert code == exit_codes.UNAVAILABLE
    assert out.decode().splitlines()[1:] == [
        f"ready   {'yes' if ready else 'A shard is away.'}",
        *ROWS,
        "127.0.0.1:7002  8192   -                   no answer\\x1b[2J",
    ]


def test_without_a_cluster_there_are_no_shards(service: FakeService, cli: Cli) -> None:
    service.faults["readyz"].append((200, {"status": "ready"}))
    assert printed(cli("status", "--shards")).decode().splitlines()[2:] == [
        "The server runs on one Redis, not on a cluster."
    ]


def test_a_shard_with_a_problem_is_told_without_the_shards_too(
    service: FakeService, cli: Cli, environ: dict[str, str]
) -> None:
    del environ["JOBWIRE_SPACE"]
    problems = ["127.0.0.1:7002: no answer"]
    readiness = {"status": "ready", "shards": [WELL, LOST], "problems": problems}
    service.faults["readyz"].extend([(200, readiness)] * 2)
    code, out, _ = finished(cli("status"))
    assert code == 0
    assert "shards  1 of 2 with a problem: see --shards" in out.decode().splitlines()
    told = json.loads(printed(cli("status", "--json")))
    assert (told["ready"], told["problem"], told["problems"]) == (True, None, problems)


@pytest.mark.parametrize("unset", [["JOBWIRE_SPACE"], ["JOBWIRE_KEY"], ["JOBWIRE_KEY", "JOBWIRE_SPACE"]])
def test_readiness_is_told_without_a_key_and_a_space(
    service: FakeService, cli: Cli, environ: dict[str, str], unset: list[str]
) -> None:
    for name in unset:
        del environ[name]
    service.faults["readyz"].extend([(200, {"status": "ready", "shards": [WELL]})] * 3)
    assert printed(cli("status")).decode().splitlines()[1:] == [
        "ready   yes",
        f"jobs    not counted: {' and '.join(unset)} not set",
    ]
    told = json.loads(printed(cli("status", "--json")))
    assert (told["ready"], told["counts"]) == (True, None)
    assert printed(cli("status", "--shards")).decode().splitlines()[2:] == ROWS
    assert not service.seen("list")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_list_of_spaces_says_whose_may_be_missing(service: FakeService, cli: Cli, options: list[str]) -> None:
    service.faults["list"].append((200, []))
    service.faults["readyz"].append((200, {"status": "ready", "shards": [WELL, LOST]}))
    code, _, err = finished(cli("spaces", "list", *options))
    assert (code, err.decode()) == (0, "jobwire: spaces on 127.0.0.1:7002 may be missing: no answer\\x1b[2J\n")


def test_a_list_of_spaces_is_printed_though_the_server_does_not_say_how_it_is(service: FakeService, cli: Cli) -> None:
    service.faults["list"].append((200, []))
    service.faults["readyz"].append((404, {"error": "No such path.", "code": "not_found"}))
    assert printed(cli("spaces", "list")).startswith(b"ID ")


def test_a_server_that_does_not_answer_tells_nothing_of_shards(service: FakeService, cli: Cli) -> None:
    service.down()
    code, out, _ = finished(cli("status", "--shards"))
    assert (code, len(out.splitlines())) == (exit_codes.UNAVAILABLE, 2)
