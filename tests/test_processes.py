"""The commands as they are run: the Procfile's lines on a Redis of their own, and `up` being killed with all it has."""

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.any_redis import AnyRedis
from tests.server import free_port
from tests.valkey import until

ROOT = Path(__file__).parent.parent
ROOT_KEY = "emit_" + "r" * 43


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would reach a server of the machine's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOBWIRE_", "REDIS_"))}
    return kept | more


@contextmanager
def running(*arguments: str, env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """`jobwire ARGUMENTS` in a process group of its own, killed at the end with whatever it started."""
    command = [sys.executable, "-m", "jobwire", *arguments]
    process = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        with_children(process, signal.SIGKILL)
        process.communicate()


def with_children(process: "subprocess.Popen[bytes]", word: signal.Signals) -> None:
    try:
        os.killpg(process.pid, word)
    except ProcessLookupError:
        pass


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def procfile() -> dict[str, str]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: command.strip() for name, _, command in (line.partition(":") for line in lines if line)}


def arguments(command: str, port: int) -> list[str]:
    """A Procfile's command as the arguments of `jobwire`."""
    words = shlex.split(command.replace("${PORT:-8080}", str(port)).replace("0.0.0.0", "127.0.0.1"))
    assert words[0] == "jobwire"
    return words[1:]


def test_the_procfile_serves_a_job_through_two_web_processes_and_a_sweeper(valkey: AnyRedis) -> None:
    env = environment(REDIS_URL=valkey.url, JOBWIRE_ROOT_KEY=ROOT_KEY, JOBWIRE_PREFIX="procfile")
    ports, commands = (free_port(), free_port()), procfile()
    with (
        running(*arguments(commands["web"], ports[0]), env=env),
        running(*arguments(commands["web"], ports[1]), env=env),
        running(*arguments(commands["sweeper"], 0), env=env),
    ):
        one, two = (
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"x-api-key": ROOT_KEY}) for port in ports
        )
        with one, two:
            until(lambda: answers(f"{one.base_url}/readyz") and answers(f"{two.base_url}/readyz"))
            space = one.post("/api/v1/spaces", json={"name": "s"}).json()["id"]
            job = two.post(f"/api/v1/spaces/{space}/jobs", json={"name": "n", "timeoutSeconds": 1}).json()["id"]
            assert [j["id"] for j in one.post(f"/api/v1/spaces/{space}/jobs/poll").json()["jobs"]] == [job]
            until(lambda: two.get(f"/api/v1/jobs/{job}").json()["status"] == "pending")
            types = [event["type"] for event in one.get(f"/api/v1/jobs/{job}").json()["events"]]
            assert types == ["created", "delivered", "delivery_timeout"]


def test_web_with_workers_answers_and_leaves_at_sigterm(valkey: AnyRedis) -> None:
    env = environment(REDIS_URL=valkey.url, JOBWIRE_ROOT_KEY=ROOT_KEY, JOBWIRE_PREFIX="workers")
    port = free_port()
    with running("web", "--port", str(port), "--workers", "2", env=env) as process:
        until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 20)
        process.terminate()
        assert process.wait(20) is not None
        until(lambda: not answers(f"http://127.0.0.1:{port}/healthz"))


def test_a_server_may_have_as_many_connections_as_the_system_grants(valkey: AnyRedis) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    env = environment(REDIS_URL=valkey.url, JOBWIRE_ROOT_KEY=ROOT_KEY, JOBWIRE_PREFIX="files")
    port = free_port()
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        with running("web", "--port", str(port), env=env) as process:
            until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 20)
            assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("command", ["web", "sweeper", "callbacks"])
