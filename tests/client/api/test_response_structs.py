"""JSON that belongs to users is read when somebody asks for it: odd numbers hurt nobody else."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from jobwire import Delivery
from jobwire.api.response_structs import value_of
from jobwire.reading.log_following import all_lines
from tests.client.conftest import Up

HUGE = '{"e": 1e400, "digits": %s, "plain": 1.5, "n": 7}' % ("9" * 5000)


def test_a_number_beyond_int_and_float_is_a_decimal() -> None:
    found = value_of(msgspec.Raw(HUGE.encode()))
    assert found == {"e": Decimal("1e400"), "digits": Decimal("9" * 5000), "plain": 1.5, "n": 7}


def test_a_poll_hands_out_what_it_was_given_whatever_the_numbers(up: Up) -> None:
    jobs, bodies = up.jobs, [f'{{"name": "huge", "payload": {text}}}' for text in (HUGE, "1", HUGE, "null", "[]")]
    jobs.http.call("POST", f"{jobs.space_path}/jobs", body=f"[{','.join(bodies)}]".encode())
    taken = jobs.poll(count=5, names=["huge"])
    assert len(taken) == 5
    assert [taken[1].payload, taken[3].payload, taken[4].payload] == [1, None, []]
    assert taken[0].payload["n"] == 7
    assert bytes(taken[0].payload_json) == HUGE.encode()
    assert len(jobs.list_jobs(limit=5)) == 5


def test_lines_with_such_numbers_are_read(up: Up) -> None:
    jobs = up.jobs
    job = jobs.create("numbers")
    jobs.append_logs(job.id, b'{"message": "odd", "metadata": {"n": 1e400}}\n"plain"\n')
    odd, plain = all_lines(jobs, job.id)
    assert (odd.metadata, plain.metadata) == ({"n": Decimal("1e400")}, None)


def test_what_is_absent_is_none() -> None:
    delivery = msgspec.json.decode(b'{"id": "x"}', type=Delivery)
    assert (delivery.payload, delivery.checkpoint) == (None, None)
