"""A receiver of webhooks, as a program of its own: it answers as the path says, verifies signatures, and counts.

    python -m tests.webhooks.receiver

prints its port. `POST /_secret` sets the secret that it verifies with, `GET /_seen` tells what has come, `GET /_count`
how much, and how long after the end of its job each first one came. The other paths:

/ok          200                     /status/N    status N, with Retry-After from the query's `after`
/flaky/N     503 N times a job, then 200          /redirect    302 to /ok
/huge        500 and 10 MiB          /drip        500, and a body that never ends
/hang        no answer, ever         /drop        the connection is closed
/echo        500 and the request's headers        /late        200 after a fifth of a second
"""

import asyncio
import contextlib
import time
from collections import Counter
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError


class Receiver:
    """What has come."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.times: Counter[str] = Counter()
        self.late_ms: list[float] = []
        self.secret = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Note a request and answer as its path says."""
        sent = await request.read()
        body = msgspec.json.decode(sent)
        key = f"{request.path} {body.get('jobId', '')}"
        self.times[key] += 1
        if self.times[key] == 1 and "timestamp" in body:
            self.late_ms.append((time.time() - datetime.fromisoformat(body["timestamp"]).timestamp()) * 1000)
        if len(self.seen) < 20_000:
            self.seen.append(
                {
                    "path": request.path,
                    "body": body,
                    "headers": {name.lower(): value for name, value in request.headers.items()},
                    "verified": self.verified(sent, dict(request.headers)),
                }
            )
        return await self.answer(request, self.times[key])

    def verified(self, body: bytes, headers: dict[str, str]) -> bool:
        """Whether the reference library takes the signature."""
        if not self.secret:
            return False
        try:
            Webhook(self.secret).verify(body, headers)
        except WebhookVerificationError:
            return False
        return True

    async def answer(self, request: web.Request, times: int) -> web.StreamResponse:
        """As the path says."""
        word, _, rest = request.path.lstrip("/").partition("/")
        if word == "flaky":
            return web.Response(status=200 if times > int(rest) else 503, text="not yet")
        if word == "status":
            after = request.query.get("after")
            return web.Response(
                status=int(rest), headers={"Retry-After": after} if after else {}, text=f"status {rest}"
            )
        if word == "redirect":
            return web.Response(status=302, headers={"Location": "/ok"})
        if word == "huge":
            return web.Response(status=500, body=b"x" * (10 << 20))
        if word == "echo":
            return web.Response(status=500, text=str(dict(request.headers)))
        if word == "drip":
            return await drip(request)
        if word == "late":
            await asyncio.sleep(0.2)
        if word == "hang":
            await asyncio.sleep(3600)
        if word == "drop":
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text="thank you")

    async def set_secret(self, request: web.Request) -> web.Response:
        """POST /_secret"""
        self.secret = await request.text()
        return web.Response()

    async def tell(self, request: web.Request) -> web.Response:
        """GET /_seen"""
        return web.Response(body=msgspec.json.encode(self.seen))

    async def count(self, request: web.Request) -> web.Response:
        """GET /_count"""
        return web.Response(body=msgspec.json.encode({"times": self.times, "lateMs": self.late_ms}))


async def drip(request: web.Request) -> web.StreamResponse:
    """A head at once, and a body that never ends."""
    response = web.StreamResponse(status=500)
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b"drip ")
            await asyncio.sleep(0.05)
    return response


async def main() -> None:
    """Serve until killed."""
    receiver = Receiver()
    app = web.Application(client_max_size=4 << 20)
    app.router.add_post("/_secret", receiver.set_secret)
    app.router.add_get("/_seen", receiver.tell)
    app.router.add_get("/_count", receiver.count)
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    assert site._server is not None
    print(site._server.sockets[0].getsockname()[1], flush=True)  # type: ignore[attr-defined]  # noqa: T201 # asyncio's
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
