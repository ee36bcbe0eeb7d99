"""What a space has set: its name, the secrets that sign, where pushes and Slack messages go."""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from app.api.call import Call
from app.api.request_schemas import Name, check_address, check_headers, decode_or_default
from app.api.response_schemas import space_answer
from app.api.responses import Answer, json_answer
from app.jobs.spaces import Spaces
from app.model.errors import invalid
from app.model.limits import KIB, POLL_NAMES, URL_CHARS
from app.settings import Settings
from app.webhooks.forbidden_addresses import Network, parse_networks
from app.webhooks.signatures import SECRETS_MOST, is_secret, new_secret
from app.webhooks.space_hooks import SLACK_EVENTS, Push, Slack

PATCH_BYTES = 64 * KIB

Url = Annotated[str, Meta(max_length=URL_CHARS)]


class PushRequest(Struct):
    """Where a pending job is told of."""

    url: Url
    headers: dict[str, str] | None = {}
    names: Annotated[list[Name], Meta(max_length=POLL_NAMES)] | None = []


class SlackRequest(Struct):
    """An incoming webhook and its events."""

    url: Url
    events: Annotated[list[str], Meta(min_length=1, max_length=50)]


class SpacePatch(Struct, rename="camel"):
    """What changes; what is absent stays, null removes what can be removed."""

    name: Name | UnsetType | None = UNSET
    webhook_secrets: list[str] | UnsetType | None = UNSET
    rotate_webhook_secret: bool | None = False
    drop_old_webhook_secret: bool | None = False
    push: PushRequest | UnsetType | None = UNSET
    slack: SlackRequest | UnsetType | None = UNSET

    def fields(self, allowed: Sequence[Network]) -> dict[str, str]:
        """Fields of the space's hash, as lua/space_patch.lua takes them. Refusal `invalid_request`.

        `allowed` are networks beside the public ones.
        """
        changed = {}
        if isinstance(self.name, str):
            changed["name"] = self.name
        if self.webhook_secrets is not UNSET:
            changed["webhookSecrets"] = _secrets(self.webhook_secrets or [])
        if self.push is not UNSET:
            changed["push"] = "" if self.push is None else _push(self.push, allowed)
        if self.slack is not UNSET:
            changed["slack"] = "" if self.slack is None else _slack(self.slack, allowed)
        return changed


PATCH_BODY = msgspec.json.Decoder(SpacePatch)


class SpaceSettingsHandlers:
    """The handler of what a space has set."""

    def __init__(self, spaces: Spaces, settings: Settings) -> None:
        self._spaces = spaces
        self._allowed = parse_networks(settings.callback_allow)

    async def patch(self, call: Call) -> Answer:
        """PATCH /spaces/:spaceId"""
        request: SpacePatch = decode_or_default(PATCH_BODY, await call.read_body(PATCH_BYTES))
        fresh = new_secret() if request.rotate_webhook_secret else ""
        space = await self._spaces.patch(
            call.space,
            request.fields(self._allowed),
            fresh_secret=fresh,
            drop_old=bool(request.drop_old_webhook_secret),
        )
        return json_answer(space_answer(space, webhook_secret=fresh or UNSET))


def _secrets(given: list[str]) -> str:
    if len(given) > SECRETS_MOST or not all(is_secret(secret) for secret in given):
        raise invalid(f"webhookSecrets has at most {SECRETS_MOST} of whsec_ and 24 to 64 bytes in base64.")
    return " ".join(given)


def _push(request: PushRequest, allowed: Sequence[Network]) -> str:
    check_address(request.url, "push.url", allowed, {})
    headers = request.headers or {}
    check_headers(headers, "push.headers", {})
    return msgspec.json.encode(Push(request.url, headers, list(request.names or ()))).decode()


def _slack(request: SlackRequest, allowed: Sequence[Network]) -> str:
    check_address(request.url, "slack.url", allowed, {})
    unknown = [event for event in request.events if event not in SLACK_EVENTS.values()]
    if unknown:
        raise invalid(f"slack.events are of {', '.join(SLACK_EVENTS.values())}, not {unknown[0][:50]!r}.")
    return msgspec.json.encode(Slack(request.url, request.events)).decode()
