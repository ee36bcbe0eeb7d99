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
from app.redis_links.shard_health import Shard, ShardHealth

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
    """A JSON document that does not change while the process runs. It is made when it is first asked for."""

    def __init__(self, make: "Callable[[], Any]") -> None:
        super().__init__(self._same)
        self._make = make
        self._answer: Answer | None = None

    async def _same(self) -> Answer:
        if self._answer is None:
            self._answer = json_answer(self._make())
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
        """Ready, or 503 with every problem that there is. With a cluster, ready as long as some shard works."""
        if self._backend.shards is not None:
            return await self._ready_by_shard(self._backend.shards)
        script = await self._script()
        problems = [*self._backend.why_away(), script, self._relay(), await self._policy(), self._leaving()]
        problems = [problem for problem in problems if problem]
        if not problems:
            return json_answer({"status": "ready"})
        return error_answer(unavailable(" ".join(problems), problems=problems))

    async def _ready_by_shard(self, health: ShardHealth) -> Answer:
        shards = await health.look()
        told = [_tell_shard(shard) for shard in shards]
        problems = [f"{shard.server}: {shard.why}" for shard in shards if shard.why]
        leaving = self._leaving()
        if len(problems) < len(shards) and not leaving:
            return json_answer({"status": "ready", "shards": told} | ({"problems": problems} if problems else {}))
        problems += [leaving] if leaving else []
        problems += [] if shards else ["Redis cannot be reached.", *self._backend.why_away()]
        return error_answer(unavailable(" ".join(problems), problems=problems, shards=told))

    async def _script(self) -> str:
        try:
            await self._scripts.run("ready_probe", [self._backend.keys.ready_probe], [])
        except (Outage, RedisFault) as error:
            return f"A script could not run: {_why(error)}"
        return ""

    def _leaving(self) -> str:
        return "The process is shutting down." if self._backend.viewers.draining else ""

    def _relay(self) -> str:
        return "" if self._backend.relay.live else "Pub/sub does not work: no message comes back from Redis."

    async def _policy(self) -> str:
        (server,) = self._backend.control.servers()
        try:
            return policy_problem(parse_info(await server.call("INFO", "memory")))
        except (Outage, RedisFault) as error:
            return f"The eviction policy could not be read: {_why(error)}"


def _why(error: Outage | RedisFault) -> str:
    return error.why if isinstance(error, Outage) else str(error)


def _tell_shard(shard: Shard) -> dict[str, Any]:
    """A shard as it is answered; `why` only where something is wrong."""
    told = {"server": shard.server, "ok": not shard.why, "slots": shard.slots}
    told |= {"usedBytes": shard.used_bytes, "maxBytes": shard.most_bytes or None}
    return told | ({"why": shard.why} if shard.why else {})
