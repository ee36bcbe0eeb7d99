"""The release before this one and this one on one Redis: whatever either does, the other goes on from there."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator

import pytest

from app.redis_links.scripts import SCRIPTS
from tests.cluster.agreement import logs_of, sight_of
from tests.cluster.workers import Workers
from tests.deploy.both import RELEASES, Both
from tests.deploy.interleaving import Interleaving
from tests.deploy.releases import THIS, Release, unpacked, version_of, wheel
from tests.valkey import Valkey, until
from tests.webhooks.receiving import Receiving

SEEDS = tuple(range(1, 1 + int(os.environ.get("DEPLOY_SEEDS", "3"))))
STEPS = 120
HANDOVERS = 4
DELIVERED_S = 5.0
SWEPT = ("lapse", "promote", "retire")
PARKED = 70
"""Long polls: more than the hints of one step are."""


@pytest.fixture(scope="module")
def previous() -> Iterator[Release]:
    with unpacked() as release:
        yield release


@pytest.fixture(scope="module")
def both(previous: Release) -> Iterator[Both]:
    with Valkey() as valkey, Both(valkey, previous) as running:
        yield running


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiving]:
    with Receiving() as running:
        yield running


def new_space(both: Both) -> str:
    return str(both.call("this", "POST", "/spaces", {"name": "x"}).body["id"])


def test_the_release_before_runs_its_own_code_and_its_own_scripts(previous: Release) -> None:
    folder = str(previous.folder)
    assert previous.told("app.__file__").startswith(folder)
    assert previous.told("jobwire.__file__").startswith(folder)
    assert previous.told("jobwire.__version__") == previous.version
    assert not THIS.told("app.__file__").startswith(folder)
    assert version_of(previous.version) <= version_of(THIS.version)
    assert wheel().stat().st_size < 600 * 1024


def test_both_have_their_scripts_in_redis(both: Both, previous: Release) -> None:
    path = f"/spaces/{new_space(both)}/jobs/poll"
    assert [both.call(name, "POST", path).body["jobs"] for name in RELEASES] == [[], []]
    known = previous.told("app.redis_links.scripts.SCRIPTS['job_poll'].sha"), SCRIPTS["job_poll"].sha
    assert both.redis.cli("SCRIPT", "EXISTS", *known) == [1, 1]
    assert known[0] != known[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_what_either_does_the_other_goes_on_with_and_in_the_end_all_of_it_agrees(
    both: Both, receiver: Receiving, seed: int
) -> None:
    """Jobs are made, taken and brought to an end by the two in turn; sweepers follow each other; viewers of either see
    each event once, in order, with the right counts."""
    path = f"/ok/{seed}"
    world = Interleaving(both, seed, receiver.url(path))
    try:
        for _ in range(HANDOVERS):
            for _ in range(STEPS // HANDOVERS):
                world.step()
            world.pass_time()
            both.hand_over()
            world.crowd.break_off()
        world.finish(lambda job: int(receiver.count()["times"].get(f"{path} {job}", 0)))
        assert {act: world.done[act] for act in SWEPT} == {act: {*RELEASES} for act in SWEPT}
    finally:
        world.crowd.close()


def test_workers_go_on_while_one_release_takes_the_place_of_the_other(both: Both) -> None:
    """And while it is taken back. Who calls one that has gone calls the other."""
    space = new_space(both)
    serving = list(RELEASES)
    workers = Workers(lambda: both.urls[random.choice(serving)], space, both.root_key)
    workers.start()
    try:
        for name in RELEASES:
            done = len(workers.ended)
            until(lambda done=done: len(workers.ended) > done + 20, 60)  # type: ignore[misc]  # of a lambda's default
            serving.remove(name)
            both.stop_web(name)
            both.hand_over()
            done = len(workers.ended)
            until(lambda done=done: len(workers.ended) > done + 20, 60)  # type: ignore[misc]
            both.start_web(name)
            serving.append(name)
    finally:
        workers.rest()
    sight = sight_of(both.redis.url, both.keys.prefix, space)
    workers.check(sight.jobs, logs_of(both.redis.url, both.keys.prefix, list(workers.lines)), ())


@pytest.mark.parametrize("waits", RELEASES)
def test_many_polls_that_wait_with_one_release_are_served_by_one_create_of_the_other(both: Both, waits: str) -> None:
    space = new_space(both)
    (creates,) = {*RELEASES} - {waits}
    path, taken = f"/spaces/{space}/jobs", []

    def poll() -> None:
        answer = both.call(waits, "POST", f"{path}/poll", {"waitSeconds": 30, "names": ["many"]})
        taken.append([job["id"] for job in answer.body["jobs"]])

    threads = [threading.Thread(target=poll) for _ in range(PARKED)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    begun_s = time.monotonic()
    made = both.call(creates, "POST", path, [{"name": "many"}] * PARKED).body
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == sorted([job["id"]] for job in made)
    assert time.monotonic() - begun_s < DELIVERED_S
