"""Expired lease keys make the sweeper look earlier; without them, and without CONFIG, it does its work all the same."""

import asyncio

import pytest

from app.backend import Backend
from app.settings import Settings
from app.sweeper.lease_notifications import LeaseNotifications
from tests.any_redis import AnyRedis, NewRedis
from tests.room import ROOT_KEY, Room, new_room
from tests.sweeping import eventually, home, is_in, make, sweeping, take
from tests.valkey import Valkey

NOTIFY = "notify-keyspace-events"


async def flags(backend: Backend) -> set[str]:
    """The server's notification flags."""
    return set((await backend.control.call("CONFIG", "GET", NOTIFY))[1].decode())


async def test_our_flags_join_the_servers_own(new_redis: NewRedis) -> None:
    with new_redis() as valkey:
        async with new_room(valkey) as room:

            async def merged() -> bool:
                return await flags(room.backend) >= set("Eg$Kx")

            await room.call("CONFIG", "SET", NOTIFY, "Eg$")
            async with sweeping(room):
                await eventually(merged)


async def test_flags_that_include_ours_stay_as_they_are(new_redis: NewRedis) -> None:
    with new_redis() as valkey:
        async with new_room(valkey) as room:
            await room.call("CONFIG", "SET", NOTIFY, "KA")
            before = await flags(room.backend)
            async with sweeping(room):
                await home(room)
                job = await make(room, timeout_s=1)
                await take(room)
                await eventually(lambda: is_in(room, job, "pending"), 2)
            assert await flags(room.backend) == before


async def test_an_expired_lease_key_names_its_space_and_other_keys_do_not(new_redis: NewRedis) -> None:
    async def listens(backend: Backend) -> bool:
        return await backend.control.call("PUBSUB", "NUMPAT") > 0 and await flags(backend) >= set("Kx")

    with new_redis() as valkey:
        async with new_room(valkey) as room:
            backend = room.backend
            notifications = LeaseNotifications(backend.control, backend.keys)
            notifications.start()
            try:
                await eventually(lambda: listens(backend))
                for key in ("unrelated", room.keys.probe, room.keys.lease("A" * 26, "B" * 26)):
                    await room.call("SET", key, "x", "PX", 1)
                found: list[str] = []

                async def heard() -> bool:
                    await room.call("EXISTS", "unrelated", room.keys.probe, room.keys.lease("A" * 26, "B" * 26))
                    found.extend(notifications.pop_spaces())
                    return bool(found)

                await eventually(heard)
                assert found == ["A" * 26]
                assert notifications.pop_spaces() == []
            finally:
                await notifications.close()


async def test_a_server_that_is_being_left_when_listening_ends_is_left_all_the_same(
    monkeypatch: pytest.MonkeyPatch, room_redis: AnyRedis
) -> None:
    async with new_room(room_redis) as room:
        notifications = LeaseNotifications(room.backend.control, room.keys)
        notifications.start()
        (link,) = notifications._links.values()
        await link.ready(10)
        monkeypatch.setattr(room.backend.control, "servers", tuple)
        notifications._follow()
        await notifications.close()
        assert not link.up


def test_where_config_is_forbidden_it_says_so_once_and_leases_end_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(backend: Backend) -> None:
        await backend.start()
        await backend.control.ready(10)
        room = Room.__new__(Room)
        room.backend, room.keys, room.call, room.space = backend, backend.keys, backend.control.call, ""
        job = await make(room, timeout_s=1)
        await take(room)
        async with sweeping(backend):
            await eventually(lambda: is_in(room, job, "pending"), 10)
            await reconnect(backend)
            assert len(await take(room)) == 1
            await eventually(lambda: is_in(room, job, "pending"), 10)
        await backend.close()

    async def reconnect(backend: Backend) -> None:
        await backend.control.call("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(0)

    with Valkey() as valkey:
        valkey.cli("ACL", "SETUSER", "narrow", "on", ">secret", "~*", "&*", "+@all", "-config")
        url = f"unix://narrow:secret@{valkey.url.removeprefix('unix://')}"
        asyncio.run(work(Backend(Settings(redis_url=url, root_key=ROOT_KEY))))
        assert not valkey.cli("CONFIG", "GET", NOTIFY)[NOTIFY.encode()]
    assert caplog.text.count("sends no notifications of expired leases") == 1
