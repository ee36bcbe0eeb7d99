"""Section 2: keys, scopes, shorthands, spaces; keys that end."""

import hashlib
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.factories import NO_JOB, SCOPES, Space, at, in_future, refused
from tests.server import Server
from tests.valkey import client_of, until

WRITE = {"jobs:ack", "jobs:progress", "jobs:event", "jobs:complete", "jobs:fail", "jobs:keepalive"}
SHORTHANDS = {"jobs:write": WRITE, "jobs:worker": WRITE | {"jobs:read", "jobs:poll"}}

ROUTES = [
    ("POST", "/spaces/S/jobs", "jobs:create"),
    ("GET", "/spaces/S/jobs", "jobs:read"),
    ("POST", "/spaces/S/jobs/poll", "jobs:poll"),
    ("GET", "/jobs/J", "jobs:read"),
    ("GET", "/jobs/J/events", "jobs:read"),
    ("GET", "/jobs/J/logs", "jobs:read"),
    ("GET", "/jobs/J/progress", "jobs:read:progress"),
    ("POST", "/jobs/J/claim", "jobs:poll"),
    ("POST", "/jobs/J/ack", "jobs:ack"),
    ("POST", "/jobs/J/complete", "jobs:complete"),
    ("POST", "/jobs/J/fail", "jobs:fail"),
    ("POST", "/jobs/J/kill", "jobs:kill"),
    ("POST", "/jobs/J/retry", "jobs:retry"),
    ("POST", "/jobs/J/progress", "jobs:progress"),
    ("POST", "/jobs/J/checkpoint", "jobs:event"),
    ("POST", "/jobs/J/event", "jobs:event"),
    ("POST", "/jobs/J/keepalive", "jobs:keepalive"),
    ("POST", "/jobs/J/logs", "jobs:event"),
]
ADMIN = [
    ("POST", "/spaces"),
    ("GET", "/spaces"),
    ("GET", "/spaces/S"),
    ("DELETE", "/spaces/S"),
    ("DELETE", "/jobs/J"),
    ("POST", "/spaces/S/tokens"),
    ("GET", "/spaces/S/tokens"),
    ("DELETE", "/spaces/S/tokens/J"),
]


def left_of(server: Server, *ids: str) -> list[str]:
    """Keys in Redis that name one of the ids, but for the log's tombstones, which are gone within a minute."""
    with client_of(server.redis_url) as client:
        named = [key for key in server.redis_keys() if any(id_ in key for id_ in ids)]
        return [key for key in named if not (key.endswith(":log:gone") and 0 < client.ttl(key) <= 60)]


def spelled(path: str, space: Space) -> str:
    return path.replace("/S", f"/{space.id}").replace("/J", f"/{NO_JOB}")


@pytest.mark.valkey_only("scopes are no matter of Redis")
@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_route_wants_its_scope_and_no_other(space: Space, method: str, path: str, scope: str) -> None:
    without = space.caller(*(one for one in SCOPES if one not in {scope, "jobs:read"}))
    refusal = refused(without.send(method, spelled(path, space)), 403, "missing_scope")
    assert refusal["error"] == f"Missing required scope: {scope}"
    only = space.caller(scope).send(method, spelled(path, space), json={} if method == "POST" else None)
    assert only.status_code != 403
    assert only.status_code != 401


@pytest.mark.valkey_only("scopes are no matter of Redis")
@pytest.mark.parametrize("shorthand", SHORTHANDS)
@pytest.mark.parametrize(("method", "path", "scope"), ROUTES)
def test_a_shorthand_stands_for_its_scopes(space: Space, method: str, path: str, scope: str, shorthand: str) -> None:
    spelled_out = SHORTHANDS[shorthand] | ({"jobs:read:progress"} if "jobs:read" in SHORTHANDS[shorthand] else set())
    answer = space.caller(shorthand).send(method, spelled(path, space), json={} if method == "POST" else None)
    assert (answer.status_code == 403) == (scope not in spelled_out)


