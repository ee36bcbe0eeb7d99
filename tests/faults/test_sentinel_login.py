"""What a redis+sentinel:// url says of passwords and TLS holds for the Sentinels, too."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from app.redis_links.dialling import connector
from tests.faults.tls import Authority
from tests.server import free_port
from tests.server_binary import BINARY
from tests.valkey import until

PASSWORD = "p@ss/w:rd%20?#"
TIMEOUT_S = 5.0


class Pair:
    """A primary and a Sentinel that watches it; starts both, with further lines of their configurations."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.sentinel, self.primary = free_port(), free_port()

    def start(self, primary: Sequence[str], sentinel: Sequence[str], *, seen_at: int = 0) -> None:
        """`seen_at`: the port at which the Sentinel knows the primary, if it is another."""
        self._run("primary", [f"port {self.primary}", 'save ""', *primary])
        watched = f"sentinel monitor jobs 127.0.0.1 {seen_at or self.primary} 1"
        self._run("sentinel", [f"port {self.sentinel}", watched, *sentinel], "--sentinel")
        until(lambda: self._is_up(self.primary) and self._is_up(self.sentinel), 20)

    def _is_up(self, port: int) -> bool:
        try:
            with redis.Redis(port=port, socket_timeout=5, protocol=2) as client:
                client.ping()
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False
        return True

    def _run(self, name: str, lines: Sequence[str], *options: str) -> None:
        config = self._folder / f"{name}.conf"
        config.write_text("\n".join(["bind 127.0.0.1", f"dir {self._folder}", *lines]) + "\n")
        log = self._stack.enter_context((self._folder / f"{name}.log").open("wb"))
        process = subprocess.Popen([BINARY, str(config), *options], stdout=log, stderr=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with contextlib.ExitStack() as stack:
        yield Pair(tmp_path, stack)


def port_reached(url: str) -> int:
    """The port of the primary that the url leads to; connected, logged in, and still the same when asked again."""

    async def reach() -> int:
        by = connector(url, TIMEOUT_S)
        async with asyncio.timeout(TIMEOUT_S):
            connection = await by.connect()
            try:
                assert not await by.has_moved(connection)
                await connection.send_command("ROLE")
                assert (await connection.read_response())[0] == b"master"
                port: int = connection.port
                return port
            finally:
                await connection.disconnect()

    return asyncio.run(reach())


def url(pair: Pair, *, user: str = "", scheme: str = "redis+sentinel", more: str = "") -> str:
    return f"{scheme}://{user}:{quote(PASSWORD, safe='')}@127.0.0.1:{pair.sentinel}/jobs{more}"


SENTINELS: dict[str, list[str]] = {
    "without any password": [],
    "with the password": [f'requirepass "{PASSWORD}"'],
}
LOGIN = f'sentinel auth-pass jobs "{PASSWORD}"'


@pytest.mark.parametrize("sentinel", SENTINELS.values(), ids=SENTINELS)
def test_the_password_of_the_url_is_decoded_and_said_to_the_sentinels(pair: Pair, sentinel: list[str]) -> None:
    pair.start([f'requirepass "{PASSWORD}"'], [LOGIN, *sentinel])
    assert port_reached(url(pair)) == pair.primary


@pytest.mark.parametrize("sentinel", SENTINELS.values(), ids=SENTINELS)
def test_a_user_whom_the_sentinels_do_not_know_is_no_hindrance(pair: Pair, sentinel: list[str]) -> None:
    pair.start([f'user me on ">{PASSWORD}" ~* &* +@all', f'requirepass "{PASSWORD}"'], [LOGIN, *sentinel])
    assert port_reached(url(pair, user="me")) == pair.primary


def test_a_user_of_the_sentinels_is_used(pair: Pair) -> None:
    user = f'user me on ">{PASSWORD}" ~* &* +@all'
    pair.start([user], [user, "user default off", "sentinel auth-user jobs me", LOGIN])
    assert port_reached(url(pair, user="me")) == pair.primary


def test_a_wrong_password_is_said_without_it(pair: Pair) -> None:
    pair.start([], ['requirepass "another"'])
    with pytest.raises(redis.RedisError, match="no Sentinel knows the primary of jobs") as refused:
        port_reached(url(pair))
    assert PASSWORD not in str(refused.value)
    assert f"127.0.0.1:{pair.sentinel}" in str(refused.value)


def test_with_tls_the_sentinels_are_asked_by_tls_too(pair: Pair, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with authority.relay(plain=True) as primary, authority.relay(plain=False) as sentinel:
        primary.to_port, sentinel.to_port = pair.primary, pair.sentinel
        password = f'requirepass "{PASSWORD}"'
        pair.start([password], [LOGIN, password], seen_at=primary.port)
        pair.sentinel = sentinel.port
        more = f"?ssl_ca_certs={quote(str(authority.path))}"
        assert port_reached(url(pair, scheme="rediss+sentinel", more=more)) == primary.port
        assert primary.by_tls == 1
        assert sentinel.by_tls >= 2
        with pytest.raises(redis.RedisError, match="no Sentinel knows"):
            port_reached(url(pair, scheme="rediss+sentinel"))  # an authority that nobody trusts


def nobody() -> socket.socket:
    """A port at which nobody answers: connections are refused."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def mute() -> socket.socket:
    """A port at which connections are taken, and nothing is ever said."""
    return socket.create_server(("127.0.0.1", 0))


@pytest.mark.parametrize("other", [nobody, mute])
def test_a_sentinel_that_does_not_answer_leaves_time_for_others(pair: Pair, other: Callable[[], socket.socket]) -> None:
    pair.start([], [])
    with other() as sock:
        place = f"127.0.0.1:{sock.getsockname()[1]}"
        assert port_reached(f"redis+sentinel://{place},127.0.0.1:{pair.sentinel}/jobs") == pair.primary
