"""GET /healthz and GET /readyz, without a key."""

import httpx
import pytest

from tests.any_redis import NewRedis
from tests.factories import refused
from tests.server import Server
from tests.valkey import until


def test_healthz_says_that_the_process_lives(server: Server) -> None:
    assert server.beside("/healthz").status_code == 200
    assert server.beside("/healthz").json() == {"status": "ok"}


@pytest.mark.valkey_only("fakeredis knows no INFO")
def test_readyz_is_200_when_scripts_run_and_messages_come_back(server: Server) -> None:
    assert server.beside("/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_another_method_is_refused_in_json_and_names_the_methods(server: Server, path: str) -> None:
    answer = httpx.post(server.url + path)
    refused(answer, 405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_readyz_says_what_is_wrong_while_healthz_stays_200(new_redis: NewRedis) -> None:
    with new_redis() as valkey, Server(valkey.url, JOBWIRE_REDIS_TIMEOUT="0.5") as server:
        valkey.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        refusal = refused(server.beside("/readyz"), 503, "unavailable")
        assert "allkeys-lru" in refusal["error"]
        valkey.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
        until(lambda: server.beside("/readyz").status_code == 200)

        valkey.cli("CONFIG", "SET", "maxmemory", "1")
        refusal = refused(server.beside("/readyz"), 503, "unavailable")
        assert "script" in refusal["error"].lower()
        valkey.cli("CONFIG", "SET", "maxmemory", "0")

        valkey.stall()
        until(lambda: server.beside("/readyz").status_code == 503)
        assert server.beside("/healthz").status_code == 200
        valkey.resume()
        until(lambda: server.beside("/readyz").status_code == 200)
