"""How jobs ended lately, by name: against a plain count of what was done, and what the numbers cost and survive."""

from __future__ import annotations

import math
import threading
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from app.jobs.space_stats import GROWTH, Ends, by_name
from tests.any_redis import AnyRedis
from tests.factories import Json, Space, refused
from tests.server import Server
from tests.valkey import until


def stats(space: Space) -> dict[str | None, Json]:
    answer = space.all.get(f"/spaces/{space.id}/stats")
    assert answer.status_code == 200, answer.text
    return {found["name"]: found for found in answer.json()["names"]}


def outcomes(found: Json) -> tuple[int, int, int]:
    return found["completed"], found["dead"], found["killed"]


@given(st.lists(st.integers(1, 10**9), min_size=1), st.sampled_from([0.5, 0.95]))
def test_a_quantile_is_within_twelve_percent(durations: list[int], share: float) -> None:
    ends = Ends(durations=Counter(math.floor(math.log(ms) / math.log(GROWTH)) for ms in durations))
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    found = ends.quantile_ms(share)
    assert found is not None
    assert exact * 0.88 - 1 <= found <= exact * 1.12 + 1


@given(st.binary(), st.integers(1, 100))
def test_a_field_that_is_none_of_ours_says_nothing(field: bytes, count: int) -> None:
    found = by_name([[field, b"%d" % count]])
    assert all(ends.outcomes.total() == count for ends in found.values())


def test_a_name_with_colons_is_itself() -> None:
    assert by_name([[b"c3:a:b", b"2"], [b"d-:a:b", b"1"]])["a:b"] == Ends(Counter(completed=2, dead=1), Counter({3: 2}))


def test_each_end_is_counted_once_for_its_name(space: Space) -> None:
    for status in ("completed", "completed", "dead", "killed", "running"):
        space.job_in(status, name="resize")
    space.job_in("killed", name="report")
    oldest, _ = space.create(name="waits"), space.create(name="waits")
    found = stats(space)
    assert list(found) == ["resize", "report", "waits"]
    assert outcomes(found["resize"]["lastHour"]) == outcomes(found["resize"]["lastDay"]) == (2, 1, 1)
    assert outcomes(found["report"]["lastDay"]) == (0, 0, 1)
    assert (found["waits"]["pending"], found["waits"]["oldestPendingAt"]) == (2, oldest["createdAt"])
    assert found["resize"]["oldestPendingAt"] is None
    assert space.all.get(f"/spaces/{space.id}/stats").json()["oldestPendingAt"] == oldest["createdAt"]


def test_a_duration_is_that_of_the_attempt_that_completed(space: Space) -> None:
    job = space.create(name="slow", claim=True)
    space.do(job, "ack")
    space.do(job, "complete")
    found = stats(space)["slow"]["lastHour"]
    assert 0 < found["p50Ms"] <= found["p95Ms"] < 10_000
    space.job_in("dead", name="never")
    assert stats(space)["never"]["lastHour"]["p50Ms"] is None


def test_a_complete_that_is_repeated_and_a_retry_are_no_ends(space: Space) -> None:
    job = space.job_in("completed")
    space.do(job, "complete", {"ok": True})
    retried = space.create(claim=True, maxRetries=1)
    space.do(retried, "fail", {"error": "x"})
    assert outcomes(stats(space)["work"]["lastHour"]) == (1, 0, 0)


def test_nobody_else_sees_them(space: Space) -> None:
    path = f"/spaces/{space.id}/stats"
    refused(space.caller("jobs:create").get(path), 403, "missing_scope")
    refused(Space(space.server).all.get(path), 403, "wrong_space")
    assert space.server.root.get(path).json() == {"names": [], "oldestPendingAt": None}


def test_ends_at_the_same_time_are_all_counted(space: Space) -> None:
    jobs = [space.create(name=f"n{number % 3}", claim=True) for number in range(60)]

    def end(some: list[Json]) -> None:
        for job in some:
            space.do(job, "complete")

    threads = [threading.Thread(target=end, args=(jobs[number::6],)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: found["lastDay"]["completed"] for name, found in stats(space).items()} == dict.fromkeys(
        ("n0", "n1", "n2"), 20
    )


def test_beyond_a_thousand_fields_names_are_counted_together_and_keys_end_by_themselves(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        for batch in range(11):
            names = [{"name": f"name {batch * 100 + number}", "claim": True} for number in range(100)]
            for job in space.all.post(space.jobs, json=names).json():
                space.do(job, "kill", {})
        found = stats(space)
        assert len(found) == 201
        assert found[None]["lastDay"]["killed"] == found[None]["lastHour"]["killed"] == 900
        keys = [key for key in server.redis_keys() if ":ends:" in key]
        assert {key.rpartition(":")[2][0] for key in keys} == {"h", "m"}
        assert all(0 < valkey.cli("PTTL", key) <= 93_600_000 for key in keys)
        assert server.root.delete(f"/spaces/{space.id}").status_code == 204
        assert [key for key in server.redis_keys() if ":ends:" in key] == []


def test_metrics_show_the_busiest_names(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        for number in range(25):
            for _ in range(1 + (number == 7)):
                space.job_in("completed", name=f'n"{number}')

        def shown() -> list[str]:
            return [
                line for line in server.beside("/metrics").text.splitlines() if line.startswith("jobwire_ended_jobs{")
            ]

        until(lambda: len(shown()) == 20)
        text = server.beside("/metrics").text
        assert 'jobwire_ended_jobs{name="n\\"7",outcome="completed"} 2.0' in shown()
        assert text.count("jobwire_job_duration_seconds{") == 0
        job = space.job_in("running", name='n"7')
        space.do(job, "complete")
        assert outcomes(stats(space)['n"7']["lastHour"]) == (3, 0, 0)


def test_they_survive_a_restart(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        space.job_in("completed", name="before")
        with Server(valkey.url, prefix=server.prefix, root_key=server.root_key) as other:
            space.all = other.caller(space.all.key)
            assert outcomes(stats(space)["before"]["lastHour"]) == (1, 0, 0)
