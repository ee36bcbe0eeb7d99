"""The fast path: what programs send by the thousand is found by one look-up, and answered outside of all middleware.

It takes POSTs to paths with one parameter in second place (/jobs/:jobId/VERB, /spaces/:spaceId/jobs), which change
nothing by being cached. Whatever it does not know, and every call of a browser (they come with an Origin), goes through
Starlette as usual: the same resources answer there.
"""

from collections.abc import Mapping
from time import perf_counter
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.call import Call
from app.api.error_answers import bug_answer
from app.api.method_dispatch import Resource
from app.api.request_log import SCOPE_HEADERS, SCOPE_REQUEST_ID, LoggedSend, RequestLog, request_id_of
from app.api.responses import JSON
from app.wire.direct_exchange import DIRECT


class FastPath(NamedTuple):
    """A resource, and the name of its path's parameter."""

    resource: Resource
    parameter: str


class Application(Starlette):
    """A Starlette whose busiest paths are answered by the fast path."""

    base = ""
    fast_paths: Mapping[tuple[str, str], FastPath] = {}
    request_log: RequestLog | None = None
    """Where each request is logged, if it is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "lifespan" and b"%" in scope["raw_path"] and is_path_trick(scope):
            await self._long_way(self.router.default, scope, receive, send)
            return
        fast_path = self._find_fast_path(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        if fast_path is None:
            await self._long_way(super().__call__, scope, receive, send)
            return
        begun_s = perf_counter()
        # Without the extensions the scope, which the log may keep, keeps nothing else of the request.
        direct = scope.pop("extensions", {}).get(DIRECT)
        call = Call(scope, receive, direct)
        status = await fast_path.resource.respond(call, send, (b"x-request-id", scope[SCOPE_REQUEST_ID]))
        if self.request_log is not None:
            self.request_log.add(scope, status, perf_counter() - begun_s)

    async def _long_way(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        scope[SCOPE_HEADERS] = headers = dict(scope["headers"])
        scope[SCOPE_REQUEST_ID] = request_id_of(headers)
        begun_s, logged_send = perf_counter(), LoggedSend(scope, send)
        try:
            await app(scope, receive, logged_send)
        finally:
            if self.request_log is not None:
                self.request_log.add(scope, logged_send.status, perf_counter() - begun_s)

    def _find_fast_path(self, scope: Scope) -> FastPath | None:
        """The fast path for this path, with its parameter put into the scope; None for the long way."""
        path: str = scope["path"]
        if not path.startswith(self.base) or path.endswith("/"):
            return None
        stem, _, rest = path[len(self.base) :].partition("/")
        parameter, _, tail = rest.partition("/")
        fast_path = self.fast_paths.get((stem, tail))
        if fast_path is None or not parameter:
            return None
        headers = dict(scope["headers"])
        if b"origin" in headers:
            return None
        scope["path_params"] = {fast_path.parameter: parameter}
        scope[SCOPE_HEADERS] = headers
        scope[SCOPE_REQUEST_ID] = request_id_of(headers)
        return fast_path


async def answer_bug(request: Request, _: Exception) -> Response:
    """What a bug is answered outside of all resources, as they answer theirs."""
    result = bug_answer(request.scope)
    return Response(result.body, result.status, media_type=JSON)


def is_path_trick(scope: Scope) -> bool:
    """Whether a path reads otherwise once decoded: %2F as a separator, a last %0A as the end that `$` matches."""
    return b"%2f" in scope["raw_path"].lower() or "\n" in scope["path"]


def find_fast_paths(resources: Mapping[str, Resource]) -> dict[tuple[str, str], FastPath]:
    """The fast paths of those paths that have the form, by stem and tail."""
    fast_paths = {}
    for path, resource in resources.items():
        _, stem, *rest = path.split("/", 3)
        if rest and rest[0].startswith("{") and not any("{" in part for part in rest[1:]):
            fast_paths[stem, rest[1] if rest[1:] else ""] = FastPath(resource, rest[0].strip("{}"))
    return fast_paths
