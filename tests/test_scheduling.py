"""That nothing runs beside a test that is to run alone, however many files and workers there are."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.scheduling import ALONE, LONGEST, AloneLast


class Worker:
    """What the scheduler knows a worker by. It keeps its newest test until it gets another, or is told to end."""

    def __init__(self) -> None:
        self.queue: list[int] = []
        self.shutting_down = False
        self.has_ended = False
        self.gateway = SimpleNamespace(id="")

    def send_runtest_some(self, indices: list[int]) -> None:
        assert not self.shutting_down
        self.queue += indices

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def may_run(self) -> bool:
        return len(self.queue) > (0 if self.shutting_down else 1)


class Spread:
    """A whole run of tests over workers, whose steps come in any order: what each ran, in the order of time."""

    def __init__(self, tests: list[str], workers: int, chance: random.Random) -> None:
        self.workers = [Worker() for _ in range(workers)]
        self.ran: list[tuple[Worker, str]] = []
        self.beside: list[str] = []
        options = SimpleNamespace(loadscopereorder=True)
        config: Any = SimpleNamespace(option=options, getvalue=lambda _: ["popen"] * workers)
        self.scheduler: Any = AloneLast(config)
        for worker in self.workers:
            self.scheduler.add_node(worker)
            self.scheduler.add_node_collection(worker, tests)
        self.scheduler.schedule()
        while able := [worker for worker in self.workers if worker.may_run or self._may_end(worker)]:
            self._step(chance.choice(able), tests)

    def _may_end(self, worker: Worker) -> bool:
        return worker.shutting_down and not worker.queue and not worker.has_ended

    def _step(self, worker: Worker, tests: list[str]) -> None:
        if self._may_end(worker):
            worker.has_ended = True
            if worker in self.scheduler.nodes:
                assert self.scheduler.remove_node(worker) is None
            return
        test = worker.queue.pop(0)
        if is_alone(tests[test]):
            self.beside += [tests[other.queue[0]] for other in self.workers if other is not worker and other.queue]
        self.ran.append((worker, tests[test]))
        self.scheduler.mark_test_complete(worker, test)
        if self.scheduler.tests_finished:
            for other in self.workers:
                other.shutdown()


def is_alone(name: str) -> bool:
    return name.endswith(f"@{ALONE}")


def suite(files: int) -> list[str]:
    """The ids of tests: in each file some for two kinds of Redis, some alone."""
    return [
        f"tests/test_{i}.py::test_{name}"
        for i in range(files)
        for name in ("a[valkey-1]", "b[1-valkey]", "c", "a[fake-1]", "b[1-fake]", f"d[1]@{ALONE}", f"e@{ALONE}")
    ]


@pytest.mark.parametrize("workers", [1, 2, 4, 7])
@pytest.mark.parametrize("files", [1, 2, 3, 8])
def test_nothing_runs_beside_a_test_that_is_alone_and_each_runs_once(files: int, workers: int) -> None:
    tests = suite(files)
    for seed in range(50):
        spread = Spread(tests, workers, random.Random(seed))
        assert sorted(name for _, name in spread.ran) == sorted(tests)
        assert not spread.beside
        assert all(worker.has_ended for worker in spread.workers)


def test_what_a_file_has_for_one_kind_of_redis_stays_together() -> None:
    spread = Spread(suite(6), 3, random.Random(1))
    owners: dict[tuple[str, bool], set[Worker]] = {}
    for worker, name in spread.ran:
        if not is_alone(name):
            owners.setdefault((name.partition("::")[0], "fake" in name), set()).add(worker)
    assert len(owners) == 12
    assert all(len(workers) == 1 for workers in owners.values())
    assert len(set.union(*owners.values())) == 3


def test_files_that_take_long_begin_first_and_exist() -> None:
    assert all((Path(__file__).parent / file).exists() for file in LONGEST)
    long = [f"tests/{file}::test_a" for file in LONGEST]
    spread = Spread([*suite(3), *long], 1, random.Random(1))
    assert [name for _, name in spread.ran][: len(long)] == long


def test_tests_that_are_alone_are_all_that_there_is() -> None:
    tests = [f"tests/test_a.py::test_{i}@{ALONE}" for i in range(3)]
    spread = Spread(tests, 3, random.Random(1))
    assert [name for _, name in spread.ran] == tests
