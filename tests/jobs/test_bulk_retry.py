"""Bulk retry: many dead or killed jobs run again."""

import asyncio
from typing import Any

import httpx
import pytest

from app.jobs.bulk_retry import BulkRetries, Retried, Selection
from app.model.errors import Refusal
from app.redis_links.link import RedisFault
from tests.room import Room

ALL_MS = 2**53


async def free(units: int) -> None:
    """Spend nothing: who asks has no bound."""


async def jobs(room: Room, count: int, status: str = "killed", **fields: Any) -> list[str]:
    """Jobs that ended so."""
    async with room.client() as client:
        if not room.space:
            room.space = (await client.post("/spaces", json={"name": "tests"})).json()["id"]
        body = [{"name": "a", "maxRetries": 0, "claim": status == "dead", **fields}] * count
        ids = [job["id"] for job in (await client.post(f"/spaces/{room.space}/jobs", json=body)).json()]
        verb = {"dead": "fail", "killed": "kill"}[status]
        await asyncio.gather(*(client.post(f"/jobs/{id_}/{verb}") for id_ in ids))
    return ids


async def statuses(room: Room) -> dict[str, int]:
    async with room.client() as client:
        counts: dict[str, int] = (await client.get(f"/spaces/{room.space}")).json()["counts"]
    return {status: count for status, count in counts.items() if count}


async def retry(room: Room, **body: Any) -> httpx.Response:
    async with room.client() as client:
        return await client.post(f"/spaces/{room.space}/jobs/retry", json=body)


async def test_all_jobs_of_a_status_run_again_over_many_steps(room: Room) -> None:
    await jobs(room, 450)
    await jobs(room, 3, "dead")
    reply = await retry(room, status="killed")
    assert (reply.status_code, reply.json()) == (200, {"success": True, "retried": 450, "more": False})
    assert await statuses(room) == {"pending": 450, "dead": 3}


async def test_the_limit_takes_the_oldest_and_says_that_more_are_left(room: Room) -> None:
    ids = await jobs(room, 5, "dead")
    assert (await retry(room, status="dead", limit=2)).json() == {"success": True, "retried": 2, "more": True}
    async with room.client() as client:
        polled = await client.post(f"/spaces/{room.space}/jobs/poll", json={"count": 5})
    assert [job["id"] for job in polled.json()["jobs"]] == ids[:2]


async def test_only_jobs_of_the_name_and_of_the_time_run_again(room: Room) -> None:
    await jobs(room, 2)
    (other,) = await jobs(room, 1, name="other")
    assert (await retry(room, status="killed", name="other")).json()["retried"] == 1
    async with room.client() as client:
        created = (await client.get(f"/jobs/{other}")).json()["createdAt"]
    assert (await retry(room, status="killed", before="2001-01-01T00:00:00Z")).json()["retried"] == 0
    assert (await retry(room, status="killed", after="2999-01-01T00:00:00Z")).json()["retried"] == 0
    assert (await retry(room, status="killed", before=created, name="other")).json()["retried"] == 0
    assert (await retry(room, status="killed", before="2999-01-01T00:00:00Z")).json()["retried"] == 2


async def test_a_job_that_runs_again_has_one_more_retry_and_no_result(room: Room) -> None:
    (id_,) = await jobs(room, 1, "dead")
    await retry(room, status="dead")
    async with room.client() as client:
        job = (await client.get(f"/jobs/{id_}")).json()
    assert (job["status"], job["result"], job["completedAt"], job["maxRetries"]) == ("pending", None, None, 1)
    assert job["events"][-1]["type"] == "requeued"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"status": "completed"},
        {"status": "dead", "limit": 0},
        {"status": "dead", "limit": 10_001},
        {"status": "dead", "after": "yesterday"},
        {"status": "dead", "name": ""},
    ],
)
async def test_what_is_not_said_well_is_refused_and_changes_nothing(body: dict[str, Any], room: Room) -> None:
    await jobs(room, 1, "dead")
    reply = await retry(room, **body)
    assert (reply.status_code, reply.json()["code"]) == (400, "invalid_request")
    assert await statuses(room) == {"dead": 1}


async def test_a_space_that_is_not_there_is_told(room: Room) -> None:
    room.space = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    reply = await retry(room, status="dead")
    assert (reply.status_code, reply.json()["code"]) == (404, "space_not_found")


async def test_a_step_passes_over_what_has_gone_and_goes_on(room: Room) -> None:
    ids = await jobs(room, 201)
    await room.call("DEL", *(room.keys.job(room.space, id_) for id_ in ids[:200]))
    chosen = Selection("killed", "", 0, ALL_MS)
    done = await BulkRetries(room.backend.control, room.keys).run(room.space, chosen, 10, free)
    assert done == Retried(1, False)


async def test_many_bulk_retries_at_once_let_each_job_run_again_once(room: Room) -> None:
    await jobs(room, 300)
    many = [BulkRetries(room.backend.control, room.keys) for _ in range(8)]
    chosen = Selection("killed", "", 0, ALL_MS)
    done = await asyncio.gather(*(one.run(room.space, chosen, 1000, free) for one in many))
    assert sum(retried.jobs for retried in done) == 300
    assert await statuses(room) == {"pending": 300}


async def test_what_was_done_before_something_broke_is_the_answer(room: Room) -> None:
    ids = await jobs(room, 250)
    spoiled = room.keys.job(room.space, ids[220])
    await room.call("DEL", spoiled)
    await room.call("SET", spoiled, "no hash")
    bulk_retries, chosen = BulkRetries(room.backend.control, room.keys), Selection("killed", "", 0, ALL_MS)
    assert await bulk_retries.run(room.space, chosen, 1000, free) == Retried(200, True)
    with pytest.raises(RedisFault):
        await bulk_retries.run(room.space, chosen, 1000, free)


async def test_a_bulk_retry_spends_each_step_before_it_is_made_also_where_it_finds_nothing(room: Room) -> None:
    await jobs(room, 401)
    spent: list[int] = []

    async def spend(units: int) -> None:
        spent.append(units)

    bulk_retries = BulkRetries(room.backend.control, room.keys)
    for name, most, wanted in (("nobody", 1, [0, 1, 1]), ("nobody", 1000, [4, 5, 5]), ("", 120, [4, 5, 2])):
        spent.clear()
        await bulk_retries.run(room.space, Selection("killed", name, 0, ALL_MS), most, spend)
        assert spent == wanted


async def test_a_bulk_retry_that_has_spent_its_rate_answers_what_it_did_and_one_that_did_nothing_is_refused(
    room: Room,
) -> None:
    await jobs(room, 200)
    left = [9]

    async def spend(units: int) -> None:
        if units > left[0]:
            raise Refusal("rate_limited", "over")
        left[0] -= units

    bulk_retries, chosen = BulkRetries(room.backend.control, room.keys), Selection("killed", "", 0, ALL_MS)
    assert await bulk_retries.run(room.space, chosen, 1000, spend) == Retried(100, True)
    with pytest.raises(Refusal):
        await bulk_retries.run(room.space, chosen, 1000, spend)
    assert await statuses(room) == {"pending": 100, "killed": 100}
