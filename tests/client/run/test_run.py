"""`jobwire run`: whatever the command does and whatever happens around it, the job tells the truth."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobwire import Jobs, exit_codes
from jobwire.api.response_structs import LogLine
from jobwire.log_lines.byte_lines import raw_bytes
from jobwire.run.command_as_job import Options, Runner, payload_of
from tests.client.conftest import Cli, as_raw
from tests.client.fake import LOSE_ANSWER, UNKNOWN, FakeService

PYTHON = sys.executable


def finished(process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def shell(script: str) -> list[str]:
    return ["--", "sh", "-c", script]


def stored_bytes(service: FakeService, source: str) -> bytes:
    lines = [line for line in service.job.lines if line["source"] == source]
    return b"".join(
        raw_bytes(LogLine(seq=line["seq"], message=line["message"], metadata_json=as_raw(line["metadata"])))
        for line in lines
    )


def test_output_is_stored_mirrored_and_levelled_and_the_job_completes(service: FakeService, cli: Cli) -> None:
    code, out, err = finished(cli("run", *shell("echo out; echo told >&2; printf end")))
    assert (code, out) == (0, b"out\nend")
    assert b"told\n" in err
    shown = [(line["source"], line["level"], line["message"]) for line in service.job.lines]
    assert sorted(shown) == [("stderr", "info", "told"), ("stdout", "info", "end"), ("stdout", "info", "out")]
    assert service.job.status == "completed"
    assert service.job.result["exitCode"] == 0
    assert isinstance(service.job.result["durationMs"], int)


def test_the_job_shows_the_command_and_nothing_of_the_environment(service: FakeService, cli: Cli) -> None:
    finished(cli("run", "--timeout", "77", "--", "true", "--flag", "x"))
    assert service.job.name == "true"
    assert service.job.payload["command"] == ["true", "--flag", "x"]
    assert set(service.job.payload) == {"command", "cwd", "host"}
    (create,) = service.seen("create")
    assert (create.json["timeoutSeconds"], create.json["maxRetries"], create.json["claim"]) == (77, 0, True)


def test_the_lease_token_is_sent_with_every_worker_call(service: FakeService, cli: Cli) -> None:
    finished(cli("run", "--", "true"))
    calls = [*service.seen("ack"), *service.seen("complete")]
    assert [request.headers["x-lease-token"] for request in calls] == [service.job.token] * 2


def test_every_line_is_stored_before_the_end_is_told(service: FakeService, cli: Cli) -> None:
    finished(cli("run", "-q", *shell("seq 30000")))
    assert service.messages() == [str(number) for number in range(1, 30001)]
    assert service.requests[-1].verb == "complete"


def test_bytes_of_any_kind_come_out_as_they_went_in(service: FakeService, cli: Cli, tmp_path: Path) -> None:
    stream = bytes(range(256)) * 40 + b"\r\n" + "😀é".encode() * 20_000 + b"\n\n\0\n" + os.urandom(200_000)
    (tmp_path / "stream").write_bytes(stream)
    code, out, _ = finished(cli("run", "--", "cat", str(tmp_path / "stream")))
    assert (code, out) == (0, stream)
    assert stored_bytes(service, "stdout") == stream


def test_both_streams_keep_their_own_order(service: FakeService, cli: Cli) -> None:
    script = "import sys\nfor n in range(5000): print(n); print(-n, file=sys.stderr)"
    finished(cli("run", "-q", "--", PYTHON, "-u", "-c", script))
    assert service.messages("stdout") == [str(number) for number in range(5000)]
    assert service.messages("stderr") == [str(-number) for number in range(5000)]


def test_quiet_repeats_nothing(service: FakeService, cli: Cli) -> None:
    assert finished(cli("run", "-q", *shell("echo out; echo err >&2"))) == (0, b"", b"")
    assert sorted(service.messages()) == ["err", "out"]


def test_piped_input_reaches_the_command(service: FakeService, cli: Cli) -> None:
    process = cli("run", "--", "cat", stdin=subprocess.PIPE)
    assert process.communicate(b"from outside\n", timeout=30)[0] == b"from outside\n"


def test_the_command_learns_its_job(service: FakeService, cli: Cli) -> None:
    _, out, _ = finished(cli("run", *shell("echo $JOBWIRE_JOB $JOBWIRE_LEASE_TOKEN")))
    assert out.decode().split() == [service.job.id, service.job.token]


@pytest.mark.parametrize(
    ("script", "code", "error"),
    [
        ("exit 3", 3, "exit code 3"),
        ("kill -SEGV $$", 139, "killed by SIGSEGV"),
        ("kill -KILL $$", 137, "killed by SIGKILL"),
    ],
)
def test_a_failed_command_fails_the_job_with_its_reason(
    service: FakeService, cli: Cli, script: str, code: int, error: str
) -> None:
    assert finished(cli("run", *shell(script)))[0] == code
    assert (service.job.status, service.job.result) == ("dead", {"error": error})


@pytest.mark.parametrize(("command", "code"), [("/no/such/command", 127), ("/etc/hostname", 126)])
def test_a_command_that_cannot_start_ends_the_job_without_retries(
    service: FakeService, cli: Cli, command: str, code: int
) -> None:
    returned, _, err = finished(cli("run", "--retries", "3", "--", command))
    assert returned == code
    assert b"could not be started" in err
    assert (service.job.status, service.job.attempt_number) == ("dead", 0)


def test_retries_claim_the_same_job_and_run_again(service: FakeService, cli: Cli, tmp_path: Path) -> None:
    script = f"echo try; echo x >> {tmp_path}/count; test $(wc -l < {tmp_path}/count) = 3"
    assert finished(cli("run", "--retries", "5", *shell(script)))[0] == 0
    assert (service.job.status, service.job.attempt_number) == ("completed", 2)
    assert service.messages() == ["try"] * 3
    assert [request.headers["x-lease-token"] for request in service.seen("ack")] == ["token-0", "token-1", "token-2"]
    assert not service.seen("claim"), "no poll can come between"


def test_when_retries_are_used_up_the_code_is_the_commands(service: FakeService, cli: Cli) -> None:
    assert finished(cli("run", "--retries", "1", *shell("exit 9")))[0] == 9
    assert (service.job.status, service.job.attempt_number) == ("dead", 1)


def test_lost_answers_of_all_calls_change_nothing(service: FakeService, cli: Cli, tmp_path: Path) -> None:
    for verb in ("create", "ack", "append", "fail", "complete"):
        service.faults[verb].extend([LOSE_ANSWER, None, LOSE_ANSWER])
    script = f"echo one; echo x >> {tmp_path}/count; test $(wc -l < {tmp_path}/count) = 2"
    assert finished(cli("run", "--retries", "5", *shell(script)))[0] == 0
    assert (service.job.status, service.job.attempt_number, service.messages()) == ("completed", 1, ["one", "one"])


def test_lines_wait_while_the_server_is_away_and_are_stored_once(
    service: FakeService, cli: Cli, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    process = cli("run", *shell(f"echo before; while [ ! -e {gate} ]; do sleep 0.02; done; seq 1000"))
    service.wait_for(lambda: service.jobs and service.messages())
    service.down()
    gate.touch()
    assert process.stderr is not None
    while b"the server is away" not in process.stderr.readline():
        pass
    service.up()
    assert finished(process)[0] == 0
    assert service.messages() == ["before", *map(str, range(1, 1001))]
    assert service.job.status == "completed"


def test_a_required_server_that_is_absent_is_given_up_after_patience_with_its_own_code(
    service: FakeService, cli: Cli
) -> None:
    options = ("--require-server", "--patience", "0.3")
    process = cli("run", *options, *shell("echo started; read _; echo lost"), stdin=subprocess.PIPE)
    service.wait_for(lambda: service.jobs and service.messages())
    service.down()
    _, err = process.communicate(b"\n", timeout=30)
    assert process.returncode == exit_codes.UNAVAILABLE
    assert b"giving up" in err
    assert service.job.status == "running"


def test_without_a_required_server_nothing_runs(service: FakeService, jobs: Jobs, tmp_path: Path) -> None:
    service.down()
    options = Options("x", start_patience_s=0, require_server=True)
    runner = Runner(jobs, ["touch", str(tmp_path / "ran")], options, mirror=_ignore, notice=_ignore)
    with pytest.raises(Exception, match="No jobwire server"):
        runner.run()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_goes_to_the_command_and_the_job_says_so(
    service: FakeService, cli: Cli, number: signal.Signals
) -> None:
    process = cli("run", "--retries", "3", *shell("echo started; sleep 60"))
    service.wait_for(lambda: service.jobs and service.messages())
    process.send_signal(number)
    assert finished(process)[0] == 128 + number
    assert service.job.status == "dead"
    assert service.job.result["error"].startswith(f"interrupted by {number.name}")


def test_a_command_that_ends_well_on_a_signal_completes(service: FakeService, cli: Cli) -> None:
    process = cli("run", *shell("trap 'echo bye; exit 0' INT; echo started; while :; do sleep 0.05; done"))
    service.wait_for(lambda: service.jobs and service.messages())
    process.send_signal(signal.SIGINT)
    assert finished(process)[0] == 0
    assert (service.job.status, service.messages()) == ("completed", ["started", "bye"])


def test_a_second_signal_ends_a_command_that_ignores_the_first(service: FakeService, cli: Cli) -> None:
    process = cli("run", *shell("trap 'echo no' INT; echo started; while :; do sleep 0.05; done"))
    service.wait_for(lambda: service.jobs and service.messages())
    process.send_signal(signal.SIGINT)
    service.wait_for(lambda: "no" in service.messages())
    process.send_signal(signal.SIGINT)
    assert finished(process)[0] == 137
    assert service.job.result["error"] == "interrupted by SIGINT (killed by SIGKILL)"


def test_a_kill_stops_the_command_and_all_it_started(service: FakeService, cli: Cli) -> None:
    process = cli("run", *shell("echo started; sleep 600 & echo $!; wait"))
    service.wait_for(lambda: service.jobs and len(service.messages()) == 2)
    service.job.status = "killed"
    code, _, err = finished(process)
    assert (code, service.job.status) == (exit_codes.KILLED, "killed")
    assert b"the job was killed" in err
    assert _is_gone(service.messages()[1])


def test_a_kill_is_noticed_by_the_next_line(service: FakeService, jobs: Jobs) -> None:
    def mirror(name: str, chunk: bytes) -> None:
        if service.messages():
            service.job.status = "killed"

    command = ["sh", "-c", "while :; do echo line; sleep 0.02; done"]
    assert Runner(jobs, command, Options("x"), mirror=mirror, notice=_ignore).run() == exit_codes.KILLED
    assert len(service.seen("keepalive")) == 1


def test_a_command_deaf_to_sigterm_is_killed_after_the_grace(service: FakeService, jobs: Jobs) -> None:
    command = ["sh", "-c", "trap '' TERM; echo started; while :; do sleep 0.05; echo x; done"]
    options = Options("x", kill_grace_s=0.2)

    def mirror(name: str, chunk: bytes) -> None:
        if b"started" in chunk:
            service.job.status = "killed"

    assert Runner(jobs, command, options, mirror=mirror, notice=_ignore).run() == exit_codes.KILLED


def test_a_lost_lease_stops_the_command_with_75_and_reports_nothing(service: FakeService, cli: Cli) -> None:
    process = cli("run", *shell("echo started; while :; do sleep 0.05; echo x; done"))
    service.wait_for(lambda: service.jobs and service.messages())
    service.down()
    service.job.token, service.job.status = "another worker's", "running"
    service.up()
    code, _, err = finished(process)
    assert code == exit_codes.LEASE_LOST
    assert b"the lease ran out" in err
    assert not service.seen("complete")
    assert not service.seen("fail")


def test_a_job_lost_after_the_command_ended_is_75_too(service: FakeService, cli: Cli) -> None:
    lost = (409, {"error": "gone", "code": "lease_lost"})
    service.faults["complete"].extend([UNKNOWN, lost])
    assert finished(cli("run", "--", "true"))[0] == exit_codes.LEASE_LOST


def test_a_revoked_key_stops_the_command(service: FakeService, cli: Cli) -> None:
    process = cli("run", *shell("echo started; while :; do sleep 0.05; echo x; done"))
    service.wait_for(lambda: service.jobs and service.messages())
    service.faults["append"].append((401, {"error": "The key was revoked", "code": "unauthorized"}))
    code, _, err = finished(process)
    assert code == exit_codes.NO_PERMISSION
    assert b"The key was revoked" in err


def test_a_job_that_somebody_else_has_when_its_attempt_fails_is_75(service: FakeService, cli: Cli) -> None:
    service.faults["fail"].append((409, {"error": "x", "code": "invalid_state", "status": "running"}))
    assert finished(cli("run", "--retries", "1", *shell("exit 1")))[0] == exit_codes.LEASE_LOST


def test_what_a_background_process_holds_open_does_not_hold_the_job(service: FakeService, cli: Cli) -> None:
    process = cli("run", *shell("sleep 600 & echo $!; exit 4"))
    assert process.wait(30) == 4
    (sleeper,) = service.messages()
    os.kill(int(sleeper), signal.SIGKILL)


def test_whoever_stops_reading_our_output_does_not_stop_the_job(service: FakeService, cli: Cli) -> None:
    process = cli("run", *shell("seq 100000"))
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(30) == 0
    assert len(service.messages()) == 100_000


def test_a_full_buffer_slows_the_command_down(service: FakeService, jobs: Jobs) -> None:
    gate = threading.Event()
    service.faults["append"].append(gate)
    read_bytes: list[int] = []

    def mirror(name: str, chunk: bytes) -> None:
        read_bytes.append(len(chunk))

    options = Options("x", capacity_bytes=100_000)
    runner = Runner(jobs, ["seq", "200000"], options, mirror=mirror, notice=_ignore)
    running = threading.Thread(target=runner.run, daemon=True)
    running.start()
    service.wait_for(lambda: service.seen("append"))
    running.join(0.5)
    assert sum(read_bytes) < 1_000_000
    gate.set()
    running.join(30)
    assert service.messages() == [str(number) for number in range(1, 200_001)]


def test_endless_command_lines_and_odd_bytes_fit_into_a_payload() -> None:
    payload = payload_of(["cmd", "\udcff", "x" * 1_000_000, "never reached"])
    assert payload["command"][:2] == ["cmd", "\ufffd"]
    assert len(str(payload)) < 70_000


def _ignore(*_: object) -> None:
    pass


def _is_gone(pid: str) -> bool:
    """Whether the process has ended (nobody may have reaped it yet)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:  # it went before it was opened, or before it was read
        return True
