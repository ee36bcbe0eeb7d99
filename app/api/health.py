"""Is the process alive, and can it do its work? For load balancers and people, without a key."""

from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from app.api.http import Answer, answer, bug, refuse_method, refused
from app.jobs.tickets import Tickets
from app.model.errors import ApiError, Outage, unavailable
from app.redis_links.info import parse_info
from app.redis_links.link import RedisFault
from app.redis_links.scripts import Scripts
from app.redis_links.server_advice import policy_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from app.backend import Backend


class Probe:
    """One path that is asked with GET or HEAD and answers by itself."""

    allow = "GET, HEAD"

    def __init__(self, ask: "Callable[[], Awaitable[Answer]]") -> None:
        self._ask = ask

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            result = refuse_method(self.allow)
        else:
            try:
                result = await self._ask()
            except Exception:
                result = bug(scope)
        await result.send(send)


class Exchange:
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
            return refuse_method(self.allow)
        try:
            key = await self._tickets.exchange(dict(scope["headers"]).get(b"x-ticket", b"").decode("latin-1"))
            return answer({"key": key})
        except ApiError as error:
            return refused(error)
        except Exception:
            return bug(scope)


class Document(Probe):
    """A JSON document that does not change while the process runs."""

    def __init__(self, content: Any) -> None:
        super().__init__(self._same)
        self._answer = answer(content)

    async def _same(self) -> Answer:
        return self._answer


class Health:
    """GET /healthz and GET /readyz"""

    def __init__(self, backend: "Backend") -> None:
        self._backend = backend
        self._scripts = Scripts(backend.control)

    def paths(self) -> dict[str, Probe]:
        """Where the two are."""
        return {"/healthz": Probe(self.alive), "/readyz": Probe(self.ready)}

    async def alive(self) -> Answer:
        """The process answers."""
        return answer({"status": "ok"})

    async def ready(self) -> Answer:
        """Ready, or 503 with every problem that there is."""
        problems = [
            problem
            for problem in (await self._script(), self._relay(), await self._policy(), self._leaving())
            if problem
        ]
        if not problems:
            return answer({"status": "ready"})
        return refused(unavailable(" ".join(problems), problems=problems))

    async def _script(self) -> str:
        try:
            await self._scripts.run("ready_probe", [f"{self._backend.keys.probe}:ready"], [])
        except (Outage, RedisFault) as error:
            return f"A script could not run: {error}"
        return ""

    def _leaving(self) -> str:
        return "The process is shutting down." if self._backend.viewers.draining else ""

    def _relay(self) -> str:
        return "" if self._backend.relay.live else "Pub/sub does not work: no message comes back from Redis."

    async def _policy(self) -> str:
        try:
            info = await self._backend.control.call("INFO", "memory")
        except (Outage, RedisFault) as error:
            return f"The eviction policy could not be read: {error}"
        return policy_problem(parse_info(info))
