"""How long a connection may take nothing, and that the kernel tells what it took."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from app.wire.stall_detector import Acknowledged, StallDetector, read_acknowledged

TIMEOUT_S = 30.0


class Connection:
    """Somebody of whom the test says what they took."""

    def __init__(self, *, full: bool, total_bytes: int = 0, outstanding: bool = True) -> None:
        self.full = full
        self.acknowledged = Acknowledged(total_bytes, outstanding)

    def hand_over(self, more_bytes: int, *, outstanding: bool = True) -> None:
        """They take so much more."""
        self.acknowledged = Acknowledged(self.acknowledged.total_bytes + more_bytes, outstanding)


def test_who_is_full_and_takes_nothing_is_told_of_once_when_the_time_is_over() -> None:
    detector: StallDetector[Connection] = StallDetector(TIMEOUT_S)
    still = Connection(full=True)
    detector.note_full(still, 100.0)
    assert detector.pop_stalled(100.0 + TIMEOUT_S) == []
    assert detector.pop_stalled(100.1 + TIMEOUT_S) == [still]
    assert detector.pop_stalled(200.0) == []


def test_who_takes_a_byte_has_the_whole_time_again() -> None:
    detector: StallDetector[Connection] = StallDetector(TIMEOUT_S)
    slow = Connection(full=True)
    detector.note_full(slow, 0.0)
    for minute in range(60):
        slow.hand_over(1)
        assert detector.pop_stalled(minute * TIMEOUT_S) == []
        assert detector.pop_stalled((minute + 1) * TIMEOUT_S) == []
    assert detector.pop_stalled(61.1 * TIMEOUT_S) == [slow]


def test_who_drains_is_forgotten() -> None:
    detector: StallDetector[Connection] = StallDetector(TIMEOUT_S)
    drained = Connection(full=True)
    detector.note_full(drained, 0.0)
    detector.forget(drained)
    assert detector.pop_stalled(1000.0) == []


def test_who_took_nothing_between_two_looks_stands_still_since_the_first() -> None:
    detector: StallDetector[Connection] = StallDetector(TIMEOUT_S)
    still, slow, idle = Connection(full=False), Connection(full=False), Connection(full=False, outstanding=False)
    for now_s in (0.0, 20.0):
        for connection in (still, slow, idle):
            detector.check(connection, now_s)
        slow.hand_over(1)
    assert detector.pop_stalled(TIMEOUT_S) == []
    assert detector.pop_stalled(TIMEOUT_S + 0.1) == [still]
    assert detector.pop_stalled(1000.0) == []


def test_who_takes_something_before_the_time_is_over_is_left_alone() -> None:
    detector: StallDetector[Connection] = StallDetector(TIMEOUT_S)
    late, done = Connection(full=False), Connection(full=False)
    for now_s in (0.0, 20.0):
        detector.check(late, now_s)
        detector.check(done, now_s)
    late.hand_over(1)
    done.hand_over(0, outstanding=False)
    assert detector.pop_stalled(TIMEOUT_S - 1) == []
    assert detector.pop_stalled(1000.0) == []


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
        assert before.outstanding
        waiting_bytes = transport.get_write_buffer_size()
        transport.write(b"x" * 1000)
        assert await _steady(transport) == before
        reader.recv(4096)
        assert (await _other_than(before, transport)).total_bytes > before.total_bytes
        assert transport.get_write_buffer_size() == waiting_bytes + 1000, "which tells nothing"
        reader.setblocking(False)
        async with asyncio.timeout(30):
            while read_acknowledged(transport).outstanding:
                await asyncio.get_running_loop().sock_recv(reader, 1_000_000)
        transport.abort()


async def _other_than(before: Acknowledged, transport: asyncio.Transport) -> Acknowledged:
    """What was taken, once it is something else."""
    for _ in range(1000):
        if read_acknowledged(transport) != before:
            break
        await asyncio.sleep(0.01)
    return read_acknowledged(transport)


async def _steady(transport: asyncio.Transport) -> Acknowledged:
    """What was taken, once it does not change any more."""
    now, before = read_acknowledged(transport), None
    while now != before:
        await asyncio.sleep(0.1)
        now, before = read_acknowledged(transport), now
    return now
