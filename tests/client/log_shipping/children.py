"""A program whose children log: `python children.py METHOD HOW LINES`, with the job and the service in the environment.

HOW is `process`, `pool`, `executor` or `initializer`. Nothing waits for the lines but the library itself.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import jobwire

HOW = sys.argv[2]


def listen() -> None:
    log = logging.getLogger()
    log.setLevel(logging.INFO)
    log.addHandler(jobwire.LogHandler())


def work(number: int) -> int:
    logging.info("child line %d", number)
    return number


def many(count: int) -> None:
    for number in range(count):
        work(number)


def run(context: Any, count: int) -> None:
    initializer = listen if HOW == "initializer" else None
    if HOW == "process":
        child = context.Process(target=many, args=(count,))
        child.start()
        child.join()
        assert child.exitcode == 0
    elif HOW == "executor":
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            assert len(list(executor.map(work, range(count)))) == count
    else:
        with context.Pool(2, initializer) as pool:
            assert len(pool.map(work, range(count))) == count


if HOW != "initializer":
    listen()

if __name__ == "__main__":
    run(multiprocessing.get_context(sys.argv[1]), int(sys.argv[3]))
