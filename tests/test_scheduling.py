"""What runs beside a test that is to run alone: nothing, or one of those in pairs beside another."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.scheduling import ALONE, AT_ONCE, IN_PAIRS, LONGEST, AloneLast, Turnstile, is_in_pairs, line_of

ROOT = Path(__file__).parent.parent


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
        self.beside: list[tuple[str, list[str]]] = []
        """What every test that is to run alone found at work, or held by a worker that may begin it."""
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
            others = [tests[other.queue[0]] for other in self.workers if other is not worker and other.queue]
            self.beside.append((tests[test], others))
        self.ran.append((worker, tests[test]))
        self.scheduler.mark_test_complete(worker, test)
        if self.scheduler.tests_finished:
            for other in self.workers:
                other.shutdown()


def is_alone(name: str) -> bool:
    return name.endswith(f"@{ALONE}")


def of_those_in_pairs() -> list[str]:
    """The ids of tests in pairs, and of others in their files."""
    return [
        f"tests/{line}{name}@{ALONE}"
        for line in IN_PAIRS
        for name in (("[1]", "[2]") if "::" in line else ("::test_b", "::test_c"))
    ] + [f"tests/{line}::test_a" for line in IN_PAIRS if "::" not in line]


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
        assert not [others for _, others in spread.beside if others]
        assert all(worker.has_ended for worker in spread.workers)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("files", [0, 1, 3, 8])
def test_tests_in_pairs_run_two_at_once_when_all_others_have_ended_but_those_that_are_alone(
    files: int, workers: int
) -> None:
    tests = [*of_those_in_pairs(), *suite(files)]
    most = 0
    for seed in range(20):
        spread = Spread(tests, workers, random.Random(seed))
        assert sorted(name for _, name in spread.ran) == sorted(tests)
        for test, others in spread.beside:
            # A worker may still have the test that it kept: the turnstile lets that one end first.
            assert len(others) < (AT_ONCE if is_in_pairs(test) else 1)
            most = max(most, sum(map(is_in_pairs, others)))
        kinds = [is_in_pairs(name) + 2 * (is_alone(name) and not is_in_pairs(name)) for _, name in spread.ran]
        kept = [kind for kind in kinds[kinds.index(1) :] if kind == 0]
        assert len(kept) < AT_ONCE
        assert kinds[len(kinds) - kinds.count(2) :] == [2] * kinds.count(2)
    assert most == min(AT_ONCE, workers) - 1


def test_a_test_in_pairs_begins_when_the_others_have_ended_and_lets_others_of_its_kind_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    order: list[str] = []
    first, second, *_ = (name for name in of_those_in_pairs() if is_in_pairs(name))

    def wait() -> None:
        with turnstile.passed(first), turnstile.passed(second):
            order.append("pair")

    turnstile = Turnstile(1)
    with turnstile.passed("tests/test_a.py::test_a"), turnstile.passed("tests/test_b.py::test_b"):
        beside = threading.Thread(target=wait)
        beside.start()
        beside.join(0.2)
        order.append("others end")
    beside.join(10)
    assert order == ["others end", "pair"]
    turnstile.remove()
    assert not list(tmp_path.iterdir())


def test_what_a_file_has_for_one_kind_of_redis_stays_together() -> None:
    spread = Spread(suite(6), 3, random.Random(1))
    owners: dict[tuple[str, bool], set[Worker]] = {}
    for worker, name in spread.ran:
        if not is_alone(name):
            owners.setdefault((name.partition("::")[0], "fake" in name), set()).add(worker)
    assert len(owners) == 12
    assert all(len(workers) == 1 for workers in owners.values())
    assert len(set.union(*owners.values())) == 3


def test_what_stands_in_one_line_of_those_in_pairs_stays_together() -> None:
    spread = Spread(of_those_in_pairs(), 2, random.Random(1))
    owners: dict[str | None, set[Worker]] = {}
    for worker, name in spread.ran:
        if is_in_pairs(name):
            owners.setdefault(line_of(name), set()).add(worker)
    assert set(owners) == set(IN_PAIRS)
    assert all(len(workers) == 1 for workers in owners.values())
    assert len(set.union(*owners.values())) == AT_ONCE


def test_files_that_take_long_begin_first_and_exist() -> None:
    for file, _, test in (line.partition("::") for line in (*LONGEST, *IN_PAIRS)):
        assert f"def {test}" in (Path(__file__).parent / file).read_text()
    long = [f"tests/{file}::test_a" for file in LONGEST]
    spread = Spread([*suite(3), *long], 1, random.Random(1))
    assert [name for _, name in spread.ran][: len(long)] == long


def test_tests_that_are_alone_are_all_that_there_is() -> None:
    tests = [f"tests/test_a.py::test_{i}@{ALONE}" for i in range(3)]
    spread = Spread(tests, 3, random.Random(1))
    assert [name for _, name in spread.ran] == tests


TIMED = """
import time
from pathlib import Path
import pytest
pytestmark = pytest.mark.{mark}
@pytest.mark.parametrize("number", range(3))
def test_a(number):
    begun = time.monotonic()
    time.sleep(0.05)
    with (Path(__file__).parents[2] / "times").open("a") as file:
        file.write(f"{kind} {{begun}} {{time.monotonic()}}\\n")
"""


def test_a_real_run_keeps_to_it(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p xdist -n 2 --dist loadgroup -p no:cacheprovider\n")
    (tmp_path / "conftest.py").write_text("from tests.conftest import *")
    files = {f"tests/files/test_{n}.py": ("any", "filterwarnings('error')") for n in range(5)}
    files["tests/files/test_alone.py"] = ("alone", "alone('why')")
    paired = {Path(line).name: line for line in IN_PAIRS if "::" not in line}  # pytest wants each name once
    files |= {f"tests/{file}": ("pairs", "alone('why')") for file in list(paired.values())[:2]}
    for file, (kind, mark) in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(TIMED.format(kind=kind, mark=mark))
    command = [sys.executable, "-m", "pytest", "-q", "tests"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    times: dict[str, list[tuple[float, float]]] = {}
    for kind, *span in map(str.split, (tmp_path / "times").read_text().splitlines()):
        begun, ended = map(float, span)
        times.setdefault(kind, []).append((begun, ended))
    assert {kind: len(spans) for kind, spans in times.items()} == {"any": 15, "pairs": 6, "alone": 3}
    assert max(ended for _, ended in times["any"]) < min(begun for begun, _ in times["pairs"])
    assert max(ended for _, ended in times["pairs"]) < min(begun for begun, _ in times["alone"])
    assert all(ended < begun for (_, ended), (begun, _) in itertools.pairwise(sorted(times["alone"])))


def test_no_two_tests_have_the_same_id() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0", "-p", "no:cacheprovider", "tests/api"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ids = [line for line in told.splitlines() if "::" in line]
    assert len(ids) > 100
    assert len(ids) == len(set(ids))
