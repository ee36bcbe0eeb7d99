"""Lines that wait to be shipped: bounded, in order, cut into batches.

Owns the waiting lines and the counting of those under way; knows no network and starts no thread. Never holds more
than `capacity_bytes`, but for one block that is larger by itself. What finds no room waits (`block`) or is dropped
and counted (`drop`), and a line in the place of the missing ones says how many they were. With an `Overflow` what finds
no room while the service is away goes to a file instead, behind everything that waits here. Safe between threads.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ..log_lines.entry import Entry, rfc3339, weight_bytes
from .overflow_file import Overflow

WhenFull = Literal["block", "drop"]

BATCH_LINES = 2000
# JSON may write one character as six: half a MiB stays below the 5 MiB that an append may have.
BATCH_BYTES = 512 * 1024
# Lines that waited longer than this carry their own time, for the time of acceptance would be wrong.
STALE_S = 1.0


class _Block(NamedTuple):
    entries: Sequence[Entry]
    weight_bytes: int
    taken_at_s: float


class LogBuffer:
    """`put` on one side, `next_batch` and `settle` on the other; `close` ends both."""

    def __init__(
        self,
        *,
        when_full: WhenFull,
        capacity_bytes: int,
        linger_s: float,
        batch_lines: int,
        overflow: Overflow | None = None,
    ) -> None:
        self._overflow = overflow
        self._overflow_bound_bytes = 0
        self._is_away = False
        self._under_way: list[Entry] = []
        self.batches_taken = 0
        self._when_full = when_full
        self._capacity_bytes = capacity_bytes
        self._linger_s = linger_s
        self._batch_lines = batch_lines
        self._changed = threading.Condition(threading.RLock())
        self._blocks: deque[_Block] = deque()
        self._taken_lines = 0
        self._settled_lines = 0
        self._waiting_lines = 0
        self._waiting_bytes = 0
        self._under_way_lines = 0
        self._under_way_bytes = 0
        self._hurry_until_line = 0
        self._unannounced_drops = 0
        self._closed = False
        self._abandoned = False
        self.dropped_lines = 0

    def put(self, entries: Sequence[Entry]) -> bool:
        """Take lines, in order; False if some were dropped, for want of room or because it is closed."""
        taken = [self._put_block(block) for block in self._cut(entries)]
        return all(taken)

    def _cut(self, entries: Sequence[Entry]) -> Iterator[_Block]:
        """Blocks that each fit into one batch."""
        now_s = time.monotonic()
        start = weight = 0
        for place, entry in enumerate(entries):
            own = weight_bytes(entry)
            if place > start and (place - start == self._batch_lines or weight + own > BATCH_BYTES):
                yield _Block(entries[start:place], weight, now_s)
                start, weight = place, 0
            weight += own
        if entries:
            yield _Block(entries[start:], weight, now_s)

    def _put_block(self, block: _Block) -> bool:
        with self._changed:
            if self._when_full == "block":
                self._changed.wait_for(lambda: self._closed or self._has_room(block))
            if not self._closed and self._goes_to_overflow(block) and self._put_aside(block):
                return True
            if self._closed or not self._has_room(block):
                self.dropped_lines += len(block.entries)
                self._unannounced_drops += len(block.entries)
                return False
            self._announce_drops()
            self._enqueue(block)
            return True

    def _has_room(self, block: _Block) -> bool:
        if self._goes_to_overflow(block):
            return True
        if self._overflow is not None and self._overflow.waiting_bytes:
            return False
        held_bytes = self._waiting_bytes + self._under_way_bytes
        return not held_bytes or held_bytes + block.weight_bytes <= self._capacity_bytes

    def _goes_to_overflow(self, block: _Block) -> bool:
        """While the service is away what finds no room goes to the file, and all that follows until the file is empty.

        A service that is back shall not be outrun: the file then grows by no more than memory may hold.
        """
        overflow = self._overflow
        if overflow is None or overflow.is_full:
            return False
        if self._is_away:
            held_bytes = self._waiting_bytes + self._under_way_bytes
            is_full = bool(held_bytes) and held_bytes + block.weight_bytes > self._capacity_bytes
            return overflow.waiting_bytes > 0 or is_full
        return 0 < overflow.waiting_bytes <= self._overflow_bound_bytes

    def _put_aside(self, block: _Block) -> bool:
        assert self._overflow is not None
        _stamp(block, time.monotonic())
        if not self._overflow.append(block.entries):
            return self._put_block(block)
        self._taken_lines += len(block.entries)
        self._changed.notify_all()
        return True

    def note_outage(self, away: bool) -> None:
        """Whether the service is away: only then is the file used for what finds no room here."""
        with self._changed:
            self._is_away = away
            if self._overflow is not None:
                self._overflow_bound_bytes = self._overflow.waiting_bytes + self._capacity_bytes
                self._overflow.is_full = False
            self._changed.notify_all()

    def _announce_drops(self) -> None:
        dropped, self._unannounced_drops = self._unannounced_drops, 0
        if dropped:
            text = f"{dropped} lines dropped: they came faster than they could be sent"
            notice = Entry(text, "warn", "jobwire", metadata={"dropped": dropped})
            self._enqueue(_Block([notice], weight_bytes(notice), time.monotonic()))

    def _enqueue(self, block: _Block) -> None:
        self._blocks.append(block)
        self._taken_lines += len(block.entries)
        self._waiting_lines += len(block.entries)
        self._waiting_bytes += block.weight_bytes
        self._changed.notify_all()

    @property
    def unsettled_lines(self) -> int:
        """Lines that were taken and not settled yet."""
        with self._changed:
            return self._taken_lines - self._settled_lines

    def flush(self, timeout_s: float | None = None) -> bool:
        """Hurry, and wait until everything taken so far is settled; False when time ran out or it was abandoned."""
        with self._changed:
            until_line = self._hurry_until_line = self._taken_lines
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._abandoned or self._settled_lines >= until_line, timeout_s)
            return self._settled_lines >= until_line

    def close(self) -> None:
        """Take no more; who waits for room is let go. What is left can still be shipped."""
        with self._changed:
            if not self._closed:
                self._announce_drops()
            self._closed = True
            self._hurry_until_line = self._taken_lines
            self._changed.notify_all()

    def abandon(self) -> None:
        """Close, and hand out no more batches either."""
        with self._changed:
            self._closed = self._abandoned = True
            self._changed.notify_all()

    @property
    def abandoned(self) -> bool:
        return self._abandoned

    def pause(self, seconds: float) -> bool:
        """Wait that long, or until abandoned; whether to go on."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._abandoned, seconds)

    def next_batch(self) -> list[Entry] | None:
        """Wait until a batch is full or its oldest line has lingered; None when closed and empty, or abandoned.

        The batch before must have been settled.
        """
        with self._changed:
            while not (self._abandoned or self._is_ripe()):
                if self._closed and not self._blocks and not self._has_overflow():
                    return None
                self._changed.wait(self._ripens_in_s())
            return None if self._abandoned else self._next_batch()

    def left(self) -> Iterator[list[Entry]]:
        """What nobody will be handed any more, after `abandon`: the batch that was under way first, all in order."""
        with self._changed:
            if self._under_way:
                yield self._under_way
                self.settle()
            while self._blocks or self._has_overflow():
                yield self._next_batch()
                self.settle()

    def _has_overflow(self) -> bool:
        return self._overflow is not None and self._overflow.waiting_bytes > 0

    def _is_full(self) -> bool:
        return self._waiting_lines >= self._batch_lines or self._waiting_bytes >= BATCH_BYTES

    def _is_ripe(self) -> bool:
        if not self._blocks:
            return self._has_overflow()
        return self._is_full() or self._settled_lines < self._hurry_until_line or self._ripens_in_s() == 0

    def _ripens_in_s(self) -> float | None:
        if not self._blocks:
            return None
        return max(0.0, self._blocks[0].taken_at_s + self._linger_s - time.monotonic())

    def _next_batch(self) -> list[Entry]:
        """Whole blocks off the front, as many as fit. A full and fresh batch is dated well enough by its acceptance."""
        self.batches_taken += 1
        if not self._blocks:
            assert self._overflow is not None
            self._under_way = self._overflow.pop_block()
            self._under_way_lines = len(self._under_way)
            self._changed.notify_all()
            return self._under_way
        full, now_s = self._is_full(), time.monotonic()
        batch: list[Entry] = []
        while self._blocks and self._fits(batch, self._blocks[0]):
            block = self._blocks.popleft()
            self._under_way_bytes += block.weight_bytes
            if not full or now_s - block.taken_at_s > STALE_S:
                _stamp(block, now_s)
            batch.extend(block.entries)
        self._under_way, self._under_way_lines = batch, len(batch)
        self._waiting_lines -= len(batch)
        self._waiting_bytes -= self._under_way_bytes
        return batch

    def _fits(self, batch: list[Entry], block: _Block) -> bool:
        if not batch:
            return True
        lines = len(batch) + len(block.entries)
        return lines <= self._batch_lines and self._under_way_bytes + block.weight_bytes <= BATCH_BYTES

    def settle(self) -> None:
        """The batch under way has been answered or given up: its room is free again."""
        with self._changed:
            self._settled_lines += self._under_way_lines
            self._under_way_lines = self._under_way_bytes = 0
            self._under_way = []
            self._changed.notify_all()


def _stamp(block: _Block, now_s: float) -> None:
    timestamp = rfc3339(time.time() - (now_s - block.taken_at_s))
    for entry in block.entries:
        if entry.timestamp is None:
            entry.timestamp = timestamp
