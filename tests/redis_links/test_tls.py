"""Connections by TLS that are alike share a context; what is renewed on disk counts for the next one."""

import ssl
from pathlib import Path
from ssl import SSLContext
from urllib.parse import quote

import pytest
import trustme
from redis.exceptions import RedisError

from app.redis_links.dialling import Plain, connector

AUTHORITY = trustme.CA()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(path))
    return path


def context(url: str) -> SSLContext:
    """The context of a new connection of a url's."""
    by = connector(url, 1.0)
    assert isinstance(by, Plain)
    made: SSLContext = by._kind(**by._options).ssl_context.get()
    return made


def test_connections_that_are_alike_share_a_context(certificate: Path) -> None:
    url = f"rediss://:{{}}@one?ssl_ca_certs={quote(str(certificate))}"
    assert context(url.format("secret")) is context(url.format("another"))
    assert context("rediss://one") is context("rediss://two")
    assert context("rediss://one") is not context("rediss://one?ssl_check_hostname=no")
    assert context("rediss://one") is not context(url.format("secret"))


def test_what_is_renewed_is_read(certificate: Path) -> None:
    url = f"rediss://one?ssl_ca_certs={quote(str(certificate))}"
    before = context(url)
    trustme.CA().cert_pem.write_to_path(str(certificate))
    after = context(url)
    assert after is not before
    assert after.get_ca_certs() != before.get_ca_certs()


@pytest.mark.parametrize("url", ["rediss://{}", "rediss+cluster://{}", "rediss+sentinel://{}/jobs"])
async def test_no_connection_makes_a_context_of_its_own(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, url: str
) -> None:
    made = []
    make = ssl.create_default_context

    def counted() -> SSLContext:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", counted)
    by = connector(f"{url.format('127.0.0.1:1')}?ssl_ca_certs={quote(str(certificate))}", 1.0)
    for _ in range(3):
        with pytest.raises(RedisError):
            await by.connect()
    assert len(made) == 1
