"""Poll and claim: order, filters, nobody twice, and waiting for a job that is not there yet."""

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.test_transitions import each_of, since_0_2
from tests.factories import Space, refused
from tests.server import Server
from tests.valkey import until


def parked(server: Server) -> int:
    """How many long polls wait on a server, by its own count."""
    text = server.beside("/metrics").text
    return int(float(next(line for line in text.splitlines() if line.startswith("jobwire_parked_polls ")).split()[1]))


def names(space: Space, **body: Any) -> list[str]:
    return [job["name"] for job in space.poll(**body)]


def test_an_empty_queue_answers_an_empty_array_at_once(space: Space) -> None:
    begun = time.monotonic()
    assert space.poll(count=50) == []
    assert time.monotonic() - begun < 1


def test_poll_hands_out_the_oldest_first_one_unless_told_otherwise(space: Space) -> None:
    jobs = [space.create(name=f"n{i % 3}", payload=i)["id"] for i in range(12)]
    assert [job["id"] for job in space.poll()] == jobs[:1]
    assert [job["id"] for job in space.poll(count=4)] == jobs[1:5]
    assert [job["id"] for job in space.poll(count=50, types=["n0", "n2"])] == [
        id_ for i, id_ in enumerate(jobs) if i >= 5 and i % 3 != 1
    ]


def test_jobs_of_one_batch_are_handed_out_in_its_order(space: Space) -> None:
    space.all.post(space.jobs, json=[{"name": "x", "payload": i} for i in range(100)])
    assert [job["payload"] for _ in range(2) for job in space.poll(count=50)] == list(range(100))


@pytest.mark.parametrize("word", ["types", "type", "names", "name"])
@pytest.mark.parametrize("value", ["b", ["b"], ["b", "nothing", "b"]])
def test_a_filter_is_a_name_or_an_array_of_names_under_four_words(space: Space, word: str, value: Any) -> None:
    space.create(name="a")
    space.create(name="b")
    assert names(space, count=50, **{word: value}) == ["b"]
    assert names(space, count=50, **{word: value}) == []


def test_of_several_filters_the_first_listed_word_counts(space: Space) -> None:
    for one in "abcd":
        space.create(name=one)
    filters = {"name": "d", "names": ["c"], "type": "b", "types": ["a"]}
    for word, one in (("types", "a"), ("type", "b"), ("names", "c"), ("name", "d")):
        assert names(space, count=50, **filters) == [one]
        del filters[word]


@pytest.mark.parametrize("value", [[], None])
def test_an_empty_array_is_no_filter(space: Space, value: Any) -> None:
    space.create(name="a")
    assert names(space, types=value) == ["a"]


def test_the_filter_is_strict(space: Space) -> None:
    for one in ("work", "Work", "work ", "work:1", "wor*", "ü"):
        space.create(name=one)
    for one in ("WORK", "wor", "work*", "w?rk", "*", " work", "u\u0308"):
        assert names(space, count=50, types=[one]) == []
    assert names(space, count=50, types=["wor*", "work:1", "ü"]) == ["work:1", "wor*", "ü"]


@pytest.mark.parametrize(
    "body",
    [{"count": 0}, {"count": 51}, {"count": -1}, {"count": 1.5}, {"count": "1"}, {"count": True},
     {"types": 1}, {"types": {}}, {"types": [1]}, {"names": [["a"]]}, {"type": [None]}, {"types": ["x"] * 51},
     {"types": ""}, {"name": [""]}, {"names": ["a", "x" * 201]}, {"type": "x" * 201}, {"types": "a", "name": ""},
     {"types": "a", "name": 7}, {"types": "a", "name": ["x"] * 51},
     {"waitSeconds": -1}, {"waitSeconds": 31}, {"waitSeconds": "1"}, [], 1, "x"],
)  # fmt: skip
def test_a_poll_out_of_range_is_400_and_takes_nothing(space: Space, body: Any) -> None:
    job = space.create(name="a")
    refused(space.all.post(f"{space.jobs}/poll", json=body), 400, "invalid_request")
    refused(space.all.post(f"{space.jobs}/poll", content=b"null"), 400, "invalid_request")
    assert space.status(job) == "pending"


def test_fifty_names_of_200_characters_are_not_too_many(space: Space) -> None:
    job = space.create(name=f"{49:\u00fc>200}")
    assert space.poll(types=[f"{i:\u00fc>200}" for i in range(50)])[0]["id"] == job["id"]


def test_no_job_is_handed_to_two_workers_in_a_race_of_many(space: Space) -> None:
    total = 400
    space.all.post(space.jobs, json=[{"name": f"n{i % 4}", "payload": i} for i in range(total)])
    ids = [job["id"] for job in space.all.get(f"{space.jobs}?limit=100").json()]

    def worker(number: int) -> list[str]:
        taken: list[str] = []
        while jobs := space.poll(count=1 + number % 7, **({"type": f"n{number % 4}"} if number % 2 else {})):
            taken += [job["id"] for job in jobs]
        if number < len(ids) and space.all.post(f"/jobs/{ids[number]}/claim").status_code == 200:
            taken.append(ids[number])
        return taken

    with ThreadPoolExecutor(24) as threads:
        taken = Counter(id_ for one in threads.map(worker, range(24)) for id_ in one)
    taken.update(job["id"] for job in space.poll(count=50))
    assert len(taken) == total
    assert set(taken.values()) == {1}