def test_a_process_without_redis_url_says_so(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobwire", command], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert "REDIS_URL" in done.stderr
    assert "Traceback" not in done.stderr


def start_up(process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """The JSON line that `up --json` prints when it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    found: dict[str, Any] = json.loads(line)
    return found


def up_arguments(data: Path, port: int = 0) -> list[str]:
    return ["up", "--data", str(data), "--port", str(port), "--json"]


def test_up_prints_one_json_line_and_answers_at_once(tmp_path: Path) -> None:
    with running(*up_arguments(tmp_path / "data"), env=environment()) as process:
        ready = start_up(process)
        assert ready.keys() == {"url", "rootKey", "spaceId", "keys"}
        assert ready["url"].startswith("http://127.0.0.1:")
        assert ready["keys"].keys() == {"producer", "worker", "reader", "public"}
        assert httpx.get(f"{ready['url']}/readyz").status_code == 200
        process.terminate()
        rest, _ = process.communicate(timeout=20)
        assert rest == b""
        assert process.returncode == 0


def test_up_tells_where_it_listens_and_what_its_public_url_is(tmp_path: Path) -> None:
    public = "https://jobs.example.org"
    with running(*up_arguments(tmp_path / "data"), env=environment(JOBWIRE_PUBLIC_URL=public)) as process:
        ready = start_up(process)
        assert ready["publicUrl"] == public
        assert httpx.get(f"{ready['url']}/readyz").status_code == 200
    with running(*up_arguments(tmp_path / "data"), env=environment()) as process:
        assert "publicUrl" not in start_up(process)


def test_the_keys_stay_the_same_and_are_readable_by_the_owner_only(tmp_path: Path) -> None:
    data = tmp_path / "data"
    seen = []
    for _ in range(2):
        with running(*up_arguments(data), env=environment()) as process:
            seen.append(start_up(process))
            process.terminate()
            process.wait(20)
    assert seen[0] | {"url": ""} == seen[1] | {"url": ""}
    assert (data / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert data.stat().st_mode & 0o777 == 0o700


def test_each_first_key_may_do_what_its_role_needs(tmp_path: Path) -> None:
    with running(*up_arguments(tmp_path / "data"), env=environment()) as process:
        ready = start_up(process)
        jobs = f"{ready['url']}/api/v1/spaces/{ready['spaceId']}/jobs"
        keys = {role: {"x-api-key": key} for role, key in ready["keys"].items()}
        job = httpx.post(jobs, headers=keys["producer"], json={"name": "n"}).json()["id"]
        assert httpx.post(jobs, headers=keys["worker"], json={"name": "n"}).status_code == 403
        assert len(httpx.post(f"{jobs}/poll", headers=keys["worker"]).json()["jobs"]) == 1
        assert httpx.get(jobs, headers=keys["reader"]).json()[0]["id"] == job
        assert httpx.get(jobs, headers=keys["public"]).status_code == 403
        one = f"{ready['url']}/api/v1/jobs/{job}"
        assert httpx.get(f"{one}/progress", headers=keys["public"]).status_code == 200


def test_a_second_up_on_the_same_folder_is_refused_with_a_clear_message(tmp_path: Path) -> None:
    with running(*up_arguments(tmp_path / "data"), env=environment()) as process:
        start_up(process)
        command = [sys.executable, "-m", "jobwire", *up_arguments(tmp_path / "data")]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 69
        assert str(tmp_path / "data") in done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr


def test_up_killed_with_all_it_has_comes_back_with_every_answered_write(tmp_path: Path) -> None:
    data, env = tmp_path / "data", environment(JOBWIRE_APPENDFSYNC="always")
    with running(*up_arguments(data), env=env) as process:
        ready = start_up(process)
        jobs = f"{ready['url']}/api/v1/spaces/{ready['spaceId']}/jobs"
        producer = {"x-api-key": ready["keys"]["producer"]}
        made = {httpx.post(jobs, headers=producer, json={"name": "n"}).json()["id"] for _ in range(50)}
        with_children(process, signal.SIGKILL)
        process.wait()
    with running(*up_arguments(data), env=env) as process:
        ready = start_up(process)
        jobs = f"{ready['url']}/api/v1/spaces/{ready['spaceId']}/jobs"
        listed = httpx.get(jobs, headers={"x-api-key": ready["keys"]["reader"]}, params={"limit": 100}).json()
        assert {job["id"] for job in listed} == made


def test_a_run_goes_on_when_up_is_back_after_kill_9_of_everything(tmp_path: Path) -> None:
    """`up` and its Valkey are killed in the middle; the command's whole output is stored once, in order."""
    data, port = tmp_path / "data", free_port()
    env = environment(JOBWIRE_DATA=str(data), JOBWIRE_APPENDFSYNC="always")
    lines, gate = 3000, tmp_path / "gate"
    program = (
        "import os, sys, time\n"
        f"for n in range({lines}):\n"
        "    print('line', n, flush=True)\n"
        f"    if n == {lines // 2}:\n"
        f"        open({str(gate)!r}, 'w').close()\n"
        f"    if n > {lines // 2}: time.sleep(0.001)\n"
    )
    with running(*up_arguments(data, port), env=env) as up:
        start_up(up)
        with running("run", "--quiet", "--", sys.executable, "-c", program, env=env) as run:
            until(gate.exists)
            with_children(up, signal.SIGKILL)
            up.wait()
            with running(*up_arguments(data, port), env=env) as again:
                ready = start_up(again)
                assert run.wait(60) == 0
                reader = {"x-api-key": ready["keys"]["reader"], "accept": "application/x-ndjson"}
                jobs = f"{ready['url']}/api/v1/spaces/{ready['spaceId']}/jobs"
                (job,) = httpx.get(jobs, headers={"x-api-key": ready["keys"]["reader"]}).json()
                text = httpx.get(
                    f"{ready['url']}/api/v1/jobs/{job['id']}/logs", headers=reader, params={"after": 0}
                ).text
    stored = [json.loads(line) for line in text.splitlines()]
    assert [entry["message"] for entry in stored] == [f"line {n}" for n in range(lines)]
    assert [entry["seq"] for entry in stored] == list(range(1, lines + 1))
    assert job["status"] == "completed"
    assert job["result"]["exitCode"] == 0
