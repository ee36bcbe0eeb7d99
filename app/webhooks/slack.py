"""Messages to Slack: what a line says of an event, and an incoming webhook that sends lines at Slack's pace.

Never: keeps a line that finds no room, or sends one twice.
"""

import asyncio
import logging
from collections import deque

import msgspec

from app.loop.background import Background
from app.webhooks.http_client import WebhookClient
from app.webhooks.space_hooks import SLACK_EVENTS

log = logging.getLogger("jobwire.callbacks")

SLACK_PACE_S = 1.1
"""Slack takes one message a second: https://docs.slack.dev/apis/web-api/rate-limits"""

SLACK_LINES = 20
SLACK_WAITING = 500


class SlackSender:
    """One incoming webhook: lines gather while its pace makes them wait, and leave together."""

    def __init__(self, client: WebhookClient, url: str) -> None:
        self._client = client
        self._url = url
        self._lines: deque[str] = deque(maxlen=SLACK_WAITING)
        self._line_added = asyncio.Event()
        self._background = Background()
        self._background.start(self._send_forever(), "slack")

    def add_line(self, line: str) -> None:
        """Add a line to the next message; the oldest lines are dropped when too many wait."""
        self._lines.append(line)
        self._line_added.set()

    async def close(self) -> None:
        """Stop, and drop the lines that wait."""
        await self._background.close()

    async def _send_forever(self) -> None:
        while True:
            await self._line_added.wait()
            body = msgspec.json.encode({"text": self._text()})
            outcome = await self._client.post_json(self._url, body, {}, {}, space=self._url)
            if outcome.error:
                log.info("Slack did not take a message: %s", outcome.detail or outcome.error)
            await asyncio.sleep(max(SLACK_PACE_S, min(60.0, outcome.retry_after_s or 0)))

    def _text(self) -> str:
        lines = [self._lines.popleft() for _ in range(min(SLACK_LINES, len(self._lines)))]
        if self._lines:
            lines.append(f"... and {len(self._lines)} more")
            self._lines.clear()
        self._line_added.clear()
        return "\n".join(lines)


def slack_line(event: str, job_name: str, job: str) -> str:
    """What Slack shows of an event; names are the users', so that their markup is not ours."""
    name = job_name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{name} {SLACK_EVENTS[event]} ({job})"