def test_jobs_read_also_allows_what_read_progress_allows(space: Space) -> None:
    job = space.create()
    assert space.caller("jobs:read").get(f"/jobs/{job['id']}/progress").status_code == 200
    assert space.public.get(f"/jobs/{job['id']}/progress").status_code == 200
    refused(space.public.get(f"/jobs/{job['id']}"), 403, "missing_scope")


@pytest.mark.parametrize(("method", "path"), ADMIN)
def test_admin_calls_are_for_the_root_key_only(space: Space, method: str, path: str) -> None:
    refused(space.all.send(method, spelled(path, space)), 403, "missing_scope")
    refused(space.server.caller(None).send(method, spelled(path, space)), 401, "unauthorized")


def test_the_root_key_has_every_scope_in_every_space(space: Space) -> None:
    root = space.server.root
    job = root.post(space.jobs, json={"name": "a", "claim": True}).json()
    assert root.post(f"/jobs/{job['id']}/ack").status_code == 200
    assert root.get(f"/jobs/{job['id']}").status_code == 200
    assert root.post(f"/jobs/{job['id']}/complete").status_code == 200


def test_a_key_is_sent_as_x_api_key_or_as_a_bearer(space: Space) -> None:
    nobody, key = space.server.caller(None), space.all.key
    for name, value in (
        ("x-api-key", f"{key}"),
        ("X-API-Key", f"{key}"),
        ("authorization", f"Bearer {key}"),
        ("authorization", f"bearer {key}"),
    ):
        assert nobody.get(space.jobs, headers={name: value}).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-api-key", ""),
        ("x-api-key", "emit_"),
        ("x-api-key", "null"),
        ("x-api-key", "x" * 5000),
        ("x-api-key", "emit_\u00ff"),
        ("authorization", ""),
        ("authorization", "Bearer"),
        ("authorization", "Basic ROOT"),
        ("authorization", "ROOT"),
        ("authorization", "Bearer ROOT x"),
        ("cookie", "x-api-key=ROOT"),
    ],
)
def test_a_key_that_is_none_is_401(space: Space, name: str, value: str) -> None:
    text = value.replace("ROOT", space.server.root_key)
    headers = {name.encode(): text.encode("latin-1")}
    answer = space.server.caller(None).send("GET", space.jobs, headers=headers)  # type: ignore[arg-type]  # as bytes
    refused(answer, 401, "unauthorized")


def test_a_key_in_the_query_is_for_streams_only(space: Space) -> None:
    refused(space.server.caller(None).get(f"{space.jobs}?token={space.all.key}"), 401, "unauthorized")


def test_a_key_begins_with_emit_and_has_256_bits_and_only_its_sha256_is_stored(space: Space) -> None:
    keys = [space.token("jobs:read")["key"] for _ in range(3)]
    assert all(key.startswith("emit_") and len(key) >= len("emit_") + 43 for key in keys)
    with client_of(space.server.redis_url) as client:
        held = list(client.scan_iter(f"{space.server.prefix}:*", count=1000))
        dump = b"\n".join(held + [repr(client.hgetall(n)).encode() for n in held if client.type(n) == b"hash"])
    assert not any(key.encode() in dump for key in keys)
    assert all(hashlib.sha256(key.encode()).hexdigest().encode() in dump for key in keys)


def test_a_key_of_another_space_is_refused_and_learns_nothing(space: Space) -> None:
    other, job = Space(space.server), space.create()
    assert refused(other.all.get(f"/jobs/{job['id']}"), 403, "wrong_space").keys() == {"error", "code"}
    refused(other.all.get(space.jobs), 403, "wrong_space")
    refused(other.all.get(f"/spaces/{NO_JOB}/jobs"), 403, "wrong_space")
    refused(other.all.get(f"/jobs/{NO_JOB}"), 404, "job_not_found")


