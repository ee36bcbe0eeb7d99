"""The Redis and the server that tests share, one of each kind for a worker; every test gets a space of its own.

`--redis valkey`, `--redis fake` or both (the default): tests that ask for `server` run on the embedded Valkey and on
fakeredis, all others on Valkey. A test marked `valkey_only(why)` is not selected for fakeredis, nor one marked
`since(what, redis=..., valkey=...)` for older servers than these (tests/server_binary.py). With `--redis cluster` every
test that asks for a Redis, of whatever kind, has a cluster of three primaries and three replicas (tests/any_redis.py),
and no others run; a test marked `one_server(why)` is not selected. With `--deploy previous` servers are of
the release before this one, and each has one of this release beside it, as in a rolling deploy; with `--deploy this` it
is the other way round (tests/deploy/releases.py). A test marked `since_release(version)` is not selected for servers of
an older one. tests/scheduling.py spreads the whole of the tests
over processes; files that are named run in one.
"""

import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Generator, Iterator

import hypothesis
import pytest
from xdist.remote import Producer

from app.serve import allow_open_files
from tests.any_redis import AnyRedis, NewRedis, new_cluster, new_valkey
from tests.deploy.releases import THIS, unpacked, version_of
from tests.factories import Space
from tests.room import Room, new_room
from tests.scheduling import AloneLast, Turnstile, tell_alone, tell_apart, workers_for
from tests.server import Server, ServerDidNotStart, fake_redis
from tests.server_binary import is_since

KINDS = ("valkey", "fake")
CLUSTER = "cluster"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--redis", choices=(*KINDS, CLUSTER, "both"), default="both", help="Which Redis tests run on.")
    parser.addoption("--deploy", choices=("previous", "this"), help="Whose servers are called; the others run beside.")


def pytest_configure(config: pytest.Config) -> None:
    # What is ignored here is ignored by all that the tests start, and `run` respects that: a background job of a shell
    # ignores SIGINT, and nohup SIGHUP. A handler of our own is not inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, lambda *_: None)
    # Some hundred processes are started: where bytecode is not to be written, each would compile the server anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    allow_open_files()
    hypothesis.settings.register_profile("busy", deadline=None)  # a machine that does other work is no failure
    hypothesis.settings.load_profile("busy")
    config.addinivalue_line("markers", "valkey_only(why): fakeredis cannot run it, or it would prove nothing there")
    config.addinivalue_line(
        "markers", "since(what, redis=..., valkey=...): the versions of servers that have it, or None"
    )
    config.addinivalue_line("markers", "since_release(version): the release before that one does not have it")
    config.addinivalue_line("markers", "one_server(why): a cluster cannot run it, or it would prove nothing there")
    config.addinivalue_line("markers", "alone(why): it measures time or fills the machine: see tests/scheduling.py")
    if chosen := config.getoption("--deploy"):
        releases = contextlib.ExitStack()
        config.add_cleanup(releases.close)
        both = THIS, releases.enter_context(unpacked())
        Server.neighbour, Server.release = both if chosen == "previous" else reversed(both)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    return workers_for(config)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> AloneLast:
    return AloneLast(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector: thousands of tests are made and none goes, and each worker makes them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """In a worker, a test passes the turnstile."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with Turnstile(os.getppid()).passed(item.nodeid):
        return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        Turnstile(os.getpid()).remove()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "redis_kind" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--redis")
        kinds = KINDS if chosen == "both" else (chosen,)
        metafunc.parametrize("redis_kind", kinds, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select, rather than skip, what each Redis can run."""
    runs = _on_cluster if config.getoption("--redis") == CLUSTER else _on_its_kind
    left = [item for item in items if not runs(item) or _lacks_server(item) or _lacks_release(item)]
    if left:
        gone = set(left)
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=left)
    tell_apart(items)
    if hasattr(config, "workerinput"):
        for item in items:
            tell_alone(item)


def _on_cluster(item: pytest.Item) -> bool:
    asks = {"new_redis", "redis_kind"} & set(getattr(item, "fixturenames", ()))
    return bool(asks) and item.get_closest_marker("one_server") is None


