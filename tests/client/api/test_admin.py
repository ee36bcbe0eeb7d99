"""`spaces`, `tokens` and `status` as an operator meets them, on the real server."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from jobwire import AccessDenied, Admin, Jobs, NotFound, exit_codes
from jobwire.commands.terminal_text import duration
from tests.client.conftest import Up

NO_SPACE = "01JNA8Z0000000000000000000"


def jobwire(up: Up, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobwire", *arguments]
    env = up.environ | environ
    return subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )


def printed(up: Up, *arguments: str, **environ: str) -> str:
    done = jobwire(up, *arguments, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def new_space(up: Up) -> str:
    return printed(up, "spaces", "create", "builds", "-q").strip()


def test_a_space_is_created_listed_shown_and_deleted(up: Up) -> None:
    made = json.loads(printed(up, "spaces", "create", "evil\x1b[2J name", "--json"))
    assert {"id", "name", "publicToken"} <= made.keys()
    head, *rows = printed(up, "spaces", "list").splitlines()
    assert head.split()[:3] == ["ID", "SCHEDULED", "PENDING"]
    assert any(row.startswith(made["id"]) and row.endswith("evil\\x1b[2J name") for row in rows)
    assert made["id"] in {space["id"] for space in json.loads(printed(up, "spaces", "list", "--json"))}
    assert made["id"] in printed(up, "spaces", "show", made["id"])
    assert json.loads(printed(up, "spaces", "show", "--json", JOBWIRE_SPACE=made["id"]))["id"] == made["id"]
    assert printed(up, "spaces", "delete", made["id"], "--yes") == f"{made['id']} removed\n"
    assert jobwire(up, "spaces", "show", made["id"]).returncode == exit_codes.NO_SUCH_JOB


def test_a_space_is_not_deleted_without_a_yes(up: Up) -> None:
    space = new_space(up)
    assert jobwire(up, "spaces", "delete", space).returncode == 1
    assert Admin.from_env(up.environ).space(space).id == space


def test_a_space_gets_another_name(up: Up) -> None:
    space = new_space(up)
    assert printed(up, "spaces", "rename", space, "nightly\x1b[2J") == f"{space} is now nightly\\x1b[2J\n"
    assert Admin.from_env(up.environ).space(space).name == "nightly\x1b[2J"
    refused = jobwire(up, "spaces", "rename", space, "")
    assert (refused.returncode, refused.stdout) == (exit_codes.REFUSED, "")
    assert "name" in refused.stderr
    assert jobwire(up, "spaces", "rename", NO_SPACE, "x").returncode == exit_codes.NO_SUCH_JOB


def test_how_jobs_ended_is_two_lines_a_name_that_fit_the_terminal(up: Up) -> None:
    space = new_space(up)
    jobs = Jobs(up.environ["JOBWIRE_URL"], up.environ["JOBWIRE_KEY"], space)
    for _ in range(2):
        made = jobs.create("resize", claim=True)
        jobs.ack(made.id, made.lease_token)
        jobs.complete(made.id, lease_token=made.lease_token)
    jobs.create("a name that is rather long for a terminal " * 3)
    head, hour, day, waits, _ = (
        line.split() for line in printed(up, "spaces", "stats", JOBWIRE_SPACE=space).splitlines()
    )
    assert head == ["OVER", "COMPLETED", "DEAD", "KILLED", "P50", "P95", "PENDING", "OLDEST", "NAME"]
    assert (hour[:4], hour[6:]) == (["1h", "2", "0", "0"], ["0", "-", "resize"])
    assert (day[:4], day[6:]) == (["24h", "2", "0", "0"], ["0", "-", "resize"])
    assert hour[4].endswith("s")
    assert waits[:7] == ["1h", "0", "0", "0", "-", "-", "1"]
    reader = printed(up, "tokens", "create", "x", "--scope", "jobs:read", "-q", "--space", space).strip()
    lines = on_a_terminal(up, "spaces", "stats", space, JOBWIRE_KEY=reader)
    assert len(lines) == 5
    assert max(map(len, lines)) == 80
    (name, _) = json.loads(printed(up, "spaces", "stats", space, "--json"))["names"]
    assert (name["name"], name["lastDay"]["completed"]) == ("resize", 2)


def on_a_terminal(up: Up, *arguments: str, **environ: str) -> list[str]:
    """What a command prints on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    env = up.environ | environ | {"COLUMNS": "80", "NO_COLOR": "1"}
    subprocess.run([sys.executable, "-m", "jobwire", *arguments], env=env, stdout=theirs, timeout=60, check=True)
    shown = os.read(ours, 10_000).decode().replace("\r", "").splitlines()
    os.close(ours)
    os.close(theirs)
    return shown


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "-"),
        (0, "0ms"),
        (4210, "4.2s"),
        (59_999, "59s"),
        (200_000, "3m20s"),
        (7_500_000, "2h05m"),
        (273_600_000, "3d04h"),
    ],
)
def test_a_duration_is_short(ms: int | None, text: str) -> None:
    assert duration(ms) == text


