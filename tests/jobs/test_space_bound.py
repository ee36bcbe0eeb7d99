"""When nothing new is taken: a space that holds what it may, a Redis that is nearly full; what runs can still end."""

import pytest

from app.model.errors import Unavailable
from app.model.limits import JOB_BYTES
from app.redis_links.memory_headroom import MEMORY_SHARE
from tests.any_redis import AnyRedis
from tests.factories import Space, refused
from tests.room import Room, new_room
from tests.server import Server
from tests.sweeping import PLAIN, home, make_many, take

KIB = 1024
BOUND = 64 * KIB


def test_a_full_space_takes_no_job_and_no_event_until_something_goes_and_is_alone_with_it(valkey: AnyRedis) -> None:
    with Server(valkey.url, JOBWIRE_SPACE_BYTES=str(BOUND)) as server:
        space, other = Space(server), Space(server)
        running, old = space.job_in("running"), space.job_in("killed")
        assert space.call(running, "event", "x" * 30 * KIB).status_code == 200
        large = {"name": "x", "payload": "y" * 25 * KIB}
        big = space.create(**large)
        total = space.all.get(space.jobs).headers["x-total-count"]
        for answer in (
            space.all.post(space.jobs, json=large),
            space.all.post(space.jobs, json=[{"name": "x"}] * 60),
            space.call(running, "event", "x" * 20 * KIB),
        ):
            body = refused(answer, 503, "space_full")
            assert body["limit"] == {"spaceBytes": BOUND}
            assert int(answer.headers["retry-after"]) >= 1
        assert space.all.get(space.jobs).headers["x-total-count"] == total
        assert other.create(**large)["status"] == "pending"

        for verb, sent in (("progress", {"percent": 1, "message": "m" * 9000}), ("checkpoint", {"at": "c" * 90 * KIB})):
            assert space.call(running, verb, sent).status_code == 200
        refused(space.call(running, "event", 1), 503, "space_full")
        assert space.call(running, "keepalive").status_code == 200
        assert space.call(running, "complete", "r" * 90 * KIB).status_code == 200
        assert space.call(big, "kill").status_code == 200
        assert space.call(big, "retry").status_code == 200
        refused(space.all.post(space.jobs, json={"name": "x"}), 503, "space_full")

        for job in (running, old):
            assert server.root.delete(f"/jobs/{job['id']}").status_code == 204
        assert space.all.post(space.jobs, json=large).status_code == 201


def test_a_create_that_is_repeated_with_its_key_is_answered_though_the_space_is_full(valkey: AnyRedis) -> None:
    with Server(valkey.url, JOBWIRE_SPACE_BYTES=str(BOUND)) as server:
        space = Space(server)
        request = {"json": {"name": "x", "payload": "y" * 60 * KIB}, "headers": {"idempotency-key": "k"}}
        first = space.all.post(space.jobs, **request)
        assert first.status_code == 201
        assert space.all.post(space.jobs, **request).json() == first.json()
        refused(space.all.post(space.jobs, json=request["json"]), 503, "space_full")


async def nearly_full(room: Room, left: int = 0) -> None:
    """Redis holds just over nine tenths of what it may, and this process looks anew."""
    used = int((await room.ask("INFO", "memory")).split(b"used_memory:")[1].split(b"\r")[0])
    await room.ask("CONFIG", "SET", "maxmemory", int((used + left) / MEMORY_SHARE))
    room.backend.store._headroom._servers.clear()


async def test_from_nine_tenths_of_maxmemory_on_jobs_and_events_are_refused_and_what_runs_goes_on(
    valkey: AnyRedis,
) -> None:
    async with new_room(valkey) as room:
        store, space = room.backend.store, await home(room)
        await make_many(room, 6)
        one, two, three, four = await take(room, 4)
        before = await room.call("HGET", room.keys.space(space), "seq")
        await nearly_full(room)
        try:
            for call in (store.create(space, [PLAIN]), store.event(space, one.id, one.token, b"1")):
                with pytest.raises(Unavailable) as refused_:
                    await call
                assert refused_.value.code == "unavailable"
                assert int(refused_.value.headers["retry-after"]) >= 1
            assert await room.call("HGET", room.keys.space(space), "seq") == before
            await store.ack(space, one.id, one.token)
            await store.progress(space, one.id, one.token, b"{}")
            await store.checkpoint(space, one.id, one.token, b'{"at":1}')
            await store.keepalive(space, one.id, one.token)
            await store.complete(space, one.id, one.token, b"1")
            await store.fail(space, two.id, two.token, b"null", may_retry=True)
            await store.fail(space, three.id, three.token, b"null", may_retry=False)
            await store.kill(space, four.id, "", b"null")
            assert len(await take(room, 3)) == 3
            await store.delete_job(space, one.id)
            await nearly_full(room, left=2 * JOB_BYTES)
            await store.create(space, [PLAIN])
        finally:
            await room.ask("CONFIG", "SET", "maxmemory", 0)
