"""Long polls by the thousand: what they cost while they wait, who is woken, and how many a key may have."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator, Sequence
from http.client import HTTPResponse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.jobs import long_polls as waiting_module
from app.jobs.long_polls import ANY_NAME, CHECK_NAMES, PARKED_MOST, SpaceWaiters, Waiter
from tests.any_redis import AnyRedis
from tests.contract.test_poll import parked
from tests.factories import Space, refused
from tests.room import new_room
from tests.server import Server
from tests.sweeping import make, make_many
from tests.valkey import until

NOBODY = "nobody"


@contextlib.contextmanager
def polls(space: Space, filters: Sequence[Sequence[str]]) -> Iterator[list[socket.socket]]:
    """Polls that wait for 30 s, one for each filter, on connections of their own."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for names in filters:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", space.server.port)))
            body = json.dumps({"waitSeconds": 30, "names": list(names)}).encode()
            head = f"POST /api/v1{space.jobs}/poll HTTP/1.1\r\nhost: x\r\nx-api-key: {space.all.key}\r\n"
            sock.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            sockets.append(sock)
        until(lambda: parked(space.server) == len(filters), 60)
        yield sockets


def scripts_run(valkey: AnyRedis) -> int:
    """How many scripts the server has run."""
    stats = valkey.cli("INFO", "commandstats")
    return sum(stats.get(f"cmdstat_{command}", {}).get("calls", 0) for command in ("evalsha", "eval"))


def taken(sock: socket.socket) -> list[str]:
    """Ids of the jobs that a poll is answered."""
    sock.settimeout(20)
    with HTTPResponse(sock) as response:
        response.begin()
        return [job["id"] for job in json.loads(response.read())["jobs"]]


def scripts_a_second(valkey: AnyRedis, space: Space) -> float:
    """Of some seconds in which jobs come that nobody wants, besides their creates."""
    begun_s, before = time.monotonic(), scripts_run(valkey)
    for _ in range(20):
        space.create(name=NOBODY)
        time.sleep(0.15)
    return (scripts_run(valkey) - before - 20) / (time.monotonic() - begun_s)


@pytest.mark.alone("it measures a rate")
def test_eight_hundred_polls_with_fifty_names_each_cost_nothing_while_nobody_wants_the_job(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space = Space(server)
        space.create(name=NOBODY)
        with polls(space, [[f"n{i}.{k}" for k in range(50)] for i in range(800)]) as sockets:
            idle = scripts_a_second(valkey, space)
            before = scripts_run(valkey)
            wanted = space.create(name="n799.49")
            assert taken(sockets[799]) == [wanted["id"]]
            woken = scripts_run(valkey) - before
        assert idle < 20, f"{idle:.0f} scripts/s"
        assert woken < 12


@pytest.mark.alone("it fills the machine")
def test_a_key_may_have_two_thousand_polls_waiting(valkey: AnyRedis) -> None:
    with Server(valkey.url) as server:
        space, other = Space(server), Space(server)
        with polls(space, [["mine"]] * PARKED_MOST) as sockets:
            answer = space.all.post(f"{space.jobs}/poll", json={"names": ["mine"], "waitSeconds": 30})
            assert refused(answer, 429, "rate_limited")["limit"] == {"parkedPolls": PARKED_MOST}
            assert int(answer.headers["retry-after"]) >= 1
            assert space.poll(names=["mine"]) == []
            assert other.poll(waitSeconds=0.1) == []
            assert space.caller("jobs:poll").post(f"{space.jobs}/poll", json={"waitSeconds": 0.1}).status_code == 200
            sockets[0].close()
            until(lambda: parked(server) == PARKED_MOST - 1)
            made = space.create(name="other")
            assert [job["id"] for job in space.poll(names=["other"], waitSeconds=30)] == [made["id"]]
            assert space.poll(names=["mine"], waitSeconds=0.1) == []


# Who is woken


NAMES = st.lists(st.sampled_from("abc"), max_size=3, unique=True)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), NAMES),
        st.tuples(st.just("hear"), st.sampled_from("abcx")),
        st.tuples(st.sampled_from(["asks", "leave"]), st.integers(0, 9)),
    ),
    max_size=40,
)


def wants(waiter: Waiter, name: str) -> bool:
    return waiter.names == [ANY_NAME] or name.encode() in waiter.names