def test_a_created_key_stands_alone_on_stdout_and_works_until_it_is_revoked(up: Up) -> None:
    space = new_space(up)
    key = printed(up, "tokens", "create", "ci", "--space", space, "--scope", "jobs:read", "-q").strip()
    jobs = Jobs(up.environ["JOBWIRE_URL"], key, space)
    assert jobs.list_jobs() == []
    listed = printed(up, "tokens", "list", "--space", space)
    assert key not in listed
    assert "jobs:read" in listed
    (token,) = (t for t in Admin.from_env(up.environ).tokens(space) if t.name == "ci")
    assert printed(up, "tokens", "revoke", token.id, "--space", space) == f"{token.id} revoked\n"
    again = Jobs(up.environ["JOBWIRE_URL"], key, space)
    with pytest.raises(AccessDenied):
        until_refused(again)


def until_refused(jobs: Jobs) -> None:
    """Call until the key is refused; it works for at most a second after its revocation."""
    for _ in range(10_000):
        jobs.list_jobs()


def test_a_key_is_shown_once_with_its_facts(up: Up) -> None:
    space = new_space(up)
    made = printed(up, "tokens", "create", "x", "--scope", "jobs:worker", "--scope", "jobs:create", JOBWIRE_SPACE=space)
    facts = dict(line.split(maxsplit=1) for line in made.splitlines())
    assert facts["scopes"] == "jobs:worker jobs:create"
    assert facts["expires"] == "never"
    assert facts["key"].startswith("emit_")
    shown = json.loads(printed(up, "tokens", "list", "--json", "--space", space))
    assert facts["id"] in {token["id"] for token in shown}
    assert all("key" not in token for token in shown)


def test_an_expiry_is_a_moment_or_so_long_from_now(up: Up) -> None:
    space = ("--space", new_space(up), "--scope", "jobs:read", "--json")
    made = json.loads(printed(up, "tokens", "create", "x", "--expires", "2090-01-01T00:00:00+01:00", *space))
    assert made["expiresAt"] == "2089-12-31T23:00:00.000Z"
    assert json.loads(printed(up, "tokens", "create", "x", "--expires", "30d", *space))["expiresAt"] > made["createdAt"]
    assert jobwire(up, "tokens", "create", "x", "--expires", "soon", *space).returncode == exit_codes.REFUSED


def test_an_unknown_scope_is_refused_and_a_foreign_key_has_no_permission(up: Up) -> None:
    assert jobwire(up, "tokens", "create", "x", "--scope", "everything").returncode == exit_codes.REFUSED
    space = new_space(up)
    key = printed(up, "tokens", "create", "x", "--scope", "jobs:worker", "-q", "--space", space).strip()
    assert jobwire(up, "spaces", "list", JOBWIRE_KEY=key).returncode == exit_codes.NO_PERMISSION
    with pytest.raises(NotFound):
        Admin.from_env(up.environ).revoke_token("nothing", space)


def test_status_says_ready_and_counts_with_a_reader_key(up: Up) -> None:
    space = new_space(up)
    Jobs(up.environ["JOBWIRE_URL"], up.environ["JOBWIRE_KEY"], space).create("waiting")
    key = printed(up, "tokens", "create", "x", "--scope", "jobs:read", "-q", "--space", space).strip()
    found = json.loads(printed(up, "status", "--json", JOBWIRE_KEY=key, JOBWIRE_SPACE=space))
    assert (found["ready"], found["problem"], found["url"]) == (True, None, up.environ["JOBWIRE_URL"])
    assert found["counts"]["pending"] == 1
    assert dict(line.split() for line in printed(up, "status").splitlines())["ready"] == "yes"


def test_status_of_a_server_that_is_away_says_so_and_exits_69(up: Up) -> None:
    done = jobwire(up, "status", JOBWIRE_URL="http://127.0.0.1:9")
    assert done.returncode == exit_codes.UNAVAILABLE
    assert "No jobwire server answers" in done.stdout


def test_dead_jobs_are_retried_by_status_and_name(up: Up) -> None:
    space = new_space(up)
    jobs = Jobs(up.environ["JOBWIRE_URL"], up.environ["JOBWIRE_KEY"], space)
    ids = [jobs.create(name, claim=True, max_retries=0).id for name in ("a", "a", "b")]
    for id_ in ids:
        jobs.fail(id_)
    asked = ("jobs", "retry", "--status", "dead", "--name", "a")
    assert printed(up, *asked, "--before", "1h", JOBWIRE_SPACE=space) == "0 retried\n"
    assert printed(up, *asked, "--limit", "1", JOBWIRE_SPACE=space) == "1 retried, more are left\n"
    assert printed(up, *asked, "--after", "1h", JOBWIRE_SPACE=space) == "1 retried\n"
    assert printed(up, "jobs", "retry", ids[2], JOBWIRE_SPACE=space) == f"{ids[2]} pending\n"
    assert jobs.count("pending") == 3


def test_a_retry_of_nothing_or_of_both_is_a_usage_error(up: Up) -> None:
    assert jobwire(up, "jobs", "retry").returncode == exit_codes.USAGE
    assert jobwire(up, "jobs", "retry", "x", "--status", "dead").returncode == exit_codes.USAGE
    assert jobwire(up, "jobs", "retry", "x", "--limit", "3").returncode == exit_codes.USAGE
