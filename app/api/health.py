"""Is the process alive, and can it do its work? For load balancers and people, without a key."""

from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from app.api.error_answers import bug_answer, error_answer, method_refused_answer
from app.api.responses import Answer, json_answer
from app.model.errors import Outage, unavailable
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
            result = method_refused_answer(self.allow)
        else:
            try:
                result = await self._ask()
            except Exception:
                result = bug_answer(scope)
        await result.send(send)


class Document(Probe):
    """A JSON document that does not change while the process runs."""

    def __init__(self, content: Any) -> None:
        super().__init__(self._same)
        self._answer = json_answer(content)

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
        return json_answer({"status": "ok"})

    async def ready(self) -> Answer:
        """Ready, or 503 with every problem that there is."""
        problems = [
            problem
            for problem in (await self._script(), self._relay(), await self._policy(), self._leaving())
            if problem
        ]
        if not problems:
            return json_answer({"status": "ready"})
        return error_answer(unavailable(" ".join(problems), problems=problems))

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
            infos = [await server.call("INFO", "memory") for server in self._backend.control.servers()]
        except (Outage, RedisFault) as error:
            return f"The eviction policy could not be read: {error}"
        return next(filter(None, (policy_problem(parse_info(info)) for info in infos)), "")
