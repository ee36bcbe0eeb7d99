"""A cluster of a file's own, well at the beginning of each test, and a backend on it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.room import Room, new_room


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    with Cluster(config={"cluster-require-full-coverage": "no"}) as running:
        yield running


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """Three primaries and three replicas; what a test has killed or stalled runs again after it."""
    yield running_cluster
    for node in running_cluster.nodes:
        node.resume()
        if not node.is_running:
            node.start()
    running_cluster.wait_until_well()


@pytest.fixture
async def room(cluster: Cluster) -> AsyncIterator[Room]:
    """A started backend under a prefix of its own, whose links may be silent for a second."""
    async with new_room(cluster, redis_timeout_s=1.0) as made:
        yield made
