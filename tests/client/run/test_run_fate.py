"""`jobwire run`: the command's fate is its own, whatever becomes of our streams, of the server, and of ourselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobwire import Jobs, exit_codes
from jobwire.run.command_as_job import Options, Runner
from tests.client.conftest import Cli
from tests.client.fake import LOSE_ANSWER, FakeService
from tests.client.run.test_run import finished, shell, stored_bytes


def until(condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def state_of(pid: int | str) -> str:
    """The process's state as /proc has it, "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_gone(pid: int | str) -> bool:
    return state_of(pid) in ("", "Z", "X")


# --- our own streams -----------------------------------------------------------------------------------------------


def test_a_stderr_that_takes_nothing_changes_nothing(service: FakeService, cli: Cli) -> None:
    with open("/dev/full", "wb") as full:
        code, out, _ = finished(cli("run", *shell("echo out; echo told >&2; exit 3"), stderr=full))
    assert (code, out) == (3, b"out\n")
    assert sorted(service.messages()) == ["out", "told"]
    assert service.job.status == "dead"


def test_a_stderr_without_a_reader_changes_nothing(service: FakeService, cli: Cli) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = cli("run", "--retries", "1", *shell("echo told >&2; exit 4"), stderr=writer)
    os.close(writer)
    assert finished(process)[0] == 4
    assert service.messages() == ["told"] * 2


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_nothing_and_no_connection(
    service: FakeService, environ: dict[str, str], closed: str
) -> None:
    inner = "echo out; echo told >&2; exit 5"
    script = f'exec "$0" -m jobwire run -- sh -c "{inner}" {closed}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], check=False, env=environ, capture_output=True, timeout=60
    )
    assert done.returncode == 5
    assert sorted(service.messages()) == ["out", "told"]
    assert (service.job.status, service.job.result) == ("dead", {"error": "exit code 5"})


def test_a_stdout_that_nobody_reads_holds_nothing_up(service: FakeService, cli: Cli) -> None:
    reader, writer = os.pipe()
    process = cli("run", *shell("yes $(printf %01000d 7) | head -n 20000; exit 6"), stdout=writer)
    os.close(writer)
    assert process.wait(120) == 6
    os.close(reader)
    assert service.job.status == "dead"
    assert service.messages() == [f"{7:01000}"] * 20_000
    assert process.stderr is not None
    assert b"are not shown here" in process.stderr.read()


def test_a_kill_ends_a_command_whose_output_nobody_reads(service: FakeService, cli: Cli) -> None:
    reader, writer = os.pipe()
    process = cli("run", *shell("yes"), stdout=writer)
    os.close(writer)
    service.wait_for(lambda: service.jobs and service.messages())
    service.job.status = "killed"
    assert process.wait(60) == exit_codes.KILLED
    os.close(reader)


# --- the server is away ----------------------------------------------------------------------------------------------


def test_without_a_server_the_command_runs_and_is_told_of_when_it_is_back(
    service: FakeService, cli: Cli, tmp_path: Path
) -> None:
    service.down()
    process = cli("run", *shell(f"echo first; touch {tmp_path}/ran; while [ ! -e {tmp_path}/on ]; do sleep 0.02; done"))
    until((tmp_path / "ran").exists)
    ran_at = time.time()
    time.sleep(1.2)
    service.up()
    service.wait_for(lambda: service.jobs and service.messages())
    (tmp_path / "on").touch()
    assert finished(process)[0] == 0
    assert (service.job.status, service.messages()) == ("completed", ["first"])
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ran_at))
    assert abs(_seconds(service.job.lines[0]["timestamp"]) - _seconds(stamp)) <= 1


def _seconds(text: str) -> float:
    return time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))


def left_spool(cli: Cli, *arguments: str, code: int) -> str:
    """The path that `run` names when the server stayed away."""
    returned, _, err = finished(cli("run", "--patience", "0.2", *arguments))
    assert returned == code
    return err.decode().rpartition("jobwire send --spool ")[2].strip()


def test_what_a_server_that_stayed_away_was_not_told_is_delivered_later_once(service: FakeService, cli: Cli) -> None:
    service.down()
    path = left_spool(cli, *shell("seq 5000; exit 7"), code=7)
    assert Path(path).stat().st_mode & 0o077 == 0
    code, _, err = finished(cli("send", "--spool", path))
    assert code == exit_codes.UNAVAILABLE
    service.up()
    for verb in ("create", "ack", "append", "fail"):
        service.faults[verb].append(LOSE_ANSWER)
    code, _, err = finished(cli("send", "--spool", path))
    assert code == 0, err
    assert service.messages() == [str(number) for number in range(1, 5001)]
    assert (service.job.status, service.job.result) == ("dead", {"error": "exit code 7"})
    assert not Path(path).exists()