def test_a_revoked_key_stops_working_within_a_second_on_another_process_too(space: Space) -> None:
    server = space.server
    with Server(server.redis_url, prefix=server.prefix, root_key=server.root_key) as second:
        token = space.token("jobs:read")
        callers = [server.caller(token["key"]), second.caller(token["key"])]
        for caller in callers:
            assert caller.get(space.jobs).status_code == 200
        assert server.root.delete(f"/spaces/{space.id}/tokens/{token['id']}").status_code == 204
        begun = time.monotonic()
        for caller in callers:
            until(lambda caller=caller: caller.get(space.jobs).status_code == 401, within_s=1.0)  # type: ignore[misc]  # bound now
        assert time.monotonic() - begun < 1.0
        listed = server.root.get(f"/spaces/{space.id}/tokens").json()
        assert token["id"] not in [one["id"] for one in listed]


def test_an_expired_key_stops_working_on_time(space: Space) -> None:
    expires = datetime.now(UTC) + timedelta(seconds=1.2)
    token = space.token("jobs:read", expiresAt=expires.isoformat())
    caller = space.server.caller(token["key"])
    assert caller.get(space.jobs).status_code == 200
    until(lambda: caller.get(space.jobs).status_code == 401, within_s=2.2)
    assert abs((datetime.now(UTC) - expires).total_seconds()) < 1.0
    refused(caller.get(space.jobs), 401, "unauthorized")


def test_a_space_shows_its_name_date_and_counts(space: Space) -> None:
    for status in ("scheduled", "pending", "running", "dead"):
        space.job_in(status)
    found = space.server.root.get(f"/spaces/{space.id}").json()
    assert found.keys() == {"id", "name", "createdAt", "counts"}
    assert found["counts"] == {
        "scheduled": 1, "pending": 1, "delivered": 0, "running": 1, "completed": 0, "dead": 1, "killed": 0
    }  # fmt: skip
    assert found in space.server.root.get("/spaces").json()


def test_making_a_space_answers_its_public_key(server: Server) -> None:
    answer = server.root.post("/spaces", json={"name": "ü" * 200})
    assert answer.status_code == 201
    made = answer.json()
    assert {"id", "name", "createdAt", "publicToken"} <= made.keys()
    assert made["name"] == "ü" * 200
    (public,) = server.root.get(f"/spaces/{made['id']}/tokens").json()
    assert public["scopes"] == ["jobs:read:progress"]


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": 1}, {"name": None}, {"name": "x" * 201}, [], "x", 7])
def test_a_space_wants_a_name(server: Server, body: object) -> None:
    refused(server.root.post("/spaces", json=body), 400, "invalid_request")


def test_a_token_is_shown_once(space: Space) -> None:
    expires = "2099-01-01T01:00:00.123456+01:00"
    made = space.token("jobs:worker", "jobs:create", expiresAt=expires)
    assert made.keys() == {"id", "key", "name", "scopes", "createdAt", "expiresAt"}
    assert made["scopes"] == ["jobs:worker", "jobs:create"]
    assert made["expiresAt"] == "2099-01-01T00:00:00.123Z"
    listed = {one["id"]: one for one in space.server.root.get(f"/spaces/{space.id}/tokens").json()}
    assert made["key"] not in str(listed)
    expected = {name: value for name, value in made.items() if name != "key"}
    assert listed[made["id"]] == {**expected, "lastUsedAt": None}
    assert space.server.caller(made["key"]).post(f"{space.jobs}/poll").status_code == 200
    listed = {one["id"]: one for one in space.server.root.get(f"/spaces/{space.id}/tokens").json()}
    assert at(listed[made["id"]]["lastUsedAt"]) >= at(made["createdAt"])


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": ["jobs:read"]},
        {"name": "x"},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": "jobs:read"},
        {"name": "x", "scopes": ["jobs:nothing"]},
        {"name": "x", "scopes": ["root"]},
        {"name": "x", "scopes": [1]},
        {"name": "x", "scopes": ["jobs:read"], "expiresAt": "2001-01-01T00:00:00Z"},
        {"name": "x", "scopes": ["jobs:read"], "expiresAt": "2099-01-01T00:00:00"},
        {"name": "x", "scopes": ["jobs:read"], "expiresAt": 4070908800},
        {"name": "", "scopes": ["jobs:read"]},
    ],
)
def test_a_token_that_makes_no_sense_is_refused_and_none_is_made(space: Space, body: dict[str, object]) -> None:
    before = space.server.root.get(f"/spaces/{space.id}/tokens").json()
    refused(space.server.root.post(f"/spaces/{space.id}/tokens", json=body), 400, "invalid_request")
    assert len(space.server.root.get(f"/spaces/{space.id}/tokens").json()) == len(before)


