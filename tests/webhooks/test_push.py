"""A push when a job becomes pending, and messages to Slack."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from app.webhooks.push import Pusher
from tests.faults.service import Service
from tests.valkey import until
from tests.webhooks.receiving import HERE, Receiving


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(env=HERE) as service:
        yield service


@pytest.fixture
def receiver() -> Iterator[Receiving]:
    with Receiving() as receiving:
        yield receiving


def hooked(service: Service, receiver: Receiving, **hooks: object) -> str:
    """A space with these hooks, once they work: jobs named `first` are told of."""
    space = service.new_space()
    assert service.call("PATCH", f"/spaces/{space}", hooks).status == 200

    def works() -> bool:
        service.call("POST", f"/spaces/{space}/jobs", {"name": "first"})
        return any(seen["body"].get("spaceId", space) == space for seen in receiver.seen())

    until(works)
    return space


def told(receiver: Receiving) -> list[str]:
    """The names of pushed jobs, but for `first`."""
    return [seen["body"]["name"] for seen in receiver.seen() if seen["body"]["name"] != "first"]


def test_a_pending_job_is_pushed_signed_and_can_be_claimed(service: Service, receiver: Receiving) -> None:
    push = {"url": receiver.url("/ok"), "headers": {"authorization": "Bearer of a secret"}}
    space = hooked(service, receiver, push=push, webhookSecrets=[receiver.secret])
    job = service.call("POST", f"/spaces/{space}/jobs", {"name": "work"}).body["id"]
    until(lambda: receiver.seen(job))
    (seen,) = receiver.seen(job)
    assert seen["body"] == {"jobId": job, "spaceId": space, "name": "work"}
    assert seen["verified"]
    assert seen["headers"]["authorization"] == "Bearer of a secret"
    assert service.call("POST", f"/jobs/{job}/claim").status == 200
    shown = service.call("GET", f"/spaces/{space}").body["hooks"]["push"]
    assert shown == {"url": push["url"], "headers": {"authorization": "***"}}


def test_every_way_to_pending_is_pushed_and_a_claimed_job_is_not(service: Service, receiver: Receiving) -> None:
    space = hooked(service, receiver, push={"url": receiver.url("/ok")})
    service.call("POST", f"/spaces/{space}/jobs", {"name": "claimed", "claim": True})
    job = service.call("POST", f"/spaces/{space}/jobs", {"name": "retried"}).body["id"]
    until(lambda: len(receiver.seen(job)) == 1)
    service.call("POST", f"/jobs/{job}/claim")
    service.call("POST", f"/jobs/{job}/fail")
    until(lambda: len(receiver.seen(job)) == 2)
    service.call("POST", f"/jobs/{job}/kill")
    service.call("POST", f"/jobs/{job}/retry")
    until(lambda: len(receiver.seen(job)) == 3)
    assert told(receiver) == ["retried"] * 3


def test_only_the_names_that_were_asked_for_are_pushed(service: Service, receiver: Receiving) -> None:
    space = hooked(service, receiver, push={"url": receiver.url("/ok"), "names": ["first", "this"]})
    for name in ("that", "this", "these"):
        service.call("POST", f"/spaces/{space}/jobs", {"name": name})
    until(lambda: "this" in told(receiver))
    assert told(receiver) == ["this"]


def test_a_push_that_was_taken_away_ends(service: Service, receiver: Receiving) -> None:
    space = hooked(service, receiver, push={"url": receiver.url("/ok")})
    other = hooked(service, receiver, push={"url": receiver.url("/ok")})
    shown = service.call("PATCH", f"/spaces/{space}", {"push": None}).body
    assert "hooks" not in shown

    def ended() -> bool:
        job = service.call("POST", f"/spaces/{space}/jobs", {"name": "first"}).body["id"]
        mark = service.call("POST", f"/spaces/{other}/jobs", {"name": "first"}).body["id"]
        until(lambda: receiver.seen(mark))
        return not receiver.seen(job)

    until(ended)


def test_slack_is_told_of_what_it_wants_in_harmless_words(service: Service, receiver: Receiving) -> None:
    wanted = ["completed", "failed", "dead"]
    space = service.new_space()
    slack = {"url": receiver.url("/ok"), "events": wanted}
    shown = service.call("PATCH", f"/spaces/{space}", {"slack": slack}).body["hooks"]["slack"]
    assert shown == {"url": f"http://127.0.0.1:{receiver.port}/***", "events": wanted}

    def text() -> str:
        return "\n".join(seen["body"]["text"] for seen in receiver.seen())

    def works() -> bool:
        job = service.call("POST", f"/spaces/{space}/jobs", {"name": "first", "claim": True}).body["id"]
        service.call("POST", f"/jobs/{job}/complete")
        return "first completed" in text()

    until(works)
    name = "<!channel> & co"
    job = service.call("POST", f"/spaces/{space}/jobs", {"name": name, "claim": True, "maxRetries": 1}).body["id"]
    service.call("POST", f"/jobs/{job}/fail")
    service.call("POST", f"/jobs/{job}/claim")
    service.call("POST", f"/jobs/{job}/fail")
    until(lambda: f"&lt;!channel&gt; &amp; co dead ({job})" in text())
    assert f"&lt;!channel&gt; &amp; co failed ({job})" in text()
    assert "created" not in text()


def test_a_burst_for_slack_shares_a_message(service: Service, receiver: Receiving) -> None:
    space = hooked(service, receiver, slack={"url": receiver.url("/ok"), "events": ["created"]})
    came = len(receiver.seen())
    jobs = [{"name": f"burst-{number}"} for number in range(100)]
    service.call("POST", f"/spaces/{space}/jobs", jobs)
    until(lambda: any("more" in seen["body"]["text"] for seen in receiver.seen()))
    assert len(receiver.seen()) <= came + 2


async def test_webhooks_of_slack_that_no_space_has_any_more_are_closed_once_whoever_notices() -> None:
    nothing: Any = None
    pusher = Pusher(nothing, nothing, nothing, nothing, nothing)
    for number in range(3):
        pusher.slack_sender(f"https://hooks.slack.com/services/{number}")
    await asyncio.gather(pusher.close_unused_slack(), pusher.close_unused_slack())
    assert not pusher._slack
    assert "slack" not in {task.get_name() for task in asyncio.all_tasks()}
