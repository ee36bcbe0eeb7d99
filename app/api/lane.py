"""The fast lane: what programs send by the thousand is found by one look-up, and answered outside of all middleware.

It takes POSTs to paths with one parameter in second place (/jobs/:jobId/VERB, /spaces/:spaceId/jobs), which change
nothing by being cached. Whatever it does not know, and every call of a browser (they come with an Origin), goes through
Starlette as usual: the same resources answer there.
"""

from collections.abc import Mapping
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from app.api.http import Resource
from app.api.trail import Trail
from app.service_log import RequestLines


class Lane(NamedTuple):
    """A resource, and the name of its path's parameter."""

    resource: Resource
    parameter: str


class Application(Starlette):
    """A Starlette with a fast lane."""

    base = ""
    lanes: Mapping[tuple[str, str], Lane] = {}
    request_lines: RequestLines | None = None
    """Where each request is logged, if it is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._answer(scope, receive, send)
            return
        trail = Trail(scope, send)
        try:
            await self._answer(scope, receive, trail)
        finally:
            if self.request_lines is not None:
                trail.write(scope, self.request_lines)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and b"%" in scope["raw_path"] and is_trick(scope):
            await self.router.default(scope, receive, send)
            return
        lane = self._lane(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        if lane is None:
            await super().__call__(scope, receive, send)
        else:
            await lane.resource(scope, receive, send)

    def _lane(self, scope: Scope) -> Lane | None:
        """The lane of this path, with its parameter put into the scope; None for the long way."""
        path: str = scope["path"]
        if not path.startswith(self.base) or path.endswith("/"):
            return None
        stem, _, rest = path[len(self.base) :].partition("/")
        parameter, _, tail = rest.partition("/")
        lane = self.lanes.get((stem, tail))
        if lane is None or not parameter or b"origin" in dict(scope["headers"]):
            return None
        scope["path_params"] = {lane.parameter: parameter}
        return lane


def is_trick(scope: Scope) -> bool:
    """Whether a path reads otherwise once decoded: %2F as a separator, a last %0A as the end that `$` matches."""
    return b"%2f" in scope["raw_path"].lower() or "\n" in scope["path"]


def lanes(resources: Mapping[str, Resource]) -> dict[tuple[str, str], Lane]:
    """The lanes of those paths that have the form, by stem and tail."""
    made = {}
    for path, resource in resources.items():
        _, stem, *rest = path.split("/", 3)
        if rest and rest[0].startswith("{") and not any("{" in part for part in rest[1:]):
            made[stem, rest[1] if rest[1:] else ""] = Lane(resource, rest[0].strip("{}"))
    return made