def test_a_failed_attempt_is_followed_by_the_next_though_nobody_can_be_told(
    service: FakeService, cli: Cli, tmp_path: Path
) -> None:
    service.down()
    script = f"echo try; echo x >> {tmp_path}/count; test $(wc -l < {tmp_path}/count) = 3"
    path = left_spool(cli, "--retries", "5", *shell(script), code=0)
    service.up()
    assert finished(cli("send", "--spool", path))[0] == 0
    assert (service.job.status, service.job.attempt_number) == ("completed", 2)
    assert service.messages() == ["try"] * 3


def test_an_outage_fills_a_file_and_not_the_pipe(service: FakeService, jobs: Jobs, tmp_path: Path) -> None:
    gate, noted = tmp_path / "gate", threading.Event()
    script = f"echo before; while [ ! -e {gate} ]; do sleep 0.02; done; seq 300000; touch {tmp_path}/done"
    options = Options("x", capacity_bytes=100_000)

    def notice(text: str) -> None:
        if "away" in text:
            noted.set()

    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    runner = Runner(jobs, ["sh", "-c", script], options, mirror=_ignore, notice=notice, environ=environ)
    codes: list[int] = []
    running = threading.Thread(target=lambda: codes.append(runner.run()), daemon=True)
    running.start()
    service.wait_for(lambda: service.jobs and service.messages())
    service.down()
    gate.touch()
    until((tmp_path / "done").exists, 60)
    assert noted.is_set()
    service.up()
    running.join(120)
    assert codes == [0]
    assert service.messages() == ["before", *map(str, range(1, 300_001))]
    assert service.job.status == "completed"


def test_a_server_that_asks_for_patience_is_not_away(service: FakeService, cli: Cli) -> None:
    later = (429, {"error": "slow down", "code": "rate_limited"})
    for verb in ("create", "append", "complete"):
        service.faults[verb].extend([later, later])
    code, _, err = finished(cli("run", *shell("echo line")))
    assert (code, service.job.status, service.messages()) == (0, "completed", ["line"])
    assert b"away" not in err


