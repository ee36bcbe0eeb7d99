"""How long a connection may take nothing, and that the kernel tells what it took."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from app.wire.stalled_viewers import Patience, Taken, taken

TIMEOUT_S = 30.0


class Connection:
    """Somebody of whom the test says what they took."""

    def __init__(self, *, full: bool, total_bytes: int = 0, owed: bool = True) -> None:
        self.full = full
        self.taken = Taken(total_bytes, owed)

    def take(self, more_bytes: int, *, owed: bool = True) -> None:
        """They take so much more."""
        self.taken = Taken(self.taken.total_bytes + more_bytes, owed)


def test_who_is_full_and_takes_nothing_is_told_of_once_when_the_time_is_over() -> None:
    patience: Patience[Connection] = Patience(TIMEOUT_S)
    still = Connection(full=True)
    patience.watch(still, 100.0)
    assert patience.exhausted(100.0 + TIMEOUT_S) == []
    assert patience.exhausted(100.1 + TIMEOUT_S) == [still]
    assert patience.exhausted(200.0) == []


def test_who_takes_a_byte_has_the_whole_time_again() -> None:
    patience: Patience[Connection] = Patience(TIMEOUT_S)
    slow = Connection(full=True)
    patience.watch(slow, 0.0)
    for minute in range(60):
        slow.take(1)
        assert patience.exhausted(minute * TIMEOUT_S) == []
        assert patience.exhausted((minute + 1) * TIMEOUT_S) == []
    assert patience.exhausted(61.1 * TIMEOUT_S) == [slow]


def test_who_drains_is_forgotten() -> None:
    patience: Patience[Connection] = Patience(TIMEOUT_S)
    drained = Connection(full=True)
    patience.watch(drained, 0.0)
    patience.forget(drained)
    assert patience.exhausted(1000.0) == []


def test_who_took_nothing_between_two_looks_stands_still_since_the_first() -> None:
    patience: Patience[Connection] = Patience(TIMEOUT_S)
    still, slow, idle = Connection(full=False), Connection(full=False), Connection(full=False, owed=False)
    for now_s in (0.0, 20.0):
        for connection in (still, slow, idle):
            patience.look(connection, now_s)
        slow.take(1)
    assert patience.exhausted(TIMEOUT_S) == []
    assert patience.exhausted(TIMEOUT_S + 0.1) == [still]
    assert patience.exhausted(1000.0) == []


def test_who_takes_something_before_the_time_is_over_is_left_alone() -> None:
    patience: Patience[Connection] = Patience(TIMEOUT_S)
    late, done = Connection(full=False), Connection(full=False)
    for now_s in (0.0, 20.0):
        patience.look(late, now_s)
        patience.look(done, now_s)
    late.take(1)
    done.take(0, owed=False)
    assert patience.exhausted(TIMEOUT_S - 1) == []
    assert patience.exhausted(1000.0) == []


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_what_was_taken_grows_as_the_other_side_reads_and_not_as_we_write(runner: object) -> None:
    assert callable(runner)
    runner(_writes_and_reads())


async def _writes_and_reads() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(listening.getsockname())
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, listening.accept()[0])
        transport.write(b"x" * 8_000_000)
        before = await _steady(transport)
        assert before.owed
        waiting_bytes = transport.get_write_buffer_size()
        transport.write(b"x" * 1000)
        assert await _steady(transport) == before
        reader.recv(4096)
        assert (await _other_than(before, transport)).total_bytes > before.total_bytes
        assert transport.get_write_buffer_size() == waiting_bytes + 1000, "which tells nothing"
        reader.setblocking(False)
        async with asyncio.timeout(30):
            while taken(transport).owed:
                await asyncio.get_running_loop().sock_recv(reader, 1_000_000)
        transport.abort()


async def _other_than(before: Taken, transport: asyncio.Transport) -> Taken:
    """What was taken, once it is something else."""
    for _ in range(1000):
        if taken(transport) != before:
            break
        await asyncio.sleep(0.01)
    return taken(transport)


async def _steady(transport: asyncio.Transport) -> Taken:
    """What was taken, once it does not change any more."""
    now, before = taken(transport), None
    while now != before:
        await asyncio.sleep(0.1)
        now, before = taken(transport), now
    return now