@settings(deadline=None)
@given(STEPS)
def test_each_job_wakes_the_one_who_has_waited_longest_and_no_wake_is_lost(steps: list[tuple[str, object]]) -> None:
    room = SpaceWaiters()
    there: list[Waiter] = []
    for kind, value in steps:
        woken = {waiter for waiter in there if waiter.woken.is_set()}
        if kind == "enter":
            there.append(Waiter(value))  # type: ignore[arg-type]  # the names of an enter
            room.enter(there[-1])
        elif kind == "hear":
            first = next((w for w in there if w not in woken and wants(w, str(value))), None)
            room.wake_one(str(value).encode())
            assert {w for w in there if w.woken.is_set()} - woken == ({first} if first else set())
        elif there:
            waiter = there[int(str(value)) % len(there)]
            if kind == "asks":
                room.note_ask(waiter)
                assert not waiter.woken.is_set()
                continue
            there.remove(waiter)
            hint = waiter.hint
            heir = next((w for w in there if hint and w not in woken and wants(w, hint.decode())), None)
            room.leave(waiter)
            assert {w for w in there if w.woken.is_set()} - woken == ({heir} if heir else set())
    for waiter in there:
        room.leave(waiter)
    assert not room._idle
    assert not room


def test_a_look_goes_round_all_names_and_is_at_all_of_them_after_hints_were_lost() -> None:
    room = SpaceWaiters()
    for i in range(3000):
        room.enter(Waiter([f"{i}.{k}" for k in range(4)]))
    looks = [[name for names in room.next_names(every=False) for name in names] for _ in range(3)]
    assert [len(look) for look in looks] == [5000, 5000, 2000]
    assert len({name for look in looks for name in look}) == 12_000
    every = list(room.next_names(every=True))
    assert sum(map(len, every)) == 12_000
    assert max(map(len, every)) == CHECK_NAMES


async def test_a_look_wakes_as_many_as_there_are_jobs_that_they_want(
    monkeypatch: pytest.MonkeyPatch, room_redis: AnyRedis
) -> None:
    monkeypatch.setattr(waiting_module, "CHECK_S", 3600)
    async with new_room(room_redis) as backend:
        rooms = backend.backend.long_polls
        await make_many(backend, 2, name="wanted")
        await make(backend, name=NOBODY)
        async with contextlib.AsyncExitStack() as stack:
            waiters = []
            for names in (["other"], ["wanted"], ["wanted", "other"], ["wanted"]):
                room, waiter = await stack.enter_async_context(rooms.waiting(backend.space, names, "key"))
                waiters.append(waiter)
            await rooms._check_queues(backend.space, room)
            assert [waiter.woken.is_set() for waiter in waiters] == [False, True, True, False]
        assert not room
        assert not rooms._parked


async def test_more_jobs_at_once_than_are_hinted_wake_all_the_same_who_wants_them(
    monkeypatch: pytest.MonkeyPatch, room_redis: AnyRedis
) -> None:
    monkeypatch.setattr(waiting_module, "CHECK_S", 3600)
    async with new_room(room_redis) as backend, contextlib.AsyncExitStack() as stack:
        rooms = backend.backend.long_polls
        await make(backend, name=NOBODY)
        waiters = [
            (await stack.enter_async_context(rooms.waiting(backend.space, ["many"], "key")))[1] for _ in range(100)
        ]
        await make_many(backend, 90, name="many")
        async with asyncio.timeout(5):
            await asyncio.gather(*(waiter.woken.wait() for waiter in waiters[:90]))


async def test_a_look_wakes_who_wants_a_job_of_any_name(room_redis: AnyRedis) -> None:
    async with new_room(room_redis) as room, contextlib.AsyncExitStack() as stack:
        waiting = room.backend.long_polls.waiting
        first, second = [(await stack.enter_async_context(waiting(room.space, [], "key")))[1] for _ in range(2)]
        await room.call("ZADD", room.keys.pending(room.space), 1, "a job of which nobody was told")
        async with asyncio.timeout(5):
            await first.woken.wait()
        assert not second.woken.is_set()


def test_a_wake_that_came_while_its_waiter_took_another_job_is_not_lost() -> None:
    room = SpaceWaiters()
    first, second = Waiter(["a"]), Waiter(["a"])
    for waiter in (first, second):
        room.enter(waiter)
        room.note_ask(waiter)
    room.wake_one(b"a")
    room.note_ask(first)
    room.wake_one(b"a")
    room.leave(first)
    assert second.woken.is_set()