def test_revoking_a_key_that_is_not_there_is_404(space: Space) -> None:
    other = Space(space.server).token("jobs:read")
    for unknown in (NO_JOB, "x", other["id"]):
        refused(space.server.root.delete(f"/spaces/{space.id}/tokens/{unknown}"), 404, "token_not_found")


def test_deleting_a_space_leaves_nothing_of_it(space: Space) -> None:
    server = space.server
    for status in ("scheduled", "pending", "delivered", "running", "completed", "dead", "killed"):
        job = space.job_in(status, callbackUrl="https://example.com", name=f"name of {status}")
        space.call(job, "progress", {"percent": 1, "message": "x"})
    job = space.create(claim=True)
    space.all.post(f"/jobs/{job['id']}/logs", json=["a line"])
    space.all.post(space.jobs, json={"name": "x"}, headers={"idempotency-key": "k"})
    token, jobs = space.token("jobs:read"), [one["id"] for one in space.all.get(f"{space.jobs}?limit=100").json()]
    answer = server.root.delete(f"/spaces/{space.id}")
    assert answer.status_code == 204
    assert answer.content == b""
    refused(server.root.get(f"/spaces/{space.id}"), 404, "space_not_found")
    refused(server.root.get(f"/jobs/{jobs[0]}"), 404, "job_not_found")
    assert space.id not in [one["id"] for one in server.root.get("/spaces").json()]
    until(lambda: server.caller(token["key"]).get(space.jobs).status_code == 401, within_s=1.0)
    assert left_of(server, space.id, *jobs) == []
    digest = hashlib.sha256(token["key"].encode()).hexdigest()
    assert not any(f"token:{digest}" in key for key in server.redis_keys())
    refused(server.root.delete(f"/spaces/{space.id}"), 404, "space_not_found")


@pytest.mark.parametrize("status", ["completed", "dead", "killed"])
def test_deleting_an_ended_job_leaves_nothing_of_it(space: Space, status: str) -> None:
    keep, job = space.create(), space.job_in(status, callbackUrl="https://example.com")
    before = space.server.root.get(f"/spaces/{space.id}").json()["counts"][status]
    assert space.server.root.delete(f"/jobs/{job['id']}").status_code == 204
    refused(space.all.get(f"/jobs/{job['id']}"), 404, "job_not_found")
    refused(space.server.root.delete(f"/jobs/{job['id']}"), 404, "job_not_found")
    assert [one["id"] for one in space.all.get(space.jobs).json()] == [keep["id"]]
    assert space.server.root.get(f"/spaces/{space.id}").json()["counts"][status] == before - 1
    assert left_of(space.server, job["id"]) == []


@pytest.mark.parametrize("status", ["scheduled", "pending", "delivered", "running"])
def test_a_job_that_has_not_ended_is_not_deleted(space: Space, status: str) -> None:
    job = space.job_in(status)
    assert refused(space.server.root.delete(f"/jobs/{job['id']}"), 409, "invalid_state")["status"] == status
    assert space.status(job) == status
    assert space.create(scheduledFor=in_future())["status"] == "scheduled"