def _on_its_kind(item: pytest.Item) -> bool:
    if item.get_closest_marker("valkey_only") is None or "redis_kind" not in getattr(item, "fixturenames", ()):
        return True
    return bool(item.callspec.params["redis_kind"] != "fake")  # type: ignore[attr-defined]  # parametrized above


def _lacks_server(item: pytest.Item) -> bool:
    return any(not is_since(**marker.kwargs) for marker in item.iter_markers("since"))


def _lacks_release(item: pytest.Item) -> bool:
    """Whether the servers that tests are to call are older than what a test is about."""
    if Server.release == THIS:
        return False
    has = version_of(Server.release.version)
    return any(version_of(marker.args[0]) > has for marker in item.iter_markers("since_release"))


@pytest.fixture(scope="session")
def new_redis(request: pytest.FixtureRequest) -> NewRedis:
    """Starts a Redis of a test's own, which it may look into or hurt: a Valkey, or what `--redis` says."""
    return new_cluster if request.config.getoption("--redis") == CLUSTER else new_valkey


@pytest.fixture(scope="module")
def valkey(new_redis: NewRedis) -> Iterator[AnyRedis]:
    """A Valkey of a file's own, or a cluster of them."""
    with new_redis() as running:
        yield running


@pytest.fixture(scope="session")
def room_redis(new_redis: NewRedis) -> Iterator[AnyRedis]:
    """What all rooms of this process's tests share."""
    with new_redis() as running:
        yield running


@pytest.fixture(scope="module")
def redis_environ(request: pytest.FixtureRequest, new_redis: NewRedis) -> Iterator[dict[str, str]]:
    """What tells a `jobwire up`, which brings a Valkey of its own, that it is to use a cluster instead."""
    if request.config.getoption("--redis") != CLUSTER:
        yield {}
        return
    with new_redis() as running:
        yield {"REDIS_URL": running.url}


class Shared:
    """A Redis and a server of each kind, from when they are first asked for to the end of the session."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        self._urls: dict[str, str] = {}
        self._servers: dict[str, Server] = {}

    def redis_url(self, kind: str) -> str:
        """The url of the Redis of a kind."""
        if kind not in self._urls:
            if kind == "fake":
                self._urls[kind] = self.stack.enter_context(fake_redis())
            else:
                begin = new_cluster if kind == CLUSTER else new_valkey
                self._urls[kind] = self.stack.enter_context(begin()).url
        return self._urls[kind]

    def server(self, kind: str) -> Server:
        """A server without a rate limit on it, with a prefix of its own."""
        if kind not in self._servers:
            self._servers[kind] = self.stack.enter_context(_started(self.redis_url(kind)))
        return self._servers[kind]


def _started(redis_url: str) -> Server:
    """A server; tried again because fakeredis answers CONFIG GET by closing the connection, perhaps in mid-start."""
    for _ in range(4):
        with contextlib.suppress(ServerDidNotStart):
            return Server(redis_url)
    return Server(redis_url)


@pytest.fixture(scope="session")
def shared() -> Iterator[Shared]:
    """What the tests of this process share; not a fixture for each kind, which would end at each change of kind."""
    made = Shared()
    with made.stack:
        yield made


@pytest.fixture(scope="session")
def redis_url(shared: Shared, redis_kind: str) -> str:
    """The url of the Redis that this process's tests share."""
    return shared.redis_url(redis_kind)


@pytest.fixture(scope="session")
def server(shared: Shared, redis_kind: str) -> Server:
    """The server that this process's tests share."""
    return shared.server(redis_kind)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What async tests run on."""
    return "asyncio"


@pytest.fixture
async def room(room_redis: AnyRedis) -> AsyncIterator[Room]:
    """A started backend with a prefix of its own, on a Redis that this process's tests share."""
    async with new_room(room_redis) as made:
        yield made


@pytest.fixture
def space(server: Server) -> Space:
    """A fresh space."""
    return Space(server)