def test_one_of_many_claims_of_one_job_gets_it(space: Space) -> None:
    job = space.create()
    with ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(lambda _: space.call(job, "claim"), range(30)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 29
    assert space.poll() == []


def test_a_wait_ends_as_soon_as_a_job_comes(space: Space) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(space.poll, waitSeconds=20)
        until(lambda: parked(space.server) == 1)
        job = space.create()
        assert [taken["id"] for taken in waiting.result(10)] == [job["id"]]


@pytest.mark.parametrize("comes_by", each_of("fail", "retry", "schedule", "timeout", "release", "put off"))
def test_a_wait_ends_however_a_job_becomes_pending(space: Space, comes_by: str) -> None:
    job = {
        "fail": lambda: space.job_in("running"),
        "retry": lambda: space.job_in("killed"),
        "schedule": lambda: space.create(claim=True, retryDelaySeconds=1),
        "timeout": lambda: space.create(claim=True, timeoutSeconds=1),
        "release": lambda: space.job_in("running"),
        "put off": lambda: space.job_in("running"),
    }[comes_by]()
    verb, body = {
        "retry": ("retry", None),
        "release": ("release", None),
        "put off": ("release", {"delaySeconds": 1}),
    }.get(comes_by, ("fail", None))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(space.poll, waitSeconds=20)
        if comes_by != "timeout":
            space.do(job, verb, body)
        assert [taken["id"] for taken in waiting.result(10)] == [job["id"]]


@since_0_2
def test_who_waited_with_ack_gets_a_job_that_runs(space: Space) -> None:
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(space.poll, waitSeconds=20, ack=True)
        until(lambda: parked(space.server) == 1)
        job = space.create()
        assert [taken["id"] for taken in waiting.result(10)] == [job["id"]]
    assert space.status(job) == "running"
    assert space.events(job) == ["created", "started"]


def test_a_wait_without_a_job_ends_with_an_empty_array_after_its_time(space: Space) -> None:
    space.create(name="other")
    begun = time.monotonic()
    assert space.poll(waitSeconds=1.2, types=["mine"]) == []
    assert 1.1 < time.monotonic() - begun < 2.5


def test_of_many_who_wait_each_job_wakes_one_who_may_have_it(space: Space) -> None:
    with ThreadPoolExecutor(20) as threads:
        waiting = [threads.submit(space.poll, waitSeconds=20, types=[f"n{i % 4}"]) for i in range(20)]
        until(lambda: parked(space.server) == 20)
        made = [space.create(name=f"n{i % 4}")["id"] for i in range(20)]
        taken = [job["id"] for one in waiting for job in one.result(15)]
    assert sorted(taken) == sorted(made)


def test_a_wait_is_woken_by_a_job_made_on_another_process(space: Space) -> None:
    server = space.server
    with (
        Server(server.redis_url, prefix=server.prefix, root_key=server.root_key) as second,
        ThreadPoolExecutor(1) as threads,
    ):
        waiting = threads.submit(space.poll, waitSeconds=20)
        until(lambda: parked(server) == 1)
        made = second.caller(space.all.key).post(space.jobs, json={"name": "x"}).json()
        assert waiting.result(10)[0]["id"] == made["id"]


@pytest.mark.parametrize("pipelined", [1, 2], ids=["alone", "another request behind it"])
def test_a_caller_that_has_gone_takes_nothing(space: Space, pipelined: int) -> None:
    body = b'{"waitSeconds":20}'
    request = (
        f"POST /api/v1{space.jobs}/poll HTTP/1.1\r\nhost: x\r\nx-api-key: {space.all.key}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    gone = [socket.create_connection(("127.0.0.1", space.server.port)) for _ in range(5)]
    for sock in gone:
        sock.sendall(request * pipelined)
    until(lambda: parked(space.server) == 5)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(space.poll, waitSeconds=20)
        until(lambda: parked(space.server) == 6)
        for sock in gone:
            sock.close()
        until(lambda: parked(space.server) == 1)
        job = space.create()
        assert [taken["id"] for taken in waiting.result(10)] == [job["id"]]
    assert space.status(space.create()) == "pending"


def test_waiting_is_not_busy(space: Space) -> None:
    with ThreadPoolExecutor(30) as threads:
        waiting = [threads.submit(space.poll, waitSeconds=2, types=[f"n{i}"]) for i in range(30)]
        until(lambda: parked(space.server) == 30)
        before = cpu_seconds(space.server.pid)
        time.sleep(1)
        assert cpu_seconds(space.server.pid) - before < 0.5
        assert all(one.result(10) == [] for one in waiting)


def test_who_has_waited_longest_for_a_name_gets_the_job_and_nobody_else_is_woken(space: Space) -> None:
    with ThreadPoolExecutor(6) as threads:
        waiting = []
        for types in (["a", "b"], ["b"], [], ["a"], ["b", "c"], ["c"]):
            waiting.append(threads.submit(space.poll, waitSeconds=20, types=types))
            until(lambda: parked(space.server) == len(waiting))
        order = [("c", 2), ("b", 0), ("c", 4), ("b", 1), ("a", 3), ("c", 5)]
        for count, (name, served) in enumerate(order, 1):
            made = space.create(name=name)
            assert [job["id"] for job in waiting[served].result(10)] == [made["id"]]
            assert sum(one.done() for one in waiting) == count


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_a_poll_goes_on_while_others_wait(space: Space) -> None:
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(space.poll, waitSeconds=20, types=["rare"])
        for i in range(20):
            space.create(payload=i)
        assert len(space.poll(count=50)) == 20
        stop.set()
        rare = space.create(name="rare")
        assert waiting.result(10)[0]["id"] == rare["id"]
    until(stop.is_set)
