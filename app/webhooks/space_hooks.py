"""What a space may have set besides its jobs: secrets that sign, a push for workers, messages to Slack. Pure.

Owns how these stand in the space's hash, and what of them is shown: never a secret, and of an address that is one
(Slack's) only the host.
"""

from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Struct, UnsetType
from yarl import URL

SLACK_EVENTS = {
    "created": "created",
    "started": "started",
    "completed": "completed",
    "retried": "failed",
    "dead": "dead",
    "killed": "killed",
}
"""Type of a job's event -> the word by which Slack messages are chosen: `failed` is an attempt that another follows."""

MASK = "***"


class Push(Struct, omit_defaults=True):
    """Where a pending job is told of. No names: all of them."""

    url: str
    headers: dict[str, str] = {}
    names: list[str] = []


class Slack(Struct):
    """An incoming webhook, and what it is told of: values of SLACK_EVENTS."""

    url: str
    events: list[str]


class Hooks(Struct, rename="camel"):
    """All of it."""

    secrets: tuple[str, ...] = ()
    push: Push | None = None
    slack: Slack | None = None


class HooksShown(Struct, rename="camel"):
    """What an operator sees of it."""

    webhook_secrets: int
    push: Push | None
    slack: Slack | None


NOTHING = Hooks()
PUSH = msgspec.json.Decoder(Push)
SLACK = msgspec.json.Decoder(Slack)


def read_hooks(fields: Mapping[str, bytes]) -> Hooks:
    """What stands in a space's hash."""
    return Hooks(
        tuple(fields.get("webhookSecrets", b"").decode().split()),
        PUSH.decode(fields["push"]) if "push" in fields else None,
        SLACK.decode(fields["slack"]) if "slack" in fields else None,
    )


def show_hooks(fields: Mapping[str, bytes]) -> HooksShown | UnsetType:
    """The same, fit to be shown; UNSET when nothing is set."""
    hooks = read_hooks(fields)
    if hooks == NOTHING:
        return UNSET
    push, slack = hooks.push, hooks.slack
    return HooksShown(
        len(hooks.secrets),
        push and Push(push.url, dict.fromkeys(push.headers, MASK), push.names),
        slack and Slack(f"{URL(slack.url).origin()}/{MASK}", slack.events),
    )
