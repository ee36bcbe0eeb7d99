"""Spaces and their keys on Redis: made, listed, revoked, removed.

The keys of a space, of its tokens and of its jobs' logs lie in different slots, so that making and removing go in an
order in which a crash leaves nothing that works by half: a key's hash is written last and removed first; a space that
is being removed stands in a list of its own until the last of its keys is gone.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from app.jobs.job_records import HashFields, hash_fields
from app.jobs.job_store import JobStore
from app.jobs.keys_and_scopes import key_digest, spell_scopes
from app.jobs.space_stats import HOURS, SPANS, hour_names, span_names
from app.model.errors import NotFound, Outage, Refusal, invalid, space_not_found
from app.model.ids import encode_ulid, is_ulid, new_space_id, space_tag_of
from app.model.redis_keys import Keys
from app.redis_links.clock import RedisClock
from app.redis_links.link import Link, is_away
from app.redis_links.scripts import Scripts

PUBLIC_SCOPES = ("jobs:read:progress",)

PRUNED_TOKENS = 10
"""Keys of a space that are looked at when one is made: so those that expired never outnumber the others for long."""

TOKEN_MADE_MS = 60_000
"""A key whose hash is missing for longer than that after its listing will not get one."""


READ_AT_ONCE = 200
"""Spaces or keys of a list that are asked for in one go."""


class Space(NamedTuple):
    """A space: its hash, and its jobs by status (a JSON object)."""

    id: str
    fields: HashFields
    counts: bytes


class Token(NamedTuple):
    """What is known of a key; `key` only when it has just been made."""

    id: str
    name: str
    scopes: list[str]
    created_ms: int
    expires_ms: int | None
    used_ms: int | None
    key: str = ""


class Spaces:
    """Spaces and tokens. `clear` removes every job of a space, with its log."""

    def __init__(
        self,
        control: Link,
        keys: Keys,
        clock: RedisClock,
        store: JobStore,
        clear: Callable[[str], Awaitable[None]],
    ) -> None:
        self._control = control
        self._scripts = Scripts(control)
        self._keys = keys
        self._clock = clock
        self._store = store
        self._clear = clear
        self._ids: list[str] | None = None

    async def create(self, name: str) -> tuple[Space, Token]:
        """A new space, and its public key."""
        while True:
            space = new_space_id(self._clock.now_ms())
            if await self._control.call("HSETNX", self._keys.spaces, space_tag_of(space), space):
                break
        await self._scripts.run("space_create", [self._keys.space(space)], [name, secrets.token_hex(8)])
        return await self.get(space), await self.create_token(space, "public", PUBLIC_SCOPES, None)

    async def get(self, space: str) -> Space:
        """One space. Refusal `space_not_found`."""
        if not is_ulid(space):
            raise space_not_found()
        fields, counts = await self._scripts.run("space_read", [self._keys.space(space)], [])
        return Space(space, hash_fields(fields), counts)

    async def patch(
        self, space: str, fields: Mapping[str, str], *, fresh_secret: str = "", drop_old: bool = False
    ) -> Space:
        """Change what is set: fields of the space's hash, of which an empty one goes, and its secrets.

        `fresh_secret` comes before the one there is; with `drop_old` only the newest stays. Returns the space as it
        is then. Refusal `space_not_found`.
        """
        if not is_ulid(space):
            raise space_not_found()
        flat = [word for field in fields.items() for word in field]
        await self._scripts.run("space_patch", [self._keys.space(space)], [fresh_secret, int(drop_old), *flat])
        patched = await self.get(space)
        wanted = "push" in patched.fields or "slack" in patched.fields
        await self._control.call("SADD" if wanted else "SREM", self._keys.hooks, space)
        return patched

    async def exists(self, space: str) -> bool:
        """Whether there is such a space."""
        return is_ulid(space) and bool(await self._control.call("HEXISTS", self._keys.space(space), "createdAt"))

    async def list_ids(self) -> list[str]:
        """The id of every space; those that were known last, while the server of a cluster that lists them is away."""
        try:
            self._ids = [id_.decode() for id_ in await self._control.call("HVALS", self._keys.spaces)]
        except Outage:
            if self._ids is None or not is_away(self._control, self._keys.spaces):
                raise
        return self._ids

    async def list_spaces(self) -> list[Space]:
        """All spaces, oldest first; read some at a time, so that small calls of others come in between.

        Without those that lie on a server of a cluster that is away.
        """
        ids = sorted(await self.list_ids())
        spaces: list[Space] = []
        for at in range(0, len(ids), READ_AT_ONCE):
            some = await asyncio.gather(*map(self._get_if_there, ids[at : at + READ_AT_ONCE]))
            spaces += [space for space in some if space is not None]
        return spaces

    async def _get_if_there(self, space: str) -> Space | None:
        try:
            return await self.get(space)
        except NotFound:
            return None
        except Outage:
            if is_away(self._control, self._keys.space(space)):
                return None
            raise

    async def delete(self, space: str) -> None:
        """Remove a space and everything of it. Refusal `space_not_found`. What a crash leaves, `resume` removes."""
        await self.get(space)
        await self._control.call("HSET", self._keys.deleting, space_tag_of(space), space)
        await self._control.call("HDEL", self._keys.spaces, space_tag_of(space))
        await self._remove(space)

    async def resume_deletions(self, tag: str = "") -> None:
        """Go on with removals that were cut off, of spaces of the server with that tag.

        One for which Redis is away holds up no other; it is raised in the end.
        """
        outages: list[Outage] = []
        for space in map(bytes.decode, await self._control.call("HVALS", self._keys.deleting)):
            if self._control.tag_of(self._keys.space(space)) == tag:
                try:
                    await self._remove(space)
                except Outage as outage:
                    outages.append(outage)
        if outages:
            raise outages[0]

    async def _remove(self, space: str) -> None:
        keys = self._keys
        self._store.forget_space(space)
        for hashed in await self._control.call("HVALS", keys.tokens(space)):
            await self._control.call("DEL", keys.token(hashed.decode()))
        await self._control.call("DEL", keys.tokens(space), keys.space(space))
        await self._clear(space)
        await self._control.call("DEL", keys.space(space), keys.feed(space), keys.logs(space), keys.log_bytes(space))
        now_ms = self._clock.now_ms(keys.space(space))
        ends = [keys.ends(space, span) for span in (*hour_names(now_ms, HOURS + 2), *span_names(now_ms, SPANS + 2))]
        await self._control.call("DEL", keys.callbacks(space), *ends)
        tag = self._control.tag_of(keys.space(space))
        await self._control.call("ZREM", keys.due_of(tag), space)
        await self._control.call("ZREM", keys.due_callbacks_of(tag), space)
        await self._control.call("SREM", keys.hooks, space)
        await self._control.call("HDEL", keys.deleting, space_tag_of(space))

    async def create_token(self, space: str, name: str, scopes: Sequence[str], expires_ms: int | None) -> Token:
        """A new key for a space. Refusals: space_not_found, invalid_request for an expiry that has passed."""
        await self.get(space)
        key = f"emit_{secrets.token_urlsafe(32)}"
        token_id = encode_ulid(self._clock.now_ms(), secrets.token_bytes(10))
        await self._control.call("HSET", self._keys.tokens(space), token_id, key_digest(key))
        fields = ["id", token_id, "space", space, "name", name, "scopes", spell_scopes(scopes)]
        expires = "" if expires_ms is None else str(expires_ms)
        reply = await self._scripts.raw("token_create", [self._keys.token(key_digest(key))], [expires, *fields])
        if reply[0] == b"past":
            await self._control.call("HDEL", self._keys.tokens(space), token_id)
            raise invalid("expiresAt is not in the future.")
        await self._prune_tokens(space)
        return Token(token_id, name, list(scopes), int(reply[1]), expires_ms, None, key)

    async def _prune_tokens(self, space: str) -> None:
        """Forget some keys that expired: their hashes went by themselves. One of a fresh key may be still to come."""
        flat = await self._control.call("HRANDFIELD", self._keys.tokens(space), PRUNED_TOKENS, "WITHVALUES")
        old = encode_ulid(self._clock.now_ms() - TOKEN_MADE_MS, bytes(10)).encode()
        listed = [(id_, hashed) for id_, hashed in zip(flat[::2], flat[1::2], strict=True) if id_ < old]
        there = await self._control.pipeline(*(("EXISTS", self._keys.token(hashed.decode())) for _, hashed in listed))
        gone = [id_ for (id_, _), exists in zip(listed, there, strict=True) if not exists]
        if gone:
            await self._control.call("HDEL", self._keys.tokens(space), *gone)

    async def list_tokens(self, space: str) -> list[Token]:
        """The keys of a space that work, oldest first; read some at a time. Refusal `space_not_found`.

        Without those that lie on a server of a cluster that is away.
        """
        await self.get(space)
        digests = await self._control.call("HVALS", self._keys.tokens(space))
        tokens: list[Token] = []
        for at in range(0, len(digests), READ_AT_ONCE):
            some = [("HGETALL", self._keys.token(hashed.decode())) for hashed in digests[at : at + READ_AT_ONCE]]
            replies = await self._control.pipeline_by_server(*some)
            tokens += [_token(hash_fields(flat)) for flat in replies if flat and not isinstance(flat, Outage)]
        return sorted(tokens, key=lambda token: token.id)

    async def revoke_token(self, space: str, token: str) -> None:
        """Let a key work no more. Refusals: space_not_found, token_not_found."""
        await self.get(space)
        hashed = await self._control.call("HGET", self._keys.tokens(space), token)
        if hashed is None:
            raise Refusal("token_not_found", "Token not found")
        await self._control.call("DEL", self._keys.token(hashed.decode()))
        await self._control.call("HDEL", self._keys.tokens(space), token)


def _token(fields: HashFields) -> Token:
    return Token(
        fields["id"].decode(),
        fields["name"].decode(),
        fields["scopes"].decode().split(),
        int(fields["createdAt"]),
        int(fields["expiresAt"]) if "expiresAt" in fields else None,
        int(fields["lastUsedAt"]) if "lastUsedAt" in fields else None,
    )
