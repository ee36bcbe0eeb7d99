"""Callers who count while a cluster is hurt: what they were answered, and whether it is true."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import httpx

from app.model.errors import OutcomeUnknown, Unavailable
from tests.room import Room
from tests.sweeping import eventually, truth

CALLERS = 6


class Load:
    """While the block runs, each caller adds one to a counter and makes a job of a space, again and again."""

    def __init__(self, room: Room, space: str) -> None:
        self._room = room
        self._space = space
        self._counter = f"{room.keys.prefix}:{{{space}}}:counter"
        self._tasks: list[asyncio.Task[None]] = []
        self._goes_on = True
        self.counted = self.count_unknown = self.made = self.make_unknown = self.refused = 0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._call_forever()) for _ in range(CALLERS)]
        await self.goes_on()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._goes_on = False
        await asyncio.gather(*self._tasks)

    async def goes_on(self, within_s: float = 10.0) -> None:
        """Return when some more calls have been answered."""
        least = self.counted + 20, self.made + 20
        await eventually(lambda: truth(self.counted > least[0] and self.made > least[1]), within_s)

    async def _call_forever(self) -> None:
        async with self._room.client() as client:
            while self._goes_on:
                await self._count()
                await self._make(client)
                await asyncio.sleep(0.002)

    async def _count(self) -> None:
        try:
            await self._room.call("INCR", self._counter)
            self.counted += 1
        except OutcomeUnknown:
            self.count_unknown += 1
        except Unavailable:
            self.refused += 1

    async def _make(self, client: httpx.AsyncClient) -> None:
        answer = await client.post(f"/spaces/{self._space}/jobs", json={"name": "x"})
        code = answer.json().get("code", "")
        assert answer.status_code == 201 or code in ("unavailable", "outcome_unknown"), answer.text
        self.made += answer.status_code == 201
        self.make_unknown += code == "outcome_unknown"
        self.refused += code == "unavailable"

    async def kept(self) -> tuple[int, int]:
        """The counter, and the number of jobs, by the space's list; both indexes of the space agree on it."""
        count = int(await self._room.call("GET", self._counter))
        jobs = await self._room.call("ZCARD", self._room.keys.jobs(self._space))
        assert jobs == await self._room.call("ZCARD", self._room.keys.pending(self._space))
        return count, jobs

    async def check(self) -> None:
        """Nothing that was answered is lost, and nothing was done twice."""
        count, jobs = await self.kept()
        assert self.counted <= count <= self.counted + self.count_unknown
        assert self.made <= jobs <= self.made + self.make_unknown


async def new_space(room: Room) -> str:
    """A space's id."""
    made, _ = await room.backend.spaces.create("busy")
    return made.id
