"""The guarded client over real sockets: what it connects to, and what it makes of every kind of answer."""

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from app.address import networks
from app.guard import Guard
from app.outgoing import KEPT_BYTES, Outcome, Outgoing
from tests.callbacks.receiving import Receiving

HERE = ["127.0.0.1/32"]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiving]:
    with Receiving() as receiving:
        yield receiving


class Names(Guard):
    """A guard whose name server is the test: each look-up takes the next answer, the last one for ever."""

    def __init__(self, *answers: list[str], allowed: list[str] = HERE) -> None:
        super().__init__(networks(allowed))
        self._answers = list(answers)
        self.asked = 0

    def look_up(self, host: str, port: int, family: int) -> list[tuple[int, str]]:
        self.asked += 1
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [(socket.AF_INET6 if ":" in address else socket.AF_INET, address) for address in found]


def post(
    url: str, guard: Guard | None = None, *, body: bytes = b"{}", timeout_s: float = 5.0, **headers: str
) -> Outcome:
    """One POST by a client of its own."""

    async def run() -> Outcome:
        outgoing = Outgoing(guard or Guard(networks(HERE)), timeout_s)
        try:
            return await outgoing.post(url, body, headers, {})
        finally:
            await outgoing.close()

    return asyncio.run(run())


def refused(outcome: Outcome) -> str:
    """Why the guard refused it."""
    assert outcome[:1] + outcome[2:] == (None, None, None, None)
    return outcome.error


def test_a_checked_name_is_connected_to_at_the_checked_address(receiver: Receiving) -> None:
    guard = Names(["127.0.0.1"])
    outcome = post(receiver.url("/ok", "named.example"), guard)
    assert outcome.status == 200
    assert receiver.seen()[-1]["headers"]["host"] == f"named.example:{receiver.port}"


def test_rebinding_a_name_that_changes_after_the_check_is_not_asked_again(receiver: Receiving) -> None:
    guard = Names(["127.0.0.1"], ["127.0.0.9"])
    assert post(receiver.url("/ok", "rebinding.example"), guard).status == 200
    assert guard.asked == 1


def test_rebinding_a_name_that_turns_inward_later_is_refused_then(receiver: Receiving) -> None:
    came = len(receiver.seen())

    async def run() -> list[Outcome]:
        outgoing = Outgoing(Names(["127.0.0.1"], ["127.0.0.1", "10.0.0.1"]), 5.0)
        try:
            outcomes = []
            for port_of in (receiver.url("/status/200", "a.example"), receiver.url("/ok", "b.example")):
                outcomes.append(await outgoing.post(port_of, b"{}", {}, {}))
            return outcomes
        finally:
            await outgoing.close()

    first, second = asyncio.run(run())
    assert first.status == 200
    assert "10.0.0.1 is private" in refused(second)
    assert len(receiver.seen()) == came + 1


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1", "192.168.0.1"],
        ["192.168.0.1", "127.0.0.1"],
        ["8.8.8.8", "::1"],
        ["::ffff:10.0.0.1"],
        ["2002:7f00:1::"],
        ["169.254.169.254"],
    ],
)
def test_one_address_that_is_not_public_refuses_the_name(addresses: list[str]) -> None:
    assert "The address" in refused(post("http://mixed.example/", Names(addresses)))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "127.0.0.1.nip.example"])
def test_without_an_allowed_network_this_machine_is_not_reached(receiver: Receiving, host: str) -> None:
    came = len(receiver.seen())
    guard = Names(["127.0.0.1"], allowed=[]) if host.endswith("example") else Guard(())
    assert "is loopback" in refused(post(receiver.url("/ok", host), guard))
    assert len(receiver.seen()) == came


def test_the_socket_is_checked_even_if_the_resolver_was_passed_by() -> None:
    with pytest.raises(OSError, match="is private"):
        Guard(()).socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("10.0.0.1", 80)))


@pytest.mark.parametrize("url", ["http://0x7f000001/", "ftp://example.com/", "http://a:b@example.com/"])
def test_a_url_with_odd_looks_is_refused_before_any_look_up(url: str) -> None:
    guard = Names(["8.8.8.8"])
    refused(post(url, guard))
    assert guard.asked == 0


