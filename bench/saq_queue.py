"""One SAQ queue under measure: `PYTHON saq_queue.py SOCKET JOB RESULT`, with a Python that has saq.

Each line on stdin is an order, each line on stdout its answer, in seconds:

- `ready`: nothing;
- `create COUNT CALLS`: jobs by `enqueue`, CALLS at once, for SAQ has no call for many;
- `work COUNT CONCURRENCY`: jobs by a Worker that only returns RESULT, until so many have completed.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from saq import Worker
from saq.queue.redis import RedisQueue


async def main(socket: str, job: str, result: str) -> None:
    """Do what stdin says, one order after the other."""
    # It warns at each stop that it broke off waiting for jobs.
    logging.getLogger("saq").setLevel(logging.ERROR)
    queue = RedisQueue(Redis.from_url(f"unix://{socket}"))
    await queue.connect()
    given, answer = json.loads(job), json.loads(result)

    async def ready() -> float:
        return 0.0

    async def create(count: int, calls: int) -> float:
        begun_s = time.perf_counter()
        for _ in range(0, count, calls):
            await asyncio.gather(*(queue.enqueue(**given) for _ in range(calls)))
        return time.perf_counter() - begun_s

    async def work(count: int, concurrency: int) -> float:
        left = count
        done = asyncio.Event()

        async def resize(_: Any, **__: Any) -> Any:
            return answer

        async def count_down(_: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.set()

        worker = Worker(queue, [(given["job_or_func"], resize)], concurrency=concurrency, after_process=count_down)
        begun_s = time.perf_counter()
        working = asyncio.create_task(worker.start())
        await done.wait()
        took_s = time.perf_counter() - begun_s
        await worker.stop()
        await working
        return took_s

    orders: dict[str, Callable[..., Awaitable[float]]] = {"ready": ready, "create": create, "work": work}
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, *numbers = line.split()
        print(await orders[name](*(int(number) for number in numbers)), flush=True)
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
