"""The shipper under every fault of the link: each line once, in order, in bounded memory."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator

import pytest

from jobwire import AccessDenied, Entry, Jobs, LogShipper, NotFound, ShipperStopped
from jobwire.log_lines.entry import weight_bytes
from tests.client.fake import BREAK, LOSE_ANSWER, UNAVAILABLE, UNKNOWN, FakeService


@pytest.fixture
def shipper(service: FakeService, jobs: Jobs) -> Iterator[LogShipper]:
    job = service.add_job()
    shipper = LogShipper(jobs, job.id, batch_lines=10, linger_s=0.01)
    yield shipper
    shipper.close(0)


def lines(count: int, prefix: str = "line") -> list[Entry]:
    return [Entry(f"{prefix} {number}") for number in range(count)]


def texts(entries: list[Entry]) -> list[str]:
    return [entry.message for entry in entries]


def test_lines_arrive_in_order_and_no_batch_is_larger_than_allowed(service: FakeService, shipper: LogShipper) -> None:
    entries = lines(95)
    for start in range(0, 95, 7):
        shipper.put(entries[start : start + 7])
    assert shipper.close(10)
    assert service.messages() == texts(entries)
    assert max(request.body.count(b"\n") for request in service.seen("append")) <= 10


@pytest.mark.parametrize("fault", [LOSE_ANSWER, BREAK, UNAVAILABLE, UNKNOWN, (500, {}), (429, {}), (502, {})])
def test_a_batch_without_answer_is_repeated_byte_for_byte(
    service: FakeService, shipper: LogShipper, fault: str
) -> None:
    service.faults["append"].extend([None, fault, fault])
    entries = lines(30)
    shipper.put(entries)
    assert shipper.close(10)
    assert service.messages() == texts(entries)
    _, *tries, _ = service.seen("append")
    assert len({(request.headers["idempotency-key"], request.body) for request in tries}) == 1
    assert len({request.headers["idempotency-key"] for request in service.seen("append")}) == 3


def test_any_mixture_of_faults_loses_doubles_and_reorders_nothing(service: FakeService, shipper: LogShipper) -> None:
    dice = random.Random(7)
    faults = [None, None, LOSE_ANSWER, BREAK, (429, {"code": "rate_limited"})]
    service.faults["append"].extend(dice.choice(faults) for _ in range(40))
    entries = lines(200)
    shipper.put(entries)
    assert shipper.close(30)
    assert service.messages() == texts(entries)


def test_an_outage_is_waited_out_and_told_once(service: FakeService, jobs: Jobs) -> None:
    told: list[bool] = []
    away = threading.Event()
    job = service.add_job()
    service.down()

    def tell(is_away: bool) -> None:
        told.append(is_away)
        away.set()

    shipper = LogShipper(jobs, job.id, linger_s=0.01, on_outage=tell)
    shipper.put(lines(3))
    assert away.wait(10)
    assert shipper.unsent_lines == 3
    service.up()
    assert shipper.close(10)
    assert (service.messages(), told) == (["line 0", "line 1", "line 2"], [True, False])


def test_a_full_buffer_makes_put_wait_and_memory_stays_bounded(service: FakeService, jobs: Jobs) -> None:
    job = service.add_job()
    release = threading.Event()
    service.faults["append"].append(release)
    capacity_bytes = 20 * weight_bytes(Entry("line 10"))
    shipper = LogShipper(jobs, job.id, batch_lines=5, linger_s=0.01, capacity_bytes=capacity_bytes)
    entries = lines(100)

    def produce() -> None:
        for entry in entries:
            shipper.put([entry])

    producer = threading.Thread(target=produce, daemon=True)
    producer.start()
    service.wait_for(lambda: service.seen("append"))
    producer.join(0.3)
    assert producer.is_alive()
    assert shipper.unsent_lines <= 21
    release.set()
    producer.join(20)
    assert shipper.close(20)
    assert service.messages() == texts(entries)


def test_dropped_lines_are_counted_in_their_place(service: FakeService, jobs: Jobs) -> None:
    job = service.add_job()
    release = threading.Event()
    service.faults["append"].append(release)
    capacity_bytes = 10 * weight_bytes(Entry("line 00"))
    shipper = LogShipper(jobs, job.id, when_full="drop", linger_s=0, capacity_bytes=capacity_bytes)
    shipper.put(lines(1, "first"))
    service.wait_for(lambda: service.seen("append"))
    for entry in lines(30):
        shipper.put([entry])
    dropped = shipper.dropped_lines
    assert dropped > 0
    release.set()
    assert shipper.flush(10)
    shipper.put(lines(1, "later"))
    assert shipper.close(10)
    kept = 30 - dropped
    notice = f"{dropped} lines dropped: they came faster than they could be sent"
    assert service.messages() == ["first 0", *texts(lines(kept)), notice, "later 0"]
    assert service.job.lines[-2]["metadata"] == {"dropped": dropped}


def test_only_the_line_at_fault_is_given_up(service: FakeService, shipper: LogShipper) -> None:
    entries = [*lines(4), Entry("poison"), *lines(5, "more")]
    shipper.put(entries)
    assert shipper.close(10)
    assert service.messages() == [text for text in texts(entries) if text != "poison"]
    assert shipper.refused_lines == 1


@pytest.mark.parametrize(("status", "error"), [(401, AccessDenied), (403, AccessDenied), (404, NotFound)])
def test_a_refusal_of_the_job_or_the_key_stops_the_shipper(
    service: FakeService, shipper: LogShipper, status: int, error: type[Exception]
) -> None:
    service.faults["append"].append((status, {"error": "no", "code": "no"}))
    shipper.put(lines(3))
    assert not shipper.flush(10)
    assert isinstance(shipper.error, error)
    with pytest.raises(ShipperStopped):
        shipper.put(lines(1))
    assert len(service.seen("append")) == 1


def test_close_gives_up_in_time_and_says_so(service: FakeService, shipper: LogShipper) -> None:
    service.down()
    shipper.put(lines(3))
    assert not shipper.close(0.2)
    with pytest.raises(ShipperStopped):
        shipper.put(lines(1))


def test_the_status_of_the_job_is_handed_on(service: FakeService, jobs: Jobs) -> None:
    job = service.add_job(status="killed")
    seen: list[str] = []
    shipper = LogShipper(jobs, job.id, on_answer=seen.append)
    shipper.put(lines(1))
    assert shipper.close(10)
    assert seen == ["killed"]


def test_a_lone_surrogate_costs_no_other_line(service: FakeService, shipper: LogShipper) -> None:
    shipper.put([Entry("a"), Entry("b\ud800c"), Entry("😀")])
    assert shipper.close(10)
    assert service.messages() == ["a", "b\ufffdc", "😀"]


def test_lines_that_waited_carry_their_own_time(service: FakeService, shipper: LogShipper) -> None:
    shipper.put(lines(1))
    assert shipper.close(10)
    assert "timestamp" in service.job.lines[0]


def test_a_full_and_fresh_batch_carries_no_times(service: FakeService, shipper: LogShipper) -> None:
    shipper.put(lines(10))
    assert shipper.close(10)
    assert not any("timestamp" in line for line in service.job.lines)


def test_control_characters_do_not_make_a_batch_too_large(service: FakeService, jobs: Jobs) -> None:
    job = service.add_job()
    shipper = LogShipper(jobs, job.id)
    shipper.put([Entry("\0" * 60_000)] * 40)
    assert shipper.close(20)
    assert len(service.messages()) == 40
    assert max(len(request.body) for request in service.seen("append")) < 5 * 1024 * 1024


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_each_process_ships_its_own_lines_once(service: FakeService, jobs: Jobs) -> None:
    job = service.add_job()
    shipper = LogShipper(jobs, job.id, linger_s=30)
    shipper.put(lines(1, "parent"))
    child = os.fork()
    if child == 0:
        shipper.put(lines(1, "child"))
        os._exit(0 if shipper.close(10) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert service.messages() == ["child 0"]
    assert shipper.close(10)
    assert service.messages() == ["child 0", "parent 0"]
