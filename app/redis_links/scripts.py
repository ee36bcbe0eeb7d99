"""The Lua scripts: loading, calling by hash, and what their first word means.

Every change of state is one script of `lua/`, whose listing is the inventory of what can happen;
app/redis_links/lua_sources.py reads them.

A script answers with an array whose first item is a word. `ok` means done; with a word of WORDS the script has
written nothing, and the word stands for an exception. `fault` is what job_calls.lua answers for a call that broke.

Calls go by hash (EVALSHA), so that processes of an old and a new version live side by side. A server that forgot its
scripts says NOSCRIPT before anything runs: then, and only then, the call is repeated with the text in the hash's place.
https://redis.io/docs/latest/develop/programmability/eval-intro/
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Any, TypeVar

from app.metrics import catalog
from app.model.errors import ApiError, Outage, Refusal, invalid, job_not_found, space_full, space_not_found, unavailable
from app.model.redis_keys import moving
from app.redis_links.link import Command, Link, RedisFault, ScriptUnknown, Word, failure
from app.redis_links.lua_sources import folder, with_includes, without_unused

T = TypeVar("T")


class Script:
    """One script: its name, its text with the includes in place, and the hash that the server knows it by."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def sharded(self) -> "Script":
        """The same, with messages that stay in the shard of their channel."""
        return Script(self.name, self.text.replace("redis.call('PUBLISH'", "redis.call('SPUBLISH'"))


SCRIPTS: dict[str, Script] = {
    path.stem: Script(path.stem, without_unused(with_includes(path))) for path in sorted(folder().glob("*.lua"))
}

SHARDED: dict[str, Script] = {name: known.sharded() for name, known in SCRIPTS.items()}
"""The same for sharded pub/sub: all keys and channels of a script share one slot.
https://redis.io/docs/latest/develop/pubsub/#sharded-pubsub
"""


def script(link: Link, name: str) -> Script:
    """A script as it is called over this link."""
    return SHARDED[name] if link.sharded else SCRIPTS[name]


def load_commands(*, sharded: bool) -> Sequence[Command]:
    """Commands for a new connection: whatever server this is, it knows our scripts."""
    return [("SCRIPT", "LOAD", known.text) for known in (SHARDED if sharded else SCRIPTS).values()]


def word(reply: bytes) -> str:
    return reply.decode()


def invalid_state(status: str) -> Refusal:
    """The job's status does not allow the call."""
    return Refusal("invalid_state", f"The job is {status}; that does not allow this call.", status=status)


WORDS: dict[str, Callable[[Sequence[Any]], ApiError]] = {
    "no_job": lambda rest: job_not_found(),
    "no_space": lambda rest: space_not_found(),
    "state": lambda rest: invalid_state(word(rest[0])),
    "lease_lost": lambda rest: Refusal(
        "lease_lost", "The lease token is not the job's latest: the job was delivered again.", status=word(rest[0])
    ),
    "late": lambda rest: unavailable("Redis was too slow; nothing was done."),
    "mismatch": lambda rest: Refusal(
        "idempotency_mismatch", "This Idempotency-Key was used before, with another body."
    ),
    "space_full": lambda rest: space_full(int(rest[0])),
    "delayed": lambda rest: invalid("claim cannot be used with a retry delay; send retryAfterSeconds 0."),
    "no_callback": lambda rest: invalid("The job has no callbackUrl."),
    "full": lambda rest: unavailable("Redis is almost out of memory."),
}
"""First words of scripts that did nothing, and the exception that each stands for, made from the rest of the reply."""


def refusal(name: str, reply: Sequence[Any]) -> Exception:
    """What the first word of an answer stands for that is not `ok`: a RedisFault if nothing is known of it."""
    first = word(reply[0])
    if first == "fault":
        return failure(word(reply[1]))
    error = WORDS.get(first)
    return RedisFault(f"{name} answered {first!r}") if error is None else error(reply[1:])


def guarded(keys: Sequence[str]) -> Sequence[str]:
    """The keys of a script, with `moving` behind them if they have a hash tag."""
    return [*keys, moving(keys[0])] if "}" in keys[0] else keys


def by_hash(known: Script, keys: Sequence[str], args: Sequence[Word]) -> Command:
    """The call of a script that the server knows."""
    names = guarded(keys)
    return ("EVALSHA", known.sha, len(names), *names, *args)


def by_text(known: Script, keys: Sequence[str], args: Sequence[Word]) -> Command:
    """The call of a script that the server may not know; from then on it does."""
    names = guarded(keys)
    return ("EVAL", known.text, len(names), *names, *args)


Way = Callable[[Script, Sequence[str], Sequence[Word]], Command]


async def known_or_not(send: Callable[[Way], Awaitable[T]]) -> T:
    """What is answered to calls by hash; by text once some server says that it has forgotten the script.

    Such a server has run nothing; of a pipeline, other parts may have run, which therefore only read.
    """
    try:
        return await send(by_hash)
    except ScriptUnknown:
        return await send(by_text)


class Scripts:
    """Calls the scripts over one link, and has each call counted."""

    def __init__(self, link: Link) -> None:
        self.link = link

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Word]) -> list[Any]:
        """What the script answered after its `ok`.

        Raises what another first word stands for, and whatever the link raises. Atomic, as every script is.
        """
        return self.done(name, await self.raw(name, keys, args))

    async def read_many(self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Word]]]) -> list[list[Any]]:
        """What a script that only reads answered after its `ok`, for each of the calls (keys, args); in one trip."""
        known = script(self.link, name)
        replies = await known_or_not(
            lambda by: self.link.pipeline(*(by(known, keys, args) for keys, args in calls)),
        )
        return [self.done(name, reply) for reply in replies]

    async def read_many_by_server(
        self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Word]]]
    ) -> list[list[Any] | Outage]:
        """As read_many; of a cluster's server that fails alone, its Outage stands in the place of its answers."""
        known = script(self.link, name)
        replies = await known_or_not(
            lambda by: self.link.pipeline_by_server(*(by(known, keys, args) for keys, args in calls)),
        )
        return [reply if isinstance(reply, Outage) else self.done(name, reply) for reply in replies]

    @staticmethod
    def done(name: str, reply: list[Any]) -> list[Any]:
        """The rest of an answer that begins with `ok`; raises what another first word stands for."""
        if reply[0] == b"ok":
            return reply[1:]
        raise refusal(name, reply)

    async def raw(self, name: str, keys: Sequence[str], args: Sequence[Word]) -> list[Any]:
        """The whole answer, for callers who read the first word themselves."""
        known = script(self.link, name)
        begun = perf_counter()
        reply: list[Any]
        try:
            reply = await self.link.call(*by_hash(known, keys, args))
        except ScriptUnknown:
            reply = await self.link.call(*by_text(known, keys, args))
        catalog.SCRIPT_SECONDS.observe(perf_counter() - begun, name)
        return reply

    async def raw_after(
        self, command: Command, name: str, keys: Sequence[str], args: Sequence[Word]
    ) -> tuple[Any, list[Any]]:
        """What a command answered that only reads, and the whole answer of a script behind it; in one trip."""
        known = script(self.link, name)
        begun = perf_counter()
        read, reply = await known_or_not(lambda by: self.link.pipeline(command, by(known, keys, args)))
        catalog.SCRIPT_SECONDS.observe(perf_counter() - begun, name)
        return read, reply
