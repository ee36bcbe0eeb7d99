"""The client half on the real `jobwire up`: run, kill, outage, restart, and the bytes that come back."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobwire import Entry, InvalidState, LogHandler, LogShipper, exit_codes
from jobwire.log_lines.byte_lines import raw_bytes
from jobwire.reading.log_following import all_lines
from tests.client.conftest import Up


def jobwire(up: Up, *arguments: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """`given` is piped in; None is /dev/null."""
    command = [sys.executable, "-m", "jobwire", *arguments]
    stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
    with subprocess.Popen(
        command, env=up.environ, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        out, err = process.communicate(given, timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def newest(up: Up) -> str:
    return up.jobs.list_jobs(limit=1)[0].id


def test_a_run_is_stored_byte_for_byte_and_completes(up: Up, tmp_path: Path) -> None:
    stream = bytes(range(256)) * 300 + b"\r\n" + "😀é".encode() * 30_000 + os.urandom(300_000) + b"\nno end"
    (tmp_path / "stream").write_bytes(stream)
    done = jobwire(up, "run", "--", "cat", str(tmp_path / "stream"))
    assert (done.returncode, done.stdout) == (0, stream)
    job = up.jobs.get(newest(up))
    assert (job.status, job.result["exitCode"], job.name) == ("completed", 0, "cat")
    assert jobwire(up, "logs", job.id, "--raw").stdout == stream


def test_a_failing_run_is_retried_and_ends_dead(up: Up) -> None:
    assert jobwire(up, "run", "--retries", "2", "--", "sh", "-c", "echo try; exit 7").returncode == 7
    job = up.jobs.get(newest(up))
    assert (job.status, job.attempt_number, job.result) == ("dead", 2, {"error": "exit code 7"})
    assert jobwire(up, "logs", job.id).stdout == b"try\ntry\ntry\n"
    assert jobwire(up, "tail", "-f", job.id).returncode == exit_codes.JOB_FAILED


def test_many_jobs_are_taken_running_and_ended_in_one_request(up: Up) -> None:
    jobs = up.jobs
    made = [jobs.create("many", payload=i).id for i in range(5)]
    taken = jobs.poll(count=5, names=["many"], ack=True)
    assert [job.id for job in taken] == made
    assert all(job.timeout_at for job in taken)
    calls = [{"verb": "complete", "jobId": job.id, "leaseToken": job.lease_token, "body": job.payload} for job in taken]
    calls[3]["leaseToken"] = "another"
    answers = jobs.calls(calls)
    assert [answer.is_done for answer in answers] == [True, True, True, False, True]
    assert answers[3].body["code"] == "lease_lost"
    assert jobs.get(made[4]).result == 4
    back = jobs.release(made[3], "deploy", delay_s=60, lease_token=taken[3].lease_token)
    assert (back.status, back.attempt_number) == ("scheduled", 0)


def test_a_kill_ends_a_run(up: Up) -> None:
    command = [sys.executable, "-m", "jobwire", "run", "--", "sh", "-c", "while :; do echo x; sleep 0.05; done"]
    with subprocess.Popen(command, env=up.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert jobwire(up, "jobs", "kill", newest(up), "--reason", "enough").returncode == 0
        process.communicate(timeout=30)
    assert process.returncode == exit_codes.KILLED
    assert up.jobs.get(newest(up)).result == {"reason": "enough"}


def test_a_pipe_goes_in_and_comes_out(up: Up) -> None:
    job_id = jobwire(up, "jobs", "create", "piped").stdout.decode().strip()
    stream = b"one\r\ntwo \xff\n\n" + b"x" * 200_000
    assert jobwire(up, "send", job_id, given=stream).returncode == 0
    assert jobwire(up, "logs", job_id, "--raw").stdout == stream
    messages = [json.loads(line)["message"] for line in jobwire(up, "logs", job_id, "--json").stdout.splitlines()]
    assert messages[:3] == ["one\r", "two \ufffd", ""]


def test_the_local_credentials_are_found_without_any_setting(up: Up) -> None:
    del up.environ["JOBWIRE_URL"], up.environ["JOBWIRE_KEY"], up.environ["JOBWIRE_SPACE"]
    try:
        assert jobwire(up, "run", "--", "true").returncode == 0
        job_id = jobwire(up, "jobs", "create", "x").stdout.decode().strip()
        assert jobwire(up, "send", job_id, given=b"text\n").returncode == 0
        assert jobwire(up, "tail", job_id).stdout == b"text\n"
        assert jobwire(up, "jobs", "kill", job_id).returncode == 0
        assert jobwire(up, "jobs", "retry", job_id).returncode == 0
        assert jobwire(up, "jobs", "list", "--status", "pending").returncode == 0
    finally:
        up.stop()
        up.start()


def test_a_log_handler_ships_to_a_real_job(up: Up) -> None:
    job = up.jobs.create("program")
    handler = LogHandler(job.id, jobs=up.jobs)
    for number in range(3000):
        handler.handle(logging.LogRecord("mine", logging.WARNING, "", 1, "line %d", (number,), None))
    handler.close()
    lines = list(all_lines(up.jobs, job.id))
    assert [line.message for line in lines] == [f"line {number}" for number in range(3000)]
    assert {(line.level, line.source) for line in lines} == {("warn", "mine")}


def test_worker_calls_do_what_they_say(up: Up) -> None:
    jobs = up.jobs
    created = jobs.create("worker-test", payload={"big": 2**80}, max_retries=1)
    (delivery,) = jobs.poll(names=["worker-test"], wait_s=1)
    assert (delivery.id, delivery.payload) == (created.id, {"big": 2**80})
    token = delivery.lease_token
    assert jobs.ack(created.id, token).status == "running"
    jobs.progress(created.id, 50, "half", lease_token=token, upload=10)
    progress = jobs.progress_of(created.id).progress
    assert progress is not None
    assert (progress["percent"], progress["subProgress"]) == (50, {"upload": {"percent": 10}})
    jobs.checkpoint(created.id, {"at": 3}, token)
    assert jobs.fail(created.id, "oops", lease_token=token).will_retry
    again = jobs.claim(created.id)
    assert (again.attempt_number, again.checkpoint) == (1, {"at": 3})
    assert jobs.complete(created.id, {"ok": True}, again.lease_token).status == "completed"
    with pytest.raises(InvalidState):
        jobs.kill(created.id)


def test_a_kill_of_the_whole_server_in_the_middle_of_a_flood_loses_and_doubles_nothing(up: Up) -> None:
    """What Redis had answered it had handed to the system's page cache, which outlives a kill -9 of its process."""
    command = [sys.executable, "-m", "jobwire", "run", "--", "seq", "300000"]
    with subprocess.Popen(command, env=up.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        job_id = process.stderr.readline().decode().split()[-1]
        _wait_for(lambda: up.jobs.log_page(job_id, after=20_000, limit=1).logs)
        up.kill()
        while b"the server is away" not in process.stderr.readline():
            pass
        up.start()
        process.communicate(timeout=60)
    assert process.returncode == 0
    lines = all_lines(up.jobs, job_id)
    assert b"".join(map(raw_bytes, lines)) == b"".join(b"%d\n" % number for number in range(1, 300_001))
    assert up.jobs.get(job_id).status == "completed"


def test_two_shippers_to_one_job_keep_each_its_own_order(up: Up) -> None:
    job = up.jobs.create("two")

    def ship(name: str) -> None:
        shipper = LogShipper(up.jobs, job.id, batch_lines=50)
        for number in range(2000):
            shipper.put([Entry(str(number), source=name)])
        assert shipper.close(60)

    threads = [threading.Thread(target=ship, args=name) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = list(all_lines(up.jobs, job.id))
    assert [line.seq for line in lines] == list(range(1, 4001))
    for name in "ab":
        assert [line.message for line in lines if line.source == name] == list(map(str, range(2000)))


def _wait_for(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Look again and again; fails the test after the deadline."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


def test_a_job_is_waited_for_and_removed(up: Up) -> None:
    waiting = subprocess.Popen(
        [sys.executable, "-m", "jobwire", "jobs", "create", "waited", "--wait"], env=up.environ, stdout=subprocess.PIPE
    )
    with waiting:
        assert waiting.stdout is not None
        job_id = waiting.stdout.readline().decode().strip()
        taken = up.jobs.claim(job_id)
        up.jobs.progress(job_id, 40, "scaling", lease_token=taken.lease_token)
        assert b"40 % scaling" in jobwire(up, "jobs", "show", job_id).stdout
        up.jobs.complete(job_id, {"width": 640}, taken.lease_token)
        assert waiting.wait(30) == 0
    assert jobwire(up, "jobs", "wait", job_id).stdout == f"{job_id} completed\n".encode()
    assert jobwire(up, "jobs", "delete", job_id, "--yes").returncode == 0
    assert jobwire(up, "jobs", "wait", job_id).returncode == exit_codes.NO_SUCH_JOB


def test_a_list_goes_on_over_pages_however_large_the_jobs_are(up: Up) -> None:
    made = [up.jobs.create("large", payload="x" * 1_000_000, max_retries=0).id for _ in range(10)]
    body = json.dumps([{"name": "small", "payload": 1e300}] * 120).encode()
    answer = up.jobs.http.call("POST", f"{up.jobs.space_path}/jobs", body=body)
    made = [*made, *(job["id"] for job in json.loads(answer.body))][::-1]
    assert [job.id for job in up.jobs.list_jobs(limit=130)] == made
    assert [job.id for job in up.jobs.list_jobs(limit=15, offset=110)] == made[110:125]
    assert len(list(up.jobs.list_pages(limit=130))) == 3
    shown = jobwire(up, "jobs", "list", "--json", "--limit", "125", "--status", "pending").stdout
    assert [job["id"] for job in json.loads(shown)] == made[:125]
    for job in made[-10:]:
        up.jobs.kill(job)
    assert [job.id for job in up.jobs.list_jobs(limit=20, status="pending,killed", offset=115)][:15] == made[115:]
