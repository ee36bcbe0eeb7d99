"""What clients get: answers that are written by other means than the struct that describes them."""

import json

import msgspec

from app.api.log_schemas import LogPage, RowPage
from app.api.response_schemas import Renewed
from app.api.worker_verbs import renewed_answer
from app.jobs import job_records


def test_a_renewed_lease_is_answered_as_it_is_described() -> None:
    for lease_end_ms, shown in ((1_772_356_861_120, "2026-03-01T09:21:01.120Z"), (None, None)):
        body = renewed_answer(job_records.RenewedLease("running", lease_end_ms))
        assert json.loads(body) == json.loads(msgspec.json.encode(Renewed("running", shown)))


def test_a_page_of_lines_is_described_as_it_is_written() -> None:
    written, described = (msgspec.structs.fields(page) for page in (RowPage, LogPage))
    assert [field.encode_name for field in written] == [field.encode_name for field in described]
