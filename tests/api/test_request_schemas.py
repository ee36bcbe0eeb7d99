"""The body of a create: what its callback URLs may cost."""

from time import process_time

import pytest

from app.api.request_schemas import check_callbacks_steps, decode_jobs_steps
from app.jobs.job_records import NewJob
from app.model.errors import Refusal
from app.model.steps import exhaust


def jobs_of(hosts: list[str]) -> list[NewJob]:
    jobs = ",".join(f'{{"name":"a","callbackUrl":"http://{host}"}}' for host in hosts)
    made, _ = exhaust(decode_jobs_steps(f"[{jobs}]".encode()))
    return made


def test_hosts_longer_than_any_are_refused_before_they_are_understood() -> None:
    jobs = jobs_of([("\u00e9" * 50 + ".") * 30 + f"{number}.example" for number in range(1000)])
    begun_s = process_time()
    for job in jobs:
        with pytest.raises(Refusal) as caught:
            exhaust(check_callbacks_steps([job], (), many=True))
        assert caught.value.code == "invalid_request"
    assert process_time() - begun_s < 1


def test_the_callback_urls_of_a_batch_are_looked_at_one_by_one() -> None:
    jobs = jobs_of([f"host{number}.example" for number in range(1000)])
    assert sum(1 for _ in check_callbacks_steps(jobs, (), many=True)) == 1000
