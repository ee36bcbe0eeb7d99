"""A call of a batch that breaks, and one whose script has no outcome: what its neighbours and its caller see of it."""

import logging

import pytest

from app.api.call_batches import answer_calls_steps
from app.jobs.worker_verbs import WorkerCall
from app.model.errors import outcome_unknown
from app.model.limits import CALLS_SCRIPT_BYTES
from app.redis_links.link import RedisFault, Word
from tests.room import Room
from tests.sweeping import PLAIN


async def broken_job(room: Room, space: str) -> str:
    """A job whose events are no list."""
    (job,) = (await room.backend.store.create(space, [PLAIN])).ids
    await room.backend.store.claim(space, job, "")
    events = room.keys.events(space, job)
    await room.call("DEL", events)
    await room.call("SET", events, "no list")
    return job


async def test_a_call_that_breaks_is_a_bug_as_it_is_alone_and_harms_none_beside_it(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    async with room.client() as client:
        space = (await client.post("/spaces", json={"name": "s"})).json()["id"]
        made = await client.post(f"/spaces/{space}/jobs", json=[{"name": "a", "claim": True}] * 2)
        good, alone, batched = [job["id"] for job in made.json()], *[await broken_job(room, space) for _ in "ab"]
        with caplog.at_level(logging.CRITICAL):
            single = await client.post(f"/jobs/{alone}/complete")
            calls = [{"verb": "complete", "jobId": job} for job in (good[0], batched, good[1])]
            answers = (await client.post(f"/spaces/{space}/calls", json=calls)).json()
    assert [answer["status"] for answer in answers] == [200, 500, 200]
    broken = answers[1]["body"]
    assert single.status_code == 500
    assert broken == single.json() | {"requestId": broken["requestId"]}


def test_calls_that_broke_are_answered_and_logged_one_in_a_step(caplog: pytest.LogCaptureFixture) -> None:
    call, scope = WorkerCall("ack", "x", "", None), {"method": "POST", "path": "/x"}
    steps, logged = answer_calls_steps(scope, [call] * 3, [RedisFault("broken")] * 3), []
    for _ in steps:
        logged.append(len(caplog.records))
    assert logged == [1, 2, 3]


async def test_calls_of_a_script_without_an_outcome_have_none_and_the_next_ones_are_sent_on(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, space = room.backend.store, (await room.backend.spaces.create("s"))[0].id
    jobs = (await store.create(space, [PLAIN] * 4)).ids
    await store.poll(space, 4)
    large = b'"%b"' % (b"x" * (CALLS_SCRIPT_BYTES // 2))
    run, names = store._scripts.run, []

    async def first_is_lost(name: str, *rest: list[str]) -> object:
        done = await run(name, *rest)
        names.append(name)
        if len(names) == 1:
            raise outcome_unknown()
        return done

    monkeypatch.setattr(store._scripts, "run", first_is_lost)
    calls = [WorkerCall("complete", job, "", large) for job in (*jobs[:3], jobs[0])]
    outcomes = await store.calls(space, calls)
    assert names == ["job_calls"] * 4, "about 1 MiB a script"
    assert getattr(outcomes[0], "code", "") == "outcome_unknown"
    assert outcomes[1:] == ["completed"] * 3


async def test_long_lease_tokens_are_bytes_of_a_script_as_bodies_are(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, space = room.backend.store, (await room.backend.spaces.create("s"))[0].id
    (job,) = (await store.create(space, [PLAIN])).ids
    run, sizes = store._scripts.run, []

    async def weighed(name: str, keys: list[str], words: list[Word]) -> object:
        sizes.append(sum(len(str(word)) for word in words))
        return await run(name, keys, words)

    monkeypatch.setattr(store._scripts, "run", weighed)
    outcomes = await store.calls(space, [WorkerCall("keepalive", job, "x" * (CALLS_SCRIPT_BYTES // 4), None)] * 12)
    assert {getattr(outcome, "code", "") for outcome in outcomes} == {"lease_lost"}
    assert max(sizes) < CALLS_SCRIPT_BYTES * 1.1