def test_a_job_that_waits_again_after_an_outage_is_claimed_anew(service: FakeService, cli: Cli, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"echo a; while [ ! -e {gate} ]; do sleep 0.02; done"
    process = cli("run", "--timeout", "1", *shell(script))
    service.wait_for(lambda: service.jobs and service.messages() and service.seen("keepalive"))
    service.down()
    service.job.status = "pending"
    time.sleep(1.2)
    service.up()
    service.wait_for(lambda: service.seen("claim"))
    gate.touch()
    assert finished(process)[0] == 0
    assert service.job.status == "completed"


def test_a_job_that_ended_in_an_outage_does_not_stop_its_command(
    service: FakeService, cli: Cli, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    script = f"echo a; while [ ! -e {gate} ]; do sleep 0.02; done; exit 8"
    process = cli("run", "--timeout", "1", *shell(script))
    service.wait_for(lambda: service.jobs and service.messages() and service.seen("keepalive"))
    service.down()
    service.job.status = "dead"
    time.sleep(1.2)
    seen = len(service.seen("keepalive"))
    service.up()
    service.wait_for(lambda: len(service.seen("keepalive")) > seen)
    gate.touch()
    code, _, err = finished(process)
    assert code == 8
    assert b"its end cannot be told" in err


# --- all that the command started ------------------------------------------------------------------------------------

APART = "setsid sleep 600 & echo $!; timeout 600 sleep 600 & echo $!; wait"


def test_a_signal_reaches_groups_and_sessions_of_their_own(service: FakeService, cli: Cli) -> None:
    process = cli("run", *shell(APART))
    service.wait_for(lambda: service.jobs and len(service.messages()) == 2)
    process.send_signal(signal.SIGTERM)
    assert finished(process)[0] == 128 + signal.SIGTERM
    until(lambda: all(map(is_gone, service.messages())))


def test_a_kill_from_outside_reaches_what_outlived_its_parent(service: FakeService, cli: Cli) -> None:
    process = cli("run", *shell("(setsid sleep 600 & echo $!); sleep 600"))
    service.wait_for(lambda: service.jobs and service.messages())
    service.job.status = "killed"
    assert finished(process)[0] == exit_codes.KILLED
    until(lambda: is_gone(service.messages()[0]))


def test_when_we_are_killed_the_command_is_told(service: FakeService, cli: Cli) -> None:
    process = cli("run", "-q", *shell("echo $$; exec sleep 600"))
    service.wait_for(lambda: service.jobs and service.messages())
    process.kill()
    until(lambda: is_gone(service.messages()[0]))


def test_ctrl_z_stops_the_command_too_and_fg_lets_it_go_on(service: FakeService, cli: Cli, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    process = cli("run", *shell(f"echo $$; while [ ! -e {gate} ]; do sleep 0.02; done; echo on"))
    service.wait_for(lambda: service.jobs and service.messages())
    process.send_signal(signal.SIGTSTP)
    until(lambda: state_of(process.pid) == "T" and state_of(service.messages()[0]) == "T")
    gate.touch()
    process.send_signal(signal.SIGCONT)
    assert finished(process)[0] == 0
    assert service.messages()[-1] == "on"


# --- what is shown of it ---------------------------------------------------------------------------------------------


def test_output_without_a_line_break_is_sent_and_joined(service: FakeService, cli: Cli, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    process = cli(
        "run", "-q", *shell(f"printf 'Name? é'; while [ ! -e {gate} ]; do sleep 0.02; done; echo ' Eve'; echo x")
    )
    service.wait_for(lambda: service.jobs and service.messages())
    assert service.messages() == ["Name? é"]
    gate.touch()
    finished(process)
    assert service.messages() == ["Name? é", " Eve", "x"]
    assert stored_bytes(service, "stdout") == "Name? é Eve\nx\n".encode()


def test_levels_are_what_the_lines_say(service: FakeService, cli: Cli) -> None:
    finished(cli("run", *shell("echo plain >&2; echo 'ERROR: bad' >&2; echo '2026-03-01 10:00:00 warning x'")))
    shown = {line["message"]: line["level"] for line in service.job.lines}
    assert shown == {"plain": "info", "ERROR: bad": "error", "2026-03-01 10:00:00 warning x": "warn"}


def test_levels_may_be_those_of_the_streams(service: FakeService, cli: Cli) -> None:
    finished(cli("run", "--levels", "off", "--stderr-level", "warn", *shell("echo 'ERROR: a' >&2; echo 'error: b'")))
    assert {line["message"]: line["level"] for line in service.job.lines} == {"ERROR: a": "warn", "error: b": "info"}


def test_a_terminal_has_both_streams_in_one_order(service: FakeService, cli: Cli) -> None:
    program = [
        "import sys; print(sys.stdout.isatty(), sys.stderr.isatty())",
        "for n in range(50): print(n); print(-n, file=sys.stderr)",
    ]
    _, out, _ = finished(cli("run", "--tty", "--", sys.executable, "-c", "\n".join(program)))
    lines = ["True True", *(text for n in range(50) for text in (str(n), str(-n)))]
    assert service.messages() == lines
    assert out.decode().splitlines() == lines


def test_python_is_not_buffered_unless_it_is_told_otherwise(
    service: FakeService, cli: Cli, environ: dict[str, str]
) -> None:
    environ.pop("PYTHONUNBUFFERED", None)
    script = shell("echo [$PYTHONUNBUFFERED] [$JOBWIRE_JOB]")
    assert finished(cli("run", *script))[1] == f"[1] [{service.job.id}]\n".encode()
    service.jobs.clear()
    assert finished(cli("run", "--no-env", *script))[1] == b"[] []\n"


# --- odd surroundings ------------------------------------------------------------------------------------------------


def test_a_removed_folder_is_no_reason_not_to_run(
    service: FakeService, environ: dict[str, str], tmp_path: Path
) -> None:
    script = f'mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; exec "$0" -m jobwire run -- true'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], check=False, env=environ, capture_output=True, timeout=60
    )
    assert (done.returncode, service.job.status) == (0, "completed")
    assert service.job.payload["cwd"] == f"{tmp_path}/gone"


def test_names_that_are_not_utf8_are_shown_as_far_as_they_go(service: FakeService, cli: Cli) -> None:
    assert finished(cli("run", "--name", b"a\xffb", "--", "true", b"\xff"))[0] == 0
    assert service.job.name == "a\ufffdb"


def test_no_home_is_no_reason_not_to_run(service: FakeService, cli: Cli, environ: dict[str, str]) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        environ.pop(name, None)
    assert finished(cli("run", "--", "true"))[0] == 0


def test_an_unknown_option_is_a_mistake_and_not_a_command(service: FakeService, cli: Cli) -> None:
    assert finished(cli("run", "--retires", "3", "--", "true"))[0] == exit_codes.USAGE
    assert not service.jobs


def test_the_commands_own_options_need_no_dashes(service: FakeService, cli: Cli) -> None:
    assert finished(cli("run", "sh", "-c", "exit 9"))[0] == 9
    assert service.job.payload["command"] == ["sh", "-c", "exit 9"]


def test_a_link_to_the_page_is_told(service: FakeService, cli: Cli) -> None:
    _, _, err = finished(cli("run", "--", "true"))
    assert f"{service.url}/#/jobs/{service.job.id}".encode() in err


def _ignore(*_: object) -> None:
    pass