def test_a_redirect_is_a_failure_and_not_followed(receiver: Receiving) -> None:
    outcome = post(receiver.url("/redirect"))
    assert (outcome.status, outcome.error) == (302, "The answer was 302; redirects are not followed.")
    assert receiver.seen()[-1]["path"] == "/redirect"


def test_a_proxy_of_the_environment_is_not_used(receiver: Receiving, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert post(receiver.url("/ok")).status == 200


def test_of_a_huge_answer_little_is_read_and_a_kib_kept(receiver: Receiving) -> None:
    outcome = post(receiver.url("/huge"))
    assert (outcome.status, outcome.body) == (500, "x" * KEPT_BYTES)


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/hang", None, "No answer within 0.6 s."),
        ("/drip", 500, "The answer was 500."),
        ("/drop", None, "The connection was closed before an answer."),
    ],
)
def test_a_host_that_is_slow_or_gone_costs_the_time_limit_at_most(
    receiver: Receiving, path: str, status: int | None, error: str
) -> None:
    begun = time.monotonic()
    outcome = post(receiver.url(path), timeout_s=0.6)
    assert (outcome.status, outcome.error) == (status, error)
    assert time.monotonic() - begun < 3


def test_a_host_that_takes_no_connection_costs_a_third_of_the_limit() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        held = [socket.socket() for _ in range(4)]
        for one in held:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        outcome = post(f"http://127.0.0.1:{full.getsockname()[1]}/", timeout_s=0.9)
        for one in held:
            one.close()
    assert (outcome.status, outcome.error, outcome.reached) == (None, "No connection within 0.3 s.", False)


def test_tls_that_fails_is_a_failure_without_an_answer(receiver: Receiving) -> None:
    outcome = post(receiver.url("/ok").replace("http:", "https:"))
    assert (outcome.status, outcome.reached) == (None, False)
    assert outcome.error.startswith("TLS failed")


def test_a_closed_port_and_an_unknown_name_are_told_apart() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    assert "Connect" in post(f"http://127.0.0.1:{port}/").error
    assert post("http://name.invalid/").error == "The host's name could not be resolved."


def test_what_is_no_http_is_a_failure() -> None:
    async def run() -> Outcome:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        outgoing = Outgoing(Guard(networks(HERE)), 5.0)
        try:
            return await outgoing.post(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", b"{}", {}, {})
        finally:
            await outgoing.close()
            server.close()

    outcome = asyncio.run(run())
    assert outcome.status is None
    assert outcome.error


def test_a_users_headers_are_sent_and_cannot_frame_the_message(receiver: Receiving) -> None:
    sent: dict[str, Any] = {
        "x-mine": "ü",
        "Host": "evil.example",
        "Content-Length": "1",
        "Transfer-Encoding": "chunked",
    }
    sent |= {"webhook-signature": "v1,forged", "Connection": "close", "User-Agent": "mine/1", "content-type": "text/x"}
    post(receiver.url("/ok"), body=b'{"a": 1}', **sent)
    seen = receiver.seen()[-1]
    assert seen["body"] == {"a": 1}
    headers = seen["headers"]
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["content-length"] == "8"
    assert headers["user-agent"] == "mine/1"
    assert headers["content-type"] == "application/json"
    assert not {"transfer-encoding", "webhook-signature", "connection"} & headers.keys()


def test_secrets_that_a_receiver_echoes_are_taken_out(receiver: Receiving) -> None:
    outcome = post(receiver.url("/echo"), Authorization="Bearer very-secret-token")
    assert outcome.body is not None
    assert "very-secret-token" not in outcome.body
    assert "***" in outcome.body


def test_a_body_of_a_mebibyte_arrives_whole(receiver: Receiving) -> None:
    body = b'{"big": "' + b"x" * (1 << 20) + b'"}'
    assert post(receiver.url("/ok"), body=body).status == 200
    assert len(receiver.seen()[-1]["body"]["big"]) == 1 << 20
