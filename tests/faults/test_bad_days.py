"""Redis's bad days, one by one: what a client is answered meanwhile, and how soon everything works again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.faults.service import Parked, Reply, Service, hammering, works_again_within
from tests.valkey import Valkey, until

BACK_S = 3.0


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with Valkey(appendfsync="always") as running:
        yield running


@pytest.fixture
def service(valkey: Valkey) -> Iterator[Service]:
    with Service(valkey.url) as running:
        yield running


def assert_only_told_jobs_exist(valkey: Valkey, service: Service, replies: list[Reply], kept_before: int = 0) -> None:
    """Every 201 is kept, every `unavailable` is not, and an `outcome_unknown` was sent once at most."""
    done = sum(reply.status == 201 for reply in replies)
    unknown = sum(reply.code == "outcome_unknown" for reply in replies)
    assert {reply.status for reply in replies} <= {201, 503}
    assert {reply.code for reply in replies} <= {"", "unavailable", "outcome_unknown"}
    assert all("retry-after" in reply.headers for reply in replies if reply.status == 503)
    names = [
        valkey.cli("HGET", f"jw:{{{service.space}}}:job:{reply.body['id']}", "name")
        for reply in replies
        if reply.status == 201
    ]
    assert names == [b"hammer"] * done
    assert done <= valkey.cli("ZCARD", f"jw:{{{service.space}}}:pending:hammer") - kept_before <= done + unknown


def test_redis_killed_and_restarted_loses_nothing_and_parked_polls_survive(valkey: Valkey, service: Service) -> None:
    parked = Parked(service, names=["after"])
    with hammering(service) as replies:
        valkey.kill()
        until(lambda: replies[-1].code == "unavailable")
        ready, alive = service.probe("/readyz"), service.probe("/healthz")
        assert (ready.status, ready.code, alive.status) == (503, "unavailable", 200)
        assert parked.parked
        valkey.restart()
        works_again_within(service, BACK_S)
        until(lambda: replies[-1].status == 201, BACK_S)
    made = service.create(name="after")
    assert [job["id"] for job in parked.result(2)] == [made["id"]]
    assert_only_told_jobs_exist(valkey, service, replies)


def test_redis_stalled_for_five_seconds_answers_503_and_is_never_sent_a_write_twice(
    valkey: Valkey, service: Service
) -> None:
    parked = Parked(service, names=["after"])
    with hammering(service) as replies:
        valkey.stall()
        stalled_at = time.monotonic()
        until(lambda: replies[-1].code in ("unavailable", "outcome_unknown"))
        assert service.probe("/readyz").status == 503
        until(lambda: time.monotonic() - stalled_at > 5)
        valkey.resume()
        works_again_within(service, BACK_S)
        until(lambda: replies[-1].status == 201, BACK_S)
    assert any(reply.code == "outcome_unknown" for reply in replies)
    assert any(reply.code == "unavailable" for reply in replies)
    made = service.create(name="after")
    assert [job["id"] for job in parked.result(3)] == [made["id"]]
    assert_only_told_jobs_exist(valkey, service, replies)


def test_a_poll_that_a_stalled_redis_gets_to_late_takes_nothing(valkey: Valkey, service: Service) -> None:
    made = service.create()
    valkey.stall()
    answers: list[Reply] = []
    path = f"/spaces/{service.space}/jobs/poll"
    threads = [threading.Thread(target=lambda: answers.append(service.call("POST", path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    valkey.resume()
    works_again_within(service, BACK_S)
    assert [answer.code for answer in answers] == ["outcome_unknown"] * 4
    assert service.job(made["id"])["status"] == "pending"


def test_an_idempotent_create_repeated_after_an_unknown_outcome_is_done_once(valkey: Valkey, service: Service) -> None:
    path, body = f"/spaces/{service.space}/jobs", {"name": "once"}
    valkey.stall()
    first = service.call("POST", path, body, idempotency_key="k1")
    assert (first.status, first.code) == (503, "outcome_unknown")
    valkey.resume()
    works_again_within(service, BACK_S)
    again = service.call("POST", path, body, idempotency_key="k1")
    assert again.status == 201
    assert valkey.cli("ZCARD", f"jw:{{{service.space}}}:pending:once") == 1


def test_script_flush_is_not_noticed(valkey: Valkey, service: Service) -> None:
    with hammering(service) as replies:
        for _ in range(5):
            valkey.cli("SCRIPT", "FLUSH")
            enough = len(replies) + 20
            until(partial(lambda count: len(replies) > count, enough))
        assert service.works()
    assert {reply.status for reply in replies} == {201}
    assert_only_told_jobs_exist(valkey, service, replies)


def test_client_kill_of_every_connection_is_over_at_once(valkey: Valkey, service: Service) -> None:
    parked = Parked(service, names=["after"])
    with hammering(service) as replies:
        for kind in ("normal", "pubsub"):
            assert valkey.cli("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes") > 0
        works_again_within(service, BACK_S)
        until(lambda: replies[-1].status == 201, BACK_S)
    made = service.create(name="after")
    assert [job["id"] for job in parked.result(2)] == [made["id"]]
    assert_only_told_jobs_exist(valkey, service, replies)


def test_at_maxmemory_nothing_new_is_taken_and_what_runs_can_end(valkey: Valkey, service: Service) -> None:
    ids = [service.create(maxRetries=1)["id"] for _ in range(5)]
    taken = {job["id"]: job["leaseToken"] for job in service.poll(count=4)}
    assert list(taken) == ids[:4]
    valkey.cli("CONFIG", "SET", "maxmemory", "1mb")
    try:
        refused = service.call("POST", f"/spaces/{service.space}/jobs", {"name": "refused"})
        assert (refused.status, refused.code) == (503, "unavailable")
        assert "memory" in refused.body["error"]
        ready = service.probe("/readyz")
        assert ready.status == 503
        for verb, id_, status in zip(
            ("complete", "fail", "kill", "keepalive"),
            taken,
            ("completed", "pending", "killed", "delivered"),
            strict=True,
        ):
            reply = service.call("POST", f"/jobs/{id_}/{verb}", x_lease_token=taken[id_])
            assert (reply.status, reply.body.get("status")) == (200, status), (verb, reply)
        assert service.call("DELETE", f"/jobs/{ids[0]}").status == 204
        assert service.call("GET", f"/jobs/{ids[1]}").status == 200
    finally:
        valkey.cli("CONFIG", "SET", "maxmemory", "0")
    works_again_within(service, BACK_S)
    assert valkey.cli("EXISTS", f"jw:{{{service.space}}}:pending:refused") == 0


def test_while_redis_loads_its_data_calls_are_refused_and_then_work(valkey: Valkey) -> None:
    with Valkey(config={"key-load-delay": "800"}) as slow, Service(slow.url) as service:
        made = service.create()
        slow.cli("EVAL", "for i = 1, 4000 do redis.call('SET', 'ballast:' .. i, i) end", 0)
        slow.kill()
        restarting = threading.Thread(target=slow.restart)
        restarting.start()
        seen = set()
        while restarting.is_alive():
            reply = service.call("GET", f"/jobs/{made['id']}")
            seen.add((reply.status, reply.code))
            time.sleep(0.05)
        restarting.join()
        works_again_within(service, BACK_S)
        assert (503, "unavailable") in seen
        assert seen <= {(503, "unavailable"), (503, "outcome_unknown"), (200, "")}
        assert service.job(made["id"])["status"] == "pending"


def test_a_redis_that_has_become_a_replica_is_read_only_and_works_when_it_is_a_primary_again(
    valkey: Valkey, service: Service
) -> None:
    made = service.create()
    with hammering(service) as replies:
        valkey.cli("REPLICAOF", "127.0.0.1", "1")
        until(lambda: replies[-1].code == "unavailable" and "read-only" in replies[-1].body["error"], BACK_S)
        assert service.probe("/readyz").status == 503
        valkey.cli("REPLICAOF", "NO", "ONE")
        works_again_within(service, BACK_S)
        until(lambda: replies[-1].status == 201, BACK_S)
    assert service.job(made["id"])["status"] == "pending"
    assert_only_told_jobs_exist(valkey, service, replies)


def test_ready_is_red_when_the_eviction_policy_could_drop_jobs(valkey: Valkey, service: Service) -> None:
    assert service.probe("/readyz").status == 200
    valkey.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    red = service.probe("/readyz")
    assert red.status == 503
    assert "allkeys-lru" in red.body["error"]
    valkey.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert service.probe("/readyz").status == 200


def test_ready_is_red_when_scripts_cannot_run_though_ping_answers(valkey: Valkey) -> None:
    valkey.cli("ACL", "SETUSER", "narrow", "on", ">secret", "~*", "&*", "+@all")
    with Service(f"unix://narrow:secret@{valkey.url.removeprefix('unix://')}") as service:
        assert service.probe("/readyz").status == 200
        valkey.cli("ACL", "SETUSER", "narrow", "-@scripting")
        red = service.probe("/readyz")
        assert red.status == 503
        assert "script" in red.body["error"]


def test_leases_that_ended_while_redis_was_away_are_acted_on_when_it_is_back(valkey: Valkey, service: Service) -> None:
    made = service.create(timeoutSeconds=1)
    assert service.poll()
    valkey.kill()
    time.sleep(1.2)
    valkey.restart()
    until(lambda: service.call("GET", f"/jobs/{made['id']}").body.get("status") == "pending", BACK_S)


def test_up_starts_its_own_valkey_again_when_it_crashes() -> None:
    with Service(env={"JOBWIRE_APPENDFSYNC": "always"}) as service:
        made = service.create()
        pid = int((service.folder / "data" / "valkey.lock").read_text())
        os.kill(pid, signal.SIGKILL)
        works_again_within(service, BACK_S)
        assert service.job(made["id"])["status"] == "pending"
