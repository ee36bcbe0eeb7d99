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


async def flags(room: Room) -> set[str]:
    """The notification flags that all servers have."""
    told = await room.ask_all("CONFIG", "GET", NOTIFY)
    return set.intersection(*(set(reply[1].decode()) for reply in told))


async def test_our_flags_join_the_servers_own(new_redis: NewRedis) -> None:
    with new_redis() as valkey:
        async with new_room(valkey) as room:

            async def merged() -> bool:
                return await flags(room) >= set("Eg$Kx")

            await room.ask_all("CONFIG", "SET", NOTIFY, "Eg$")
            async with sweeping(room):
                await eventually(merged)


async def test_flags_that_include_ours_stay_as_they_are(new_redis: NewRedis) -> None:
    with new_redis() as valkey:
        async with new_room(valkey) as room:
            await room.ask_all("CONFIG", "SET", NOTIFY, "KA")
            before = await flags(room)
            async with sweeping(room):
                await home(room)
                job = await make(room, timeout_s=1)
                await take(room)
                await eventually(lambda: is_in(room, job, "pending"), 2)
            assert await flags(room) == before


async def test_an_expired_lease_key_names_its_space_and_other_keys_do_not(new_redis: NewRedis) -> None:
    async def listens(room: Room) -> bool:
        return all(await room.ask_all("PUBSUB", "NUMPAT")) and await flags(room) >= set("Kx")

    with new_redis() as valkey:
        async with new_room(valkey) as room:
            notifications = LeaseNotifications(room.backend.control, room.keys)
            room.space = "A" * 26
            notifications.start()
            try:
                await eventually(lambda: listens(room))
                names = ("unrelated", room.keys.probe, room.keys.lease(room.space, "B" * 26))
                for key in names:
                    await room.call("SET", key, "x", "PX", 1)
                found: list[str] = []

                async def heard() -> bool:
                    for key in names:
                        await room.call("EXISTS", key)
                    found.extend(notifications.pop_spaces(room.tag))
                    return bool(found)

                await eventually(heard)
                assert found == [room.space]
                assert notifications.pop_spaces(room.tag) == []
            finally:
                await notifications.close()


async def test_a_server_that_is_being_left_when_listening_ends_is_left_all_the_same(
    monkeypatch: pytest.MonkeyPatch, room_redis: AnyRedis
) -> None:
    async with new_room(room_redis) as room:
        notifications = LeaseNotifications(room.backend.control, room.keys)
        notifications.start()
        links = [*notifications._links.values()]
        for link in links:
            await link.ready(10)
        monkeypatch.setattr(room.backend.control, "servers", tuple)
        notifications._follow()
        await notifications.close()
        assert not any(link.up for link in links)


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
