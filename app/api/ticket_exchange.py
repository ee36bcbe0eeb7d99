"""For who signs in by a link: a ticket for the key that it stands for."""

from starlette.types import Receive, Scope, Send

from app.api.error_answers import bug_answer, error_answer, method_refused_answer
from app.api.responses import Answer, json_answer
from app.jobs.tickets import Tickets
from app.model.errors import ApiError


class TicketExchange:
    """POST /tickets/exchange, a ticket in the header `x-ticket`: the key that it stands for, once.

    The ticket is neither in the path nor in a body, so that no log of anybody has it.
    """

    allow = "POST"

    def __init__(self, tickets: Tickets) -> None:
        self._tickets = tickets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._result(scope)).send(send)

    async def _result(self, scope: Scope) -> Answer:
        if scope["method"] != "POST":
            return method_refused_answer(self.allow)
        try:
            key = await self._tickets.exchange(dict(scope["headers"]).get(b"x-ticket", b"").decode("latin-1"))
            return json_answer({"key": key})
        except ApiError as error:
            return error_answer(error)
        except Exception:
            return bug_answer(scope)
