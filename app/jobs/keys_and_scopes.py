"""Who calls, and what they may do: scopes, keys, spaces.

Owns: the SHA-256 under which a key is stored, the cache that lets a key be looked up about once a second.
Never: keeps a key, shows one, or logs one.
Always: a revoked or expired key stops working on every process within one second; where the server of a cluster that
has the key is away, so that nobody can look it up or revoke it, within one second of its return.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import NamedTuple

from app.model.errors import Refusal
from app.model.redis_keys import Keys
from app.redis_links.clock import RedisClock
from app.redis_links.link import Link, is_away
from app.redis_links.scripts import Scripts
from app.settings import Settings

SCOPES = (
    "jobs:create",
    "jobs:read",
    "jobs:poll",
    "jobs:ack",
    "jobs:progress",
    "jobs:event",
    "jobs:complete",
    "jobs:fail",
    "jobs:kill",
    "jobs:keepalive",
    "jobs:read:progress",
    "jobs:retry",
)

_WRITE = ("jobs:ack", "jobs:progress", "jobs:event", "jobs:complete", "jobs:fail", "jobs:keepalive")
SHORTHANDS = {"jobs:worker": ("jobs:read", "jobs:poll", *_WRITE), "jobs:write": _WRITE}
"""Kept as written on the key, expanded when checked."""

IMPLIED = {"jobs:read": ("jobs:read:progress",)}

ROOT = "root"
"""The scope of the calls that manage spaces and keys; no key but the root key has it."""

ANY_KEY = ""
"""The scope of a call that every key may make."""

CACHE_S = 0.8
CACHE_MOST = 20_000

OUTAGE_S = 3600.0
"""How long a key is believed in that cannot be looked up: the server of a cluster that has it is away."""


def expand_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """Every scope that these stand for."""
    spelled = {one for scope in scopes for one in SHORTHANDS.get(scope, (scope,))}
    return frozenset(spelled | {more for scope in spelled for more in IMPLIED.get(scope, ())})


class Identity(NamedTuple):
    """A caller: the digest of the key, its space (None for the root key), its scopes, its expiry (ms, 0 = never)."""

    digest: str
    space: str | None
    scopes: frozenset[str]
    expires_ms: int = 0

    @property
    def is_root(self) -> bool:
        """Whether this is the root key."""
        return self.space is None

    def require(self, scope: str) -> None:
        """Refusal `missing_scope` unless the key has it."""
        if scope != ANY_KEY and scope not in self.scopes:
            raise Refusal("missing_scope", f"Missing required scope: {scope}")

    def require_space(self, space: str | None) -> None:
        """Refusal `wrong_space` unless the key is for it; the root key is for all of them."""
        if self.space is not None and self.space != space:
            raise Refusal("wrong_space", "The key belongs to another space.")


def key_digest(key: str) -> str:
    """What is stored of a key: its SHA-256, in hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def unauthorized(why: str) -> Refusal:
    """The key is missing or does not work (any more)."""
    return Refusal("unauthorized", why, headers={"www-authenticate": 'Bearer realm="jobwire"'})


class _Seen(NamedTuple):
    identity: Identity | None
    until_s: float


class Keyring:
    """The keys that this process has seen lately."""

    def __init__(self, control: Link, keys: Keys, clock: RedisClock, settings: Settings) -> None:
        self._link = control
        self._scripts = Scripts(control)
        self._keys = keys
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._asking: dict[str, asyncio.Task[Identity | None]] = {}
        self._root_digest = key_digest(settings.root_key) if settings.root_key else ""
        self._root = Identity(self._root_digest, None, frozenset({*SCOPES, ROOT}))

    async def identify(self, key: str) -> Identity:
        """The caller with this key. Refusal `unauthorized` for a key that is unknown, revoked or expired."""
        if not key:
            raise unauthorized("Send a key as x-api-key, or as Authorization: Bearer or Basic.")
        hashed = key_digest(key)
        if hmac.compare_digest(hashed, self._root_digest):
            return self._root
        seen = self._seen.get(hashed)
        identity = seen.identity if seen and self._is_to_be_believed(hashed, seen) else await self._ask(hashed)
        if identity is None or 0 < identity.expires_ms <= self._clock.now_ms(self._keys.token(hashed)):
            raise unauthorized("The key is unknown, revoked or expired.")
        return identity

    def _is_to_be_believed(self, hashed: str, seen: "_Seen") -> bool:
        """Whether a look-up is fresh, or was fresh when the server that has the key went away."""
        now_s = monotonic()
        if seen.until_s > now_s:
            return True
        return (
            seen.identity is not None
            and seen.until_s + OUTAGE_S > now_s
            and is_away(self._link, self._keys.token(hashed))
        )

    async def check_identities(self, identities: Sequence[Identity]) -> list[bool]:
        """Of each caller whether its key still works, asked of the store and not of the cache.

        One whose key cannot be looked up is taken to work.
        """
        known = await self._link.pipeline_by_server(
            *(("EXISTS", self._keys.token(caller.digest)) for caller in identities)
        )
        return [
            bool(exists) and not 0 < caller.expires_ms <= self._clock.now_ms(self._keys.token(caller.digest))
            for caller, exists in zip(identities, known, strict=True)
        ]

    async def _ask(self, hashed: str) -> Identity | None:
        """One look-up for all callers that wait for the same key."""
        task = self._asking.get(hashed)
        if task is None:
            task = self._asking[hashed] = asyncio.create_task(self._read_identity(hashed))
            task.add_done_callback(lambda _: self._asking.pop(hashed, None))
        return await asyncio.shield(task)

    async def _is_listed(self, hashed: str, space: str, token: str) -> bool:
        """Whether the key's space lists it. On a cluster that lies elsewhere than the key's hash does.

        A failover may bring a hash back that was removed: the key works only where both say so.
        """
        if self._link.server_of(self._keys.token(hashed)).place is None:
            return True
        return bool(await self._link.call("HEXISTS", self._keys.tokens(space), token))

    async def _read_identity(self, hashed: str) -> Identity | None:
        asked_s = monotonic()
        (flat,) = await self._scripts.run("token_read", [self._keys.token(hashed)], [])
        fields = {flat[i]: flat[i + 1].decode() for i in range(0, len(flat), 2)}
        identity = None
        if b"space" in fields:
            scopes = expand_scopes(fields[b"scopes"].split())
            if await self._is_listed(hashed, fields[b"space"], fields[b"id"]):
                identity = Identity(hashed, fields[b"space"], scopes, int(fields.get(b"expiresAt", 0)))
        while len(self._seen) >= CACHE_MOST:
            del self._seen[next(iter(self._seen))]
        self._seen.pop(hashed, None)
        self._seen[hashed] = _Seen(identity, asked_s + CACHE_S)
        return identity


def spell_scopes(scopes: Sequence[str]) -> str:
    """Scopes as they are stored: as written, separated by a blank."""
    return " ".join(scopes)
