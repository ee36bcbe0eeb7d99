"""What is done for each server of a cluster apart, so that one that is away holds up no work but its own.

Always: a shard is known by a tag whose keys lie on its server (Link.tags); one server is the one shard "".
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, MutableMapping
from typing import Any, TypeVar

from app.redis_links.link import Link

FOLLOW_S = 0.25
"""How often to look whether there are others than before."""

HAND_ON_S = 10.0
"""How long what is left under a tag of before is looked after: a process may not have heard yet that it is a tag no
more, for a map is asked for every other second."""

ForShard = Callable[[str], Coroutine[Any, Any, None]]

T = TypeVar("T")


async def run_on_each(link: Link, work: ForShard, leave: ForShard | None = None) -> None:
    """Run `work(tag)` for each shard, as long as there is such a shard, until cancelled. Raises what one raises.

    Work that ends by itself is begun anew after FOLLOW_S. When a tag is no shard's any more, `leave(tag)` is called
    again and again for HAND_ON_S; it never raises.
    """
    running: dict[str, asyncio.Task[None]] = {}
    left: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            tags = set(link.tags().values())
            gone = running.keys() - tags
            await _end([*(running.pop(tag) for tag in gone), *(left.pop(tag) for tag in left.keys() & tags)])
            if leave is not None:
                left |= {tag: asyncio.create_task(_now_and_then(leave, tag), name=f"left-{tag}") for tag in gone}
            for tag in tags - running.keys():
                running[tag] = asyncio.create_task(work(tag), name=f"shard-{tag}")
            if not running:
                await asyncio.sleep(FOLLOW_S)
                continue
            ended, _ = await asyncio.wait(running.values(), timeout=FOLLOW_S, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
            if ended:
                running = {tag: task for tag, task in running.items() if task not in ended}
                await asyncio.sleep(FOLLOW_S)
    finally:
        await _end([*running.values(), *left.values()])


async def _now_and_then(leave: ForShard, tag: str) -> None:
    for _ in range(round(HAND_ON_S / FOLLOW_S)):
        await leave(tag)
        await asyncio.sleep(FOLLOW_S)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def split_by_shard(link: Link, items: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """The items by the tag of the server that has the key of each."""
    shards: defaultdict[str, list[T]] = defaultdict(list)
    for item in items:
        shards[link.tag_of(key(item))].append(item)
    return shards


class ShardLog(logging.LoggerAdapter[logging.Logger]):
    """Says of which server of a cluster a message is: before it, the address of the one that has a tag then."""

    def __init__(self, log: logging.Logger, link: Link, tag: str) -> None:
        super().__init__(log)
        self._link = link
        self._tag = tag

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        places = [server.place for server, tag in self._link.tags().items() if tag and tag == self._tag]
        return (f"{places[0]}: {msg}" if places else msg), kwargs
