"""A path of the table of routes: which method wants which scope and has which handler, and how its calls are answered.

Owns: turning a Refusal, an Outage or a bug of a handler into an answer. Never: knows what a job is.
"""

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import NamedTuple

from starlette.types import Receive, Scope, Send

from app.api.admission import Gate
from app.api.body_reading import ClientGone
from app.api.call import Call
from app.api.error_answers import bug_answer, error_answer
from app.api.responses import Answer, Streamed
from app.metrics import catalog
from app.model.errors import ApiError, Outage, Refusal, outcome_unknown

Handler = Callable[[Call], Awaitable[Answer | Streamed]]


class Action(NamedTuple):
    """One method of one path: the scope it wants, and the handler."""

    scope: str
    handler: Handler


class Resource:
    """One path of the table of routes and its methods. The ASGI application behind a route; counts its calls."""

    def __init__(self, gate: Gate, path: str, actions: Mapping[str, Action]) -> None:
        self._gate = gate
        self._route = catalog.RouteCounts(path)
        self._actions = dict(actions)
        if "GET" in self._actions:
            self._actions["HEAD"] = self._actions["GET"]
        self.allow = ", ".join(sorted(self._actions))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.respond(Call(scope, receive), send)

    async def respond(self, call: Call, send: Send, *more: tuple[bytes, bytes]) -> int:
        """Answer a request, with `more` headers; the status, 0 when the client has gone."""
        begun_s, method = perf_counter(), call.scope["method"]
        try:
            result = await self._outcome(call)
            if method in self._actions:
                self._route.count(method, result.status, perf_counter() - begun_s)
            if call.direct is None or not result.write(call.direct, *more):
                await result.send(send, *more)
            return result.status
        except ClientGone:
            return 0
        finally:
            if call.held_bytes:
                call.hold(0)

    async def _outcome(self, call: Call) -> Answer | Streamed:
        try:
            action = self._actions.get(call.scope["method"])
            if action is None:
                raise Refusal("method_not_allowed", f"This path allows {self.allow}.", headers={"allow": self.allow})
            await self._gate.admit(call, action.scope)
            result = await action.handler(call)
            if call.held_bytes or result.held_bytes:
                hold_answer(call, result)
            return result
        except ApiError as error:
            catalog.count_refusal(error.code, error.more.get("limit", ()))
            return error_answer(error)
        except ClientGone:
            raise
        except Exception:
            return bug_answer(call.scope)


def hold_answer(call: Call, result: Answer | Streamed) -> None:
    """Count the answer in place of the body. Where there is no room for it, it is dropped, and the error says so:
    `unavailable` if it was only read, else `outcome_unknown`, which is how a client takes what it was not told.
    """
    try:
        call.hold(result.held_bytes)
    except Outage:
        call.hold(0)
        if call.scope["method"] in ("GET", "HEAD"):
            raise
        raise outcome_unknown("It was done, but there is no room for the answer.") from None
