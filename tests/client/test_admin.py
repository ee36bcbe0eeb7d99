"""`spaces`, `tokens` and `status` as an operator meets them, on the real server."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from jobwire import AccessDenied, Admin, Jobs, NotFound, exits

from .conftest import Up


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
    assert jobwire(up, "spaces", "show", made["id"]).returncode == exits.NO_SUCH_JOB


def test_a_space_is_not_deleted_without_a_yes(up: Up) -> None:
    space = new_space(up)
    assert jobwire(up, "spaces", "delete", space).returncode == 1
    assert Admin.from_env(up.environ).space(space).id == space


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
    assert jobwire(up, "tokens", "create", "x", "--expires", "soon", *space).returncode == exits.REFUSED


def test_an_unknown_scope_is_refused_and_a_foreign_key_has_no_permission(up: Up) -> None:
    assert jobwire(up, "tokens", "create", "x", "--scope", "everything").returncode == exits.REFUSED
    space = new_space(up)
    key = printed(up, "tokens", "create", "x", "--scope", "jobs:worker", "-q", "--space", space).strip()
    assert jobwire(up, "spaces", "list", JOBWIRE_KEY=key).returncode == exits.NO_PERMISSION
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
    assert done.returncode == exits.UNAVAILABLE
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
    assert jobwire(up, "jobs", "retry").returncode == exits.USAGE
    assert jobwire(up, "jobs", "retry", "x", "--status", "dead").returncode == exits.USAGE
    assert jobwire(up, "jobs", "retry", "x", "--limit", "3").returncode == exits.USAGE
