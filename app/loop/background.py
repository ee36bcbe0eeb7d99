"""Tasks that run beside the calls: who starts them, who ends them, and what is told when one dies.

Owns: the tasks of one owner, from their start until the owner closes. Never: lets one die in silence, or starts one
again: work that goes on whatever happens is repeated here, or goes through app/loop/attempts.py.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self, TypeVar

from app.loop.attempts import BugNotice
from app.model.errors import ApiError, Outage

log = logging.getLogger("jobwire.loop")

T = TypeVar("T")


class Background:
    """The background tasks of one owner: an object, which closes it, or a block, which `async with` closes."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    def start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run the work until it ends or the owner closes. If a bug ends it, the log says so."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def repeat(self, work: Callable[[], Awaitable[None]], pause_s: float, name: str) -> asyncio.Task[None]:
        """Do the work again and again, with a pause behind each time. Outages are passed over, bugs are logged.

        Of a bug that is met time after time the log says when it began and when it was over.
        """
        return self.start(_repeat(work, pause_s, name), name)

    def cancel(self) -> None:
        """Cancel every task, without waiting for its end."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Cancel every task, and return when all have ended."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, ApiError):
            log.error("the background task %s died", task.get_name(), exc_info=error)


async def _repeat(work: Callable[[], Awaitable[None]], pause_s: float, name: str) -> None:
    bugs = BugNotice(
        log, f"the background task {name} failed, and goes on", f"the background task {name} does not fail any more"
    )
    while True:
        try:
            await work()
        except Outage:
            pass
        except Exception as error:
            bugs.failed(error)
        else:
            bugs.over()
        await asyncio.sleep(pause_s)


async def until_first_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Run works side by side until one of them ends; then cancel the others. What the first raised is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
