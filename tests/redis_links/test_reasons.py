"""Why a Redis cannot be used: always a sentence, and never one with a secret."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import NoPermissionError, ResponseError

from app.loop.attempts import OutageNotice
from app.model.errors import outcome_unknown, unavailable
from app.redis_links.dialling import connector
from app.redis_links.link import ServerLink
from app.redis_links.reasons import CLOSED, MAY_HAVE_NO_TLS, MAY_WANT_TLS, SILENT, by_reason, reason
from tests.sweeping import eventually, truth


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (TimeoutError(), SILENT),
        (TimeoutError("no answer for 3 s"), "No answer for 3 s."),
        (OSError(), "OSError."),
        (NoConnection("Connection closed by server."), f"{CLOSED} {MAY_WANT_TLS}"),
        (NoConnection("Error 104 while writing to socket. Connection reset by peer."), f"{CLOSED} {MAY_WANT_TLS}"),
        (NoConnection("Error while reading from x:1 : (104, 'Connection reset by peer')."), f"{CLOSED} {MAY_WANT_TLS}"),
        (
            NoConnection("Error 111 connecting to 10.0.0.1:1. Connect call failed ('10.0.0.1', 1)."),
            "Connection refused.",
        ),
        (NoConnection("Error -2 connecting to nohost:6379. Name or service not known."), "Name or service not known."),
        (
            NoConnection("Error 1 connecting to x:6379. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed."),
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed.",
        ),
        (
            NoPermissionError("User anna has no permissions to run the 'cluster|info' command"),
            "The user of REDIS_URL has no permissions to run the 'cluster|info' command.",
        ),
        (
            ResponseError("unknown command 'AUTH', with args beginning with: 'anna' 'hunter2' "),
            "Unknown command 'AUTH'.",
        ),
        (outcome_unknown(), CLOSED),
        (
            unavailable("Redis wants a password, and REDIS_URL has none."),
            "Redis wants a password, and REDIS_URL has none.",
        ),
    ],
)
def test_each_failure_has_a_sentence_without_a_user_or_a_password(error: Exception, sentence: str) -> None:
    assert reason(error) == sentence


def test_a_server_that_says_nothing_to_tls_may_speak_none() -> None:
    assert reason(TimeoutError(), by_tls=True) == f"{SILENT} {MAY_HAVE_NO_TLS}"


def test_servers_with_one_reason_share_a_sentence_and_few_are_named() -> None:
    assert by_reason({"It is away.": ["a", "b", "c", "d", "e"], SILENT: ["f"]}) == [
        "a, b, c and 2 more: It is away.",
        f"f: {SILENT}",
    ]


async def read_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing until the other side has gone."""
    with contextlib.suppress(OSError):
        await reader.read()
    writer.transport.abort()


async def test_a_link_to_a_server_that_accepts_and_says_nothing_tells_it(caplog: pytest.LogCaptureFixture) -> None:
    server = await asyncio.start_server(read_on, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    link = ServerLink(connector(f"redis://127.0.0.1:{port}", 0.2), name="some", timeout_s=0.2, setup=[("PING",)])
    link.start()
    try:
        await eventually(lambda: truth(link.why))
        assert link.why
        assert f"no some link to Redis: {link.why}" in caplog.text
    finally:
        await link.close()
        server.close()


def test_an_outage_without_a_text_is_told_by_its_kind(caplog: pytest.LogCaptureFixture) -> None:
    OutageNotice(logging.getLogger("test"), "it waits: %s", "it goes on").away(TimeoutError())
    assert caplog.messages == ["it waits: TimeoutError"]
